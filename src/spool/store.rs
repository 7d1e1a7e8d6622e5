//! The one seam between the spool and the file system.
//!
//! Names are relative to the spool's folder (`ready/000000000412.seg`). The real file system is
//! [`super::disk::Disk`]; `tests/support/simulated_disk.rs` is one that loses whatever was not
//! synchronised. Nothing is durable before [`Writing::finish`] (contents) and
//! [`Store::sync_folder`] (names) have returned.

use std::any::Any;
use std::io;

/// Room on the file system that holds the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this user could use in all: the file system less what is reserved for root.
    pub total_bytes: u64,
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Files that the file system can hold; 0 where it does not count them.
    pub total_files: u64,
    /// Files that may still be made.
    pub free_files: u64,
}

/// One file in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the folder.
    pub name: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// When it was last written or renamed, seconds since 1970.
    pub changed_s: i64,
}

/// A new file that is being written from its start.
pub trait Writing: Send {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file where the writing ended and waits until it is on the medium.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A file that is read at any place.
pub trait Reading: Send {
    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file is too short.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Length of the file, bytes.
    fn length(&self) -> io::Result<u64>;
}

/// The file system as the spool needs it.
pub trait Store: Send + Sync {
    /// Makes a folder and its parents where they are missing, durably.
    fn make_folder(&self, folder: &str) -> io::Result<()>;
    /// Makes a new, empty file (instead of an old one of that name) with room for `bytes`.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn Writing>>;
    /// Opens a file to read.
    fn open(&self, name: &str) -> io::Result<Box<dyn Reading>>;
    /// Cuts a file to its first `bytes`.
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()>;
    /// Gives a file another name, in place of any file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Waits until the names in a folder are on the medium.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
    /// The files of a folder, in no order.
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>>;
    /// Takes the lock `name` for as long as the result lives; `None` when another process has it.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// Room left.
    fn room(&self) -> io::Result<Room>;
    /// Where this is, for messages.
    fn place(&self) -> String;
}

/// Reads a whole small file; `None` when there is none. More than `most` bytes is an error.
pub fn read_small(store: &dyn Store, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match store.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.length()?;
    if length > most {
        return Err(io::Error::other(format!("{name} is {length} bytes long, {most} are the most that makes sense")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

/// Puts `bytes` in place of a small file, all or nothing, durably.
pub fn replace_small(store: &dyn Store, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let fresh = format!("{name}.new");
    let mut file = store.create(&fresh, bytes.len() as u64)?;
    file.append(bytes)?;
    file.finish()?;
    store.rename(&fresh, name)?;
    store.sync_folder(folder)
}
