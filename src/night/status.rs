//! The state of the night, as `nightjar status`, systemd's STATUS line and the status file show it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::outcome::Outcome;
use crate::service::events;
use crate::time::Mjd;

/// The whole state; `/run/nightjar/status.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// When the daemon started, UTC.
    pub started: String,
    /// When this was written, UTC; older than a few seconds means that the daemon does not run.
    pub updated: String,
    /// "ready", "stopping" or "stopped".
    pub state: String,
    /// What frames come from, and what is the matter with it.
    pub camera: String,
    /// Whether the camera is there.
    pub camera_ok: bool,
    /// Temperature of the detector, Celsius, where the camera says it.
    pub camera_temperature_c: Option<f64>,
    /// Frames that a wired camera has sent since the start.
    pub frames_read: u64,
    /// Exposures that did not come from the camera since the start.
    pub frames_missed: u64,
    /// The last of them, and why.
    pub last_missed: String,
    /// Exposures of the cadence that could not be started in time since the start.
    pub cadence_skipped: u64,
    /// Why no exposures are started; empty when they are.
    pub no_exposures: String,
    /// Why frames cannot be kept; empty when they can.
    pub disk_trouble: String,
    /// Exposures that are done since the start.
    pub exposures: u64,
    /// Those of them that made alerts.
    pub exposures_with_alerts: u64,
    /// Frames in the journal that wait for the pipeline.
    pub frames_waiting: u64,
    /// Why the frame in hand cannot be finished; empty when it can.
    pub held: String,
    /// Candidates since the start.
    pub candidates: u64,
    /// Alerts since the start that are durable.
    pub alerts: u64,
    /// The last exposure's line.
    pub last: String,
    /// Exposures in the spool that Kafka has not got.
    pub spool_exposures: u64,
    /// Alerts in the spool that Kafka has not got.
    pub spool_alerts: u64,
    /// Their size, bytes.
    pub spool_bytes: u64,
    /// Alerts that the broker refused for ever, in `dead/`.
    pub dead: u64,
    /// Alerts that Kafka has acknowledged since the start.
    pub acknowledged: u64,
    /// Age of the oldest exposure that Kafka has not got, seconds; 0 without one.
    pub backlog_age_s: f64,
    /// State of the uplink, a word: connecting, ok, away, held, stopped.
    pub uplink: String,
    /// The last trouble of the uplink, with what to do; empty while all is well.
    pub uplink_trouble: String,
    /// What Kafka promises: exactly-once or idempotent.
    pub delivery: String,
    /// Room on the disk of the spool, bytes.
    pub disk_free_bytes: u64,
    /// For how many nights it is enough, by the fullest night in the frame journal; absent before the
    /// first.
    pub disk_nights: Option<f64>,
    /// Seconds from the closed shutter of the last exposure with alerts until they were durable.
    pub last_latency_s: Option<f64>,
    /// Whether the kernel says that its clock is synchronised; absent where it does not say.
    pub clock_synchronised: Option<bool>,
    /// Largest resident memory, MB.
    pub peak_rss_mb: Option<f64>,
}

impl Status {
    /// The line for `systemctl status`: `exposure 20261124-031522 · 812 candidates · spool 0 · uplink ok`.
    pub fn line(&self) -> String {
        let exposure = self.last.split(':').next().filter(|text| !text.is_empty()).unwrap_or("no exposure yet");
        let mut line =
            format!("{exposure} · {} alerts · spool {} · uplink {}", self.alerts, self.spool_exposures, self.uplink);
        if self.frames_waiting > 0 {
            line += &format!(" · {} frames wait", self.frames_waiting);
        }
        if !self.held.is_empty() {
            line += &format!(" · {}", self.held);
        }
        line
    }
}

/// The state while it changes; the pipeline writes, the main thread reads.
#[derive(Debug, Default)]
pub struct Board {
    status: Mutex<Status>,
    figures: Mutex<Figures>,
}

impl Board {
    /// A board of a daemon that started at `started`.
    pub fn new(started: Mjd, camera: &str) -> Self {
        let status = Mutex::new(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: started.to_string(),
            state: "ready".into(),
            camera: camera.to_owned(),
            ..Status::default()
        });
        Self { status, figures: Mutex::default() }
    }

    /// An exposure is done at `now`.
    pub fn done(&self, outcome: &Outcome, now: Mjd) {
        let latency = self.figures(|figures| {
            figures.done(outcome, now);
            figures.last_latency_s()
        });
        let mut status = self.status();
        status.last_latency_s = latency;
        status.exposures += 1;
        status.exposures_with_alerts += u64::from(outcome.alerts() > 0);
        status.candidates += outcome.result.as_ref().map_or(0, |found| found.candidates as u64);
        status.alerts += outcome.alerts() as u64;
        status.last = outcome.to_string();
        status.held.clear();
    }

    /// The disk took a frame; said when it did not before.
    pub fn disk_takes_frames(&self) {
        let trouble = std::mem::take(&mut self.status().disk_trouble);
        if !trouble.is_empty() {
            tracing::info!(message_id = events::FRAMES_TAKEN, "frames are kept again");
        }
    }

    /// The disk did not take a frame; said once. `meanwhile` tells where frames are until it does.
    pub fn disk_refuses_frames(&self, reason: &str, meanwhile: &str) {
        let before = std::mem::replace(&mut self.status().disk_trouble, reason.to_owned());
        if before.is_empty() {
            tracing::error!(
                message_id = events::FRAMES_REFUSED,
                "no frame can be kept: {reason}; make room or look at the disk, {meanwhile}"
            );
        }
    }

    /// Changes something.
    pub fn set(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status());
    }

    /// The state now.
    pub fn now(&self) -> Status {
        self.status().clone()
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        // Each field is whole whatever a thread died of.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the durations, or adds to them.
    pub fn figures<T>(&self, look: impl FnOnce(&mut Figures) -> T) -> T {
        look(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that Prometheus gets.
    pub fn exposition(&self) -> String {
        let status = self.now();
        self.figures(|figures| figures.exposition(&status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::night::outcome::tests::outcome;

    #[test]
    fn the_line_for_systemctl_can_be_read_by_a_person() {
        let board = Board::new(Mjd(60_000.0), "folder /data/camera");
        board.set(|status| status.uplink = "ok".into());
        assert_eq!(board.now().line(), "no exposure yet · 0 alerts · spool 0 · uplink ok");
        board.done(&outcome(), Mjd(60_000.0));
        board.set(|status| status.frames_waiting = 3);
        assert_eq!(
            board.now().line(),
            "exposure 20261123-041200 field 512 r · 796 alerts · spool 0 · uplink ok · 3 frames wait"
        );
        let text = serde_json::to_string(&board.now()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), board.now());
    }
}
