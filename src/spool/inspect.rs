//! Looks into a spool from outside, while its owner works: nothing is locked and nothing changed.
//!
//! Files move from `ready/` to `sent/` under the reader's eyes; what vanishes is left out.

use std::collections::BTreeMap;
use std::io;

use super::aside::Aside;
use super::cursor::Cursor;
use super::format::Damage;
use super::identity::Identity;
use super::segment::{self, ReadError, SegmentReader, file_name, sequence_in};
use super::store::{Room, Store, read_small};

/// Where an exposure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Not sent, or not wholly.
    Ready,
    /// Sent and kept.
    Sent,
    /// Sent; only its head is left.
    Trimmed,
}

/// One exposure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its sequence number.
    pub sequence: u64,
    /// Where it is.
    pub place: Place,
    /// Its name; empty when the head is damaged.
    pub exposure: String,
    /// Its alerts.
    pub count: u32,
    /// How many of them are settled.
    pub settled: u32,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A record in `dead/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Where it was.
    pub at: Aside,
    /// Why the broker refused it.
    pub reason: String,
}

/// A spool seen from outside.
#[derive(Debug, Clone)]
pub struct Look {
    /// Who it is.
    pub identity: Identity,
    /// Exposures by number.
    pub exposures: BTreeMap<u64, Seen>,
    /// Refused records.
    pub dead: Vec<Dead>,
    /// Names of the files in `quarantine/`.
    pub quarantined: Vec<String>,
    /// Room on the disk.
    pub room: Room,
}

impl Look {
    /// The exposures in a place.
    pub fn at(&self, place: Place) -> impl Iterator<Item = &Seen> {
        self.exposures.values().filter(move |seen| seen.place == place)
    }
}

/// Looks into the spool on `store`; `NotFound` when there is none.
pub fn look(store: &dyn Store) -> io::Result<Look> {
    let identity = Identity::read(store)?
        .map_err(io::Error::other)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no spool here"))?;
    let cursor =
        read_small(store, "cursor", 64 << 20)?.and_then(|text| Cursor::decode_file(&text).ok()).unwrap_or_default();
    let mut exposures = BTreeMap::new();
    // First `sent/`: what moves there meanwhile is seen in `ready/` or not at all, never twice.
    for (folder, place) in [("sent", Place::Sent), ("ready", Place::Ready)] {
        for entry in store.list(folder)? {
            let Some(sequence) = sequence_in(&entry.name) else { continue };
            let file = match store.open(&format!("{folder}/{}", entry.name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let head = segment::read_head(&*file).ok();
            let trimmed = place == Place::Sent && head.as_ref().is_some_and(|(_, length)| *length == entry.bytes);
            let begun = head.as_ref().map_or(0, |(head, _)| cursor.settled(head.epoch, sequence));
            let (exposure, count) = head.map_or((String::new(), 0), |(head, _)| (head.exposure, head.count));
            let settled = if place == Place::Ready { begun } else { count };
            let place = if trimmed { Place::Trimmed } else { place };
            exposures.insert(sequence, Seen { sequence, place, exposure, count, settled, bytes: entry.bytes });
        }
    }
    let mut dead = Vec::new();
    for entry in store.list("dead")? {
        if let Some(at) = Aside::from_name(&entry.name).filter(|_| entry.name.ends_with(".seg")) {
            let reason = read_small(store, &format!("dead/{}.txt", at.stem()), 1 << 16)?.unwrap_or_default();
            dead.push(Dead { at, reason: String::from_utf8_lossy(&reason).trim().to_owned() });
        }
    }
    dead.sort_by_key(|d| d.at);
    let names = store.list("quarantine")?.into_iter().map(|e| e.name);
    let mut quarantined: Vec<String> = names.filter(|name| !name.ends_with(".txt")).collect();
    quarantined.sort();
    Ok(Look { identity, exposures, dead, quarantined, room: store.room()? })
}

/// Opens an exposure wherever it is by now.
pub fn open(store: &dyn Store, sequence: u64) -> Result<SegmentReader, ReadError> {
    match SegmentReader::open(store, &format!("ready/{}", file_name(sequence))) {
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            SegmentReader::open(store, &format!("sent/{}", file_name(sequence)))
        }
        segment => segment,
    }
}

/// Reads every byte of an exposure and says what is wrong with it, place by place.
pub fn verify(store: &dyn Store, seen: &Seen) -> io::Result<Vec<String>> {
    let outcome = match seen.place {
        Place::Trimmed => store
            .open(&format!("sent/{}", file_name(seen.sequence)))
            .map_err(ReadError::from)
            .and_then(|file| segment::read_head(&*file).map(|_| Vec::new())),
        _ => open(store, seen.sequence).and_then(|segment| Ok(segment.verify()?)),
    };
    match outcome {
        Ok(faults) => Ok(faults),
        Err(ReadError::Damage(damage @ Damage::Newer(_))) => Ok(vec![damage.to_string()]),
        Err(ReadError::Damage(damage)) => Ok(vec![format!("the whole file: {damage}")]),
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(ReadError::Io(error)) => Err(error),
    }
}

/// Reads every byte of what is not an exposure: the cursor, and the refused records in `dead/`;
/// gives file and fault.
pub fn verify_beside(store: &dyn Store, look: &Look) -> io::Result<Vec<(String, String)>> {
    let mut faults = Vec::new();
    if let Some(text) = read_small(store, "cursor", 64 << 20)? {
        faults.extend(Cursor::decode_file(&text).err().map(|why| ("cursor".to_owned(), why)));
    }
    for dead in &look.dead {
        let name = format!("dead/{}.seg", dead.at.stem());
        match SegmentReader::open(store, &name).and_then(|segment| Ok(segment.verify()?)) {
            Ok(found) => faults.extend(found.into_iter().map(|fault| (name.clone(), fault))),
            Err(ReadError::Damage(damage)) => faults.push((name, format!("the whole file: {damage}"))),
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(ReadError::Io(error)) => return Err(error),
        }
    }
    Ok(faults)
}

/// What is to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// A refused record.
    Dead(Aside),
    /// An exposure that was sent.
    Sent(u64),
}

impl Again {
    /// The file that asks the running daemon to send it again.
    pub fn marker(self) -> String {
        match self {
            Self::Dead(at) => format!("dead/{}.retry", at.stem()),
            Self::Sent(sequence) => format!("sent/{sequence:012}.retry"),
        }
    }
}

/// Asks the process that holds the spool to send something again: it looks for such files every
/// few seconds.
pub fn ask_to_retry(store: &dyn Store, what: Again) -> io::Result<()> {
    store.create(&what.marker(), 0)?.finish()
}

/// What was asked for with [`ask_to_retry`].
pub fn asked_to_retry(store: &dyn Store) -> io::Result<Vec<Again>> {
    let mut asked = Vec::new();
    for entry in store.list("dead")? {
        if entry.name.ends_with(".retry") {
            asked.extend(Aside::from_name(&entry.name).map(Again::Dead));
        }
    }
    for entry in store.list("sent")? {
        let sequence = entry.name.strip_suffix(".retry").and_then(|digits| digits.parse().ok());
        asked.extend(sequence.map(Again::Sent));
    }
    Ok(asked)
}
