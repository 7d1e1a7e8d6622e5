//! How full the disk is, and what may go. Pure functions of what was measured.
//!
//! | used | what happens |
//! | --- | --- |
//! | 70 % | a warning |
//! | 80 % | sent exposures are trimmed, oldest first |
//! | 90 % | nothing sent is kept; an alarm |
//! | red: room for fewer than two exposures beside the reserve | no new exposure is taken until 85 %, or until there is room for twenty |
//!
//! Bytes and files both count, whichever is scarcer. Nothing unsent is ever removed.

use super::store::Room;

/// Share in use at which the operator is warned.
pub const WARN: f64 = 0.70;
/// Share in use at which sent exposures are trimmed.
pub const TRIM: f64 = 0.80;
/// Share in use below which exposures are taken again after red.
pub const RESUME: f64 = 0.85;
/// Share in use at which nothing sent is kept.
pub const KEEP_NOTHING: f64 = 0.90;

/// How full the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Below 70 %.
    Ample,
    /// Above 70 %.
    Warn,
    /// Above 80 %.
    Trim,
    /// Above 90 %.
    KeepNothing,
    /// No room for another exposure.
    Red,
}

/// Share of the disk in use, 0 to 1: of bytes or of files, whichever is more.
pub fn used(room: &Room) -> f64 {
    let share = |free: u64, total: u64| {
        if total == 0 { 0.0 } else { 1.0 - free.min(total) as f64 / total as f64 }
    };
    share(room.free_bytes, room.total_bytes).max(share(room.free_files, room.total_files))
}

/// The pressure now, given the one before, the bytes of the largest exposure to expect and the
/// bytes of the reserve. Red ends when less than 85 % is in use, or when there is room for twenty
/// exposures (a large disk may be fuller than that all its life).
pub fn pressure(room: &Room, before: Pressure, exposure_bytes: u64, reserve_bytes: u64) -> Pressure {
    let used = used(room);
    let needed = exposure_bytes.saturating_mul(2).saturating_add(reserve_bytes);
    let no_files = room.total_files > 0 && room.free_files < 16;
    let scarce = used >= RESUME && room.free_bytes < needed.saturating_mul(10);
    if room.free_bytes < needed || no_files || (before == Pressure::Red && scarce) {
        return Pressure::Red;
    }
    match used {
        u if u >= KEEP_NOTHING => Pressure::KeepNothing,
        u if u >= TRIM => Pressure::Trim,
        u if u >= WARN => Pressure::Warn,
        _ => Pressure::Ample,
    }
}

/// An exposure in `sent/` that could go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its sequence number.
    pub sequence: u64,
    /// Bytes that its removal frees.
    pub bytes: u64,
    /// Seconds since it was sent.
    pub age_s: i64,
}

/// Which of `kept` (oldest first) go now: what is older than `keep_s`, under pressure the oldest
/// until 80 % are in use, under more pressure all.
pub fn to_trim(kept: &[Kept], keep_s: i64, pressure: Pressure, room: &Room) -> Vec<u64> {
    let target = (room.total_bytes as f64 * (1.0 - TRIM)) as u64;
    let mut to_free = target.saturating_sub(room.free_bytes);
    let scarce_files = room.total_files > 0 && (room.free_files as f64) < room.total_files as f64 * (1.0 - TRIM);
    kept.iter()
        .filter(|k| {
            let go = match pressure {
                Pressure::Ample | Pressure::Warn => k.age_s >= keep_s,
                Pressure::Trim => k.age_s >= keep_s || to_free > 0 || scarce_files,
                Pressure::KeepNothing | Pressure::Red => true,
            };
            if go {
                to_free = to_free.saturating_sub(k.bytes);
            }
            go
        })
        .map(|k| k.sequence)
        .collect()
}

/// How fast the spool grows: over the last hour or two of measuring, however long it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    /// Where the measuring began: seconds since 1970, and bytes written by then.
    from: Option<(i64, u64)>,
    /// Where the next measuring begins, an hour after that.
    next: Option<(i64, u64)>,
    bytes_per_s: f64,
}

impl Rate {
    /// An hour, seconds.
    const SPAN: i64 = 3600;

    /// Notes that `written` bytes were written by `now_s`.
    pub fn measure(&mut self, now_s: i64, written: u64) {
        let Some((start, before)) = self.from.filter(|(start, _)| (0..3 * Self::SPAN).contains(&(now_s - start)))
        else {
            *self = Self { from: Some((now_s, written)), next: None, ..*self };
            return;
        };
        // Less than a minute says nothing, least of all between two exposures.
        if now_s - start >= 60 {
            self.bytes_per_s = written.saturating_sub(before) as f64 / (now_s - start) as f64;
        }
        match self.next {
            None if now_s - start >= Self::SPAN => self.next = Some((now_s, written)),
            Some((next, _)) if now_s - next >= Self::SPAN => {
                *self = Self { from: self.next, next: Some((now_s, written)), ..*self };
            }
            _ => {}
        }
    }

    /// Bytes that are written in a second.
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes_per_s
    }
}

/// Hours until the room is gone at `bytes_per_s`, or `None` when it does not shrink.
pub fn hours_left(room: &Room, bytes_per_s: f64) -> Option<f64> {
    (bytes_per_s > 0.0).then(|| room.free_bytes as f64 / bytes_per_s / 3600.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(free_percent: u64) -> Room {
        Room { total_bytes: 1000 << 20, free_bytes: free_percent * (10 << 20), total_files: 1000, free_files: 1000 }
    }

    #[test]
    fn the_disk_fills_through_warning_trimming_and_red() {
        let at = |free| pressure(&room(free), Pressure::Ample, 10 << 20, 5 << 20);
        assert_eq!(at(31), Pressure::Ample);
        assert_eq!(at(30), Pressure::Warn);
        assert_eq!(at(20), Pressure::Trim);
        assert_eq!(at(10), Pressure::KeepNothing);
        assert_eq!(at(3), Pressure::KeepNothing);
        assert_eq!(at(2), Pressure::Red);
    }

    #[test]
    fn red_ends_below_85_percent_or_with_room_for_twenty() {
        let after_red = |free, exposure| pressure(&room(free), Pressure::Red, exposure, 0);
        assert_eq!(after_red(14, 10 << 20), Pressure::Red);
        assert_eq!(after_red(16, 10 << 20), Pressure::Trim);
        assert_eq!(after_red(14, 7 << 20), Pressure::Trim);
    }

    #[test]
    fn a_disk_without_free_inodes_is_as_full_as_one_without_free_bytes() {
        let room = Room { free_files: 3, ..room(90) };
        assert_eq!(pressure(&room, Pressure::Ample, 1, 1), Pressure::Red);
    }

    #[test]
    fn the_rate_follows_the_night_and_never_rests_on_one_minute() {
        let mut rate = Rate::default();
        let mut written = 0;
        let mut lowest = f64::MAX;
        for second in (0..8 * 3600).step_by(5) {
            written += if second % 45 == 0 { 45_000_000 } else { 0 };
            rate.measure(second, written);
            if second > 600 {
                lowest = lowest.min(rate.bytes_per_s());
            }
        }
        assert!((0.9e6..1.1e6).contains(&lowest) && (0.9e6..1.1e6).contains(&rate.bytes_per_s()), "{lowest} {rate:?}");
        for second in (8 * 3600..12 * 3600).step_by(5) {
            rate.measure(second, written);
        }
        assert_eq!(rate.bytes_per_s(), 0.0, "by day nothing is written");
        let room = Room { total_bytes: 10 << 40, free_bytes: 36_000_000_000, total_files: 0, free_files: 0 };
        assert_eq!(hours_left(&room, 1e6), Some(10.0));
        assert_eq!(hours_left(&room, 0.0), None);
    }

    #[test]
    fn only_the_oldest_sent_exposures_are_trimmed_and_only_as_many_as_needed() {
        let kept: Vec<Kept> = (1..=5).map(|n| Kept { sequence: n, bytes: 10 << 20, age_s: 100 - n as i64 }).collect();
        assert_eq!(to_trim(&kept, 97, Pressure::Ample, &room(50)), [1, 2, 3]);
        assert_eq!(to_trim(&kept, 1000, Pressure::Trim, &room(18)), [1, 2]);
        assert_eq!(to_trim(&kept, 1000, Pressure::KeepNothing, &room(8)), [1, 2, 3, 4, 5]);
    }
}
