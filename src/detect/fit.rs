//! PSF fit of a source on the difference image: flux, position, their errors, chi².
//!
//! The PSF of D is rebuilt at the source's own sub-pixel phase: the kernel of D on the science image,
//! applied to the science PSF at that phase. (A PSF of D that is shifted by a Fourier phase is up to 0.2 %
//! off at 2 px FWHM.) The flux is a linear functional of the pixels of D, so of both images: its error comes
//! from their variance planes through the same kernels, plus the bright-star floor.

use nalgebra::{Matrix3, Vector3};

use super::particle;
use super::place::Place;
use crate::subtract::Difference;
use crate::subtract::method::Chosen;

const STEPS: usize = 4;
/// A position is settled when it moves by less, pixels.
const SETTLED: f64 = 2e-3;
/// The science image alone tells a cosmic ray where the reference holds less than this, in units of the flux's error.
const EMPTY: f64 = 5.0;
/// No source is sharper than this.
const CLEARLY_SHARP: f64 = 12.0;
/// What the resampling of an undersampled reference leaves of a bright star near the Nyquist frequency, as a part
/// of the star's own pixels (1 to 4 % of the peak at a FWHM of 2.1 px). It does not reach S, which has no such
/// frequencies, but would make every variable star look like a cosmic ray.
const RIPPLE: f64 = 0.03;
/// The same where a fitted kernel made D: it follows the stars it was fitted to, not each one's place among the pixels.
const RIPPLE_OF_FIT: f64 = 0.08;

/// A fitted source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Column, pixels.
    pub x: f64,
    /// Row, pixels.
    pub y: f64,
    /// Flux, electrons, signed.
    pub flux: f64,
    /// Its error.
    pub flux_err: f64,
    /// Its error by photon statistics alone.
    pub photon_err: f64,
    /// What the reference holds there, in units of that error.
    pub reference_snr: f64,
    /// Error of a coordinate, pixels.
    pub position_err: f64,
    /// Chi² a degree of freedom within 5 px, more where the PSF is broad.
    pub chi: f64,
    /// Pixels of the fit.
    pub pixels: usize,
    /// Chi² a pixel within 2.5 px, likewise.
    pub core_chi: f64,
    /// Pixels of the core.
    pub core_pixels: usize,
    /// Share of the squared PSF that lies on masked pixels.
    pub masked: f64,
    /// How much better a profile far narrower than the PSF takes part in it, standard deviations: about 0 for a
    /// point source, positive for cosmic rays and hot pixels.
    pub sharpness: f64,
    /// Chi² of a point source less that of a particle's track, on the science image: positive for tracks.
    /// Nothing where the reference is not empty, or the source far too sharp.
    pub track: Option<f64>,
}

/// Fits a source of `flux` at about (x, y); `None` too near the edge.
pub fn fit(difference: &Difference, place: &Place, x: f64, y: f64, flux: f64) -> Option<Fit> {
    let image = &difference.difference.pixels;
    let (height, width) = image.dim();
    let (column, row) = (usize::try_from(x.round() as i64).ok()?, usize::try_from(y.round() as i64).ok()?);
    let (radius, side) = (place.radius, place.side());
    if column < radius || row < radius || column + radius >= width || row + radius >= height {
        return None;
    }
    let pixels = Pixels::new(difference, place, column, row);
    let (mut dx, mut dy, mut flux) = (x - column as f64, y - row as f64, flux);
    let (start_x, start_y) = (dx, dy);
    let mut last = None;
    for step in 0..STEPS {
        let profile = place.profile(dx, dy);
        let (mut normal, mut gradient) = (Matrix3::<f64>::zeros(), Vector3::<f64>::zeros());
        pixels.for_each(|i, value, weight| {
            let slopes = slopes(&profile, side, i);
            let j = Vector3::new(f64::from(profile[i]), -flux * slopes.0, -flux * slopes.1);
            normal += j * j.transpose() * weight;
            gradient += j * (weight * (value - flux * f64::from(profile[i])));
        });
        let inverse = normal.try_inverse()?;
        last = Some((profile, normal, inverse));
        let change = inverse * gradient;
        // With the position settled the flux is linear.
        if step + 1 == STEPS || change[1].abs().max(change[2].abs()) < SETTLED {
            break;
        }
        flux += change[0];
        dx = (dx + change[1].clamp(-0.5, 0.5)).clamp(start_x - 1.5, start_x + 1.5);
        dy = (dy + change[2].clamp(-0.5, 0.5)).clamp(start_y - 1.5, start_y + 1.5);
    }
    let (profile, normal, inverse) = last?;
    let mut numerator = 0.0;
    pixels.for_each(|i, value, weight| numerator += weight * f64::from(profile[i]) * value);
    flux = numerator / normal[(0, 0)];
    let formal = normal[(0, 0)].powf(-0.5);
    let (flux_err, photon_err, share) = place.flux_error(difference, &pixels, &profile, normal[(0, 0)]);
    let reference_snr = share.abs() / photon_err.max(f64::MIN_POSITIVE);
    let sharp = place.sharp_profile(dx, dy, flux > 0.0);
    let each = (0..side * side).filter_map(|i| pixels.judged(i).map(|(v, w)| (i, v, w)));
    let mut sharpness = sharpness_of(each.map(|(i, v, w)| (v, f64::from(profile[i]), f64::from(sharp[i]), w)))
        / place.dispersion(flux > 0.0);
    if flux > 0.0 && reference_snr < EMPTY {
        sharpness = sharpness.max(place.sharpness_on_science(difference, &pixels, dx, dy));
    }
    let doubtful = flux > 0.0 && reference_snr < EMPTY && sharpness < CLEARLY_SHARP;
    let track = if doubtful { particle::likeness(difference, place, &pixels, dx, dy) } else { None };
    let (mut chi2, mut core, mut count, mut core_pixels) = (0.0, 0.0, 0, 0);
    let (mut on_masked, mut all) = (0.0, 0.0);
    for (i, value) in profile.iter().enumerate() {
        let expected = flux * f64::from(*value);
        let square = f64::from(*value).powi(2);
        all += square;
        if pixels.masked[i] {
            on_masked += square;
        }
        let (ux, uy) = ((i % side) as f64 - radius as f64 - dx, (i / side) as f64 - radius as f64 - dy);
        if let Some((value, weight)) = pixels.judged(i) {
            let square = weight * (value - expected).powi(2);
            chi2 += square;
            count += 1;
            if ux * ux + uy * uy <= place.core * place.core {
                core += square;
                core_pixels += 1;
            }
        }
    }
    Some(Fit {
        x: column as f64 + dx,
        y: row as f64 + dy,
        flux,
        flux_err,
        photon_err,
        reference_snr,
        position_err: (0.5 * (inverse[(1, 1)] + inverse[(2, 2)])).sqrt() * (photon_err / formal).max(1.0),
        chi: chi2 / f64::from((count - 3).max(1)),
        pixels: count as usize,
        core_chi: core / f64::from(core_pixels.max(1)),
        core_pixels: core_pixels as usize,
        masked: on_masked / all.max(1e-30),
        sharpness,
        track,
    })
}

/// Significance of a narrow profile beside the PSF's in a fit of both, signed like the source; from each
/// pixel's value, PSF, narrow profile and weight.
pub(super) fn sharpness_of(pixels: impl Iterator<Item = (f64, f64, f64, f64)>) -> f64 {
    let (mut pp, mut ps, mut ss, mut pd, mut sd) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (value, p, s, weight) in pixels {
        pp += weight * p * p;
        ps += weight * p * s;
        ss += weight * s * s;
        pd += weight * p * value;
        sd += weight * s * value;
    }
    let determinant = pp * ss - ps * ps;
    if determinant <= 0.0 || pp <= 0.0 {
        return 0.0;
    }
    (pp * sd - ps * pd) / (determinant * pp).sqrt() * pd.signum()
}

/// Slopes of a profile at pixel `i` by central differences, one-sided at the border.
fn slopes(profile: &[f32], side: usize, i: usize) -> (f64, f64) {
    let (x, y) = (i % side, i / side);
    let at = |x: usize, y: usize| f64::from(profile[y * side + x]);
    let (x0, x1) = (x.saturating_sub(1), (x + 1).min(side - 1));
    let (y0, y1) = (y.saturating_sub(1), (y + 1).min(side - 1));
    ((at(x1, y) - at(x0, y)) / (x1 - x0) as f64, (at(x, y1) - at(x, y0)) / (y1 - y0) as f64)
}

/// Values, weights and masks of the pixels about a source.
pub(super) struct Pixels {
    pub(super) column: usize,
    pub(super) row: usize,
    values: Vec<f64>,
    pub(super) weights: Vec<f64>,
    /// The reference, electrons of the science image.
    pub(super) template: Vec<f64>,
    /// What of it may be left near the Nyquist frequency.
    ripple: f64,
    masked: Vec<bool>,
}

impl Pixels {
    fn new(difference: &Difference, place: &Place, column: usize, row: usize) -> Self {
        use crate::image::mask;
        let (radius, side) = (place.radius, place.side());
        let sky = f64::from(difference.pixel_noise.at(column, row)).powi(2);
        let science = &difference.science.variance().pixels;
        let template = &difference.template_variance.pixels;
        let mut sums: Vec<f64> = Vec::with_capacity(side * side);
        let new = || Vec::with_capacity(side * side);
        let (mut values, mut reference, mut masked) = (new(), new(), Vec::with_capacity(side * side));
        for y in row - radius..=row + radius {
            for x in column - radius..=column + radius {
                sums.push(f64::from(science[[y, x]]) + f64::from(template[[y, x]]));
                values.push(f64::from(difference.difference.pixels[[y, x]]));
                reference.push(f64::from(difference.template.pixels[[y, x]]));
                masked.push(difference.mask[[y, x]] & (mask::UNUSABLE | mask::REFERENCE) != 0);
            }
        }
        let radius2 = (radius * radius) as f64 + 0.5;
        let weights = (0..side * side)
            .map(|i| {
                let (ux, uy) = ((i % side) as f64 - radius as f64, (i / side) as f64 - radius as f64);
                let used = !masked[i] && ux * ux + uy * uy <= radius2;
                if used { 1.0 / (sky * (sums[i] / place.sky_variance).max(1.0)) } else { 0.0 }
            })
            .collect();
        let ripple = match difference.method {
            Chosen::Zogy => RIPPLE,
            Chosen::KernelFit => RIPPLE_OF_FIT,
        };
        Self { column, row, values, weights, template: reference, ripple, masked }
    }

    /// Value and weight of a pixel for the judgement of shapes.
    fn judged(&self, i: usize) -> Option<(f64, f64)> {
        let weight = self.weights[i];
        (weight > 0.0).then(|| (self.values[i], 1.0 / (1.0 / weight + (self.ripple * self.template[i]).powi(2))))
    }

    fn for_each(&self, mut visit: impl FnMut(usize, f64, f64)) {
        for i in 0..self.values.len() {
            if self.weights[i] > 0.0 {
                visit(i, self.values[i], self.weights[i]);
            }
        }
    }
}
