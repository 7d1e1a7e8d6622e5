//! The rules that keep a candidate from becoming an alert: few, named, counted.
//!
//! They were set on synthetic scenes and on real frames (DECam, Bosque Alegre, PANOPTES). Cuts that are not
//! gated by the significance took the completeness of bright changes to 0.78: a bright source shows every
//! error of the PSF model, so that the limits grow with it.

use super::fit::Fit;
use super::shape::Shape;
use super::{Peak, Rule};
use crate::image::mask;
use crate::subtract::Difference;

/// Candidates nearer to the edge than this are not measured well, pixels.
const EDGE: f64 = 8.0;
/// Share of the squared PSF on masked pixels that is too much.
const MASKED_SHARE: f64 = 0.1;
/// No candidate this near to a filled pixel, pixels.
const FILL_DISTANCE: isize = 3;
/// An opposite lobe of this part of the peak makes a dipole.
const DIPOLE: f64 = 0.35;
/// A trail's axes differ by this factor at least.
const TRAIL_ELONGATION: f64 = 1.3;
/// Its major axis exceeds the PSF's by this factor at least.
const TRAIL_LENGTH: f64 = 1.25;
/// Its minor axis over the PSF's lies in this range: 0.87 to 1.5 for synthetic movers, outside it for the long tracks of
/// cosmic rays on the Bosque Alegre frames.
const TRAIL_BREADTH: (f64, f64) = (0.85, 1.5);
/// Below this significance a trail cannot be told from a cosmic ray's track.
const TRAIL_SIGNIFICANCE: f64 = 9.0;
/// The reference is empty where it lies below this many noises of a pixel.
const EMPTY: f32 = 5.0;
/// Connected pixels of the 3×3 that a source has at least.
const CONNECTED: usize = 3;

/// The first rule that rejects a measured candidate.
pub fn judge(difference: &Difference, peak: &Peak, fit: &Fit, shape: &Shape, threshold: f64) -> Option<Rule> {
    let (height, width) = difference.difference.shape();
    let edge = edge_distance(fit.x, fit.y, width, height);
    if edge < EDGE {
        return Some(Rule::Edge);
    }
    if let Some(rule) = near_fill(difference, fit) {
        return Some(rule);
    }
    if fit.masked > MASKED_SHARE {
        return Some(Rule::Masked);
    }
    if peak.connected < CONNECTED {
        return Some(Rule::Small);
    }
    let snr = peak.snr;
    let photon_snr = (fit.flux / fit.photon_err.max(f64::MIN_POSITIVE)).abs().max(snr);
    let limit = |pixels: usize| 1.3 + 5.0 * (2.0 / pixels.max(1) as f64).sqrt() + 0.005 * photon_snr * photon_snr;
    if fit.core_chi > limit(fit.core_pixels) || fit.chi > limit(fit.pixels) {
        if is_trail(difference, fit, shape) {
            return None;
        }
        // Sharper than the PSF, or merely not of its shape.
        return Some(if shape.fwhm < difference.registration.psf_science.fwhm_at(fit.x, fit.y) {
            Rule::CosmicRay
        } else {
            Rule::Shape
        });
    }
    if shape.opposite > DIPOLE && shape.opposite * snr > 4.5 {
        return Some(Rule::Dipole);
    }
    let flux_snr = fit.flux.abs() / fit.flux_err.max(f64::MIN_POSITIVE);
    if fit.flux * peak.scorr <= 0.0 || flux_snr < 0.7 * threshold {
        return Some(Rule::Faint);
    }
    None
}

/// A mover: longer than the PSF in one direction, as broad as it in the other, on sky that is empty in the
/// reference. Residuals of bright stars are as long, but sit on their stars.
pub fn is_trail(difference: &Difference, fit: &Fit, shape: &Shape) -> bool {
    let psf = difference.registration.psf_science.fwhm_at(fit.x, fit.y) / 2.3548;
    let long = shape.a > TRAIL_ELONGATION * shape.b && shape.a > TRAIL_LENGTH * psf;
    let broad = (TRAIL_BREADTH.0 * psf..TRAIL_BREADTH.1 * psf).contains(&shape.b);
    let bright = fit.flux > TRAIL_SIGNIFICANCE * fit.photon_err;
    let (x, y) = (fit.x.round().max(0.0) as usize, fit.y.round().max(0.0) as usize);
    let noise = difference.pixel_noise.at(x, y);
    let empty = difference.template.pixels.get([y, x]).is_some_and(|v| v.abs() < EMPTY * noise);
    long && broad && bright && empty && shape.opposite < DIPOLE
}

/// Distance of a pixel position to the nearest edge of the image, pixels.
pub fn edge_distance(x: f64, y: f64, width: usize, height: usize) -> f64 {
    (x + 0.5).min(y + 0.5).min(width as f64 - 0.5 - x).min(height as f64 - 0.5 - y)
}

/// Whether something unusable lies under the source, and of what kind.
fn near_fill(difference: &Difference, fit: &Fit) -> Option<Rule> {
    let (cx, cy) = (fit.x.round() as isize, fit.y.round() as isize);
    let mut bits = 0;
    for dy in -FILL_DISTANCE..=FILL_DISTANCE {
        for dx in -FILL_DISTANCE..=FILL_DISTANCE {
            if dx * dx + dy * dy > FILL_DISTANCE * FILL_DISTANCE {
                continue;
            }
            let place = usize::try_from(cx + dx).ok().zip(usize::try_from(cy + dy).ok());
            match place.and_then(|(x, y)| difference.mask.get([y, x])) {
                Some(b) => bits |= b,
                None => return Some(Rule::Edge),
            }
        }
    }
    let on_star = difference.filled_stars.iter().any(|s| (s.x - fit.x).hypot(s.y - fit.y) < s.core + 3.0);
    if on_star || bits & (mask::SATURATED | mask::BLEED) != 0 {
        return Some(Rule::Saturated);
    }
    if bits & mask::NO_DATA != 0 {
        return Some(Rule::Edge);
    }
    (bits & (mask::UNUSABLE | mask::REFERENCE) != 0).then_some(Rule::Masked)
}
