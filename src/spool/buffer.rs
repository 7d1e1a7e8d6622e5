//! The open spool: reserve, commit, hand out. What the broker says is in [`super::settling`].

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::cursor::Cursor;
use super::disk::Disk;
use super::format;
use super::identity::Identity;
use super::pressure::{self, Pressure, Rate};
use super::recovery::{self, Finding, Sent, Unsent, io_error};
use super::segment::{self, ReadError, SegmentReader, file_name};
use super::status::SpoolStatus;
use super::store::{Room, Store, Writing};
use super::{Epoch, Message, Result, SpoolError};
use crate::exposure::ExposureId;

/// Bytes of `reserve.bin`.
pub(super) const RESERVE: u64 = 8 << 20;

/// What can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct SpoolParameters {
    /// How long sent exposures are kept, hours (48 by default).
    pub keep_sent_hours: f64,
}

impl Default for SpoolParameters {
    fn default() -> Self {
        Self { keep_sent_hours: 48.0 }
    }
}

/// Room for one exposure on disk; gives it back when dropped.
pub struct Reservation {
    store: Arc<dyn Store>,
    name: String,
    file: Option<Box<dyn Writing>>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Left behind, it is removed when the spool is opened next.
            let _ = self.store.remove(&self.name);
        }
    }
}

/// Proof that an exposure is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its sequence number.
    pub sequence: u64,
    /// Number of its alerts.
    pub alerts: u32,
    /// Length of its file, bytes.
    pub bytes: u64,
}

/// Which unsent exposure goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Tonight before the backlog.
    #[default]
    NewestFirst,
    /// As they were taken.
    OldestFirst,
}

/// An exposure that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its sequence number.
    pub sequence: u64,
    /// Its name.
    pub exposure: String,
    /// The opening in which it was written.
    pub epoch: Epoch,
    /// Number of its records.
    pub count: u32,
    /// How many of them are settled, from the first.
    pub settled: u32,
}

pub(super) struct Inner {
    pub(super) next: u64,
    pub(super) temporary: u64,
    pub(super) ready: BTreeMap<u64, Unsent>,
    pub(super) sent: BTreeMap<u64, Sent>,
    pub(super) exposures: HashMap<String, u64>,
    pub(super) cursor: Cursor,
    pub(super) missing: u64,
    pub(super) dead: u64,
    pub(super) quarantined: u64,
    pub(super) pressure: Pressure,
    pub(super) largest: u64,
    /// Bytes written since the spool was opened.
    pub(super) written: u64,
    /// Bytes written by when, and what that means for the hours to come.
    pub(super) rate: Rate,
    /// Room on the disk when it was last looked at.
    pub(super) room: Option<Room>,
    pub(super) reserve_kept: bool,
    pub(super) refusing: Option<String>,
    /// Whether the cursor could not be written when last tried, and that was said.
    pub(super) unwritable: bool,
}

/// The disk buffer, open for writing. Share it by `Arc`: the night commits, the uplink sends.
pub struct Spool {
    pub(super) store: Arc<dyn Store>,
    pub(super) parameters: SpoolParameters,
    pub(super) uuid: Uuid,
    pub(super) epoch: Epoch,
    findings: Vec<Finding>,
    inner: Mutex<Inner>,
    /// Held while an exposure is written; only its holder moves `Inner::next`.
    pub(super) writing: Mutex<()>,
    /// Held while the cursor is written.
    pub(super) noting: Mutex<()>,
    arrived: Condvar,
    _lock: Box<dyn Any + Send + Sync>,
}

impl Spool {
    /// Opens the spool in `folder`, makes it where there is none, and puts it in order.
    pub fn open(folder: &Path, parameters: SpoolParameters) -> Result<Self> {
        Self::open_on(Arc::new(Disk::at(folder)), parameters)
    }

    /// Opens a spool on any [`Store`].
    pub fn open_on(store: Arc<dyn Store>, parameters: SpoolParameters) -> Result<Self> {
        let on = &*store;
        on.make_folder("").map_err(io_error(on, "making the folder"))?;
        let lock = on.lock("LOCK").map_err(io_error(on, "locking"))?.ok_or_else(|| SpoolError::Locked(on.place()))?;
        for folder in ["ready", "sent", "dead", "quarantine"] {
            on.make_folder(folder).map_err(io_error(on, format!("making {folder}/")))?;
        }
        let mut early = Vec::new();
        let mut identity = match Identity::read(on).map_err(io_error(on, "reading spool.json"))? {
            Ok(Some(identity)) => identity,
            unreadable => match (recovery::identity_in_segments(on), unreadable) {
                (Some((uuid, opened)), _) => {
                    early.push(Finding::Identity(uuid));
                    Identity::known(uuid, opened)
                }
                (None, Ok(_)) => Identity::fresh(Uuid::new_v4()),
                (None, Err(why)) => return Err(SpoolError::Identity { place: on.place(), why }),
            },
        };
        let epoch = match identity.open(on) {
            // The reserve is there so that even a full disk lets the spool open and drain.
            Err(error) if is_full(&error) && on.remove("reserve.bin").is_ok() => identity.open(on),
            epoch => epoch,
        }
        .map_err(io_error(on, "writing spool.json"))?;
        let mut found = recovery::recover(on, identity.uuid)?;
        early.append(&mut found.findings);
        found.cursor.next = found.cursor.next.max(found.next);
        let count = |folder: &str| {
            let entries = on.list(folder).map_err(io_error(on, format!("listing {folder}/")))?;
            let records = entries.iter().filter(|e| e.name.ends_with(".seg") || e.name.ends_with(".bin"));
            Ok(records.count() as u64)
        };
        let inner = Inner {
            next: found.next,
            temporary: 0,
            ready: found.ready,
            sent: found.sent,
            exposures: found.exposures,
            cursor: found.cursor,
            missing: found.missing,
            dead: count("dead")?,
            quarantined: count("quarantine")?,
            pressure: Pressure::Ample,
            largest: 0,
            written: 0,
            rate: Rate::default(),
            room: None,
            reserve_kept: false,
            refusing: None,
            unwritable: false,
        };
        let spool = Self {
            parameters,
            uuid: identity.uuid,
            epoch,
            findings: early,
            inner: Mutex::new(inner),
            writing: Mutex::new(()),
            noting: Mutex::new(()),
            arrived: Condvar::new(),
            _lock: lock,
            store,
        };
        spool.keep_reserve();
        Ok(spool)
    }

    /// Name of the spool.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// This opening.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What was noticed while opening, for the journal.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Where the spool is.
    pub fn place(&self) -> String {
        self.store.place()
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change of `Inner` is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn io(&self, doing: impl Into<String>) -> impl FnOnce(io::Error) -> SpoolError {
        io_error(&*self.store, doing)
    }

    /// The number of an exposure that is here already.
    pub fn holds(&self, exposure: &ExposureId) -> Option<u64> {
        self.inner().exposures.get(exposure.as_str()).copied()
    }

    /// Makes room for an exposure of at most `max_bytes` before the work on it begins. Trims what
    /// was sent when that helps; [`SpoolError::Full`] means that the frame must wait.
    pub fn reserve(&self, max_bytes: u64) -> Result<Reservation> {
        let (name, largest) = {
            let mut inner = self.inner();
            if let Some(reason) = &inner.refusing {
                return Err(SpoolError::Refusing(reason.clone()));
            }
            inner.temporary += 1;
            inner.largest = inner.largest.max(max_bytes);
            (format!("ready/{}.tmp", inner.temporary), inner.largest)
        };
        if self.look_at_room()? == Pressure::Red {
            self.trim_all()?;
            if self.look_at_room()? == Pressure::Red {
                return Err(self.full(largest * 2 + RESERVE));
            }
        }
        match self.store.create(&name, max_bytes) {
            Ok(file) => Ok(Reservation { store: self.store.clone(), name, file: Some(file) }),
            Err(error) if is_full(&error) => Err(self.full(max_bytes)),
            Err(error) => Err(self.io(format!("making {name}"))(error)),
        }
    }

    /// Reserves exactly and commits.
    pub fn append(&self, exposure: &ExposureId, messages: &[Message]) -> Result<Receipt> {
        let reservation = self.reserve(segment::segment_bytes(exposure.as_str(), messages))?;
        self.commit(reservation, exposure, messages)
    }

    /// Writes all messages of an exposure, durably, or none. When this returns a receipt they
    /// survive a power cut.
    pub fn commit(&self, reservation: Reservation, exposure: &ExposureId, messages: &[Message]) -> Result<Receipt> {
        self.commit_named(reservation, exposure.as_str(), messages)
    }

    pub(super) fn commit_named(
        &self,
        mut reservation: Reservation,
        exposure: &str,
        messages: &[Message],
    ) -> Result<Receipt> {
        check(exposure, messages)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = {
            let inner = self.inner();
            if let Some(reason) = &inner.refusing {
                return Err(SpoolError::Refusing(reason.clone()));
            }
            if let Some(sequence) = inner.exposures.get(exposure) {
                return Err(SpoolError::Twin { exposure: exposure.to_owned(), sequence: *sequence });
            }
            inner.next
        };
        let (head, topics) = segment::head_for(self.uuid, self.epoch, sequence, exposure, messages);
        let to = format!("ready/{}", file_name(sequence));
        let publish = |file: Option<Box<dyn Writing>>, name: &str| -> io::Result<u64> {
            let mut file = match file {
                Some(file) => file,
                None => self.store.create(name, segment::segment_bytes(exposure, messages))?,
            };
            let bytes = segment::write(&mut *file, &head, &topics, messages)?;
            file.finish()?;
            self.store.rename(name, &to)?;
            self.store.sync_folder("ready")?;
            Ok(bytes)
        };
        let first = publish(reservation.file.take(), &reservation.name);
        let bytes = match first {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(
                    "exposure {exposure}: writing to the spool failed ({error}); trying once more in a new file"
                );
                let _ = self.store.remove(&reservation.name);
                let second = format!("{}.again.tmp", reservation.name.trim_end_matches(".tmp"));
                publish(None, &second).map_err(|error| {
                    let _ = self.store.remove(&second);
                    if is_full(&error) {
                        return self.full(segment::segment_bytes(exposure, messages));
                    }
                    self.inner().refusing = Some(error.to_string());
                    SpoolError::Refusing(error.to_string())
                })?
            }
        };
        let mut inner = self.inner();
        inner.next = sequence + 1;
        inner.largest = inner.largest.max(bytes);
        inner.written += bytes;
        inner.exposures.insert(exposure.to_owned(), sequence);
        let count = head.count;
        inner.ready.insert(sequence, Unsent { exposure: exposure.to_owned(), epoch: self.epoch, count, bytes });
        drop(inner);
        if let Err(error) = self.note_numbers() {
            tracing::warn!("{error}; exposure {exposure} is safe all the same");
        }
        self.arrived.notify_all();
        Ok(Receipt { sequence, alerts: count, bytes })
    }

    /// The unsent exposure that goes next, leaving out those in `but`.
    pub fn next_waiting(&self, order: Order, but: &dyn Fn(u64) -> bool) -> Option<Waiting> {
        let inner = self.inner();
        let mut all = inner.ready.iter().filter(|(sequence, _)| !but(**sequence));
        let (sequence, unsent) = match order {
            Order::NewestFirst => all.next_back(),
            Order::OldestFirst => all.next(),
        }?;
        Some(Waiting {
            sequence: *sequence,
            exposure: unsent.exposure.clone(),
            epoch: unsent.epoch,
            count: unsent.count,
            settled: inner.cursor.settled(unsent.epoch, *sequence),
        })
    }

    /// Waits until something is unsent, or for `timeout`; true when something is.
    pub fn wait_for_work(&self, timeout: Duration) -> bool {
        let inner = self.inner();
        let (inner, _) = self
            .arrived
            .wait_timeout_while(inner, timeout, |inner| inner.ready.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        !inner.ready.is_empty()
    }

    /// Wakes whoever waits for work.
    pub fn wake(&self) {
        self.arrived.notify_all();
    }

    /// Opens an unsent exposure to read it. [`SpoolError::Segment`] means that nothing of it can be
    /// read ([`Spool::set_aside`]); other errors may pass.
    pub fn read(&self, sequence: u64) -> Result<SegmentReader> {
        let name = format!("ready/{}", file_name(sequence));
        SegmentReader::open(&*self.store, &name).map_err(|error| match error {
            ReadError::Io(error) => self.io(format!("reading {name}"))(error),
            ReadError::Damage(damage) => {
                SpoolError::Segment { place: self.store.place(), sequence, why: damage.to_string() }
            }
        })
    }

    /// The spool in figures.
    pub fn status(&self) -> SpoolStatus {
        let inner = self.inner();
        SpoolStatus {
            uuid: self.uuid,
            epoch: self.epoch,
            waiting_exposures: inner.ready.len() as u64,
            waiting_alerts: inner
                .ready
                .iter()
                .map(|(sequence, unsent)| unsent.count.saturating_sub(inner.cursor.settled(unsent.epoch, *sequence)))
                .map(u64::from)
                .sum(),
            waiting_bytes: inner.ready.values().map(|unsent| unsent.bytes).sum(),
            oldest: inner.ready.first_key_value().map(|(_, unsent)| unsent.exposure.clone()),
            sent_exposures: inner.sent.values().filter(|sent| !sent.trimmed).count() as u64,
            sent_bytes: inner.sent.values().map(|sent| sent.bytes).sum(),
            dead: inner.dead,
            quarantined: inner.quarantined,
            missing: inner.missing,
            pressure: inner.pressure,
            free_bytes: inner.room.map(|room| room.free_bytes),
            hours_left: inner.room.and_then(|room| pressure::hours_left(&room, inner.rate.bytes_per_s())),
            refusing: inner.refusing.clone(),
        }
    }
}

/// Whether an error says that the disk is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn check(exposure: &str, messages: &[Message]) -> Result<()> {
    let refuse = |number, why| Err(SpoolError::Message { exposure: exposure.to_owned(), number, why });
    let mut names = exposure.len();
    let mut last: Option<&str> = None;
    for (number, message) in messages.iter().enumerate() {
        if let Err(why) = format::check_message(message) {
            return refuse(number, why);
        }
        if last != Some(&message.topic) {
            names += message.topic.len() + 2;
            last = Some(&message.topic);
        }
    }
    if exposure.is_empty() || exposure.len() > 255 {
        return refuse(0, "the name of an exposure has 1 to 255 bytes");
    }
    if messages.len() > format::MAX_COUNT as usize {
        return refuse(format::MAX_COUNT as usize, "an exposure has at most 4,194,304 alerts");
    }
    if names > format::MAX_NAMES / 64 {
        return refuse(0, "the exposure changes its topic too often");
    }
    Ok(())
}
