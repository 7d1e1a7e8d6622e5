//! The real file system behind [`Store`].

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::sys::statvfs::statvfs;

use super::store::{Entry, Reading, Room, Store, Writing};

/// A folder on the file system.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The folder `root`, which need not exist yet.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Makes `path` and its missing parents; each new name is synchronised in the folder that holds it.
fn make_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_durably(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(parent)?.sync_all(),
    }
}

struct NewFile {
    file: File,
    written: u64,
}

impl Writing for NewFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.file.set_len(self.written)?;
        self.file.sync_all()
    }
}

struct OldFile(File);

impl Reading for OldFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Store for Disk {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        make_durably(&self.path(folder))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn Writing>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(self.path(name))?;
        if bytes > 0 {
            loop {
                match fallocate(&file, FallocateFlags::empty(), 0, bytes as i64) {
                    Err(Errno::EINTR) => {}
                    // A file system that cannot preallocate finds a full disk while writing.
                    Ok(()) | Err(Errno::EOPNOTSUPP) => break,
                    Err(errno) => {
                        fs::remove_file(self.path(name))?;
                        return Err(errno.into());
                    }
                }
            }
        }
        Ok(Box::new(NewFile { file, written: 0 }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Reading>> {
        Ok(Box::new(OldFile(File::open(self.path(name))?)))
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(name))?.set_len(bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::open(self.path(folder))?.sync_all()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.path(folder))? {
            let entry = entry?;
            let data = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                data => data?,
            };
            if let (true, Ok(name)) = (data.is_file(), entry.file_name().into_string()) {
                entries.push(Entry { name, bytes: data.len(), changed_s: data.ctime() });
            }
        }
        Ok(entries)
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.path(name))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Box::new(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    fn room(&self) -> io::Result<Room> {
        let s = statvfs(&self.root)?;
        let block = s.fragment_size();
        let reserved = s.blocks_free().saturating_sub(s.blocks_available());
        let reserved_files = s.files_free().saturating_sub(s.files_available());
        Ok(Room {
            total_bytes: s.blocks().saturating_sub(reserved) * block,
            free_bytes: s.blocks_available() * block,
            total_files: s.files().saturating_sub(reserved_files),
            free_files: s.files_available(),
        })
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}
