//! The rules that keep a candidate from becoming an alert: few, named, counted.
//!
//! They were set on synthetic scenes and on real frames (DECam, Bosque Alegre, PANOPTES). Cuts that are not
//! gated by the significance took the completeness of bright changes to 0.78: a bright source shows every
//! error of the PSF model, so that the limits grow with it.

use super::fit::Fit;
use super::shape::Shape;
use super::trail::Trail;
use super::{Candidate, Peak, Rule};
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
/// Sharpness of cosmic rays and hot pixels, by how much of the source's significance a point source's grows, and
/// by how much of that of the star it sits on.
const SHARP: (f64, f64, f64) = (3.2, 0.01, 0.016);
/// The same of a trail, which has more pixels to show it.
const SHARP_TRAIL: f64 = 1.2;
/// What is broader than the PSF by as much, by its sharpness, is no point source.
const BROAD: (f64, f64, f64) = (-3.3, -0.03, -0.03);
/// A particle's track fits better than a point source by this much of chi²; many tracks are tried, so that noise makes
/// more of it under a faint source. (On six scenes 1.4 % of the sources below, 0.07 % of those above reach it.)
const LIKELY_OF_FAINT: f64 = 12.0;
const LIKELY: f64 = 9.0;
/// What a faint source is, standard deviations.
const FAINT: f64 = 8.0;
/// A point source fits better by this much where sharpness alone must not decide.
const CLEARLY_A_POINT: f64 = 5.0;
/// What lies on the track of a particle is part of it where a track fits better by this much of chi² in its own place.
const DOUBTFUL: f64 = 10.0;
/// And where the reference is not empty, where it is sharper than a point source by this much.
const SLIGHTLY_SHARP: f64 = 0.5;
/// Below this significance a trail cannot be told from a cosmic ray's track.
const TRAIL_SIGNIFICANCE: f64 = 9.0;
/// A point source is looked at as a trail below this sharpness.
const SUSPICIOUSLY_BROAD: f64 = -1.5;
/// A shorter trail is a point, in units of the FWHM; and a shorter track no track.
const SHORTEST_TRAIL: f64 = 0.7;
const SHORTEST_TRACK: f64 = 1.5;
/// And what passes for a point is none only with a trail of this length.
const PLAIN_TRAIL: f64 = 1.5;
/// The reference is empty where it lies below this many noises of a pixel.
const EMPTY: f32 = 5.0;
/// Or below this part of a trail's own pixels.
const FAINTER: f32 = 0.2;
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
    if is_sharp(fit, photon_snr) {
        return Some(Rule::CosmicRay);
    }
    // What the error of a bright star's model adds to the error of the flux, it adds to chi² too.
    let model_error = (fit.flux_err / fit.photon_err.max(f64::MIN_POSITIVE)).powi(2) - 1.0;
    let limit = |pixels: usize| chi_limit(pixels, photon_snr) + model_error.max(0.0);
    if is_particle(fit, snr) {
        return Some(Rule::CosmicRay);
    }
    let broad = BROAD.0 + BROAD.1 * photon_snr + BROAD.2 * fit.reference_snr;
    if fit.core_chi > limit(fit.core_pixels) || fit.sharpness < broad {
        return Some(Rule::Shape);
    }
    if !is_regular(fit) && shape.opposite > DIPOLE && shape.opposite * snr > 4.5 {
        return Some(Rule::Dipole);
    }
    let flux_snr = fit.flux.abs() / fit.flux_err.max(f64::MIN_POSITIVE);
    if fit.flux * peak.scorr <= 0.0 || flux_snr < 0.7 * threshold {
        return Some(Rule::Faint);
    }
    None
}

/// Largest chi² a degree of freedom of so many pixels of a source of this significance: a bright one shows every
/// error of the PSF model.
fn chi_limit(pixels: usize, snr: f64) -> f64 {
    1.0 + 4.2 * (2.0 / pixels.max(1) as f64).sqrt() + 0.0015 * snr * snr
}

/// Whether a source fits the PSF so well that only a closer look would tell it from anything else.
pub fn is_regular(fit: &Fit) -> bool {
    fit.core_chi < 1.0 + 1.5 * (2.0 / fit.core_pixels.max(1) as f64).sqrt()
}

/// Whether what was measured as a point may be a trail: too broad for the PSF, or no clear case.
pub fn may_trail(rejected: Option<Rule>, fit: &Fit, snr: f64) -> bool {
    match rejected {
        None => !is_regular(fit) || fit.sharpness < SUSPICIOUSLY_BROAD,
        Some(Rule::Shape | Rule::CosmicRay) => !is_sharp(fit, snr),
        Some(_) => false,
    }
}

/// Whether the science image alone shows a particle's track and no point source.
fn is_particle(fit: &Fit, snr: f64) -> bool {
    fit.track.is_some_and(|track| track > if snr < FAINT { LIKELY_OF_FAINT } else { LIKELY })
}

/// Sharper than a point source can be, unless the science image clearly shows one.
///
/// A source that is missing from the science image is seen through the resampling, and was in many exposures: it
/// has to be sharper.
fn is_sharp(fit: &Fit, snr: f64) -> bool {
    let gone = if fit.flux < 0.0 { 2.0 } else { 1.0 };
    fit.sharpness > gone * (SHARP.0 + SHARP.1 * snr) + SHARP.2 * fit.reference_snr
        && fit.track.is_none_or(|track| track > -CLEARLY_A_POINT)
}

/// Whether a fitted trail is the track of a charged particle: longer than a point, and narrower than the PSF.
pub fn is_track(difference: &Difference, trail: &Trail) -> bool {
    let (fwhm, local) = significance(difference, trail);
    trail.length > SHORTEST_TRACK * fwhm
        && (trail.sharpness > SHARP_TRAIL + SHARP.1 * local || trail.track.is_some_and(|track| track > LIKELY))
}

/// Whether a candidate on such a track may be part of it.
pub fn may_be_of_track(candidate: &Candidate) -> bool {
    !candidate.regular && candidate.track.map_or(candidate.sharpness > SLIGHTLY_SHARP, |track| track > DOUBTFUL)
}

/// FWHM of the PSF at a trail, and the significance of a stretch as long as a point source.
fn significance(difference: &Difference, trail: &Trail) -> (f64, f64) {
    let fwhm = difference.registration.psf_science.fwhm_at(trail.x, trail.y);
    let snr = (trail.flux / trail.flux_err.max(f64::MIN_POSITIVE)).abs();
    (fwhm, snr / (1.0 + trail.length / fwhm).sqrt())
}

/// Whether a fitted trail is a mover: as broad as the PSF, straight, on sky that is empty in the reference.
/// Residuals of bright stars are as long, but sit on their stars.
pub fn is_mover(difference: &Difference, trail: &Trail, passes_for_a_point: bool) -> bool {
    let (fwhm, local) = significance(difference, trail);
    let (x, y) = (trail.x.round().max(0.0) as usize, trail.y.round().max(0.0) as usize);
    let noise = difference.pixel_noise.at(x, y);
    let own = difference.difference.pixels.get([y, x]).map_or(0.0, |v| v.abs());
    let empty = difference.template.pixels.get([y, x]).is_some_and(|v| v.abs() < (EMPTY * noise).max(FAINTER * own));
    empty
        && trail.flux.abs() > TRAIL_SIGNIFICANCE * trail.flux_err
        && trail.length > if passes_for_a_point { PLAIN_TRAIL } else { SHORTEST_TRAIL } * fwhm
        && trail.chi < chi_limit(trail.pixels, local)
        && trail.sharpness < SHARP.0 + SHARP.1 * local
        && trail.track.is_none_or(|track| track < LIKELY)
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
