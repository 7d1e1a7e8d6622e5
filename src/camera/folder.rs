//! The watched folder: FITS files that another program drops there (INDI, NINA, rsync, a vendor's
//! tool).
//!
//! inotify tells of files as they come; a slow rescan finds those that came while the daemon was
//! down, or over NFS, where nobody tells. A file is given out once, when it is complete:
//!
//! | what happened | it is looked at |
//! | --- | --- |
//! | renamed into the folder | at once: a rename is the writer's word that it is whole |
//! | closed after writing | at once, and again whenever it changes |
//! | seen by the rescan, or growing | when its size has stood still for [`SETTLE_S`] |
//!
//! What is looked at is the FITS structure ([`crate::fits::wholeness`]). A file that is not whole and
//! has stood still for [`GIVE_UP_S`], a rename of a broken one, and anything that is not FITS goes
//! to `rejected/`, with a line in `rejected/why.txt`. Hidden files, `.tmp` and `.part` are on their
//! way and are let alone, and so are folders. Nothing is removed unless the caller says so
//! ([`FolderCamera::consume`]).
//!
//! Time comes in as an argument (seconds on any steady clock), so that tests need not wait.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecursiveMode, Watcher};

use crate::fits::{Wholeness, wholeness};

/// How long a file's size must stand still before it is looked at, seconds, when nobody told that
/// it is finished.
pub const SETTLE_S: f64 = 2.0;
/// How long a file that is not whole may stand still before it is rejected, seconds.
pub const GIVE_UP_S: f64 = 60.0;
/// Seconds between rescans of the whole folder.
pub const RESCAN_S: f64 = 10.0;
/// Events that wait to be handled; when there are more, the folder is scanned instead.
const MAX_EVENTS: usize = 1024;

/// Why the folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is not there, is no folder, or cannot be read.
    #[error("{folder}: cannot be read ({reason}); create it, or correct [camera] folder", folder = folder.display())]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// What inotify told.
enum Sign {
    /// Closed after writing.
    Closed(PathBuf),
    /// Renamed to this name.
    Renamed(PathBuf),
    /// Made or changed.
    Touched(PathBuf),
}

/// Length and time of modification: a file that has the same ones is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified_ns: i128,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }
}

/// A file that is on its way.
#[derive(Debug)]
struct Arriving {
    stamp: Stamp,
    /// Since when the stamp has stood still.
    still_since_s: f64,
    /// Whether the writer said that it is finished.
    finished: bool,
    /// Whether it came by a rename.
    renamed: bool,
    /// What was found the last time, for this stamp.
    not_whole: Option<String>,
}

/// The camera that is a folder.
#[derive(Debug)]
pub struct FolderCamera {
    folder: PathBuf,
    signs: Receiver<Sign>,
    overflow: Arc<AtomicBool>,
    /// Keeps the watch alive; `None` where inotify is not to be had, and the rescan does it alone.
    watcher: Option<notify::RecommendedWatcher>,
    arriving: BTreeMap<PathBuf, Arriving>,
    known: HashMap<OsString, Stamp>,
    next_scan_s: f64,
    /// Whether the folder could not be read when last looked at.
    unreadable: bool,
}

impl FolderCamera {
    /// Watches `folder`, of which everything in it counts as just arrived.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn open(folder: &Path) -> Result<Self, FolderError> {
        std::fs::read_dir(folder)
            .map_err(|e| FolderError::Unreadable { folder: folder.to_owned(), reason: e.to_string() })?;
        let (sender, signs) = sync_channel(MAX_EVENTS);
        let overflow = Arc::new(AtomicBool::new(false));
        let watcher = watch(folder, sender, overflow.clone());
        if let Err(error) = &watcher {
            tracing::warn!(
                "{}: cannot be watched ({error}); it is looked through every {RESCAN_S} s instead",
                folder.display()
            );
        }
        Ok(Self {
            folder: folder.to_owned(),
            signs,
            overflow,
            watcher: watcher.ok(),
            arriving: BTreeMap::new(),
            known: HashMap::new(),
            next_scan_s: f64::NEG_INFINITY,
            unreadable: false,
        })
    }

    /// Sleeps until something happens in the folder, at most for `time`.
    pub fn wait(&mut self, time: Duration, now_s: f64) {
        if self.watcher.is_none() {
            std::thread::sleep(time);
        } else if let Ok(sign) = self.signs.recv_timeout(time) {
            self.note(sign, now_s);
        }
    }

    /// The files that have become whole by `now_s`, oldest modification first.
    pub fn poll(&mut self, now_s: f64) -> Vec<PathBuf> {
        while let Ok(sign) = self.signs.try_recv() {
            self.note(sign, now_s);
        }
        if now_s >= self.next_scan_s || self.overflow.swap(false, Ordering::Relaxed) {
            self.next_scan_s = now_s + RESCAN_S;
            self.scan(now_s);
        }
        let mut whole = Vec::new();
        let paths: Vec<PathBuf> = self.arriving.keys().cloned().collect();
        for path in paths {
            match self.look_at(&path, now_s) {
                Verdict::Wait => continue,
                Verdict::Gone => {}
                Verdict::Whole(stamp) => {
                    self.remember(&path, stamp);
                    whole.push((stamp.modified_ns, path.clone()));
                }
                Verdict::Reject(reason) => self.reject(&path, &reason),
            }
            self.arriving.remove(&path);
        }
        whole.sort();
        whole.into_iter().map(|(_, path)| path).collect()
    }

    /// Moves `file` to `rejected/` and writes down why. Where it cannot be moved it stays and is not
    /// looked at again until it changes.
    pub fn reject(&mut self, file: &Path, reason: &str) {
        let shown = file.display();
        match self.move_to_rejected(file, reason) {
            Ok(place) => tracing::warn!("{shown}: moved to {}: {reason}", place.display()),
            Err(error) => {
                tracing::warn!("{shown}: not used: {reason}; it could not be moved to rejected/ either ({error})");
                if let Ok(metadata) = std::fs::metadata(file) {
                    self.remember(file, Stamp::of(&metadata));
                }
            }
        }
    }

    /// Removes `file`, whose frame is safe elsewhere.
    pub fn consume(&mut self, file: &Path) {
        match std::fs::remove_file(file) {
            Ok(()) => self.forget(file),
            Err(error) => {
                tracing::warn!("{}: cannot be removed ({error}); give nightjar write access", file.display());
            }
        }
    }

    /// Gives `file` out again at the next rescan: it could not be used yet.
    pub fn forget(&mut self, file: &Path) {
        if let Some(name) = file.file_name() {
            self.known.remove(name);
        }
    }

    /// Files on their way.
    pub fn arriving(&self) -> usize {
        self.arriving.len()
    }

    fn note(&mut self, sign: Sign, now_s: f64) {
        let (path, finished, renamed) = match sign {
            Sign::Closed(path) => (path, true, false),
            Sign::Renamed(path) => (path, true, true),
            Sign::Touched(path) => (path, false, false),
        };
        if path.parent() == Some(&self.folder) {
            self.expect(&path, now_s, finished, renamed);
        }
    }

    fn scan(&mut self, now_s: f64) {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    let folder = self.folder.display();
                    tracing::error!("{folder}: cannot be read ({error}); mount it again");
                }
                return;
            }
        };
        if std::mem::take(&mut self.unreadable) {
            tracing::info!("{}: is there again", self.folder.display());
        }
        let mut present = HashMap::new();
        for entry in entries.flatten() {
            self.expect(&entry.path(), now_s, false, false);
            if let Some(stamp) = self.known.get(&entry.file_name()) {
                present.insert(entry.file_name(), *stamp);
            }
        }
        // Files that are gone need not be remembered.
        self.known = present;
    }

    /// Puts a file among the arriving, unless it is known as it stands.
    fn expect(&mut self, path: &Path, now_s: f64, finished: bool, renamed: bool) {
        let Some(name) = path.file_name().filter(|name| !is_on_its_way(&name.to_string_lossy())) else { return };
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let stamp = Stamp::of(&metadata);
        if !metadata.is_file() || self.known.get(name) == Some(&stamp) {
            return;
        }
        let fresh = Arriving { stamp, still_since_s: now_s, finished: false, renamed: false, not_whole: None };
        let arriving = self.arriving.entry(path.to_owned()).or_insert(fresh);
        arriving.finished |= finished;
        arriving.renamed |= renamed;
    }

    fn look_at(&mut self, path: &Path, now_s: f64) -> Verdict {
        let Some(arriving) = self.arriving.get_mut(path) else { return Verdict::Gone };
        let Ok(metadata) = std::fs::metadata(path) else { return Verdict::Gone };
        let stamp = Stamp::of(&metadata);
        if stamp != arriving.stamp {
            arriving.stamp = stamp;
            arriving.still_since_s = now_s;
            arriving.not_whole = None;
        }
        let still_s = now_s - arriving.still_since_s;
        if !arriving.finished && still_s < SETTLE_S {
            return Verdict::Wait;
        }
        if arriving.not_whole.is_none() {
            arriving.not_whole = Some(match wholeness(path) {
                Ok(Wholeness::Whole) => return Verdict::Whole(stamp),
                Ok(Wholeness::Part(reason)) => format!("the file is not whole: {reason}; copy it again"),
                Ok(Wholeness::Foreign(reason)) => format!("not a FITS file: {reason}"),
                Err(error) => format!("cannot be read ({error}); let nightjar read it"),
            });
        }
        match &arriving.not_whole {
            Some(reason) if arriving.renamed || still_s >= GIVE_UP_S => Verdict::Reject(reason.clone()),
            _ => Verdict::Wait,
        }
    }

    fn remember(&mut self, path: &Path, stamp: Stamp) {
        if let Some(name) = path.file_name() {
            self.known.insert(name.to_owned(), stamp);
        }
    }

    fn move_to_rejected(&self, file: &Path, reason: &str) -> std::io::Result<PathBuf> {
        let rejected = self.folder.join("rejected");
        std::fs::create_dir_all(&rejected)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let free = |path: &PathBuf| !path.exists();
        let place = std::iter::once(rejected.join(&name))
            .chain((1..1000).map(|number| rejected.join(format!("{name}.{number}"))))
            .find(free)
            .ok_or_else(|| std::io::Error::other("a thousand files of this name lie there"))?;
        std::fs::rename(file, &place)?;
        let mut why = std::fs::OpenOptions::new().create(true).append(true).open(rejected.join("why.txt"))?;
        let kept = place.file_name().unwrap_or_default().to_string_lossy();
        writeln!(why, "{kept}: {reason}")?;
        Ok(place)
    }
}

enum Verdict {
    Wait,
    Gone,
    Whole(Stamp),
    Reject(String),
}

/// Names that writers use for files that are not finished, and that nobody means as frames.
fn is_on_its_way(name: &str) -> bool {
    name.starts_with('.') || name.ends_with(".tmp") || name.ends_with(".part")
}

fn watch(
    folder: &Path,
    sender: SyncSender<Sign>,
    overflow: Arc<AtomicBool>,
) -> notify::Result<notify::RecommendedWatcher> {
    let handler = move |event: notify::Result<Event>| {
        let signs = match event {
            Ok(event) if event.need_rescan() => None,
            Ok(event) => Some(signs_of(event)),
            Err(_) => None,
        };
        // What does not fit is found by the scan that the flag brings.
        let lost = signs.is_none_or(|signs| signs.into_iter().any(|sign| sender.try_send(sign).is_err()));
        if lost {
            overflow.store(true, Ordering::Relaxed);
        }
    };
    let mut watcher = notify::recommended_watcher(handler)?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn signs_of(event: Event) -> Vec<Sign> {
    let last = event.paths.last().cloned();
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => last.map(Sign::Closed).into_iter().collect(),
        EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
            last.map(Sign::Renamed).into_iter().collect()
        }
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => {
            event.paths.into_iter().map(Sign::Touched).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
