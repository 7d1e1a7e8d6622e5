//! Single records that cannot be sent: refused by the broker (`dead/`) or damaged (`quarantine/`).
//!
//! Both keep the record, durably, before the cursor passes it. The names are functions of the
//! record's place, so that doing it twice leaves one.

use super::format::Damage;
use super::recovery::io_error;
use super::segment;
use super::store::{Store, replace_small};
use super::{Epoch, Message, Result};

/// A record in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aside {
    /// Sequence number of the segment.
    pub sequence: u64,
    /// Number of the record in it.
    pub number: u32,
}

impl Aside {
    /// Name of its file without the ending.
    pub fn stem(&self) -> String {
        format!("{:012}-{:05}", self.sequence, self.number)
    }

    /// Reads the name of a file back.
    pub fn from_name(name: &str) -> Option<Self> {
        let (sequence, number) = name.split_once('.')?.0.split_once('-')?;
        Some(Self { sequence: sequence.parse().ok()?, number: number.parse().ok()? })
    }
}

/// Keeps a refused message in `dead/` with the reason beside it.
pub fn bury(
    store: &dyn Store,
    spool: uuid::Uuid,
    epoch: Epoch,
    at: Aside,
    exposure: &str,
    message: &Message,
    reason: &str,
) -> Result<()> {
    let name = format!("dead/{}.seg", at.stem());
    let messages = std::slice::from_ref(message);
    let (head, topics) = segment::head_for(spool, epoch, at.sequence, exposure, messages);
    let write = || {
        replace_small(store, &format!("dead/{}.txt", at.stem()), format!("{reason}\n").as_bytes())?;
        let fresh = format!("dead/{}.new", at.stem());
        let mut file = store.create(&fresh, segment::segment_bytes(exposure, messages))?;
        segment::write(&mut *file, &head, &topics, messages)?;
        file.finish()?;
        store.rename(&fresh, &name)?;
        store.sync_folder("dead")
    };
    write().map_err(io_error(store, format!("keeping the refused record {name}")))
}

/// Keeps the bytes of a damaged record in `quarantine/`.
pub fn quarantine(store: &dyn Store, at: Aside, bytes: &[u8], damage: &Damage) -> Result<()> {
    let name = format!("quarantine/{}.bin", at.stem());
    let write = || {
        replace_small(store, &format!("quarantine/{}.txt", at.stem()), format!("{damage}\n").as_bytes())?;
        replace_small(store, &name, bytes)
    };
    write().map_err(io_error(store, format!("keeping the damaged record {name}")))
}
