//! What is found when a spool is opened: heads and footers are read, nothing else.

use std::collections::{BTreeMap, HashMap};
use std::io;

use uuid::Uuid;

use super::aside::Aside;
use super::cursor::Cursor;
use super::format::Damage;
use super::segment::{self, ReadError, SegmentReader, file_name, sequence_in};
use super::store::{Store, read_small};
use super::{Epoch, Result, SpoolError};

/// Something noticed while opening; its text says what to do where there is something to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Files of exposures that were never acknowledged.
    #[error("{0} unfinished exposures were removed from the spool; their frames are processed again")]
    Unfinished(usize),
    /// Numbers that are neither here nor sent.
    #[error(
        "exposures {first} to {last} are missing from the spool and were never sent: the disk lost them; check it (smartctl, dmesg) and process their frames again"
    )]
    Gap {
        /// First missing number.
        first: u64,
        /// Last missing number.
        last: u64,
    },
    /// A segment with damage at one end.
    #[error("segment {sequence} (exposure {exposure}) is damaged ({what}); what can be read is sent; check the disk")]
    Flawed {
        /// Which.
        sequence: u64,
        /// Exposure.
        exposure: String,
        /// What is wrong.
        what: String,
    },
    /// A file that is no segment of this spool.
    #[error(
        "{file} cannot be read as a segment of this spool ({why}) and was moved to quarantine/; `nightjar spool verify` shows what is in it"
    )]
    Unreadable {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The cursor file is damaged.
    #[error("the spool's cursor is unreadable ({0}); the broker's copy is used once it answers")]
    Cursor(String),
    /// `spool.json` was lost and its contents found in the segments.
    #[error("spool.json was unreadable; the spool's uuid {0} was found in its exposures")]
    Identity(Uuid),
    /// The broker knows of exposures that this disk does not.
    #[error(
        "this spool is an older copy of one that went on: the broker has exposures up to {broker}, here the last is {here}; what one of them sent the other does not send again; make sure that no other host runs on a copy: frames that wait in both would become alerts twice"
    )]
    Restored {
        /// Last number that the broker knows.
        broker: u64,
        /// Last number here.
        here: u64,
    },
    /// The broker's cursor lacks what this spool had delivered.
    #[error(
        "the broker does not remember {0} exposures that were sent: another cluster, or its cursor topic was deleted; `nightjar spool retry --sent` sends again what is still kept"
    )]
    Forgotten(u64),
}

/// An unsent exposure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Its name.
    pub exposure: String,
    /// The opening in which it was written.
    pub epoch: Epoch,
    /// Number of records.
    pub count: u32,
    /// Length of the file, bytes.
    pub bytes: u64,
}

/// A sent exposure that is still kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was sent, seconds since 1970.
    pub since_s: i64,
    /// Only its head is left.
    pub trimmed: bool,
}

/// The spool as the disk tells it.
pub struct Recovered {
    /// Unsent exposures.
    pub ready: BTreeMap<u64, Unsent>,
    /// Sent exposures that are kept.
    pub sent: BTreeMap<u64, Sent>,
    /// Names of all exposures that are here.
    pub exposures: HashMap<String, u64>,
    /// What was delivered.
    pub cursor: Cursor,
    /// The next free number.
    pub next: u64,
    /// How many numbers are missing.
    pub missing: u64,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

impl Recovered {
    /// Notes where an exposure is; the newest place counts.
    fn know(&mut self, exposure: String, sequence: u64) {
        let known = self.exposures.entry(exposure).or_default();
        *known = sequence.max(*known);
    }
}

/// Text of an error with its place, for [`SpoolError::Io`].
pub fn io_error(store: &dyn Store, doing: impl Into<String>) -> impl FnOnce(io::Error) -> SpoolError {
    let (place, doing) = (store.place(), doing.into());
    move |source| SpoolError::Io { place, doing, source }
}

/// The uuid that the segments carry, and how many openings segments and cursor tell of, for a lost `spool.json`.
pub fn identity_in_segments(store: &dyn Store) -> Option<(Uuid, u32)> {
    let mut found: Option<(Uuid, u32)> = None;
    for folder in ["ready", "sent"] {
        for entry in store.list(folder).ok()?.iter().filter(|e| sequence_in(&e.name).is_some()) {
            let Ok(file) = store.open(&format!("{folder}/{}", entry.name)) else { continue };
            let Ok((head, _)) = segment::read_head(&*file) else { continue };
            let (_, opened) = found.get_or_insert((head.spool, 0));
            *opened = (*opened).max((head.epoch.0 >> 32) as u32);
        }
    }
    let (uuid, opened) = found?;
    let cursor = read_small(store, "cursor", 64 << 20).ok().flatten().and_then(|text| Cursor::decode_file(&text).ok());
    Some((uuid, cursor.map_or(opened, |cursor| cursor.openings().max(opened))))
}

/// Reads the folders of the spool `uuid` and puts them in order.
pub fn recover(store: &dyn Store, uuid: Uuid) -> Result<Recovered> {
    let mut found = Recovered {
        ready: BTreeMap::new(),
        sent: BTreeMap::new(),
        exposures: HashMap::new(),
        cursor: Cursor::default(),
        next: 1,
        missing: 0,
        findings: Vec::new(),
    };
    match read_small(store, "cursor", 64 << 20).map_err(io_error(store, "reading the cursor"))? {
        None => {}
        Some(text) => match Cursor::decode_file(&text) {
            Ok(cursor) => found.cursor = cursor,
            Err(why) => found.findings.push(Finding::Cursor(why)),
        },
    }
    let known = found.findings.is_empty();
    read_sent(store, &mut found)?;
    read_ready(store, uuid, &mut found)?;
    let mut here = found.cursor.numbers();
    found.ready.keys().chain(found.sent.keys()).for_each(|sequence| here.insert(*sequence, *sequence));
    let mut last = here.last().unwrap_or(0);
    for folder in ["quarantine", "dead"] {
        for entry in store.list(folder).map_err(io_error(store, format!("listing {folder}/")))? {
            if let Some(sequence) = sequence_in(&entry.name) {
                // Unreadable, but not missing.
                here.insert(sequence, sequence);
                last = last.max(sequence);
            } else if let Some(at) = Aside::from_name(&entry.name) {
                last = last.max(at.sequence);
            }
        }
    }
    found.next = found.cursor.next_free().max(last + 1);
    // Without a cursor nobody can tell what was sent from what is missing.
    for (first, last) in here.holes_below(if known { found.next } else { 0 }) {
        found.missing += last - first + 1;
        found.findings.push(Finding::Gap { first, last });
    }
    Ok(found)
}

fn read_sent(store: &dyn Store, found: &mut Recovered) -> Result<()> {
    for entry in store.list("sent").map_err(io_error(store, "listing sent/"))? {
        let Some(sequence) = sequence_in(&entry.name) else { continue };
        let file = store.open(&format!("sent/{}", entry.name)).map_err(io_error(store, "opening a sent exposure"))?;
        let mut trimmed = false;
        match segment::read_head(&*file) {
            Ok((head, length)) => {
                trimmed = length == entry.bytes;
                found.cursor.settle(head.epoch, sequence, 1, 1);
                found.know(head.exposure, sequence);
            }
            Err(ReadError::Io(error)) => return Err(io_error(store, "reading a sent exposure")(error)),
            Err(ReadError::Damage(_)) => {}
        }
        found.sent.insert(sequence, Sent { bytes: entry.bytes, since_s: entry.changed_s, trimmed });
    }
    Ok(())
}

fn read_ready(store: &dyn Store, uuid: Uuid, found: &mut Recovered) -> Result<()> {
    let mut unfinished = 0;
    for entry in store.list("ready").map_err(io_error(store, "listing ready/"))? {
        let name = format!("ready/{}", entry.name);
        let Some(sequence) = sequence_in(&entry.name) else {
            if entry.name.ends_with(".tmp") {
                store.remove(&name).map_err(io_error(store, format!("removing {name}")))?;
                unfinished += 1;
            }
            continue;
        };
        let segment = match SegmentReader::open(store, &name) {
            Ok(segment) => segment,
            Err(ReadError::Io(error)) => return Err(io_error(store, format!("reading {name}"))(error)),
            Err(ReadError::Damage(damage @ Damage::Newer(_))) => {
                return Err(SpoolError::Newer { file: format!("{}/{name}", store.place()), damage });
            }
            Err(ReadError::Damage(damage)) => {
                set_aside(store, &entry.name, damage.to_string(), found)?;
                found.cursor.set_aside(sequence);
                continue;
            }
        };
        let head = segment.head();
        if head.spool != uuid || head.sequence != sequence {
            let why = format!("it says that it is number {} of spool {}", head.sequence, head.spool);
            set_aside(store, &entry.name, why, found)?;
            continue;
        }
        if !segment.flaws().is_empty() {
            let (exposure, what) = (head.exposure.clone(), segment.flaws().join(", "));
            found.findings.push(Finding::Flawed { sequence, exposure, what });
        }
        found.know(head.exposure.clone(), sequence);
        if found.cursor.covers(head.epoch, sequence) {
            let to = format!("sent/{}", file_name(sequence));
            store.rename(&name, &to).map_err(io_error(store, format!("moving {name} to sent/")))?;
            let sent = Sent { bytes: entry.bytes, since_s: entry.changed_s, trimmed: false };
            found.sent.insert(sequence, sent);
            continue;
        }
        let unsent =
            Unsent { exposure: head.exposure.clone(), epoch: head.epoch, count: head.count, bytes: entry.bytes };
        found.ready.insert(sequence, unsent);
    }
    if unfinished > 0 {
        found.findings.push(Finding::Unfinished(unfinished));
    }
    Ok(())
}

fn set_aside(store: &dyn Store, file: &str, why: String, found: &mut Recovered) -> Result<()> {
    let (from, to) = (format!("ready/{file}"), format!("quarantine/{file}"));
    store.rename(&from, &to).map_err(io_error(store, format!("moving {from} to quarantine/")))?;
    store.sync_folder("quarantine").map_err(io_error(store, "synchronising quarantine/"))?;
    found.findings.push(Finding::Unreadable { file: from, why });
    Ok(())
}

/// What the broker's cursor changes here.
pub struct Reconciled {
    /// The cursor to go on with.
    pub cursor: Cursor,
    /// The next free number.
    pub next: u64,
    /// How many sent exposures the broker does not remember.
    pub forgotten: u64,
    /// Numbers that the broker knows to have been given, and that are neither here nor sent.
    pub gaps: Vec<(u64, u64)>,
}

/// Brings this spool's cursor and the broker's together; a pure function. What either calls settled is settled.
pub fn reconcile(ready: &BTreeMap<u64, Unsent>, next: u64, here: &Cursor, broker: &Cursor) -> Reconciled {
    let mut cursor = broker.clone();
    cursor.merge(here);
    let mut known = cursor.numbers();
    ready.keys().for_each(|sequence| known.insert(*sequence, *sequence));
    // Those below `next` were told of when the spool was opened.
    let gaps = known.holes_below(broker.next_free()).into_iter().filter(|(_, last)| *last >= next);
    let gaps = gaps.map(|(first, last)| (first.max(next), last)).collect();
    Reconciled { cursor, next: next.max(broker.next_free()), forgotten: here.unknown_to(broker), gaps }
}
