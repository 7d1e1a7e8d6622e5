//! How long things take: stages, and the way from the closed shutter to durable and to acknowledged.

use std::collections::{BTreeMap, VecDeque};

use super::outcome::Outcome;
use super::status::Status;
use crate::service::metrics::{Exposition, Histogram};
use crate::time::Mjd;

/// Exposures that wait for Kafka's acknowledgement and are followed; beyond that the oldest are not.
const FOLLOWED: usize = 10_000;
/// How many of the oldest and of the newest are looked at at a time.
const LOOKED_AT: usize = 50;
/// A shutter that closed longer ago than this belongs to a recording, seconds.
const TOO_OLD_S: f64 = 86_400.0;

/// Durations since the start.
#[derive(Debug, Default)]
pub struct Figures {
    stages: BTreeMap<&'static str, Histogram>,
    durable: Histogram,
    acknowledged: Histogram,
    waiting: VecDeque<Sent>,
    last_latency_s: Option<f64>,
}

/// Alerts on their way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    sequence: u64,
    closed: Mjd,
    alerts: u64,
}

impl Figures {
    /// An exposure is done at `now`.
    pub fn done(&mut self, outcome: &Outcome, now: Mjd) {
        let s = &outcome.seconds;
        let stages = [
            ("read", s.read),
            ("calibrate", s.calibrate),
            ("register", s.register),
            ("subtract", s.subtract),
            ("detect", s.detect),
            ("alert", s.alert),
            ("spool", s.spool),
        ];
        if outcome.result.is_ok() {
            stages.into_iter().for_each(|(stage, seconds)| self.stages.entry(stage).or_default().add(seconds, 1));
        }
        let closed = outcome.exposure.start.plus_seconds(outcome.exposure.exposure_s);
        let seconds = now.seconds_since(closed);
        let alerts = outcome.alerts() as u64;
        if !(0.0..TOO_OLD_S).contains(&seconds) || alerts == 0 {
            return;
        }
        self.last_latency_s = Some(seconds);
        self.durable.add(seconds, alerts);
        if let Some(sequence) = outcome.result.as_ref().ok().and_then(|found| found.sequence) {
            if self.waiting.len() == FOLLOWED {
                self.waiting.pop_front();
            }
            self.waiting.push_back(Sent { sequence, closed, alerts });
        }
    }

    /// Looks which exposures Kafka has acknowledged by `now`; `waits` says whether one still waits.
    pub fn acknowledge(&mut self, now: Mjd, waits: impl Fn(u64) -> bool) {
        let acknowledged = &mut self.acknowledged;
        let (mut index, behind) = (0, self.waiting.len().saturating_sub(LOOKED_AT));
        self.waiting.retain(|sent| {
            index += 1;
            // A backlog is sent from either end; its middle is looked at when it has become one.
            if index > LOOKED_AT && index <= behind {
                return true;
            }
            let still = waits(sent.sequence);
            if !still {
                acknowledged.add(now.seconds_since(sent.closed).max(0.0), sent.alerts);
            }
            still
        });
    }

    /// Seconds from the closed shutter of the last exposure with alerts until they were durable.
    pub fn last_latency_s(&self) -> Option<f64> {
        self.last_latency_s
    }

    /// Everything that Prometheus gets.
    pub fn exposition(&self, status: &Status) -> String {
        let mut text = Exposition::default();
        text.counter("exposures_total", "Exposures that are done since the start.", status.exposures)
            .counter("exposures_with_alerts_total", "Those of them that made alerts.", status.exposures_with_alerts)
            .counter("exposures_missed_total", "Exposures that did not come from the camera.", status.frames_missed)
            .counter(
                "exposures_skipped_total",
                "Exposures of the cadence that were not started.",
                status.cadence_skipped,
            )
            .counter("candidates_total", "Candidates since the start.", status.candidates)
            .counter("alerts_durable_total", "Alerts that are durable since the start.", status.alerts)
            .counter(
                "alerts_acknowledged_total",
                "Alerts that Kafka acknowledged since the start.",
                status.acknowledged,
            )
            .counter("alerts_dead_total", "Alerts that the broker refused for ever.", status.dead)
            .gauge("frames_waiting", "Frames in the journal that wait for the pipeline.", status.frames_waiting as f64)
            .gauge("backlog_exposures", "Exposures that Kafka has not got.", status.spool_exposures as f64)
            .gauge("backlog_alerts", "Alerts that Kafka has not got.", status.spool_alerts as f64)
            .gauge("backlog_bytes", "Their size.", status.spool_bytes as f64)
            .gauge("backlog_age_seconds", "Age of the oldest exposure of the backlog.", status.backlog_age_s)
            .gauge("disk_free_bytes", "Room on the disk of the spool.", status.disk_free_bytes as f64)
            .gauge(
                "disk_free_nights",
                "Nights for which it is enough; NaN before the first.",
                status.disk_nights.unwrap_or(f64::NAN),
            )
            .gauge(
                "resident_memory_peak_bytes",
                "Largest resident memory.",
                status.peak_rss_mb.unwrap_or(f64::NAN) * 1e6,
            )
            .gauge("camera_up", "1 while the camera is there.", f64::from(u8::from(status.camera_ok)))
            .gauge(
                "clock_synchronised",
                "1 while the kernel says so.",
                status.clock_synchronised.map_or(f64::NAN, |is| f64::from(u8::from(is))),
            )
            .state(
                "uplink_state",
                "State of the uplink.",
                &["connecting", "ok", "away", "held", "stopped"],
                &status.uplink,
            )
            .state("delivery", "What Kafka promises.", &["exactly-once", "idempotent"], &status.delivery)
            .histograms("stage_seconds", "Seconds of a stage.", "stage", self.stages.iter().map(|(name, h)| (*name, h)))
            .histograms(
                "alert_latency_seconds",
                "Seconds from the closed shutter to the alert.",
                "until",
                [("durable", &self.durable), ("acknowledged", &self.acknowledged)],
            );
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::night::outcome::tests::outcome;

    #[test]
    fn latency_counts_from_the_closed_shutter_to_durable_and_to_acknowledged() {
        let (mut figures, outcome) = (Figures::default(), outcome());
        let closed = outcome.exposure.start.plus_seconds(30.0);
        figures.done(&outcome, closed.plus_seconds(2.0));
        assert!((figures.last_latency_s().unwrap() - 2.0).abs() < 1e-3);
        figures.acknowledge(closed.plus_seconds(3.0), |_| true);
        figures.acknowledge(closed.plus_seconds(8.0), |sequence| sequence != 7);
        let text = figures.exposition(&Status::default());
        assert!(text.contains("alert_latency_seconds_bucket{until=\"durable\",le=\"3\"} 796"), "{text}");
        assert!(text.contains("alert_latency_seconds_bucket{until=\"acknowledged\",le=\"5\"} 0"));
        assert!(text.contains("alert_latency_seconds_bucket{until=\"acknowledged\",le=\"10\"} 796"));
        assert!(text.contains("stage_seconds_count{stage=\"subtract\"} 1"));
    }

    #[test]
    fn a_recording_of_another_day_has_no_latency() {
        let (mut figures, outcome) = (Figures::default(), outcome());
        figures.done(&outcome, outcome.exposure.start.plus_seconds(10.0 * 86_400.0));
        assert_eq!(figures.last_latency_s(), None);
    }
}
