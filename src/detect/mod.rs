//! From a difference image to measured candidates.
//!
//! [Peaks](peaks) of Scorr of both signs are [fitted](fit) with the PSF of D, their [shape] is measured, what
//! surrounds them is looked up, and the [rules] say which of them become alerts. Every candidate is kept, the
//! rejected ones with the name of the rule.
//!
//! # Choices tried against each other
//!
//! False alerts on cosmic rays, bad columns and hot pixels an image of 9.5 Mpx with 500 cosmic rays and no mask, on three
//! scenes of another simulator than ours, and what they cost:
//!
//! | choice | on defects | completeness at S/N 10 and more |
//! | --- | --- | --- |
//! | chi² in the core, trails by the moments of the source | 115 to 118 | 0.983 |
//! | + [sharpness](fit::Fit::sharpness): a fit of the PSF and a far narrower profile together; trails fitted | 8 to 12 | 0.983 to 0.995 |
//! | + chi² that allows for a bright reference's ripple, so that its limit can be tight | 5 | 0.995 |
//! | + the science image alone judges where the reference is empty; tracks judged whole | 2.3 | 0.999 |
//!
//! On six scenes, three of them new to those rules, and on two whose science image is twice as sharp as the reference:
//!
//! | choice | on defects | completeness at S/N 7 to 10, 10 and more | sharp: on defects | off them |
//! | --- | --- | --- | --- | --- |
//! | as above | 4.3 | 0.991, 0.999 | 31, 18 | 27, 10 |
//! | + a particle's track against a point source, also where a rule for groups spoke before | 2.2 | 0.993, 0.999 | 14, 11 | 26, 10 |
//! | + the same for trails; the flanks of bright stars have an [error](crate::subtract) of their own | 1.8 | 0.990, 0.999 | 3, 7 | 6, 6 |
//! | + where the reference holds something, a source no sharper than a star is no part of a track; rings about particles | **1.8** | **0.992, 0.9996** | **3, 7** | **1, 6** |
//!
//! Holding tracks against point sources where the reference is not empty lost 0.8 % of the changes at S/N 10 to 20: there the science image
//! less the reference is no star. Masking cosmic rays before the subtraction (at FWHM below 3.2 px) lost 0.7 % at S/N 20 and more on three of the scenes.

mod candidate;
pub mod context;
mod cutout;
mod echoes;
pub mod fit;
mod particle;
pub mod peaks;
pub mod photometry;
mod place;
pub mod real_bogus;
pub mod rules;
pub mod shape;
mod tracks;
pub mod trail;

use ndarray::Array2;
use rayon::prelude::*;

use crate::exposure::Exposure;
use crate::subtract::Difference;
pub use candidate::{Candidate, Cutouts, Neighbour, Rule};
use context::{Neighbours, ReferenceContext};
use cutout::{cut_out, level_around, peak_over_rms};
pub use peaks::Peak;
use photometry::Photometry;

/// Side of a cut-out, pixels.
pub const CUTOUT_SIDE: usize = 63;

/// What held for the whole exposure.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// How the difference was made: "zogy" or "kernel-fit".
    pub method: &'static str,
    /// Magnitude of one electron a exposure: `mag = zero_point − 2.5 log10(flux)`.
    pub zero_point: f64,
    /// Its uncertainty (standard error), magnitudes.
    pub zero_point_err: f64,
    /// Scatter of the stars about it, magnitudes.
    pub zero_point_rms: f64,
    /// Stars that gave it.
    pub zero_point_stars: usize,
    /// What a star catalogue says of the zero point; nothing where none is installed or too few of its stars are here.
    pub photometry: Option<Photometry>,
    /// 5σ limiting magnitude of the difference image (`diffmaglim`).
    pub limit_mag: f64,
    /// FWHM of the science PSF at the centre, pixels.
    pub fwhm_px: f64,
    /// FWHM of the science PSF over that of the resampled reference (`seeratio`).
    pub seeing_ratio: f64,
    /// Pixel scale, arcsec.
    pub pixel_scale: f64,
    /// Sky level, electrons a pixel.
    pub sky: f64,
    /// Flux ratio science over reference.
    pub flux_ratio: f64,
    /// Residual of the registration, pixels rms a axis.
    pub registration_rms_px: f64,
    /// Stars matched by the registration.
    pub registration_stars: usize,
    /// The reference: identifier (`rfid`).
    pub reference_id: i64,
    /// First and last exposure of the reference, JD.
    pub reference_jd: (f64, f64),
    /// Frames in the reference.
    pub reference_frames: i32,
    /// Width and height of the science image.
    pub shape: (usize, usize),
    /// Corners of the science image on the sky (ra, dec), degrees: those of the first, the last
    /// pixel of the first row, the last and the first pixel of the last row.
    pub corners: [(f64, f64); 4],
    /// What the operator should know (fall-backs, doubtful scales), sentences.
    pub warnings: Vec<String>,
}

/// All that was found on one exposure.
#[derive(Debug, Clone)]
pub struct Detections {
    /// The exposure.
    pub exposure: Exposure,
    /// What held for all of it.
    pub conditions: Conditions,
    /// Every candidate, those that a rule rejects included.
    pub candidates: Vec<Candidate>,
}

impl Detections {
    /// The candidates that become alerts: those that no rule rejects.
    pub fn accepted(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(|candidate| candidate.rejected.is_none())
    }
}

/// Most candidates that are measured; more is a flood, which the exposure's warnings report.
pub const MOST_CANDIDATES: usize = 20_000;
/// Spacing of the places at which the PSF of D is rebuilt, pixels.
const PLACE: usize = 128;

/// Finds and measures what changed, above `threshold` sigma.
pub fn detect(difference: &Difference, reference: &ReferenceContext<'_>, threshold: f64) -> Detections {
    let (height, width) = difference.difference.shape();
    let centre = (width as f64 / 2.0, height as f64 / 2.0);
    let fwhm = difference.registration.psf_science.fwhm_at(centre.0, centre.1);
    let mut peaks = peaks::find(&difference.score.pixels, threshold, fwhm.max(2.0));
    let mut warnings = difference.warnings.clone();
    if peaks.len() > MOST_CANDIDATES {
        warnings.push(format!(
            "{} peaks above {threshold} sigma, the {MOST_CANDIDATES} strongest were measured; look at the difference image",
            peaks.len()
        ));
        peaks.truncate(MOST_CANDIDATES);
    }
    let photometry = photometry::zero_point(reference.standards, &difference.registration);
    if photometry.is_none() && !reference.standards.is_empty() {
        warnings.push("too few stars of the catalogue match: the zero point is the reference's".into());
    }
    let with_catalogue = photometry.map(|p| ReferenceContext {
        zero_point: context::reference_zero_point((p.zero_point, p.error), &difference.registration, centre),
        ..*reference
    });
    let reference = with_catalogue.as_ref().unwrap_or(reference);
    let (zero_point, zero_point_err, zero_point_rms) = match photometry {
        Some(p) => (p.zero_point, p.error, p.rms),
        None => context::zero_point(reference.zero_point, &difference.registration, centre),
    };
    let measure = Measure {
        difference,
        neighbours: Neighbours::new(reference, &difference.registration),
        places: places(difference, &peaks),
        zero_point,
        threshold,
        reference,
    };
    let mut candidates: Vec<Candidate> = peaks.par_iter().filter_map(|peak| measure.candidate(peak)).collect();
    remove_twins(&mut candidates, fwhm);
    tracks::join(&measure, &mut candidates, fwhm);
    echoes::reject(&mut candidates, fwhm + difference.registration.psf_reference.fwhm_at(centre.0, centre.1));
    candidates.iter_mut().for_each(|one| one.rb = real_bogus::score(&real_bogus::evidence(one)));
    candidates.sort_by(|a, b| a.y.total_cmp(&b.y).then(a.x.total_cmp(&b.x)));
    let frame = &difference.science;
    let (science, resampled) = (fwhm, difference.registration.psf_reference.fwhm_at(centre.0, centre.1));
    let corner = |x: f64, y: f64| {
        let [rx, ry] = difference.registration.map.value(x, y);
        reference.sky(rx, ry)
    };
    let (right, top) = (width as f64 - 1.0, height as f64 - 1.0);
    let conditions = Conditions {
        method: difference.method.name(),
        zero_point,
        zero_point_err,
        zero_point_rms,
        zero_point_stars: photometry.map_or(difference.registration.flux_ratio_stars, |p| p.stars),
        photometry,
        limit_mag: zero_point - 2.5 * (5.0 * median_of(difference.sky_noise.values())).max(1e-6).log10(),
        fwhm_px: fwhm,
        seeing_ratio: science / resampled.max(0.1),
        pixel_scale: reference.wcs.map_or(f64::NAN, |wcs| wcs.scale_arcsec())
            * difference.registration.map.determinant(centre.0, centre.1).abs().sqrt(),
        sky: median_of(&frame.background().level),
        flux_ratio: difference.registration.ln_flux_ratio.value(centre.0, centre.1)[0].exp(),
        registration_rms_px: difference.registration.rms_px,
        registration_stars: difference.registration.stars,
        reference_id: reference.id,
        reference_jd: reference.jd,
        reference_frames: reference.frames,
        shape: (width, height),
        corners: [corner(0.0, 0.0), corner(right, 0.0), corner(right, top), corner(0.0, top)],
        warnings,
    };
    Detections { exposure: frame.exposure().clone(), conditions, candidates }
}

/// Two peaks whose fits ran to the same place are one source: the stronger stays.
fn remove_twins(candidates: &mut Vec<Candidate>, fwhm: f64) {
    candidates.sort_by(|a, b| b.snr.total_cmp(&a.snr));
    let mut kept: Vec<Candidate> = Vec::with_capacity(candidates.len());
    let mut cells = std::collections::HashMap::<(i64, i64), Vec<usize>>::new();
    let radius = 0.5 * fwhm;
    for candidate in candidates.drain(..) {
        let (cx, cy) = ((candidate.x / fwhm) as i64, (candidate.y / fwhm) as i64);
        let near = (cx - 1..=cx + 1).flat_map(|i| (cy - 1..=cy + 1).map(move |j| (i, j)));
        let twin = near.filter_map(|c| cells.get(&c)).flatten().any(|&k: &usize| {
            let other: &Candidate = &kept[k];
            other.positive == candidate.positive && (other.x - candidate.x).hypot(other.y - candidate.y) < radius
        });
        if !twin {
            cells.entry((cx, cy)).or_default().push(kept.len());
            kept.push(candidate);
        }
    }
    *candidates = kept;
}

/// The PSF of D at the places where there are peaks.
fn places(difference: &Difference, peaks: &[Peak]) -> std::collections::HashMap<(usize, usize), place::Place> {
    let wanted: std::collections::HashSet<(usize, usize)> =
        peaks.iter().map(|p| (p.column / PLACE, p.row / PLACE)).collect();
    let middle = |cell: usize| (cell * PLACE + PLACE / 2) as f64;
    wanted.into_par_iter().map(|(c, r)| ((c, r), place::Place::new(difference, middle(c), middle(r)))).collect()
}

/// What the measurement of each candidate needs.
struct Measure<'a> {
    difference: &'a Difference,
    neighbours: Neighbours<'a>,
    places: std::collections::HashMap<(usize, usize), place::Place>,
    zero_point: f64,
    threshold: f64,
    reference: &'a ReferenceContext<'a>,
}

impl Measure<'_> {
    fn candidate(&self, peak: &Peak) -> Option<Candidate> {
        let difference = self.difference;
        let place = self.places.get(&(peak.column / PLACE, peak.row / PLACE))?;
        let sign = peak.scorr.signum();
        let start = peak.scorr * f64::from(difference.sky_noise.at(peak.column, peak.row));
        let fit = fit::fit(difference, place, peak.x, peak.y, start)?;
        let psf_fwhm = difference.registration.psf_science.fwhm_at(fit.x, fit.y);
        let shape = shape::measure(difference, fit.x, fit.y, sign, psf_fwhm);
        let rejected = rules::judge(difference, peak, &fit, &shape, self.threshold);
        let [rx, ry] = difference.registration.map.value(fit.x, fit.y);
        let (ra, dec) = self.reference.sky(rx, ry);
        let (height, width) = difference.difference.shape();
        let flux = fit.flux.abs().max(1e-6);
        let cutouts = rejected.is_none().then(|| cut_out(difference, fit.x, fit.y, sign));
        let cutout = cutouts.as_ref().map(|cutouts| &cutouts.difference);
        Some(Candidate {
            x: fit.x,
            y: fit.y,
            position_err: fit.position_err,
            ra,
            dec,
            positive: sign > 0.0,
            flux: fit.flux,
            flux_err: fit.flux_err,
            snr: peak.snr,
            scorr: peak.scorr,
            mag: self.zero_point - 2.5 * flux.log10(),
            mag_err: 1.0857 * fit.flux_err / flux,
            chi: fit.chi,
            aperture14: shape.aperture14,
            aperture18: shape.aperture18,
            fwhm: shape.fwhm,
            a: shape.a,
            b: shape.b,
            theta: shape.theta,
            nneg: shape.nneg,
            nbad: shape.nbad,
            sumrat: shape.sumrat,
            class_star: class_star(&shape, psf_fwhm, peak.snr),
            sky: cutout.map_or(0.0, level_around),
            edge_distance: rules::edge_distance(fit.x, fit.y, width, height),
            rb: 0.0,
            reference_snr: fit.reference_snr,
            width: shape.fwhm / psf_fwhm,
            opposite: shape.opposite,
            trail_px: 0.0,
            core_chi: fit.core_chi,
            sharpness: fit.sharpness,
            track: fit.track,
            may_trail: rules::may_trail(rejected, &fit, peak.snr),
            regular: rules::is_regular(&fit) && fit.sharpness < 1.0,
            difference_snr: cutout.map_or(0.0, peak_over_rms),
            score_snr: flux / f64::from(difference.sky_noise.at(peak.column, peak.row)),
            neighbour: self.neighbours.of(rx, ry),
            flags: shape.flags,
            cutouts,
            rejected,
        })
    }
}

/// Likeness to a point source: 1 at the PSF's own width, falling to either side as the noise of a width
/// measured at this significance allows.
fn class_star(shape: &shape::Shape, psf_fwhm: f64, snr: f64) -> f64 {
    let excess = (shape.fwhm / psf_fwhm).ln();
    let tolerance = 0.15 + 2.0 / snr.max(1.0);
    (-0.5 * (excess / tolerance).powi(2)).exp()
}

fn median_of(values: &Array2<f32>) -> f64 {
    let mut finite: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if finite.is_empty() {
        return 0.0;
    }
    let middle = finite.len() / 2;
    f64::from(*finite.select_nth_unstable_by(middle, f32::total_cmp).1)
}
