//! The open spool: reserve, commit, hand out, settle.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::aside::{self, Aside};
use super::cursor::Cursor;
use super::disk::Disk;
use super::format::{self, Damage};
use super::identity::Identity;
use super::pressure::{self, Kept, Pressure};
use super::recovery::{self, Finding, Sent, Unsent, io_error};
use super::segment::{self, ReadError, SegmentReader, file_name};
use super::store::{Store, Writing, replace_small};
use super::{Epoch, Message, Result, SpoolError};
use crate::exposure::ExposureId;

/// Bytes of `reserve.bin`.
const RESERVE: u64 = 8 << 20;
/// Heads of trimmed exposures that are kept to recognise a repeated one.
const HEADS_KEPT: usize = 4096;

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

/// The spool in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct SpoolStatus {
    /// Name of the spool.
    pub uuid: Uuid,
    /// This opening.
    pub epoch: Epoch,
    /// Unsent exposures.
    pub waiting_exposures: u64,
    /// Unsent alerts.
    pub waiting_alerts: u64,
    /// Bytes of the unsent exposures.
    pub waiting_bytes: u64,
    /// Name of the exposure that waits longest.
    pub oldest: Option<String>,
    /// Sent exposures that are kept.
    pub sent_exposures: u64,
    /// Bytes that they take.
    pub sent_bytes: u64,
    /// Records refused by the broker, in `dead/`.
    pub dead: u64,
    /// Damaged records and files, in `quarantine/`.
    pub quarantined: u64,
    /// Exposures that the disk lost.
    pub missing: u64,
    /// How full the disk is.
    pub pressure: Pressure,
    /// Why no exposure is taken, where that is so.
    pub refusing: Option<String>,
}

pub(super) struct Inner {
    next: u64,
    temporary: u64,
    ready: BTreeMap<u64, Unsent>,
    sent: BTreeMap<u64, Sent>,
    exposures: HashMap<String, u64>,
    cursor: Cursor,
    missing: u64,
    pub(super) dead: u64,
    quarantined: u64,
    pressure: Pressure,
    largest: u64,
    reserve_kept: bool,
    refusing: Option<String>,
}

/// The disk buffer, open for writing. Share it by `Arc`: the night commits, the uplink sends.
pub struct Spool {
    pub(super) store: Arc<dyn Store>,
    parameters: SpoolParameters,
    uuid: Uuid,
    epoch: Epoch,
    findings: Vec<Finding>,
    inner: Mutex<Inner>,
    /// Held while an exposure is written; only its holder moves `Inner::next`.
    writing: Mutex<()>,
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
            unreadable => match (recovery::uuid_in_segments(on), unreadable) {
                (Some(uuid), _) => {
                    early.push(Finding::Identity(uuid));
                    Identity::fresh(uuid)
                }
                (None, Ok(_)) => Identity::fresh(Uuid::new_v4()),
                (None, Err(why)) => return Err(SpoolError::Identity { place: on.place(), why }),
            },
        };
        let epoch = identity.open(on).map_err(io_error(on, "writing spool.json"))?;
        let mut found = recovery::recover(on, identity.uuid)?;
        early.append(&mut found.findings);
        found.cursor.begin_epoch(found.next, epoch);
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
            reserve_kept: false,
            refusing: None,
        };
        let spool = Self {
            parameters,
            uuid: identity.uuid,
            epoch,
            findings: early,
            inner: Mutex::new(inner),
            writing: Mutex::new(()),
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

    fn full(&self, needed: u64) -> SpoolError {
        let free = self.store.room().map_or(0, |room| room.free_bytes);
        SpoolError::Full { place: self.store.place(), free_mb: free >> 20, needed_mb: (needed >> 20) + 1 }
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
        inner.exposures.insert(exposure.to_owned(), sequence);
        let count = head.count;
        inner.ready.insert(sequence, Unsent { exposure: exposure.to_owned(), epoch: self.epoch, count, bytes });
        drop(inner);
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
            settled: inner.cursor.settled(*sequence),
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

    /// Moves an unsent exposure of which nothing can be read to `quarantine/`, so that it does not
    /// hold up the others. Its alerts are counted as damaged; gives its name and their number.
    pub fn set_aside(&self, sequence: u64, now_s: i64) -> Result<(String, u32)> {
        let name = file_name(sequence);
        let Some(unsent) = self.inner().ready.get(&sequence).cloned() else { return Ok((String::new(), 0)) };
        self.store
            .rename(&format!("ready/{name}"), &format!("quarantine/{name}"))
            .and_then(|()| self.store.sync_folder("quarantine"))
            .map_err(self.io(format!("moving {name} to quarantine/")))?;
        self.inner().ready.remove(&sequence);
        let mut cursor = self.cursor_after(&[]);
        cursor.settle(sequence, unsent.count, unsent.count);
        self.inner().quarantined += 1;
        self.adopt(cursor, now_s)?;
        Ok((unsent.exposure, unsent.count))
    }

    /// The cursor as it will be when the first `settled` records of each of these are settled:
    /// what goes to the broker in the transaction.
    pub fn cursor_after(&self, steps: &[(u64, u32)]) -> Cursor {
        let inner = self.inner();
        let mut cursor = inner.cursor.clone();
        for (sequence, settled) in steps {
            if let Some(unsent) = inner.ready.get(sequence) {
                cursor.settle(*sequence, *settled, unsent.count);
            }
        }
        cursor
    }

    /// Notes what the broker has committed: the cursor durably first, then files move to `sent/`.
    pub fn settle(&self, steps: &[(u64, u32)], now_s: i64) -> Result<()> {
        let cursor = self.cursor_after(steps);
        debug_assert!(
            steps.iter().all(|(sequence, settled)| {
                let inner = self.inner();
                inner.ready.get(sequence).is_none_or(|u| *settled < u.count || cursor.covers(*sequence, u.epoch))
            }),
            "an exposure that was just sent would be sent again"
        );
        self.adopt(cursor, now_s)
    }

    fn adopt(&self, cursor: Cursor, now_s: i64) -> Result<()> {
        if let Err(error) = replace_small(&*self.store, "cursor", &cursor.encode()) {
            if !is_full(&error) {
                return Err(self.io("writing the cursor")(error));
            }
            self.release_reserve();
            replace_small(&*self.store, "cursor", &cursor.encode()).map_err(self.io("writing the cursor"))?;
        }
        let mut inner = self.inner();
        let done: Vec<u64> =
            inner.ready.iter().filter(|(s, unsent)| cursor.covers(**s, unsent.epoch)).map(|(s, _)| *s).collect();
        inner.cursor = cursor;
        for sequence in done {
            let name = file_name(sequence);
            self.store
                .rename(&format!("ready/{name}"), &format!("sent/{name}"))
                .map_err(self.io(format!("moving {name} to sent/")))?;
            if let Some(unsent) = inner.ready.remove(&sequence) {
                inner.sent.insert(sequence, Sent { bytes: unsent.bytes, since_s: now_s, trimmed: false });
            }
        }
        Ok(())
    }

    /// Brings the broker's cursor and the spool's together, at the start of a session with the
    /// broker. What the broker has is not sent again. When the broker knows numbers of another
    /// life of this spool (a restored snapshot), exposures that were given such a number since
    /// are written again under new ones.
    pub fn reconcile(&self, broker: &Cursor, now_s: i64) -> Result<Vec<Finding>> {
        let (plan, here, places) = {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut inner = self.inner();
            let mut plan = recovery::reconcile(&inner.ready, inner.next, &inner.cursor, broker);
            let here = inner.next.saturating_sub(1);
            inner.next = plan.next;
            if plan.cursor.epoch_of(plan.next) != Some(self.epoch) {
                plan.cursor.begin_epoch(plan.next, self.epoch);
            }
            let names: Vec<(u64, String)> = plan
                .renumber
                .iter()
                .filter_map(|sequence| Some((*sequence, inner.ready.get(sequence)?.exposure.clone())))
                .collect();
            (plan, here, names)
        };
        let mut findings = Vec::new();
        if plan.forgotten > 0 {
            findings.push(Finding::Forgotten(plan.forgotten));
        }
        let renumbered = places.len();
        for (sequence, exposure) in places {
            self.renumber(sequence, &exposure)?;
        }
        if broker.last().is_some_and(|last| last > here) {
            findings.push(Finding::Restored { broker: broker.last().unwrap_or(0), here, renumbered });
        }
        self.adopt(plan.cursor, now_s)?;
        Ok(findings)
    }

    /// Writes an exposure again under a new number and removes the old file.
    fn renumber(&self, sequence: u64, exposure: &str) -> Result<()> {
        let segment = self.read(sequence)?;
        let mut messages = Vec::new();
        for number in 0..segment.head().count {
            match segment.record(number) {
                Ok(message) => messages.push(message),
                Err(ReadError::Damage(damage)) => self.quarantine(sequence, number, &damage)?,
                Err(ReadError::Io(error)) => return Err(self.io("reading an exposure")(error)),
            }
        }
        // Where a power cut came between writing and removing, it has its new number already.
        if self.inner().exposures.get(exposure) == Some(&sequence) {
            self.inner().exposures.remove(exposure);
            let reservation = self.reserve(segment::segment_bytes(exposure, &messages))?;
            self.commit_named(reservation, exposure, &messages)?;
        }
        let name = format!("ready/{}", file_name(sequence));
        self.store.remove(&name).map_err(self.io(format!("removing {name}")))?;
        self.inner().ready.remove(&sequence);
        Ok(())
    }

    /// Keeps a record that the broker refuses in `dead/`, before the cursor passes it.
    pub fn bury(&self, at: Aside, message: &Message, reason: &str) -> Result<()> {
        let (exposure, epoch) = match self.inner().ready.get(&at.sequence) {
            Some(unsent) => (unsent.exposure.clone(), unsent.epoch),
            None => (String::new(), self.epoch),
        };
        aside::bury(&*self.store, self.uuid, epoch, at, &exposure, message, reason)?;
        self.inner().dead += 1;
        Ok(())
    }

    /// Keeps the bytes of a damaged record in `quarantine/`, before the cursor passes it.
    pub fn quarantine(&self, sequence: u64, number: u32, damage: &Damage) -> Result<()> {
        let raw = self.read(sequence)?.raw(number);
        aside::quarantine(&*self.store, Aside { sequence, number }, raw, damage)?;
        self.inner().quarantined += 1;
        Ok(())
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
                .map(|(sequence, unsent)| u64::from(unsent.count.saturating_sub(inner.cursor.settled(*sequence))))
                .sum(),
            waiting_bytes: inner.ready.values().map(|unsent| unsent.bytes).sum(),
            oldest: inner.ready.first_key_value().map(|(_, unsent)| unsent.exposure.clone()),
            sent_exposures: inner.sent.values().filter(|sent| !sent.trimmed).count() as u64,
            sent_bytes: inner.sent.values().map(|sent| sent.bytes).sum(),
            dead: inner.dead,
            quarantined: inner.quarantined,
            missing: inner.missing,
            pressure: inner.pressure,
            refusing: inner.refusing.clone(),
        }
    }

    /// Measures the room, notes the pressure, and says so once when it changed.
    fn look_at_room(&self) -> Result<Pressure> {
        let room = self.store.room().map_err(self.io("measuring the room"))?;
        let mut inner = self.inner();
        let now = pressure::pressure(&room, inner.pressure, inner.largest, RESERVE);
        if now != inner.pressure {
            let (place, used, free) = (self.store.place(), pressure::used(&room) * 100.0, room.free_bytes >> 20);
            match now {
                Pressure::Red => tracing::error!(
                    "disk of {place} is full ({free} MB free): no new exposure is processed, raw frames wait; free some space or bring the uplink back"
                ),
                Pressure::KeepNothing => tracing::error!(
                    "disk of {place} is {used:.0} % full ({free} MB free): nothing sent is kept any more; free some space or bring the uplink back"
                ),
                Pressure::Trim => {
                    tracing::warn!("disk of {place} is {used:.0} % full: sent exposures are being trimmed")
                }
                Pressure::Warn => tracing::warn!("disk of {place} is {used:.0} % full; look what fills it"),
                Pressure::Ample => tracing::info!("disk of {place} has room again ({used:.0} % full)"),
            }
            inner.pressure = now;
        }
        Ok(now)
    }

    /// Trims what was sent, as its age and the disk ask for. Call it now and then.
    pub fn trim(&self, now_s: i64) -> Result<()> {
        let pressure = self.look_at_room()?;
        let room = self.store.room().map_err(self.io("measuring the room"))?;
        let keep_s = (self.parameters.keep_sent_hours * 3600.0) as i64;
        let kept: Vec<Kept> = {
            let inner = self.inner();
            let whole = inner.sent.iter().filter(|(_, sent)| !sent.trimmed);
            whole.map(|(s, sent)| Kept { sequence: *s, bytes: sent.bytes, age_s: now_s - sent.since_s }).collect()
        };
        self.cut_to_heads(&pressure::to_trim(&kept, keep_s, pressure, &room))?;
        self.forget_heads()?;
        if pressure < Pressure::KeepNothing {
            self.keep_reserve();
        }
        Ok(())
    }

    fn trim_all(&self) -> Result<()> {
        let whole: Vec<u64> = self.inner().sent.iter().filter(|(_, sent)| !sent.trimmed).map(|(s, _)| *s).collect();
        self.cut_to_heads(&whole)
    }

    fn cut_to_heads(&self, sequences: &[u64]) -> Result<()> {
        if sequences.is_empty() {
            return Ok(());
        }
        // Else a power cut could bring a trimmed file back to `ready/`, where it would look damaged.
        for folder in ["sent", "ready"] {
            self.store.sync_folder(folder).map_err(self.io(format!("synchronising {folder}/")))?;
        }
        sequences.iter().try_for_each(|sequence| self.cut_to_head(*sequence))
    }

    /// Frees a sent exposure but for its head, which still recognises a repeated one.
    fn cut_to_head(&self, sequence: u64) -> Result<()> {
        let name = format!("sent/{}", file_name(sequence));
        let doing = || format!("trimming {name}");
        let file = self.store.open(&name).map_err(self.io(doing()))?;
        match segment::read_head(&*file) {
            Ok((_, length)) => {
                self.store.cut(&name, length).map_err(self.io(doing()))?;
                if let Some(sent) = self.inner().sent.get_mut(&sequence) {
                    *sent = Sent { bytes: length, trimmed: true, ..*sent };
                }
            }
            Err(ReadError::Io(error)) => return Err(self.io(doing())(error)),
            Err(ReadError::Damage(_)) => {
                self.store.remove(&name).map_err(self.io(doing()))?;
                self.inner().sent.remove(&sequence);
            }
        }
        Ok(())
    }

    /// Removes the oldest heads beyond those that are kept.
    fn forget_heads(&self) -> Result<()> {
        let old: Vec<u64> = {
            let inner = self.inner();
            let heads: Vec<u64> = inner.sent.iter().filter(|(_, sent)| sent.trimmed).map(|(s, _)| *s).collect();
            heads[..heads.len().saturating_sub(HEADS_KEPT)].to_vec()
        };
        for sequence in old {
            let name = format!("sent/{}", file_name(sequence));
            self.store.remove(&name).map_err(self.io(format!("removing {name}")))?;
            let mut inner = self.inner();
            inner.sent.remove(&sequence);
            inner.exposures.retain(|_, number| *number != sequence);
        }
        Ok(())
    }

    /// Makes the reserve where there is room for it; without it the spool works all the same.
    fn keep_reserve(&self) {
        if self.inner().reserve_kept {
            return;
        }
        let made = self.store.open("reserve.bin").and_then(|file| file.length()).is_ok_and(|length| length >= RESERVE)
            || self.store.room().is_ok_and(|room| room.free_bytes > 4 * RESERVE)
                && self.store.create("reserve.bin", RESERVE).is_ok();
        self.inner().reserve_kept = made;
    }

    fn release_reserve(&self) {
        if self.store.remove("reserve.bin").is_ok() {
            tracing::error!(
                "disk of {} is full to the last byte: the spool's reserve was given up",
                self.store.place()
            );
        }
        self.inner().reserve_kept = false;
    }
}

fn is_full(error: &io::Error) -> bool {
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
