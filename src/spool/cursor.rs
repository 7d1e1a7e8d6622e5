//! What has been delivered: a set of exposures, and for a few of them how far.
//!
//! An exposure is named by the opening of the spool that wrote it and its sequence number, here as in its file. A
//! number alone would not do: a disk may be put back from a snapshot, or run as a copy beside the first, and then both
//! lives give the numbers that follow. With the opening in the name they never speak of the same exposure, unless it is
//! the same; so two cursors are brought together by taking both sets, whatever happened in between.
//!
//! The same text stands in the file `cursor` of the spool and, keyed by the spool's uuid, in the
//! cursor topic of the broker, where each transaction writes it together with the alerts that it
//! covers. A set, and not a highest number, lets the uplink send in any order.
//!
//! The file carries the text's CRC-32C on a second line: a flipped bit in a number would else pass
//! for exposures that were sent. Kafka checks its records itself.
//!
//! ```text
//! {"sent":{"12-9f3a77c1":[[1,20],[22,25]]},"partial":{"12-9f3a77c1":{"26":4}},"next":27}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Epoch;

/// Openings that are remembered: some years of them, 30 kB of text. Of older ones only the numbers are kept, for finding
/// gaps; should a disk come back that has not been in use for so many openings, it sends what it has again.
const MAX_EPOCHS: usize = 1024;

/// Stands for the opening of exposures that cannot be read and were set aside. No opening has it: they count from 1.
const SET_ASIDE: Epoch = Epoch(0);

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
    fn one(&mut self, number: u64) {
        self.insert(number, number);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|(first, last)| self.insert(first, last));
    }

    /// How many numbers of `first` to `last`, both included, are in the set.
    fn count_between(&self, first: u64, last: u64) -> u64 {
        self.iter().map(|(a, b)| (b.min(last) + 1).saturating_sub(a.max(first))).sum()
    }

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
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Exposures all of whose records are settled (sent, or set aside and counted), by opening.
    sent: BTreeMap<Epoch, Ranges>,
    /// Exposures begun: how many of their records, from the first, are settled.
    #[serde(default)]
    partial: BTreeMap<Epoch, BTreeMap<u64, u32>>,
    /// Numbers of settled exposures of openings that are forgotten.
    #[serde(default, skip_serializing_if = "Ranges::is_empty")]
    older: Ranges,
    /// The next number to be given: every lower one was given, whatever the disk still has of it.
    #[serde(default)]
    pub next: u64,
}

impl Cursor {
    /// Reads what [`Cursor::encode`] wrote, in this version or in 0.1.
    pub fn decode(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
            .or_else(|error| serde_json::from_slice::<version_0_1::Cursor>(text).map(Self::from).map_err(|_| error))
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

    /// Whether the exposure is settled whole.
    pub fn covers(&self, epoch: Epoch, sequence: u64) -> bool {
        self.sent.get(&epoch).is_some_and(|sent| sent.contains(sequence))
    }

    /// How many records of an exposure are settled, from the first.
    pub fn settled(&self, epoch: Epoch, sequence: u64) -> u32 {
        self.partial.get(&epoch).and_then(|of| of.get(&sequence)).copied().unwrap_or(0)
    }

    /// Notes that the first `settled` of `count` records are settled.
    pub fn settle(&mut self, epoch: Epoch, sequence: u64, settled: u32, count: u32) {
        if settled >= count {
            self.sent.entry(epoch).or_default().one(sequence);
            self.tidy();
        } else if settled > 0 {
            self.partial.entry(epoch).or_default().insert(sequence, settled);
        }
    }

    /// Notes an exposure that cannot be read: it is not missing, and it is not sent.
    pub fn set_aside(&mut self, sequence: u64) {
        self.sent.entry(SET_ASIDE).or_default().one(sequence);
        self.partial.values_mut().for_each(|of| _ = of.remove(&sequence));
        self.partial.retain(|_, of| !of.is_empty());
    }

    /// All numbers, of whatever opening, of exposures that are settled whole.
    pub fn numbers(&self) -> Ranges {
        let mut all = self.older.clone();
        self.sent.values().for_each(|sent| all.extend(sent));
        all
    }

    /// The largest number that this cursor speaks of.
    pub fn last(&self) -> Option<u64> {
        let begun = self.partial.values().filter_map(|of| of.last_key_value()).map(|(sequence, _)| *sequence).max();
        self.numbers().last().max(begun)
    }

    /// The lowest number that nobody can have been given, as far as this cursor knows.
    pub fn next_free(&self) -> u64 {
        self.next.max(self.last().unwrap_or(0) + 1)
    }

    /// Everything that this or `other` calls settled.
    pub fn merge(&mut self, other: &Self) {
        for (epoch, sent) in &other.sent {
            self.sent.entry(*epoch).or_default().extend(sent);
        }
        for (epoch, of) in &other.partial {
            for (sequence, settled) in of {
                let known = self.partial.entry(*epoch).or_default().entry(*sequence).or_default();
                *known = (*known).max(*settled);
            }
        }
        self.older.extend(&other.older);
        self.next = self.next.max(other.next);
        self.tidy();
    }

    /// How many exposures are sent here of which `other` does not know.
    pub fn unknown_to(&self, other: &Self) -> u64 {
        let unknown = |(epoch, sent): (&Epoch, &Ranges)| -> u64 {
            let nothing = Ranges::default();
            let mut known = other.sent.get(epoch).unwrap_or(&nothing).clone();
            other.partial.get(epoch).into_iter().flatten().for_each(|(sequence, _)| known.one(*sequence));
            known.extend(&other.older);
            sent.iter().map(|(first, last)| last - first + 1 - known.count_between(first, last)).sum()
        };
        self.sent.iter().filter(|(epoch, _)| **epoch != SET_ASIDE).map(unknown).sum()
    }

    /// Forgets how far exposures were that are settled whole, and the oldest openings where there are too many.
    fn tidy(&mut self) {
        while self.sent.len() > MAX_EPOCHS {
            let Some(oldest) = self.sent.keys().find(|epoch| **epoch != SET_ASIDE).copied() else { break };
            self.older.extend(&self.sent.remove(&oldest).unwrap_or_default());
        }
        let mut partial = std::mem::take(&mut self.partial);
        for (epoch, of) in &mut partial {
            of.retain(|sequence, _| !self.covers(*epoch, *sequence));
        }
        partial.retain(|_, of| !of.is_empty());
        self.partial = partial;
    }

    /// How many openings came before, as far as this cursor can tell.
    pub fn openings(&self) -> u32 {
        let epochs = self.sent.keys().chain(self.partial.keys());
        epochs.map(|epoch| (epoch.0 >> 32) as u32).max().unwrap_or(0)
    }
}

mod version_0_1 {
    //! The text of version 0.1. It named exposures by their numbers alone, and listed where the numbers of each opening
    //! began.

    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::{Epoch, Ranges};

    #[derive(Deserialize)]
    pub struct Cursor {
        sent: Ranges,
        #[serde(default)]
        partial: BTreeMap<u64, u32>,
        #[serde(default)]
        epochs: Vec<(u64, Epoch)>,
        #[serde(default)]
        next: u64,
    }

    impl Cursor {
        fn epoch_of(&self, number: u64) -> Option<Epoch> {
            self.epochs.iter().rev().find(|(first, _)| *first <= number).map(|(_, epoch)| *epoch)
        }
    }

    impl From<Cursor> for super::Cursor {
        fn from(text: Cursor) -> Self {
            let mut cursor = Self { next: text.next, ..Self::default() };
            for (sequence, settled) in &text.partial {
                if let Some(epoch) = text.epoch_of(*sequence) {
                    cursor.settle(epoch, *sequence, *settled, u32::MAX);
                }
            }
            for (first, last) in text.sent.iter() {
                let mut from = first;
                while from <= last {
                    let after = text.epochs.iter().map(|(start, _)| *start).find(|start| *start > from);
                    let to = after.map_or(last, |start| last.min(start - 1));
                    let mut run = Ranges::default();
                    run.insert(from, to);
                    match text.epoch_of(from) {
                        Some(epoch) => cursor.sent.entry(epoch).or_default().extend(&run),
                        // Whose they were was forgotten: their numbers alone are known.
                        None => cursor.older.extend(&run),
                    }
                    from = to + 1;
                }
            }
            cursor
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Epoch = Epoch(1 << 32 | 7);
    const SECOND: Epoch = Epoch(2 << 32 | 9);

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
        let mut cursor = Cursor { next: 5, ..Cursor::default() };
        cursor.settle(FIRST, 1, 10, 10);
        cursor.settle(FIRST, 3, 4, 10);
        cursor.settle(SECOND, 4, 1, 1);
        assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        let text = r#"{"sent":{"1-00000007":[[1,1]],"2-00000009":[[4,4]]},"partial":{"1-00000007":{"3":4}},"next":5}"#;
        assert_eq!(String::from_utf8(cursor.encode()).unwrap(), text);
    }

    #[test]
    fn a_cursor_of_version_0_1_is_understood() {
        let text =
            br#"{"sent":[[1,6],[8,9]],"partial":{"7":4},"epochs":[[3,"1-00000007"],[6,"2-00000009"]],"next":10}"#;
        let cursor = Cursor::decode(text).unwrap();
        assert!(cursor.covers(FIRST, 3) && cursor.covers(FIRST, 5) && !cursor.covers(FIRST, 6));
        assert!(cursor.covers(SECOND, 6) && cursor.covers(SECOND, 9) && !cursor.covers(SECOND, 5));
        assert!(!cursor.covers(FIRST, 2) && cursor.numbers().contains(2), "nobody knows who gave it");
        assert_eq!((cursor.settled(SECOND, 7), cursor.settled(FIRST, 7), cursor.next_free()), (4, 0, 10));
        assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
    }

    #[test]
    fn no_flipped_bit_of_the_file_is_taken_for_another_cursor() {
        let mut cursor = Cursor::default();
        cursor.settle(FIRST, 12, 1, 1);
        let file = cursor.encode_file();
        assert_eq!(Cursor::decode_file(&file), Ok(cursor.clone()));
        assert_eq!(Cursor::decode_file(&cursor.encode()), Ok(cursor.clone()), "without its check");
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
    fn a_number_given_in_two_openings_is_two_exposures() {
        let (mut one, mut other) = (Cursor::default(), Cursor::default());
        one.settle(FIRST, 5, 1, 1);
        other.settle(SECOND, 5, 2, 3);
        one.merge(&other);
        assert!(one.covers(FIRST, 5) && !one.covers(SECOND, 5));
        assert_eq!((one.settled(SECOND, 5), one.settled(FIRST, 5)), (2, 0));
        assert_eq!((one.unknown_to(&other), other.unknown_to(&one)), (1, 0));
    }

    #[test]
    fn of_very_many_openings_the_oldest_keep_only_their_numbers() {
        let mut cursor = Cursor::default();
        let epoch = |n: u64| Epoch(n << 32);
        for n in 1..=2000 {
            cursor.settle(epoch(n), n, 1, 1);
        }
        assert!((977..=2000).all(|n| cursor.covers(epoch(n), n)) && !cursor.covers(epoch(976), 976));
        for another in [Epoch(990 << 32 | 1), epoch(991), epoch(2001)] {
            assert!(!cursor.covers(another, 990), "a number given again is another exposure");
        }
        assert!(cursor.encode().len() < 40 << 10);
        assert_eq!((Cursor::decode(&cursor.encode()).unwrap(), cursor.openings()), (cursor.clone(), 2000));
        assert_eq!((cursor.numbers().iter().collect::<Vec<_>>(), cursor.last()), (vec![(1, 2000)], Some(2000)));
    }

    #[test]
    fn what_a_later_version_adds_is_not_dropped_in_silence() {
        assert!(Cursor::decode(br#"{"sent":{},"next":1}"#).is_ok());
        assert!(Cursor::decode(br#"{"sent":{},"next":1,"newer":2}"#).is_err());
    }
}
