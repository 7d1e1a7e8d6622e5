//! A disk in memory that forgets, at a power cut, whatever was not synchronised.
//!
//! Every call that changes something is a step. The power fails at a chosen step; from then on
//! every call fails. What survives is then chosen: of each file's unsynchronised writes and of
//! each unsynchronised name, some or none, as POSIX allows.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses its part; one that cannot go on fails"
)]

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use nightjar::spool::store::{Entry, Reading, Room, Store, Writing};

/// What becomes of bytes that were written and not synchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All lost.
    Lost,
    /// All there.
    Kept,
    /// The first half of them.
    Half,
    /// The length is there, the bytes are zero.
    Zeros,
}

/// All of them.
pub const UNSYNCED: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::Half, Unsynced::Zeros];

#[derive(Debug, Clone, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Clone)]
enum NameStep {
    Set(String, usize),
    Move(String, String, usize),
    Remove(String),
}

impl NameStep {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Move(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }

    fn touches(&self, folder: &str) -> bool {
        let of = |name: &String| name.rsplit_once('/').map_or("", |(folder, _)| folder) == folder;
        match self {
            Self::Set(name, _) | Self::Remove(name) => of(name),
            Self::Move(from, to, _) => of(from) || of(to),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Medium {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<NameStep>,
    step: usize,
    cut_at: Option<usize>,
    fail_at: Option<usize>,
    locked: bool,
}

/// Which promises of the disk are broken on purpose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lies {
    /// Synchronising a file does nothing.
    pub files: bool,
    /// Synchronising a folder does nothing.
    pub folders: bool,
}

/// The disk; clones share it.
#[derive(Clone)]
pub struct SimulatedDisk {
    medium: Arc<Mutex<Medium>>,
    lies: Lies,
}

impl SimulatedDisk {
    /// An empty disk whose power fails at step `cut_at`.
    pub fn new(cut_at: Option<usize>, lies: Lies) -> Self {
        Self { medium: Arc::new(Mutex::new(Medium { cut_at, ..Medium::default() })), lies }
    }

    /// An empty disk whose step `fail_at` fails once with an I/O error.
    pub fn failing(fail_at: usize) -> Self {
        let disk = Self::new(None, Lies::default());
        disk.medium.lock().unwrap().fail_at = Some(fail_at);
        disk
    }

    /// Steps so far.
    pub fn steps(&self) -> usize {
        self.medium.lock().unwrap().step
    }

    /// How many names are not synchronised.
    pub fn pending_names(&self) -> usize {
        self.medium.lock().unwrap().pending.len()
    }

    /// The disk after the power came back: bit `i` of `names` says whether the i-th pending name
    /// survived. Its power fails again at step `cut_at`.
    pub fn after_power_cut(&self, unsynced: Unsynced, names: u64, cut_at: Option<usize>) -> Self {
        let old = self.medium.lock().unwrap();
        let mut new = Medium { cut_at, ..Medium::default() };
        new.durable_names = old.durable_names.clone();
        for (i, step) in old.pending.iter().enumerate() {
            if names >> i.min(63) & 1 == 1 {
                step.apply(&mut new.durable_names);
            }
        }
        for file in &old.files {
            let common = file.now.iter().zip(&file.durable).take_while(|(a, b)| a == b).count();
            let bytes = match unsynced {
                Unsynced::Lost => file.durable.clone(),
                Unsynced::Kept => file.now.clone(),
                Unsynced::Half if file.now == file.durable => file.now.clone(),
                Unsynced::Half => file.now[..common + (file.now.len() - common) / 2].to_vec(),
                Unsynced::Zeros => {
                    let mut bytes = file.now[..common].to_vec();
                    bytes.resize(file.now.len(), 0);
                    bytes
                }
            };
            new.files.push(File { now: bytes.clone(), durable: bytes });
        }
        new.names = new.durable_names.clone();
        Self { medium: Arc::new(Mutex::new(new)), lies: self.lies }
    }

    /// One step: counts it, applies it, and fails if the power is gone.
    fn step<T>(&self, syncs: bool, apply: impl FnOnce(&mut Medium) -> io::Result<T>) -> io::Result<T> {
        let mut medium = self.medium.lock().unwrap();
        medium.step += 1;
        let (step, cut) = (medium.step, medium.cut_at);
        if cut.is_some_and(|cut| step > cut || (step == cut && syncs)) {
            return Err(io::Error::other("the power is gone"));
        }
        if medium.fail_at == Some(step) {
            return Err(io::Error::other("the medium failed"));
        }
        let result = apply(&mut medium);
        if cut == Some(step) { Err(io::Error::other("the power is gone")) } else { result }
    }

    fn read<T>(&self, read: impl FnOnce(&Medium) -> io::Result<T>) -> io::Result<T> {
        let medium = self.medium.lock().unwrap();
        if medium.cut_at.is_some_and(|cut| medium.step >= cut) {
            return Err(io::Error::other("the power is gone"));
        }
        read(&medium)
    }
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

struct New {
    disk: SimulatedDisk,
    file: usize,
    written: Vec<u8>,
}

impl Writing for New {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file;
        let start = self.written.len();
        self.written.extend_from_slice(bytes);
        self.disk.step(false, |medium| {
            let now = &mut medium.files[file].now;
            let end = start + bytes.len();
            if now.len() < end {
                now.resize(end, 0);
            }
            now[start..end].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let (file, length) = (self.file, self.written.len());
        self.disk.step(false, |medium| {
            medium.files[file].now.truncate(length);
            Ok(())
        })?;
        if self.disk.lies.files {
            return Ok(());
        }
        self.disk.step(true, |medium| {
            medium.files[file].durable = medium.files[file].now.clone();
            Ok(())
        })
    }
}

struct Old(Vec<u8>);

impl Reading for Old {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        let bytes = self.0.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

struct Unlock(SimulatedDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.medium.lock().unwrap().locked = false;
    }
}

impl Store for SimulatedDisk {
    fn make_folder(&self, _folder: &str) -> io::Result<()> {
        self.read(|_| Ok(()))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn Writing>> {
        let file = self.step(false, |medium| {
            // Enough zeros to stand for the preallocated room, whatever is asked for.
            medium.files.push(File { now: vec![0; bytes.min(64) as usize], durable: Vec::new() });
            let file = medium.files.len() - 1;
            let step = NameStep::Set(name.to_owned(), file);
            step.apply(&mut medium.names);
            medium.pending.push(step);
            Ok(file)
        })?;
        Ok(Box::new(New { disk: self.clone(), file, written: Vec::new() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Reading>> {
        self.read(|medium| {
            let file = medium.names.get(name).ok_or_else(missing)?;
            Ok(Box::new(Old(medium.files[*file].now.clone())) as Box<dyn Reading>)
        })
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.step(false, |medium| {
            let file = *medium.names.get(name).ok_or_else(missing)?;
            medium.files[file].now.truncate(bytes as usize);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(false, |medium| {
            let file = *medium.names.get(from).ok_or_else(missing)?;
            let step = NameStep::Move(from.to_owned(), to.to_owned(), file);
            step.apply(&mut medium.names);
            medium.pending.push(step);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(false, |medium| {
            medium.names.get(name).ok_or_else(missing)?;
            let step = NameStep::Remove(name.to_owned());
            step.apply(&mut medium.names);
            medium.pending.push(step);
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        if self.lies.folders {
            return self.read(|_| Ok(()));
        }
        self.step(true, |medium| {
            let (done, rest): (Vec<_>, Vec<_>) = medium.pending.drain(..).partition(|step| step.touches(folder));
            for step in &done {
                step.apply(&mut medium.durable_names);
            }
            medium.pending = rest;
            Ok(())
        })
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.read(|medium| {
            let inside = medium.names.iter().filter_map(|(name, file)| {
                let (parent, name) = name.rsplit_once('/').unwrap_or(("", name));
                (parent == folder).then(|| Entry {
                    name: name.to_owned(),
                    bytes: medium.files[*file].now.len() as u64,
                    changed_s: 0,
                })
            });
            Ok(inside.collect())
        })
    }

    fn lock(&self, _name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut medium = self.medium.lock().unwrap();
        if std::mem::replace(&mut medium.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Unlock(self.clone()))))
    }

    fn room(&self) -> io::Result<Room> {
        self.read(|_| Ok(Room { total_bytes: 1 << 40, free_bytes: 1 << 39, total_files: 0, free_files: 0 }))
    }

    fn place(&self) -> String {
        "the simulated disk".into()
    }
}
