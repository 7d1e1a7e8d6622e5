//! The night: the stages joined, and no arithmetic.
//!
//! ```text
//!            prepare, on a thread of its own        finish
//!  queue ──► read ─► calibrate ──(one frame)──► register ─► subtract ─► detect ─► packets ─► spool ─► ledger
//! ```
//!
//! While one frame is subtracted the next one is read and calibrated ([`belt`]). A recorded night
//! ([`rehearsal`]) and the daemon ([`daemon`]) run through this same code; they differ in where
//! frames come from and in what happens when something outside an exposure is in its way.
//!
//! An exposure ends in an [`Outcome`] (it is done: alerts, or why not) or is [`Held`] (it is not
//! done, and is tried again). What is wrong with one exposure, a defect of the program included, is
//! its reason and never stops the night.

pub mod belt;
pub mod bootstrap;
pub mod candidates;
pub mod compare;
pub mod daemon;
pub mod daemon_error;
pub mod fallbacks;
pub mod figures;
pub mod intake;
pub mod keeping;
mod layers_on_disk;
pub mod leavings;
pub mod master_builder;
pub mod outcome;
pub mod queue;
pub mod reference_builder;
pub mod rehearsal;
pub mod science;
pub mod site_check;
pub mod standards;
pub mod status;
pub mod trigger;
pub mod uplink_check;
pub mod values;
pub mod wired;
pub mod wired_frame;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::alert::Alert;
use crate::calibrate::CalibratedFrame;
use crate::exposure::Exposure;
use crate::service::{Hearts, Stopwatch, clock};
use compare::Compared;
use intake::Waiting;
use keeping::{Held, Keeping};
use leavings::Leavings;
use outcome::{Found, Outcome, StageSeconds};
use science::Science;

/// Everything that an exposure goes through.
pub struct Night {
    science: RwLock<Arc<Science>>,
    keeping: Keeping,
    hearts: Hearts,
    leavings: Option<Mutex<Leavings>>,
}

/// A frame that is read and calibrated, or the reason why it is not.
pub struct Prepared {
    /// The frame as it came.
    pub waiting: Waiting,
    seconds: StageSeconds,
    frame: Result<CalibratedFrame, String>,
}

impl Night {
    /// Joins the stages. A rehearsal leaves files in `leavings`.
    pub fn new(science: Science, keeping: Keeping, hearts: Hearts, leavings: Option<Leavings>) -> Self {
        Self { science: RwLock::new(Arc::new(science)), keeping, hearts, leavings: leavings.map(Mutex::new) }
    }

    /// Names, packets, spool and ledger.
    pub fn keeping(&self) -> &Keeping {
        &self.keeping
    }

    /// Other masters and references from the next frame on.
    pub fn replace_science(&self, science: Science) {
        *self.science.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(science);
    }

    /// Builds the references of fields that have frames enough; `say` hears of each. Gives their number.
    pub fn build_references(&self, say: &dyn Fn(&str)) -> usize {
        self.science().build_references(say)
    }

    /// Takes the files of a rehearsal back, to finish them.
    pub fn into_leavings(self) -> Option<Leavings> {
        self.leavings.map(|leavings| leavings.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first half: read and calibrate.
    pub fn prepare(&self, waiting: Waiting) -> Prepared {
        let science = self.science();
        let (mut seconds, mut clock) = (StageSeconds::default(), Stopwatch::start());
        let raw = {
            let _beat = self.hearts.begin("read", &waiting.kept.id);
            guarded(|| science.read(&waiting))
        };
        seconds.read = clock.lap();
        let frame = raw.and_then(|raw| {
            let _beat = self.hearts.begin("calibrate", &waiting.kept.id);
            guarded(|| science.calibrate(raw))
        });
        seconds.calibrate = clock.lap();
        Prepared { waiting, seconds, frame }
    }

    /// The first half of an exposure that is not looked at: [`Night::finish`] writes the reason down.
    pub fn refuse(waiting: Waiting, reason: String) -> Prepared {
        Prepared { waiting, seconds: StageSeconds::default(), frame: Err(reason) }
    }

    /// The second half: from the calibrated frame to durable alerts.
    ///
    /// # Errors
    ///
    /// When something outside the exposure is in its way: it is not done.
    pub fn finish(&self, prepared: &mut Prepared) -> Result<Outcome, Held> {
        let science = self.science();
        let room = self.keeping.reserve()?;
        let frame = std::mem::replace(&mut prepared.frame, Err("the frame was used".into()));
        let compared = frame.and_then(|frame| {
            let _beat = self.hearts.begin("subtract", &prepared.waiting.kept.id);
            guarded(|| science.compare(frame))
        });
        let compared = match compared {
            Ok(compared) => compared,
            Err(reason) => return self.without_alerts(prepared, reason),
        };
        let Compared { images, detections, seconds: compared } = compared;
        // Only a rehearsal leaves images behind: without one they go before the packets are made.
        let images = self.leavings.is_some().then_some(images);
        let seconds = &mut prepared.seconds;
        [seconds.register, seconds.subtract, seconds.detect] = compared;
        let mut watch = Stopwatch::start();
        let _beat = self.hearts.begin("alert", &prepared.waiting.kept.id);
        let mut alerts = match self.keeping.packets(&detections)? {
            Ok(alerts) => alerts,
            Err(error) => return self.without_alerts(prepared, error.to_string()),
        };
        seconds.alert = watch.lap();
        latency_headers(&mut alerts, &detections.exposure, seconds);
        if let (Some(leavings), Some(images)) = (&self.leavings, images) {
            leavings.lock().unwrap_or_else(PoisonError::into_inner).add(&detections, &images, &alerts)?;
        }
        watch.lap();
        let mut found = Found::of(&detections);
        found.alerts = alerts.len();
        found.sequence = self.keeping.keep(room, &detections, alerts)?;
        seconds.spool = watch.lap();
        Ok(Outcome { exposure: detections.exposure, seconds: *seconds, result: Ok(found) })
    }

    fn without_alerts(&self, prepared: &Prepared, reason: String) -> Result<Outcome, Held> {
        let exposure = prepared.waiting.exposure.clone();
        self.keeping.close_without_alerts(&exposure, &reason)?;
        Ok(Outcome { exposure, seconds: prepared.seconds, result: Err(reason) })
    }

    fn science(&self) -> Arc<Science> {
        self.science.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tells in the headers of each alert when the shutter closed, when the packet was made, and what the
/// stages took in between.
fn latency_headers(alerts: &mut [Alert], exposure: &Exposure, seconds: &StageSeconds) {
    let closed = exposure.start.plus_seconds(exposure.exposure_s);
    let headers = [
        ("shutter_closed", closed.to_string()),
        ("packed", clock::now().to_string()),
        ("stage_seconds", seconds.until_packed()),
    ];
    for alert in alerts {
        alert.headers.extend(headers.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())));
    }
}

/// Runs a stage so that a defect in it costs this exposure and not the night.
fn guarded<T>(stage: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(stage)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("a defect of nightjar: {}; keep the frame and report it", said.unwrap_or("no message")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_in_a_stage_is_the_exposures_reason() {
        let reason = guarded::<()>(|| panic!("index {} out of bounds", 7)).unwrap_err();
        assert!(reason.contains("index 7 out of bounds") && reason.contains("report it"));
        assert_eq!(guarded(|| Ok(1)), Ok(1));
    }
}
