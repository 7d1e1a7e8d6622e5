//! How much memory the process took, and in which pages images lie.

use std::alloc::{GlobalAlloc, Layout, System};

use nix::libc;

/// Blocks of at least this many bytes hold images.
const IMAGE: usize = 4 << 20;

/// The C library's allocator; whole images in large pages, where the kernel leaves that to programs
/// (`/sys/kernel/mm/transparent_hugepage/enabled` says `madvise`, as Debian has it).
///
/// An exposure goes through some twenty fresh images of 38 MB; in pages of 4 KB their 200,000 page faults were a
/// seventh of its processor time. A program takes it by `#[global_allocator]`.
pub struct ImagePages;

// SAFETY: every call is handed on to the system's allocator as it came; `prefer_large` changes neither
// contents nor extent of a block.
unsafe impl GlobalAlloc for ImagePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        prefer_large(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        prefer_large(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; the block is one of `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        prefer_large(unsafe { System.realloc(block, layout, size) }, size)
    }
}

/// Asks for large pages under a block that may hold an image. The kernel may say no: nothing depends on it.
fn prefer_large(block: *mut u8, size: usize) -> *mut u8 {
    /// Pages of any machine begin at multiples of this.
    const PAGE: usize = 1 << 16;
    if size >= IMAGE && !block.is_null() {
        let skipped = block.align_offset(PAGE);
        let length = (size - skipped) & !(PAGE - 1);
        // SAFETY: the range lies within the block, and the advice changes nothing of what is in it.
        unsafe { libc::madvise(block.wrapping_add(skipped).cast(), length, libc::MADV_HUGEPAGE) };
    }
    block
}

/// The largest resident memory of this process so far, MB (10⁶ bytes): `VmHWM` of proc(5). `None`
/// where there is no `/proc`.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    peak_of(&status)
}

fn peak_of(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib * 1024.0 / 1e5).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_megabytes() {
        assert_eq!(peak_of("VmPeak:\t 9 kB\nVmHWM:\t  976562 kB\n"), Some(1000.0));
        assert!(peak_rss_mb().is_some_and(|mb| mb > 1.0));
    }
}
