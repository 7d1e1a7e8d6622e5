//! What has been delivered: a set of sequence numbers, and for a few exposures how far.
//!
//! Beside that it says which numbers were given, and in which openings of the spool.
//!
//! The same text stands in the file `cursor` of the spool and, keyed by the spool's uuid, in the
//! cursor topic of the broker, where each transaction writes it together with the alerts that it
//! covers. A set, and not a highest number, lets the uplink send in any order.
//!
//! The file carries the text's CRC-32C on a second line: a flipped bit in a number would else pass
//! for exposures that were sent. Kafka checks its records itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Epoch;

/// Epochs that a cursor remembers at most; older ones are taken for granted.
const MAX_EPOCHS: usize = 256;

/// A set of whole numbers, kept as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges(BTreeMap<u64, u64>);

impl From<Vec<(u64, u64)>> for Ranges {
    fn from(list: Vec<(u64, u64)>) -> Self {
        let mut ranges = Self::default();
        for (first, last) in list {
            ranges.insert(first, last);
        }
        ranges
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Self {
        ranges.0.into_iter().collect()
    }
}

impl Ranges {
    /// Adds `first` to `last`, both included.
    pub fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.0.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| number <= *last)
    }

    /// The largest number, if any.
    pub fn last(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, last)| *last)
    }

    /// The ranges in rising order, both ends included.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// The numbers from 1 up to `end` (not included) that are not in the set, as ranges.
    pub fn holes_below(&self, end: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut next = 1;
        for (first, last) in self.iter() {
            if first >= end {
                break;
            }
            if first > next {
                holes.push((next, first - 1));
            }
            next = next.max(last.saturating_add(1));
        }
        if next < end {
            holes.push((next, end - 1));
        }
        holes
    }
}

/// What has been delivered of one spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Exposures all of whose records are settled (sent, or set aside and counted).
    pub sent: Ranges,
    /// Exposures begun: how many of their records, from the first, are settled.
    #[serde(default)]
    pub partial: BTreeMap<u64, u32>,
    /// The first sequence number of each epoch, rising: tells a number from its twin in the other
    /// life of a spool that was restored from a snapshot.
    #[serde(default)]
    pub epochs: Vec<(u64, Epoch)>,
    /// The next number to be given: every lower one was given, whatever the disk still has of it.
    /// 0 where version 0.1 wrote it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub next: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Cursor {
    /// Reads what [`Cursor::encode`] wrote.
    pub fn decode(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// As one line of JSON.
    pub fn encode(&self) -> Vec<u8> {
        // Maps of numbers and lists of numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As the file `cursor`: the text, and on a second line its CRC-32C in hexadecimal.
    pub fn encode_file(&self) -> Vec<u8> {
        let mut text = self.encode();
        let check = crc32c::crc32c(&text);
        text.extend_from_slice(format!("\n{check:08x}\n").as_bytes());
        text
    }

    /// Reads what [`Cursor::encode_file`] wrote, and the one line without a check that version 0.1
    /// wrote; else says what is wrong.
    pub fn decode_file(text: &[u8]) -> Result<Self, String> {
        let (line, check) = match text.iter().position(|byte| *byte == b'\n') {
            None => (text, None),
            Some(at) => (&text[..at], Some(&text[at..])),
        };
        let fits = |check: &[u8]| check == format!("\n{:08x}\n", crc32c::crc32c(line)).as_bytes();
        if !check.is_none_or(fits) {
            return Err("its checksum does not fit".into());
        }
        Self::decode(line).map_err(|error| error.to_string())
    }

    /// Notes that the numbers from `first` on are given in `epoch`.
    pub fn begin_epoch(&mut self, first: u64, epoch: Epoch) {
        self.epochs.retain(|(start, _)| *start < first);
        self.epochs.push((first, epoch));
        self.next = self.next.max(first);
        let surplus = self.epochs.len().saturating_sub(MAX_EPOCHS);
        self.epochs.drain(..surplus);
    }

    /// Notes that a segment on disk says that `sequence` was given in `epoch`: an epoch whose
    /// process died before it wrote a cursor is known only from its segments.
    pub fn learn_epoch(&mut self, sequence: u64, epoch: Epoch) {
        if self.epoch_of(sequence) != Some(epoch) {
            let at = self.epochs.partition_point(|(first, _)| *first < sequence);
            match self.epochs.get_mut(at) {
                // An opening noted that it begins here, and died before it wrote anything.
                Some((first, noted)) if *first == sequence => *noted = epoch,
                _ => self.epochs.insert(at, (sequence, epoch)),
            }
        }
    }

    /// The epoch that `sequence` was given in, where it is still known.
    pub fn epoch_of(&self, sequence: u64) -> Option<Epoch> {
        self.epochs.iter().rev().find(|(first, _)| *first <= sequence).map(|(_, epoch)| *epoch)
    }

    /// Whether this cursor speaks of the very segment `sequence` that was written in `epoch`.
    fn is_about(&self, sequence: u64, epoch: Epoch) -> bool {
        self.epoch_of(sequence).is_none_or(|known| known == epoch)
    }

    /// Whether the segment is settled whole.
    pub fn covers(&self, sequence: u64, epoch: Epoch) -> bool {
        self.sent.contains(sequence) && self.is_about(sequence, epoch)
    }

    /// Whether the number was given to another segment than the one written in `epoch`, as far as
    /// this cursor can know.
    pub fn conflicts(&self, sequence: u64, epoch: Epoch) -> bool {
        self.last().is_some_and(|last| sequence <= last) && !self.is_about(sequence, epoch)
    }

    /// How many records of an exposure are settled, from the first.
    pub fn settled(&self, sequence: u64) -> u32 {
        self.partial.get(&sequence).copied().unwrap_or(0)
    }

    /// Notes that the first `settled` of `count` records are settled.
    pub fn settle(&mut self, sequence: u64, settled: u32, count: u32) {
        if settled >= count {
            self.partial.remove(&sequence);
            self.sent.insert(sequence, sequence);
        } else if settled > 0 {
            self.partial.insert(sequence, settled);
        }
    }

    /// The largest number that this cursor speaks of.
    pub fn last(&self) -> Option<u64> {
        self.sent.last().max(self.partial.last_key_value().map(|(sequence, _)| *sequence))
    }

    /// The lowest number that nobody can have been given, as far as this cursor knows.
    pub fn next_free(&self) -> u64 {
        self.next.max(self.last().unwrap_or(0) + 1)
    }

    /// Everything that this or `other` calls settled.
    pub fn merge(&mut self, other: &Self) {
        for (first, last) in other.sent.iter() {
            self.sent.insert(first, last);
        }
        for (sequence, settled) in &other.partial {
            let known = self.partial.entry(*sequence).or_default();
            *known = (*known).max(*settled);
        }
        let sent = &self.sent;
        self.partial.retain(|sequence, _| !sent.contains(*sequence));
        self.next = self.next.max(other.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_order_close_up_to_one_range() {
        let mut ranges = Ranges::default();
        for n in [5, 1, 3, 2, 9, 4] {
            ranges.insert(n, n);
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(1, 5), (9, 9)]);
        assert_eq!(ranges.holes_below(12), [(6, 8), (10, 11)]);
        ranges.insert(2, 20);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(1, 20)]);
        assert!(ranges.contains(20) && !ranges.contains(21) && !ranges.contains(0));
    }

    #[test]
    fn a_cursor_survives_its_journey_as_text() {
        let mut cursor = Cursor::default();
        cursor.begin_epoch(1, Epoch(7));
        cursor.settle(1, 10, 10);
        cursor.settle(3, 4, 10);
        assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        assert_eq!(cursor.encode(), br#"{"sent":[[1,1]],"partial":{"3":4},"epochs":[[1,"0-00000007"]],"next":1}"#);
    }

    #[test]
    fn no_flipped_bit_of_the_file_is_taken_for_another_cursor() {
        let mut cursor = Cursor::default();
        cursor.settle(12, 1, 1);
        let file = cursor.encode_file();
        assert_eq!(Cursor::decode_file(&file), Ok(cursor.clone()));
        assert_eq!(Cursor::decode_file(&cursor.encode()), Ok(cursor.clone()), "as version 0.1 wrote it");
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Cursor::decode_file(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..file.len() {
            assert!(
                Cursor::decode_file(&file[..length]).is_ok_and(|c| c == cursor)
                    || Cursor::decode_file(&file[..length]).is_err()
            );
        }
    }

    #[test]
    fn an_epoch_that_wrote_no_cursor_is_known_from_its_segments() {
        let mut cursor = Cursor::default();
        cursor.begin_epoch(1, Epoch(1));
        for (sequence, epoch) in [(7, 1), (8, 2), (9, 2), (10, 3)] {
            cursor.learn_epoch(sequence, Epoch(epoch));
        }
        cursor.begin_epoch(11, Epoch(4));
        cursor.settle(9, 5, 5);
        assert!(cursor.covers(9, Epoch(2)));
        assert_eq!(cursor.epochs, [(1, Epoch(1)), (8, Epoch(2)), (10, Epoch(3)), (11, Epoch(4))]);
    }

    #[test]
    fn a_number_that_a_dead_opening_announced_belongs_to_the_one_that_wrote_it() {
        let mut cursor = Cursor::default();
        cursor.begin_epoch(1, Epoch(1));
        cursor.begin_epoch(6, Epoch(2));
        cursor.learn_epoch(6, Epoch(3));
        cursor.learn_epoch(7, Epoch(3));
        assert_eq!(cursor.epochs, [(1, Epoch(1)), (6, Epoch(3))]);
        cursor.settle(6, 1, 1);
        assert!(cursor.covers(6, Epoch(3)), "it would be sent again");
    }

    #[test]
    fn a_number_given_twice_after_a_restored_snapshot_is_not_taken_for_sent() {
        let mut broker = Cursor::default();
        broker.begin_epoch(1, Epoch(7));
        broker.settle(5, 1, 1);
        assert!(broker.covers(5, Epoch(7)));
        assert!(!broker.covers(5, Epoch(8)));
        assert!(broker.conflicts(5, Epoch(8)) && !broker.conflicts(6, Epoch(8)));
    }
}
