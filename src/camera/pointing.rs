//! What the pointing command says of the telescope, and when exposures are due.

use serde::Deserialize;

use crate::fits::Header;

/// What the program of `[telescope] pointing_command` prints, as JSON. Everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pointing {
    /// Right ascension, degrees, ICRS.
    pub ra: Option<f64>,
    /// Declination, degrees, ICRS.
    pub dec: Option<f64>,
    /// Airmass.
    pub airmass: Option<f64>,
    /// Rotator angle, degrees.
    pub rotator: Option<f64>,
    /// "east" or "west".
    pub pier_side: Option<String>,
    /// Whether the mount tracks.
    pub tracking: Option<bool>,
    /// "open" or "closed".
    pub roof: Option<String>,
    /// Name of the field.
    pub field: Option<String>,
    /// Filter.
    pub filter: Option<String>,
}

impl Pointing {
    /// From what the program printed.
    ///
    /// # Errors
    ///
    /// When it is no JSON object of this form, or a place that is not on the sky.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pointing: Self = serde_json::from_str(text.trim()).map_err(|e| {
            format!(
                "prints no JSON such as {{\"ra\": 10.68, \"dec\": 41.27, \"tracking\": true, \"roof\": \"open\"}} ({e})"
            )
        })?;
        let on_sky = pointing.ra.is_none_or(|ra| (-360.0..=360.0).contains(&ra))
            && pointing.dec.is_none_or(|dec| (-90.0..=90.0).contains(&dec));
        if on_sky { Ok(pointing) } else { Err("names a place that is not on the sky".into()) }
    }

    /// Why there is to be no exposure now; `None` when there is.
    pub fn reason_to_wait(&self) -> Option<&'static str> {
        let roof_closed = self.roof.as_deref().is_some_and(|roof| !roof.eq_ignore_ascii_case("open"));
        match (roof_closed, self.tracking) {
            (true, _) => Some("the roof is closed"),
            (_, Some(false)) => Some("the telescope does not track"),
            _ => None,
        }
    }

    /// Writes what is known into a frame's header, over what the camera said.
    pub fn write(&self, header: &mut Header) {
        let numbers = [
            ("RA", self.ra, "degrees, from the pointing command"),
            ("DEC", self.dec, "degrees, from the pointing command"),
            ("AIRMASS", self.airmass, ""),
            ("ROTATOR", self.rotator, "degrees"),
        ];
        for (keyword, value, comment) in numbers {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                header.set(keyword, value, comment);
            }
        }
        for (keyword, text) in [("PIERSIDE", &self.pier_side), ("FIELDID", &self.field), ("FILTER", &self.filter)] {
            if let Some(text) = text {
                header.set(keyword, text.as_str(), "");
            }
        }
    }
}

/// When exposures are due: one every so many seconds, whatever happens in between.
#[derive(Debug, Clone, Copy)]
pub struct Cadence {
    every_s: f64,
    due_s: f64,
}

impl Cadence {
    /// The first one is due at once, at `now_s` of any steady clock.
    pub fn new(every_s: f64, now_s: f64) -> Self {
        Self { every_s, due_s: now_s }
    }

    /// Seconds from one to the next.
    pub fn every_s(&self) -> f64 {
        self.every_s
    }

    /// Whether one is due. Ones that are past by more than a whole cadence are no longer due: gives
    /// their number, which is 0 where all is well.
    pub fn due(&mut self, now_s: f64) -> Option<u64> {
        if now_s < self.due_s {
            return None;
        }
        let past = ((now_s - self.due_s) / self.every_s).floor();
        self.due_s += past * self.every_s;
        Some(past as u64)
    }

    /// The one that was due is under way, or will not be.
    pub fn next(&mut self) {
        self.due_s += self.every_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_roof_or_a_mount_that_stands_is_a_reason_to_wait_and_silence_is_none() {
        let reason = |text: &str| Pointing::parse(text).unwrap().reason_to_wait();
        assert_eq!(reason(r#"{"roof": "closed", "tracking": true}"#), Some("the roof is closed"));
        assert_eq!(reason(r#"{"roof": "OPEN", "tracking": false}"#), Some("the telescope does not track"));
        assert_eq!(reason(r#"{"ra": 10, "dec": 41, "other": 3}"#), None);
        for wrong in ["", "ra=3", r#"{"ra": "x"}"#, r#"{"dec": 91}"#] {
            assert!(Pointing::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_known_stands_in_the_header_of_the_frame() {
        let mut header = Header::new();
        header.set("RA", 1.0, "");
        Pointing::parse(r#"{"ra": 10.5, "dec": -3, "pier_side": "west", "field": "512"}"#).unwrap().write(&mut header);
        assert_eq!((header.number(&["RA"]), header.number(&["DEC"])), (Some(10.5), Some(-3.0)));
        assert_eq!(header.text(&["FIELDID"]).as_deref(), Some("512"));
        assert_eq!(header.get("AIRMASS"), None);
    }

    #[test]
    fn a_late_exposure_is_taken_and_those_before_it_are_counted() {
        let mut cadence = Cadence::new(45.0, 100.0);
        assert_eq!(cadence.due(100.0), Some(0));
        cadence.next();
        assert_eq!((cadence.due(144.9), cadence.due(145.0)), (None, Some(0)));
        cadence.next();
        // Three minutes away: those due at 190, 235 and 280 are gone, that of 325 is due.
        assert_eq!(cadence.due(330.0), Some(3));
        cadence.next();
        assert_eq!((cadence.due(369.0), cadence.due(370.0)), (None, Some(0)));
    }
}
