//! Records that the broker refuses: which must not be sent, and which are only suspected.
//!
//! A refusal is the record's fault only when others go through; when none does, the topic is at
//! fault and nothing may be put aside. So a refused record is first a suspect, which the next
//! transaction leaves out; what goes through then proves it guilty.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::spool::Aside;

/// The refused records of the exposures that are on their way.
#[derive(Debug, Default)]
pub struct Refusals {
    buried: BTreeSet<Aside>,
    suspects: BTreeMap<Aside, Code>,
}

impl Refusals {
    /// With the records that lie in `dead/` and whose exposures are not complete yet.
    pub fn new(buried: impl IntoIterator<Item = Aside>) -> Self {
        Self { buried: buried.into_iter().collect(), suspects: BTreeMap::new() }
    }

    /// Whether the record is left out of a transaction.
    pub fn skips(&self, at: &Aside) -> bool {
        self.buried.contains(at) || self.suspects.contains_key(at)
    }

    /// The broker refused `at`.
    pub fn suspect(&mut self, at: Aside, code: Code) {
        self.suspects.insert(at, code);
    }

    /// How many are suspected.
    pub fn suspected(&self) -> usize {
        self.suspects.len()
    }

    /// The suspects among the first records, up to the given number, of each of these exposures.
    pub fn suspects_in(&self, steps: &BTreeMap<u64, (u32, bool)>) -> Vec<(Aside, Code)> {
        let inside = |at: &Aside| steps.get(&at.sequence).is_some_and(|(settled, _)| at.number < *settled);
        self.suspects.iter().filter(|(at, _)| inside(at)).map(|(at, code)| (*at, *code)).collect()
    }

    /// The record is in `dead/` now.
    pub fn bury(&mut self, at: Aside) {
        self.suspects.remove(&at);
        self.buried.insert(at);
    }

    /// Nothing goes through at all: no record is to blame.
    pub fn acquit(&mut self) {
        self.suspects.clear();
    }

    /// Forgets what belongs to exposures that are complete.
    pub fn forget(&mut self, complete: impl Fn(u64) -> bool) {
        self.buried.retain(|at| !complete(at.sequence));
        self.suspects.retain(|at, _| !complete(at.sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_is_left_out_and_buried_only_where_the_cursor_passes_it() {
        let at = |number| Aside { sequence: 7, number };
        let mut refusals = Refusals::new([at(1)]);
        refusals.suspect(at(3), Code::MessageSizeTooLarge);
        assert!(refusals.skips(&at(1)) && refusals.skips(&at(3)) && !refusals.skips(&at(2)));
        assert!(refusals.suspects_in(&BTreeMap::from([(7, (3, false))])).is_empty());
        assert_eq!(refusals.suspects_in(&BTreeMap::from([(7, (4, false))])), [(at(3), Code::MessageSizeTooLarge)]);
        refusals.bury(at(3));
        assert_eq!((refusals.suspected(), refusals.skips(&at(3))), (0, true));
        refusals.forget(|sequence| sequence == 7);
        assert!(!refusals.skips(&at(3)));
    }
}
