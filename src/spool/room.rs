//! Room on the disk: measuring it, and giving back what was sent. See [`super::pressure`] for the
//! thresholds.

use super::buffer::{RESERVE, Spool};
use super::pressure::{self, Kept, Pressure};
use super::recovery::Sent;
use super::segment::{self, ReadError, file_name};
use super::{Result, SpoolError};

/// Heads of trimmed exposures that are kept to recognise a repeated one.
const HEADS_KEPT: usize = 4096;

impl Spool {
    pub(super) fn full(&self, needed: u64) -> SpoolError {
        let free = self.store.room().map_or(0, |room| room.free_bytes);
        SpoolError::Full { place: self.store.place(), free_mb: free >> 20, needed_mb: (needed >> 20) + 1 }
    }

    /// Measures the room, notes the pressure, and says so once when it changed.
    pub(super) fn look_at_room(&self) -> Result<Pressure> {
        let room = self.store.room().map_err(self.io("measuring the room"))?;
        let mut inner = self.inner();
        inner.room = Some(room);
        let now = pressure::pressure(&room, inner.pressure, inner.largest, RESERVE);
        if now != inner.pressure {
            let (place, used, free) = (self.store.place(), pressure::used(&room) * 100.0, room.free_bytes >> 20);
            let left = pressure::hours_left(&room, inner.rate.bytes_per_s())
                .map_or(String::new(), |hours| format!(", enough for {hours:.1} hours at tonight's rate"));
            match now {
                Pressure::Red => tracing::error!(
                    "disk of {place} is full ({free} MB free): no new exposure is processed, raw frames wait; free some space or bring the uplink back"
                ),
                Pressure::KeepNothing => tracing::error!(
                    "disk of {place} is {used:.0} % full ({free} MB free{left}): nothing sent is kept any more; free some space or bring the uplink back"
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
        {
            let mut inner = self.inner();
            let written = inner.written;
            inner.rate.measure(now_s, written);
        }
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

    pub(super) fn trim_all(&self) -> Result<()> {
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
    pub(super) fn keep_reserve(&self) {
        if self.inner().reserve_kept {
            return;
        }
        let made = self.store.open("reserve.bin").and_then(|file| file.length()).is_ok_and(|length| length >= RESERVE)
            || self.store.room().is_ok_and(|room| room.free_bytes > 4 * RESERVE)
                && self.store.create("reserve.bin", RESERVE).is_ok();
        self.inner().reserve_kept = made;
    }

    pub(super) fn release_reserve(&self) {
        if self.store.remove("reserve.bin").is_ok() {
            tracing::error!(
                "disk of {} is full to the last byte: the spool's reserve was given up",
                self.store.place()
            );
        }
        self.inner().reserve_kept = false;
    }
}
