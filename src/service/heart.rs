//! Progress, as the watchdog sees it.
//!
//! A stage that has work begins a [`Beat`] and drops it when the work is done. While no beat is
//! past its deadline the service is healthy, whether or not anything happens: a quiet night, a
//! closed roof or a day without frames is. A hung stage is not, and systemd restarts the service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock::Stopwatch;
use crate::exposure::ExposureId;

/// The work in hand, stage by stage; clones share it.
#[derive(Debug, Clone)]
pub struct Hearts {
    deadline: Duration,
    at_work: Arc<Mutex<Working>>,
}

#[derive(Debug, Default)]
struct Working {
    next: u64,
    beats: HashMap<u64, (Work, Stopwatch)>,
}

/// What a stage works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The stage.
    pub stage: &'static str,
    /// The exposure.
    pub exposure: ExposureId,
}

/// A piece of work in hand; dropping it says that it is done.
#[derive(Debug)]
pub struct Beat {
    hearts: Hearts,
    number: u64,
}

impl Hearts {
    /// No work in hand; a stage that takes longer than `deadline` for a piece of work hangs.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline, at_work: Arc::default() }
    }

    /// `stage` begins to work on `exposure`.
    pub fn begin(&self, stage: &'static str, exposure: &ExposureId) -> Beat {
        let mut working = self.working();
        let number = working.next;
        working.next += 1;
        working.beats.insert(number, (Work { stage, exposure: exposure.clone() }, Stopwatch::start()));
        drop(working);
        Beat { hearts: self.clone(), number }
    }

    /// Work that is past its deadline.
    pub fn hung(&self) -> Option<Work> {
        self.working().beats.values().find(|(_, since)| since.elapsed() > self.deadline).map(|(work, _)| work.clone())
    }

    /// How long a piece of work may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    fn working(&self) -> MutexGuard<'_, Working> {
        // The table is whole whatever a thread died of.
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.hearts.working().beats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_day_is_healthy_and_a_hung_stage_is_not() {
        let hearts = Hearts::new(Duration::ZERO);
        assert_eq!(hearts.hung(), None);
        let exposure = ExposureId::from_stored("20261124-031522");
        let beat = hearts.begin("subtract", &exposure);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(hearts.hung(), Some(Work { stage: "subtract", exposure }));
        drop(beat);
        assert_eq!(hearts.hung(), None);
    }
}
