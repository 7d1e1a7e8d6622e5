//! What surrounds a candidate: the nearest source of the reference, the zero point, the limit.

use super::Neighbour;
use super::photometry::Standard;
use crate::register::stars::{Star, StarList};
use crate::register::{MatchedStar, Registration};
use crate::wcs::Wcs;

/// Signal to noise from which a star's photons hide nothing else.
const BRIGHT: f64 = 100.0;

/// What the reference knows, as the measurement needs it.
#[derive(Debug, Clone, Copy)]
pub struct ReferenceContext<'a> {
    /// Its stars.
    pub stars: &'a StarList,
    /// Its celestial coordinates; without them positions on the sky are not a number.
    pub wcs: Option<&'a Wcs>,
    /// Magnitude of one electron of the reference, and its error.
    pub zero_point: (f64, f64),
    /// Identifier (`rfid`).
    pub id: i64,
    /// First and last exposure, JD.
    pub jd: (f64, f64),
    /// Frames.
    pub frames: i32,
    /// Stars of known magnitude on it; empty without a star catalogue.
    pub standards: &'a [Standard],
}

impl ReferenceContext<'_> {
    /// Right ascension and declination of a pixel of the reference, degrees.
    pub fn sky(&self, x: f64, y: f64) -> (f64, f64) {
        self.wcs.map_or((f64::NAN, f64::NAN), |wcs| wcs.pixel_to_sky(x, y))
    }
}

/// The reference's sources, sorted for look-ups, with their PSF magnitudes.
pub struct Neighbours<'a> {
    context: &'a ReferenceContext<'a>,
    by_x: Vec<&'a Star>,
    /// PSF flux over aperture flux of stars.
    aperture_correction: f64,
    /// Scatter of that among bright stars beyond their photons, as a part: what the one correction of all is wrong by.
    correction_scatter: f64,
    /// Typical size of stars.
    star_size: f64,
}

impl<'a> Neighbours<'a> {
    /// Prepares the look-ups.
    pub fn new(context: &'a ReferenceContext<'a>, registration: &Registration) -> Self {
        let mut by_x: Vec<&Star> = context.stars.stars.iter().collect();
        by_x.sort_by(|a, b| a.x.total_cmp(&b.x));
        let mut neighbours = Self { context, by_x, aperture_correction: 1.0, correction_scatter: 0.0, star_size: 1.0 };
        let on_reference: Vec<(&Star, &MatchedStar)> = registration
            .matched
            .iter()
            .filter_map(|m| neighbours.nearest(m.reference_x, m.reference_y, 1.0).map(|(_, star)| (star, m)))
            .collect();
        let correction = median(on_reference.iter().map(|(star, m)| m.reference_flux / star.flux).collect());
        let size = median(on_reference.iter().map(|(star, _)| star.size).collect());
        neighbours.aperture_correction = correction.unwrap_or(1.0);
        let off = on_reference
            .iter()
            .filter(|(star, _)| star.snr > BRIGHT)
            .map(|(star, m)| (m.reference_flux / (star.flux * neighbours.aperture_correction) - 1.0).abs());
        neighbours.correction_scatter = 1.4826 * median(off.collect()).unwrap_or(0.0);
        neighbours.star_size = size.unwrap_or(1.0).max(0.1);
        neighbours
    }

    fn nearest(&self, x: f64, y: f64, radius: f64) -> Option<(f64, &'a Star)> {
        let from = self.by_x.partition_point(|s| s.x < x - radius);
        let to = self.by_x.partition_point(|s| s.x <= x + radius);
        self.by_x[from..to]
            .iter()
            .map(|star| ((star.x - x).hypot(star.y - y), *star))
            .filter(|(distance, _)| *distance <= radius)
            .min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// The source nearest to (x, y) on the reference's grid, searched in widening circles.
    pub fn of(&self, x: f64, y: f64) -> Option<Neighbour> {
        let (distance_px, star) = [10.0, 60.0, 400.0].into_iter().find_map(|radius| self.nearest(x, y, radius))?;
        let (ra, dec) = self.context.sky(star.x, star.y);
        // Excess of the squared size over the stars', as DAOPHOT's sharpness has it for extended sources.
        let sharp = (star.size / self.star_size).powi(2) - 1.0;
        Some(Neighbour {
            distance_px,
            ra,
            dec,
            mag: self.context.zero_point.0 - 2.5 * (star.flux * self.aperture_correction).max(1e-3).log10(),
            mag_err: 1.0857 * (1.0 / star.snr.max(1.0)).hypot(self.correction_scatter),
            chi: (1.0 + (sharp * star.snr / 10.0).powi(2)).sqrt(),
            sharp,
        })
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|v| v.is_finite());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The reference's own zero point, once the science image's is known.
pub fn reference_zero_point(science: (f64, f64), registration: &Registration, at: (f64, f64)) -> (f64, f64) {
    let ln_ratio = registration.ln_flux_ratio.value(at.0, at.1)[0];
    (science.0 - 2.5 * std::f64::consts::LOG10_E * ln_ratio, science.1)
}

/// Magnitude of one electron of the science image, its error, and the stars' scatter about it.
pub fn zero_point(reference: (f64, f64), registration: &Registration, at: (f64, f64)) -> (f64, f64, f64) {
    let ln_ratio = registration.ln_flux_ratio.value(at.0, at.1)[0];
    let magnitudes = 2.5 * std::f64::consts::LOG10_E;
    let mut deviations: Vec<f64> = registration
        .matched
        .iter()
        .filter(|s| s.flux > 30.0 * s.flux_err && s.reference_flux > 0.0 && s.flux > 0.0)
        .map(|s| ((s.flux / s.reference_flux).ln() - registration.ln_flux_ratio.value(s.x, s.y)[0]).abs())
        .collect();
    deviations.sort_by(f64::total_cmp);
    let scatter = deviations.get(deviations.len() / 2).map_or(0.0, |d| 1.4826 * d) * magnitudes;
    (reference.0 + magnitudes * ln_ratio, reference.1.hypot(magnitudes * registration.flux_ratio_err), scatter)
}
