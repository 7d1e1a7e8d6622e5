//! The fields of the nearest known asteroid.

use super::record::CandidateRecord;
use super::{AlertParameters, Detections};
use crate::asteroids::Asteroid;
use crate::catalogue::separation;

/// An asteroid is the candidate's within this, arcsec.
const NEAR: f64 = 30.0;

/// The asteroids on and around the exposure in the middle of its open-shutter time; none without an orbit catalogue.
pub(super) fn on_exposure(seen: &Detections, parameters: &AlertParameters) -> Vec<Asteroid> {
    let Some(asteroids) = &parameters.asteroids else { return Vec::new() };
    let places: Vec<(f64, f64)> =
        seen.accepted().map(|c| (c.ra, c.dec)).filter(|(ra, dec)| (ra + dec).is_finite()).collect();
    // The circle about the first candidate that holds them all is at most twice as wide as it need be.
    let Some(centre) = places.first() else { return Vec::new() };
    let radius = places.iter().map(|place| separation(*centre, *place)).fold(0.0, f64::max);
    let middle = seen.exposure.start.plus_seconds(0.5 * seen.exposure.exposure_s);
    asteroids.near(middle, *centre, radius + NEAR / 3600.0)
}

/// Fills the fields that tell of the nearest of `known`.
pub(super) fn fill(record: &mut CandidateRecord, known: &[Asteroid]) {
    let distance = |asteroid: &Asteroid| separation((record.ra, record.dec), (asteroid.ra, asteroid.dec)) * 3600.0;
    let nearest = known.iter().map(|a| (distance(a), a)).min_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((arcsec, asteroid)) = nearest.filter(|(arcsec, _)| *arcsec <= NEAR) {
        record.ssdistnr = Some(arcsec as f32);
        record.ssmagnr = Some(asteroid.mag as f32).filter(|m| m.is_finite());
        record.ssnamenr = Some(asteroid.name.clone());
    }
}
