//! A real folder whose durability is broken on purpose, for controls.

use std::any::Any;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nightjar::spool::disk::Disk;
use nightjar::spool::store::{Entry, Reading, Room, Store, Writing};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Nothing.
    Careful,
    /// The writer speaks before the spool has acknowledged.
    AcknowledgeEarly,
    /// Neither files nor folders are synchronised.
    NoSync,
    /// Folders are not synchronised.
    NoFolderSync,
}

impl FromStr for Care {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Careful, Self::AcknowledgeEarly, Self::NoSync, Self::NoFolderSync];
        all.into_iter().find(|care| format!("{care:?}") == text).ok_or_else(|| text.to_owned())
    }
}

/// The folder.
pub struct CarelessDisk {
    disk: Disk,
    root: PathBuf,
    care: Care,
}

impl CarelessDisk {
    /// A folder treated with `care`.
    pub fn at(root: &Path, care: Care) -> Self {
        Self { disk: Disk::at(root), root: root.to_owned(), care }
    }
}

struct Unsynced(File);

impl Writing for Unsynced {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

impl Store for CarelessDisk {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.make_folder(folder)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn Writing>> {
        match self.care {
            Care::NoSync => Ok(Box::new(Unsynced(File::create(self.root.join(name))?))),
            _ => self.disk.create(name, bytes),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Reading>> {
        self.disk.open(name)
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.disk.cut(name, bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        match self.care {
            Care::NoSync | Care::NoFolderSync => Ok(()),
            _ => self.disk.sync_folder(folder),
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.disk.list(folder)
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.disk.lock(name)
    }

    fn room(&self) -> io::Result<Room> {
        self.disk.room()
    }

    fn place(&self) -> String {
        self.disk.place()
    }
}
