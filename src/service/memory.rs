//! How much memory the process took, and in which pages images lie.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc;

/// Blocks of at least this many bytes hold images.
const IMAGE: usize = 4 << 20;
/// Freed images that are kept at most.
const SLOTS: usize = 24;

/// The C library's allocator, which keeps freed images for the next ones and lays them in large pages, where the
/// kernel leaves that to programs (`/sys/kernel/mm/transparent_hugepage/enabled` says `madvise`, as Debian has it).
///
/// An exposure goes through some twenty images of 38 MB. From the system each of them costs its pages: 200,000 page
/// faults of 4 KB an exposure, and a gigabyte that the kernel clears, a fifth of the processor time. Here images
/// of an exposure take the places of those before. Images in use and images kept are together never more than
/// what was once in use: the peak of memory is the same, and it is all that a night takes.
/// A program takes it by `#[global_allocator]`.
pub struct ImagePages {
    kept: Mutex<Kept>,
}

struct Kept {
    /// Address and size of freed images, the oldest first; sizes are 0 from `count` on.
    blocks: [(usize, usize); SLOTS],
    count: usize,
    /// Bytes of images in use, of those kept, and the most that were in use.
    used: usize,
    spare: usize,
    most: usize,
}

impl Kept {
    /// A freed image of at least this size, and not much larger.
    fn take(&mut self, size: usize) -> Option<usize> {
        let fits = |(_, kept): &(usize, usize)| (size..=size + size / 16).contains(kept);
        let found = self.blocks[..self.count].iter().rposition(fits)?;
        Some(self.remove(found))
    }

    fn remove(&mut self, index: usize) -> usize {
        let (address, size) = self.blocks[index];
        self.blocks.copy_within(index + 1..self.count, index);
        self.count -= 1;
        self.spare -= size;
        address
    }

    /// The oldest kept image, when there are more than the most that was in use leaves room for.
    fn superfluous(&mut self) -> Option<usize> {
        let too_many = self.count == SLOTS || self.used + self.spare > self.most;
        (self.count > 0 && too_many).then(|| self.remove(0))
    }

    fn keep(&mut self, address: usize, size: usize) {
        self.blocks[self.count] = (address, size);
        self.count += 1;
        self.spare += size;
    }
}

impl Default for ImagePages {
    fn default() -> Self {
        Self::new()
    }
}

impl ImagePages {
    /// Nothing kept yet.
    pub const fn new() -> Self {
        let kept = Kept { blocks: [(0, 0); SLOTS], count: 0, used: 0, spare: 0, most: 0 };
        Self { kept: Mutex::new(kept) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A freed image for this layout. Makes room for a fresh one where there is none.
    fn used_before(&self, layout: Layout) -> Option<*mut u8> {
        let mut kept = self.kept();
        let found = kept.take(layout.size());
        kept.used += layout.size();
        kept.most = kept.most.max(kept.used);
        while let Some(address) = kept.superfluous() {
            // SAFETY: kept blocks came from `System` with the alignment that `is_image` asks for.
            unsafe { System.dealloc(address as *mut u8, Layout::new::<u128>()) };
        }
        found.map(|address| address as *mut u8)
    }
}

/// Whether a block is managed here; the C library aligns its blocks to 16 bytes without being asked.
fn is_image(layout: Layout) -> bool {
    layout.size() >= IMAGE && layout.align() <= 16
}

// SAFETY: small blocks are handed on to the system's allocator as they came. Large ones are the system's too;
// one that is freed is given out again only when it has been removed from the list of those kept, for a layout
// no larger than it was given out for before. The system's `dealloc` needs no size (it is free(3)).
unsafe impl GlobalAlloc for ImagePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_image(layout)
            && let Some(block) = self.used_before(layout)
        {
            return block;
        }
        // SAFETY: the caller's promises are those that `System` asks for.
        prefer_large(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_image(layout)
            && let Some(block) = self.used_before(layout)
        {
            // SAFETY: the block is at least this large.
            unsafe { block.write_bytes(0, layout.size()) };
            return block;
        }
        // SAFETY: as above.
        prefer_large(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_image(layout) {
            let mut kept = self.kept();
            kept.used -= layout.size();
            kept.keep(block as usize, layout.size());
            let superfluous = kept.superfluous();
            drop(kept);
            if let Some(address) = superfluous {
                // SAFETY: a block of `System`.
                unsafe { System.dealloc(address as *mut u8, Layout::new::<u128>()) };
            }
            return;
        }
        // SAFETY: as above; the block is one of `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let grown = unsafe { System.realloc(block, layout, size) };
        let now = Layout::from_size_align(size, layout.align()).unwrap_or(layout);
        if !grown.is_null() && (is_image(layout) || is_image(now)) {
            let of = |layout: Layout| if is_image(layout) { layout.size() } else { 0 };
            let mut kept = self.kept();
            kept.used = kept.used + of(now) - of(layout);
            kept.most = kept.most.max(kept.used);
        }
        prefer_large(grown, size)
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

/// Gives back to the system what the C library keeps of freed small blocks. A backlog on its way leaves 70 MB
/// (measured) of them behind, in the arenas of many threads, that nothing would ever fill again.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches only what the C library's own lists say is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Two arenas of small blocks, one for each core that works, instead of up to eight a core. Threads of the uplink, of
/// the pipeline and of the journal come and go; each would leave an arena behind in which what lives long keeps
/// whole pages from going back.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
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
    fn freed_images_are_used_again_and_no_more_is_kept_than_was_in_use() {
        let pages = ImagePages::new();
        let layout = |megabytes: usize| Layout::from_size_align(megabytes << 20, 4).unwrap();
        // SAFETY: each block is freed with the layout that it was made with, and used within its size.
        unsafe {
            let (first, second) = (pages.alloc(layout(40)), pages.alloc(layout(20)));
            first.write_bytes(7, 40 << 20);
            pages.dealloc(first, layout(40));
            let again = pages.alloc_zeroed(layout(39));
            assert_eq!(again, first);
            assert_eq!((*again, *again.add((39 << 20) - 1)), (0, 0));
            pages.dealloc(again, layout(39));
            pages.dealloc(second, layout(20));
            assert_eq!(pages.kept().spare, 59 << 20);
            // Another size takes the room of those kept.
            let other = pages.alloc(layout(50));
            let kept = pages.kept();
            assert!(kept.spare <= 10 << 20 && kept.most == 60 << 20, "{} kept", kept.spare);
            drop(kept);
            pages.dealloc(other, layout(50));
        }
    }

    #[test]
    fn the_peak_is_read_in_megabytes() {
        assert_eq!(peak_of("VmPeak:\t 9 kB\nVmHWM:\t  976562 kB\n"), Some(1000.0));
        assert!(peak_rss_mb().is_some_and(|mb| mb > 1.0));
    }
}
