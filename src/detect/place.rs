//! The PSF of D at one place of the field, and what a fit with it makes of noise and of cosmic rays.

use ndarray::Array2;

use super::fit::{Pixels, sharpness_of};
use crate::psf::LocalPsf;
use crate::psf::residual::interpolate;
use crate::subtract::Difference;
use crate::subtract::kernels::Kernels;

/// Pixels within this radius of the source enter the fit, where the PSF is no broader than [`NARROW`].
const RADIUS: f64 = 5.0;
/// The chi² that tells cosmic rays from stars is taken within this radius, likewise.
const CORE: f64 = 2.5;
/// Half side of the kernels of D as they are used here, likewise.
const REACH: f64 = 10.0;
/// FWHM, pixels, beyond which the radii grow in proportion to it.
const NARROW: f64 = 2.6;
/// Largest factor by which they grow.
const MOST_GROWTH: f64 = 3.0;
/// FWHM, pixels, beyond which a PSF of D may be moved by interpolation.
const SMOOTH: f64 = 3.2;
/// FWHM of what a charged particle leaves, of the PSF's, and pixels at most.
const SHARP: f64 = 0.55;
const MOST_SHARP: f64 = 1.3;

/// The kernels of D and the science PSF at one place of the field, shared by the sources near it.
pub struct Place {
    psf: LocalPsf,
    /// What a charged particle leaves: far narrower than the PSF.
    sharp: LocalPsf,
    science: Array2<f32>,
    reference: Array2<f32>,
    /// Variance of empty sky, science image and template together, electrons².
    pub(super) sky_variance: f64,
    pub(super) radius: usize,
    pub(super) core: f64,
    reach: usize,
    /// The PSF of D, where it is broad enough to be moved by interpolation.
    smooth: Option<Array2<f32>>,
    /// Standard deviation of the sharpness of sources that are brighter and fainter than in the reference: 1 as long as
    /// the noise of D is white. Of a broad PSF, which holds nothing of high frequencies, D holds none either (at a FWHM
    /// of 6 px the sharpness of stars scattered by 1.5 to 2.5).
    dispersion: [f64; 2],
}

impl Place {
    /// At pixel (x, y).
    pub fn new(difference: &Difference, x: f64, y: f64) -> Self {
        let Kernels { difference_science, difference_reference, .. } = difference.kernels.at(x, y);
        let psf = difference.registration.psf_science.local(x, y);
        let fwhm = psf.moffat.fwhm();
        let growth = (fwhm / NARROW).clamp(1.0, MOST_GROWTH);
        let reach = (REACH * growth).round() as usize;
        let cut = |kernel: &Array2<f32>| {
            let half = kernel.nrows() / 2;
            let mut small = Array2::zeros((2 * reach + 1, 2 * reach + 1));
            for ((iy, ix), out) in small.indexed_iter_mut() {
                if let Some(value) = kernel.get([(half + iy).wrapping_sub(reach), (half + ix).wrapping_sub(reach)]) {
                    *out = *value;
                }
            }
            small
        };
        let mut place = Self {
            sharp: psf.narrowed((SHARP * psf.moffat.fwhm()).min(MOST_SHARP)),
            psf,
            science: cut(&difference_science),
            reference: cut(&difference_reference),
            sky_variance: sky_variance(
                &[&difference.science.variance().pixels, &difference.template_variance.pixels],
                x,
                y,
            ),
            radius: (RADIUS * growth).round() as usize,
            core: CORE * growth,
            reach,
            smooth: None,
            dispersion: [1.0; 2],
        };
        if fwhm > SMOOTH {
            // Two pixels more, so that it can be moved by one.
            place.radius += 2;
            place.smooth = Some(place.square(place.profile(0.0, 0.0)));
            place.radius -= 2;
        }
        if fwhm > NARROW {
            place.dispersion = [true, false].map(|positive| place.dispersion_of_sharpness(difference, positive, x, y));
        }
        place
    }

    /// Half side of the stamps, pixels.
    pub(super) fn radius(&self) -> usize {
        self.radius
    }

    pub(super) fn side(&self) -> usize {
        2 * self.radius + 1
    }

    /// Standard deviation of [`sharpness_of`] noise alone.
    pub(super) fn dispersion(&self, positive: bool) -> f64 {
        self.dispersion[usize::from(!positive)]
    }

    fn dispersion_of_sharpness(&self, difference: &Difference, positive: bool, x: f64, y: f64) -> f64 {
        let (star, particle) = (self.profile(0.0, 0.0), self.sharp_profile(0.0, 0.0, positive));
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let (pp, ps) = (product(&star, &star) as f32, product(&star, &particle) as f32);
        let functional: Vec<f32> = particle.iter().zip(&star).map(|(s, p)| pp * s - ps * p).collect();
        let planes = [
            (&self.science, sky_variance(&[&difference.science.variance().pixels], x, y)),
            (&self.reference, sky_variance(&[&difference.template_variance.pixels], x, y)),
        ];
        let variance: f64 = planes
            .iter()
            .map(|(kernel, sky)| {
                let weights = spread(&functional, self.side(), kernel);
                sky * product(&weights, &weights)
            })
            .sum();
        let (column, row) = (x.max(0.0) as usize, y.max(0.0) as usize);
        let white = f64::from(difference.pixel_noise.at(column, row)).powi(2) * product(&functional, &functional);
        let ratio = (variance / white).sqrt() * difference.scale.clamp(0.5, 2.0);
        if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 }
    }

    /// The PSF of D, of [`side`](Self::side), for a source (dx, dy) from the middle pixel.
    pub(super) fn profile(&self, dx: f64, dy: f64) -> Vec<f32> {
        match &self.smooth {
            Some(centred) => {
                let (side, half) = (self.side(), self.radius as f64);
                let at = |i: usize| ((i % side) as f64 - half - dx, (i / side) as f64 - half - dy);
                (0..side * side).map(at).map(|(u, v)| interpolate(centred, u, v) as f32).collect()
            }
            None => through(&self.science, &self.psf.stamp(dx, dy, self.radius + self.reach)),
        }
    }

    /// The same of a particle in the image that the source is brighter in.
    pub(super) fn sharp_profile(&self, dx: f64, dy: f64, positive: bool) -> Vec<f32> {
        let kernel = if positive { &self.science } else { &self.reference };
        through(kernel, &self.sharp.stamp(dx, dy, self.radius + self.reach))
    }
}

impl Place {
    /// The science PSF of a source (dx, dy) from the middle pixel.
    pub(super) fn star(&self, dx: f64, dy: f64, half: usize) -> Array2<f32> {
        self.psf.stamp(dx, dy, half)
    }

    /// The PSF of D in the middle of a pixel.
    pub(super) fn centred(&self) -> Array2<f32> {
        self.square(self.profile(0.0, 0.0))
    }

    /// The same of a particle.
    pub(super) fn centred_sharp(&self, positive: bool) -> Array2<f32> {
        self.square(self.sharp_profile(0.0, 0.0, positive))
    }

    /// Weight of a pixel of D: 1 over its variance.
    pub(super) fn weight(&self, difference: &Difference, x: usize, y: usize) -> f64 {
        let sum = f64::from(difference.science.variance().pixels[[y, x]])
            + f64::from(difference.template_variance.pixels[[y, x]]);
        let sky = f64::from(difference.pixel_noise.at(x, y)).powi(2);
        1.0 / (sky * (sum / self.sky_variance).max(1.0))
    }

    fn square(&self, profile: Vec<f32>) -> Array2<f32> {
        let side = self.side();
        Array2::from_shape_vec((side, side), profile).unwrap_or_else(|_| Array2::zeros((side, side)))
    }
}

/// A stamp as a kernel leaves it: smaller by the kernel's half side all round.
fn through(kernel: &Array2<f32>, star: &Array2<f32>) -> Vec<f32> {
    let reach = kernel.nrows() / 2;
    let side = star.nrows() - 2 * reach;
    let mut profile = vec![0.0; side * side];
    for y in 0..side {
        for (ky, taps) in kernel.outer_iter().enumerate() {
            let row = star.row(y + 2 * reach - ky);
            if let (Some(taps), Some(row)) = (taps.as_slice(), row.as_slice()) {
                accumulate(row, taps, &mut profile[y * side..(y + 1) * side]);
            }
        }
    }
    profile
}

/// Median of the sum of variance planes about a place.
fn sky_variance(planes: &[&Array2<f32>], x: f64, y: f64) -> f64 {
    const REACH: usize = 96;
    const STEP: usize = 8;
    let (height, width) = planes.first().map_or((0, 0), |plane| plane.dim());
    let around = |at: f64, length: usize| {
        let at = at.max(0.0) as usize;
        (at.saturating_sub(REACH)..(at + REACH).min(length)).step_by(STEP)
    };
    let mut values: Vec<f32> = around(y, height)
        .flat_map(|py| around(x, width).map(move |px| (py, px)))
        .map(|place| planes.iter().map(|plane| plane[place]).sum())
        .collect();
    if values.is_empty() {
        return 1.0;
    }
    let middle = values.len() / 2;
    f64::from(*values.select_nth_unstable_by(middle, f32::total_cmp).1).max(1e-12)
}

/// `out[x] += Σ taps[k] row[x + last − k]`, `last` the index of the last tap.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn accumulate(row: &[f32], taps: &[f32], out: &mut [f32]) {
    let last = taps.len() - 1;
    for (k, tap) in taps.iter().enumerate() {
        for (value, pixel) in out.iter_mut().zip(&row[last - k..]) {
            *value += tap * pixel;
        }
    }
}

impl Place {
    /// Sharpness on the science image alone, less the reference: where the reference is the broader one, D holds
    /// little of what tells a particle from a star.
    pub(super) fn sharpness_on_science(&self, difference: &Difference, pixels: &Pixels, dx: f64, dy: f64) -> f64 {
        let (star, particle) = (self.psf.stamp(dx, dy, self.radius), self.sharp.stamp(dx, dy, self.radius));
        let (science, variance) = (&difference.science.pixels().pixels, &difference.science.variance().pixels);
        let each = star.iter().zip(&particle).enumerate().filter(|(i, _)| pixels.weights[*i] > 0.0);
        sharpness_of(each.map(|(i, (star, particle))| {
            let place = [pixels.row + i / self.side() - self.radius, pixels.column + i % self.side() - self.radius];
            let value = f64::from(science[place]) - pixels.template[i];
            (value, f64::from(*star), f64::from(*particle), 1.0 / f64::from(variance[place]).max(1e-12))
        }))
    }

    /// Error of the flux, its part by photon statistics (both images' variances through the functional that the
    /// fit is), and what the same functional makes of the reference.
    pub(super) fn flux_error(
        &self,
        difference: &Difference,
        pixels: &Pixels,
        profile: &[f32],
        curvature: f64,
    ) -> (f64, f64, f64) {
        let functional: Vec<f32> =
            (0..profile.len()).map(|i| (pixels.weights[i] * f64::from(profile[i]) / curvature) as f32).collect();
        let (mut variance, mut share) = (0.0, 0.0);
        let planes = [
            (&self.science, &difference.science.variance().pixels),
            (&self.reference, &difference.template_variance.pixels),
        ];
        for (k, (kernel, plane)) in planes.into_iter().enumerate() {
            let weights = spread(&functional, self.side(), kernel);
            let side = self.side() + 2 * self.reach;
            for (i, weight) in weights.iter().enumerate() {
                let x = (pixels.column + i % side).wrapping_sub(self.radius + self.reach);
                let y = (pixels.row + i / side).wrapping_sub(self.radius + self.reach);
                if let Some(value) = plane.get([y, x]) {
                    variance += f64::from(weight * weight) * f64::from(*value);
                    if k == 1 {
                        share += f64::from(*weight) * f64::from(difference.template.pixels[[y, x]]);
                    }
                }
            }
        }
        let scale = difference.scale.clamp(0.5, 2.0);
        let registration = difference.registration.excess_px * share.abs() / self.psf.moffat.fwhm();
        let photon = scale * variance.sqrt();
        let model = difference.bright_star_floor.error(pixels.column as f64, pixels.row as f64, share);
        (photon.hypot(model).hypot(registration), photon, share)
    }
}

/// The functional on D, a square of side `inner`, carried back through a kernel to an image: larger by the kernel's
/// half side all round.
fn spread(functional: &[f32], inner: usize, kernel: &Array2<f32>) -> Vec<f32> {
    let reach = kernel.nrows() / 2;
    let side = inner + 2 * reach;
    let mut weights = vec![0.0; side * side];
    // D(p) = Σ k(u) N(p − u): the pixel q = p − u has the weight Σ_p w(p) k(p − q).
    for py in 0..inner {
        for px in 0..inner {
            let w = functional[py * inner + px];
            if w == 0.0 {
                continue;
            }
            for (ky, taps) in kernel.outer_iter().enumerate() {
                let out = &mut weights[(py + 2 * reach - ky) * side..][..side];
                if let Some(taps) = taps.as_slice() {
                    scatter(w, taps, &mut out[px..px + 2 * reach + 1]);
                }
            }
        }
    }
    weights
}

#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn scatter(weight: f32, taps: &[f32], out: &mut [f32]) {
    for (value, tap) in out.iter_mut().zip(taps.iter().rev()) {
        *value += weight * tap;
    }
}
