//! Records that the broker refuses: which must not be sent, and which are only suspected.
//!
//! A refusal is the record's fault only when others go through; when none does, the topic is at
//! fault and nothing may be put aside. So a refused record is first a suspect, which the next
//! transaction leaves out. When others go through without it, it gets a second hearing: the limit
//! may have been raised in between. Refused again, it goes to `dead/`.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::spool::Aside;

/// The refused records of the exposures that are on their way.
#[derive(Debug, Default)]
pub struct Refusals {
    buried: BTreeSet<Aside>,
    suspects: BTreeMap<Aside, Code>,
    accused: BTreeSet<Aside>,
}

impl Refusals {
    /// With the records that lie in `dead/` and whose exposures are not complete yet.
    pub fn new(buried: impl IntoIterator<Item = Aside>) -> Self {
        Self { buried: buried.into_iter().collect(), ..Self::default() }
    }

    /// Whether the record is left out of a transaction.
    pub fn skips(&self, at: &Aside) -> bool {
        self.buried.contains(at) || self.suspects.contains_key(at)
    }

    /// The broker refused `at`, and nothing tells whether it would take anything.
    pub fn suspect(&mut self, at: Aside, code: Code) {
        self.suspects.insert(at, code);
    }

    /// How many are suspected.
    pub fn suspected(&self) -> usize {
        self.suspects.len()
    }

    /// Why a suspect among the first records, up to the given number, of each of these exposures
    /// was refused.
    pub fn suspect_in(&self, steps: &BTreeMap<u64, (u32, bool)>) -> Option<Code> {
        let inside = |at: &Aside| steps.get(&at.sequence).is_some_and(|(settled, _)| at.number < *settled);
        self.suspects.iter().find(|(at, _)| inside(at)).map(|(_, code)| *code)
    }

    /// Others go through: the suspects are heard once more.
    pub fn accuse(&mut self) {
        self.accused.extend(std::mem::take(&mut self.suspects).into_keys());
    }

    /// Whether others went through since `at` was refused.
    pub fn is_accused(&self, at: &Aside) -> bool {
        self.accused.contains(at)
    }

    /// The record is in `dead/` now.
    pub fn bury(&mut self, at: Aside) {
        self.suspects.remove(&at);
        self.accused.remove(&at);
        self.buried.insert(at);
    }

    /// Nothing goes through at all: no record is to blame.
    pub fn acquit(&mut self) {
        self.suspects.clear();
        self.accused.clear();
    }

    /// Forgets what belongs to exposures that are complete.
    pub fn forget(&mut self, complete: impl Fn(u64) -> bool) {
        self.buried.retain(|at| !complete(at.sequence));
        self.accused.retain(|at| !complete(at.sequence));
        self.suspects.retain(|at, _| !complete(at.sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_is_left_out_heard_again_and_only_then_buried() {
        let at = |number| Aside { sequence: 7, number };
        let mut refusals = Refusals::new([at(1)]);
        refusals.suspect(at(3), Code::MessageSizeTooLarge);
        assert!(refusals.skips(&at(1)) && refusals.skips(&at(3)) && !refusals.skips(&at(2)));
        assert_eq!(refusals.suspect_in(&BTreeMap::from([(7, (3, false))])), None);
        assert_eq!(refusals.suspect_in(&BTreeMap::from([(7, (4, false))])), Some(Code::MessageSizeTooLarge));
        refusals.accuse();
        assert!(refusals.is_accused(&at(3)) && !refusals.skips(&at(3)), "it is sent once more");
        refusals.bury(at(3));
        assert_eq!((refusals.suspected(), refusals.skips(&at(3))), (0, true));
        refusals.forget(|sequence| sequence == 7);
        assert!(!refusals.skips(&at(3)));
    }

    #[test]
    fn when_nothing_goes_through_no_record_is_to_blame() {
        let at = Aside { sequence: 1, number: 0 };
        let mut refusals = Refusals::default();
        refusals.suspect(at, Code::MessageSizeTooLarge);
        refusals.acquit();
        assert!(!refusals.skips(&at) && !refusals.is_accused(&at));
    }
}
