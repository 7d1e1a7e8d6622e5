//! The folder of an archive: one process at a time, nights in folders, what is there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::ArchiveError;
use super::container::Reader;

/// Ends the name of a file that is not complete.
pub const UNFINISHED: &str = ".tmp";

/// An archive's folder, held by this process.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    name: String,
    _lock: Flock<File>,
}

/// What an archive holds of a topic.
#[derive(Debug, Default)]
pub struct Held {
    /// The ranges of offsets that files answer for (first, after the last), by topic and partition.
    pub ranges: BTreeMap<(String, i32), Vec<(i64, i64)>>,
    /// The highest number of a file, by topic.
    pub numbers: BTreeMap<String, u64>,
}

impl Folder {
    /// Takes the folder, makes it when there is none, and removes what a run that died left unfinished.
    pub fn take(root: &Path) -> Result<Self, ArchiveError> {
        let failed = |error: io::Error| ArchiveError::write(root, &error);
        fs::create_dir_all(root).map_err(failed)?;
        let path = root.join("LOCK");
        let lock = File::options().read(true).append(true).create(true).open(&path).map_err(failed)?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| ArchiveError::Taken(root.to_owned()))?;
        let mut name = fs::read_to_string(&path).map_err(failed)?.trim().to_owned();
        if name.is_empty() {
            name = uuid::Uuid::new_v4().to_string();
            fs::write(&path, format!("{name}\n")).map_err(failed)?;
        }
        for night in nights_of(root)? {
            for path in listed(&night)? {
                if path.to_string_lossy().ends_with(UNFINISHED) {
                    fs::remove_file(&path).map_err(failed)?;
                }
            }
        }
        Ok(Self { root: root.to_owned(), name, _lock: lock })
    }

    /// The archive's name among the members of its group, the same at every start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of a night, made when it is missing.
    pub fn night(&self, name: &str) -> Result<PathBuf, ArchiveError> {
        let path = self.root.join(name);
        let make = || {
            if !path.exists() {
                fs::create_dir_all(&path)?;
                File::open(&self.root)?.sync_all()?;
            }
            Ok(())
        };
        make().map_err(|error: io::Error| ArchiveError::write(&path, &error))?;
        Ok(path)
    }

    /// What is in the files: their headers are read, not their alerts.
    pub fn held(&self) -> Result<Held, ArchiveError> {
        let mut held = Held::default();
        for night in nights_of(&self.root)? {
            for path in files_of(&night)? {
                let reader = Reader::open(&path).map_err(|error| ArchiveError::read(&path, &error))?;
                for (partition, range) in &reader.positions {
                    held.ranges.entry((reader.topic.clone(), *partition)).or_default().push(*range);
                }
                let number = held.numbers.entry(reader.topic.clone()).or_insert(0);
                *number = (*number).max(number_of(&path).unwrap_or(0));
            }
        }
        Ok(held)
    }
}

/// Name of file `number` of a topic.
pub fn file_name(topic: &str, number: u64) -> String {
    format!("{topic}-{number:06}.avro")
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.rsplit_once('-')?.1.parse().ok()
}

/// The folder's name for what comes from `topic`: the eight digits of its night, else its name.
pub fn night_of(topic: &str) -> &str {
    topic.split('_').find(|part| part.len() == 8 && part.bytes().all(|b| b.is_ascii_digit())).unwrap_or(topic)
}

/// The folders of the nights, by name.
pub fn nights_of(root: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let mut nights: Vec<PathBuf> = listed(root)?.into_iter().filter(|path| path.is_dir()).collect();
    nights.sort();
    Ok(nights)
}

/// The complete files of a night, by name.
pub fn files_of(night: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let mut files: Vec<PathBuf> =
        listed(night)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "avro")).collect();
    files.sort();
    Ok(files)
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    list().map_err(|error| ArchiveError::read(folder, &error))
}
