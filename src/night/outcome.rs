//! What one exposure came to, and the line that says so.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::detect::Detections;
use crate::exposure::Exposure;

/// Seconds that each stage took for one exposure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSeconds {
    /// From disk to a raw frame.
    pub read: f64,
    /// Raw frame to calibrated frame.
    pub calibrate: f64,
    /// Finding the reference and laying it onto the exposure.
    pub register: f64,
    /// The difference image.
    pub subtract: f64,
    /// Finding and measuring candidates.
    pub detect: f64,
    /// History and packets.
    pub alert: f64,
    /// Until the alerts are durable.
    pub spool: f64,
}

impl StageSeconds {
    /// As a header of the alert tells it: the stages before its packet was made.
    pub fn until_packed(&self) -> String {
        format!(
            "read={:.3} calibrate={:.3} register={:.3} subtract={:.3} detect={:.3} alert={:.3}",
            self.read, self.calibrate, self.register, self.subtract, self.detect, self.alert
        )
    }

    /// All stages.
    pub fn total(&self) -> f64 {
        self.read + self.calibrate + self.register + self.subtract + self.detect + self.alert + self.spool
    }
}

/// What was found on an exposure that was subtracted.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// How the difference was made: "zogy" or "kernel-fit".
    pub method: &'static str,
    /// Candidates, those that a rule rejects included.
    pub candidates: usize,
    /// How many each rule rejected.
    pub rejected: BTreeMap<&'static str, usize>,
    /// Alerts that are durable in the spool.
    pub alerts: usize,
    /// FWHM of a star, arcseconds.
    pub seeing_arcsec: f64,
    /// 5σ limiting magnitude of the difference image.
    pub limit_mag: f64,
    /// Number of the exposure's file in the spool; `None` where there was nothing to keep.
    pub sequence: Option<u64>,
    /// What the operator should know of how it was made, sentences.
    pub warnings: Vec<String>,
}

impl Found {
    /// Counts what `detections` holds; `alerts` and `sequence` are for the later stages to fill in.
    pub fn of(detections: &Detections) -> Self {
        let mut rejected = BTreeMap::new();
        for rule in detections.candidates.iter().filter_map(|candidate| candidate.rejected) {
            *rejected.entry(rule.name()).or_insert(0) += 1;
        }
        Self {
            method: detections.conditions.method,
            candidates: detections.candidates.len(),
            rejected,
            alerts: 0,
            seeing_arcsec: detections.conditions.fwhm_px * detections.conditions.pixel_scale,
            limit_mag: detections.conditions.limit_mag,
            sequence: None,
            warnings: detections.conditions.warnings.clone(),
        }
    }
}

/// An exposure that is done: its alerts are durable, or this is why it makes none.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The exposure.
    pub exposure: Exposure,
    /// What each stage took.
    pub seconds: StageSeconds,
    /// What was found where it was subtracted, or the sentence that says why it was not.
    pub result: Result<Found, String>,
}

impl Outcome {
    /// Alerts that are durable.
    pub fn alerts(&self) -> usize {
        self.result.as_ref().map_or(0, |found| found.alerts)
    }

    /// What the operator should know of how the difference was made.
    pub fn warnings(&self) -> &[String] {
        self.result.as_ref().map_or(&[], |found| &found.warnings)
    }

    /// Why there are no alerts; `None` where there are.
    pub fn reason(&self) -> Option<String> {
        match &self.result {
            Err(reason) => Some(reason.clone()),
            Ok(found) if found.alerts == 0 && found.candidates == 0 => Some("nothing changed".into()),
            Ok(found) if found.alerts == 0 => Some(format!("no candidate passed ({})", rejections(found))),
            Ok(_) => None,
        }
    }
}

impl fmt::Display for Outcome {
    /// The line of the journal up to the state of spool and uplink.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (exposure, s) = (&self.exposure, &self.seconds);
        write!(f, "exposure {}", exposure.id)?;
        if !exposure.field.is_empty() {
            write!(f, " field {}", exposure.field)?;
        }
        write!(f, " {}: ", exposure.filter)?;
        let found = match &self.result {
            Ok(found) => found,
            Err(reason) => return write!(f, "no alerts: {reason}"),
        };
        write!(f, "{} candidates", found.candidates)?;
        if !found.rejected.is_empty() {
            write!(f, " ({})", rejections(found))?;
        }
        write!(
            f,
            ", {} alerts in {:.1} s (read {:.1} calibrate {:.1} register {:.1} subtract {:.1} detect {:.1} pack {:.1}), \
             limit {:.1}, seeing {:.1}\"",
            found.alerts,
            s.total(),
            s.read,
            s.calibrate,
            s.register,
            s.subtract,
            s.detect,
            s.alert + s.spool,
            found.limit_mag,
            found.seeing_arcsec,
        )
    }
}

fn rejections(found: &Found) -> String {
    let counts: Vec<String> = found.rejected.iter().map(|(rule, count)| format!("{count} {rule}")).collect();
    format!("rejected {}", counts.join(", "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::exposure::{ExposureId, FrameKind};
    use crate::time::NightName;

    /// An outcome with 796 alerts.
    pub fn outcome() -> Outcome {
        let start = "2026-11-23T04:12:00".parse().unwrap();
        let night = NightName::of(start, 0.0);
        Outcome {
            exposure: Exposure {
                id: ExposureId::new(night, start),
                night,
                kind: FrameKind::Light,
                start,
                exposure_s: 30.0,
                filter: "r".into(),
                field: "512".into(),
                pointing: None,
                temperature_c: None,
                file: "a.fits".into(),
            },
            seconds: StageSeconds {
                read: 0.2,
                calibrate: 0.1,
                register: 0.3,
                subtract: 0.5,
                detect: 0.1,
                alert: 0.15,
                spool: 0.05,
            },
            result: Ok(Found {
                method: "zogy",
                candidates: 812,
                rejected: BTreeMap::from([("dipole", 4), ("edge", 12)]),
                alerts: 796,
                seeing_arcsec: 2.1,
                limit_mag: 20.6,
                sequence: Some(7),
                warnings: Vec::new(),
            }),
        }
    }

    #[test]
    fn the_line_of_an_exposure_is_the_one_that_was_designed() {
        assert_eq!(
            outcome().to_string(),
            "exposure 20261123-041200 field 512 r: 812 candidates (rejected 4 dipole, 12 edge), 796 alerts in 1.4 s \
             (read 0.2 calibrate 0.1 register 0.3 subtract 0.5 detect 0.1 pack 0.2), limit 20.6, seeing 2.1\""
        );
    }

    #[test]
    fn an_exposure_without_alerts_says_why() {
        let mut outcome = outcome();
        outcome.result = Err("there is no reference of field 512 in r".into());
        assert!(outcome.to_string().ends_with("r: no alerts: there is no reference of field 512 in r"));
        assert_eq!(outcome.alerts(), 0);
    }
}
