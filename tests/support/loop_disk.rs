//! A small ext4 in a file, behind a loop device, that can lose its power. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)` (fs/ext4/ext4.h).
const SHUTDOWN: u64 = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: nothing that is not on the medium gets there any more.
const NO_LOG_FLUSH: u32 = 2;

/// The disk, mounted; unmounted and removed when dropped.
pub struct LoopDisk {
    folder: tempfile::TempDir,
    device: String,
}

fn run(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl LoopDisk {
    /// A disk of `megabytes`, or `None` where this user cannot have one.
    pub fn new(megabytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        std::fs::create_dir(folder.path().join("mount")).ok()?;
        let image = folder.path().join("image");
        File::create(&image).and_then(|file| file.set_len(megabytes << 20)).ok()?;
        let device = run("losetup", &["-f", "--show", image.to_str()?])?;
        let disk = Self { folder, device };
        disk.mkfs()?;
        disk.mount()?;
        Some(disk)
    }

    fn mkfs(&self) -> Option<()> {
        run("mkfs.ext4", &["-q", "-F", "-N", "2048", &self.device]).map(|_| ())
    }

    fn mount(&self) -> Option<()> {
        run("mount", &["-t", "ext4", &self.device, self.folder().to_str()?]).map(|_| ())
    }

    fn unmount(&self) {
        while run("mountpoint", &["-q", self.folder().to_str().unwrap()]).is_some() {
            if run("umount", &[self.folder().to_str().unwrap()]).is_none() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }

    /// Where it is mounted.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// An empty file system.
    pub fn format(&mut self) {
        self.unmount();
        // Whoever looks at new devices may hold this one for a moment.
        let made = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            self.mkfs().is_some() || {
                std::thread::sleep(std::time::Duration::from_millis(100));
                false
            }
        });
        assert!(made, "mkfs.ext4 worked before");
        self.mount().expect("mount worked before");
    }

    /// The power fails.
    pub fn shut_down(&self) {
        use std::os::fd::AsRawFd;
        let folder = File::open(self.folder()).expect("the mount point is there");
        let flags = NO_LOG_FLUSH;
        // SAFETY: the request reads one 32-bit number through a pointer that outlives the call.
        let result = unsafe { nix::libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &flags) };
        assert_eq!(result, 0, "EXT4_IOC_SHUTDOWN: {}", std::io::Error::last_os_error());
    }

    /// The power is back.
    pub fn mount_again(&self) {
        self.unmount();
        self.mount().expect("ext4 replays its journal");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        self.unmount();
        run("losetup", &["-d", &self.device]);
        let _ = std::fs::remove_file(Path::new(self.folder.path()).join("image"));
    }
}
