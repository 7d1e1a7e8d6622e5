//! What is known of one exposure, from the camera to the alert.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::{Mjd, NightName};

/// The stable name of an exposure: the night and the UTC time of day at which the shutter opened,
/// `20261124-031522` (with `.120` where there are milliseconds).
///
/// A function of the exposure alone, so that a second run gives the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExposureId(String);

impl ExposureId {
    /// The name of the exposure that began at `start` in `night`.
    pub fn new(night: NightName, start: Mjd) -> Self {
        let iso = start.to_string();
        let time: String = iso.split('T').nth(1).unwrap_or("").replace(':', "");
        Self(format!("{night}-{}", time.trim_end_matches(".000")))
    }

    /// A name read back from disk.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The night in the name; `None` where the name is not one of ours.
    pub fn night(&self) -> Option<NightName> {
        self.0.split_once('-')?.0.parse().ok()
    }

    /// The name as text; safe as a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExposureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a frame was taken for; `IMAGETYP` routes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// Zero exposure.
    Bias,
    /// Shutter closed.
    Dark,
    /// Uniformly lit.
    Flat,
    /// The sky: goes to the pipeline.
    Light,
    /// Focus, test or pointing: kept and nothing else.
    Other,
}

impl FrameKind {
    /// From the value of `IMAGETYP` or `OBSTYPE`, in any case, with or without " Frame".
    pub fn from_keyword(value: &str) -> Self {
        let lower = value.trim().to_ascii_lowercase();
        let word = lower.trim_end_matches("frame").trim_end_matches(['_', '-', ' ']);
        match word {
            "bias" | "zero" => Self::Bias,
            "dark" => Self::Dark,
            "flat" | "flatfield" | "flat field" | "skyflat" | "sky flat" | "domeflat" | "dome flat" | "twiflat"
            | "twilight flat" | "twilight" => Self::Flat,
            "light" | "object" | "science" | "sci" | "obj" => Self::Light,
            _ => Self::Other,
        }
    }
}

/// Everything about an exposure that is not pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposure {
    /// Stable name.
    pub id: ExposureId,
    /// The night it belongs to.
    pub night: NightName,
    /// What it was taken for.
    pub kind: FrameKind,
    /// Shutter open, UTC.
    pub start: Mjd,
    /// Open-shutter time, seconds.
    pub exposure_s: f64,
    /// Filter as the camera names it.
    pub filter: String,
    /// Field as the header names it; empty when it does not.
    pub field: String,
    /// Pointing (right ascension, declination), degrees, ICRS, when the header gives one.
    pub pointing: Option<(f64, f64)>,
    /// Detector temperature, Celsius.
    pub temperature_c: Option<f64>,
    /// Name of the file that it came in, for reports.
    pub file: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_kinds_are_read_in_any_case_and_with_the_word_frame() {
        assert_eq!(FrameKind::from_keyword("Light Frame"), FrameKind::Light);
        assert_eq!(FrameKind::from_keyword("BIAS"), FrameKind::Bias);
        assert_eq!(FrameKind::from_keyword("flat"), FrameKind::Flat);
        assert_eq!(FrameKind::from_keyword("focus"), FrameKind::Other);
    }

    #[test]
    fn an_exposure_is_named_by_its_night_and_the_time_of_its_start() {
        let start: Mjd = "2026-11-24T03:15:22.12".parse().unwrap();
        let night = NightName::of(start, 0.0);
        let id = ExposureId::new(night, start);
        assert_eq!(id.as_str(), "20261124-031522.120");
        assert_eq!(id.night(), Some(night));
    }
}
