//! PSF fit of a source on the difference image: flux, position, their errors, chi².
//!
//! The PSF of D is rebuilt at the source's own sub-pixel phase: the kernel of D on the science image,
//! applied to the science PSF at that phase. (A PSF of D that is shifted by a Fourier phase is up to 0.2 %
//! off at 2 px FWHM.) The flux is a linear functional of the pixels of D, so of both images: its error comes
//! from their variance planes through the same kernels, plus the bright-star floor.

use nalgebra::{Matrix3, Vector3};
use ndarray::Array2;

use crate::psf::LocalPsf;
use crate::subtract::Difference;
use crate::subtract::kernels::Kernels;

/// Pixels within this radius of the source enter the fit.
pub const RADIUS: usize = 5;
/// The chi² that tells cosmic rays from stars is taken within this radius.
const CORE: f64 = 2.5;
/// Half side of the kernels of D as they are used here.
const REACH: usize = 10;
const SIDE: usize = 2 * RADIUS + 1;
const STEPS: usize = 4;

/// The kernels of D and the science PSF at one place of the field, shared by the sources near it.
pub struct Place {
    psf: LocalPsf,
    science: Array2<f32>,
    reference: Array2<f32>,
}

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
    /// Error of a coordinate, pixels.
    pub position_err: f64,
    /// Chi² a degree of freedom within 5 px.
    pub chi: f64,
    /// Pixels of the fit.
    pub pixels: usize,
    /// Chi² a pixel within 2.5 px, and the number of pixels.
    pub core_chi: f64,
    /// Pixels of the core.
    pub core_pixels: usize,
    /// Share of the squared PSF that lies on masked pixels.
    pub masked: f64,
}

impl Place {
    /// At pixel (x, y).
    pub fn new(difference: &Difference, x: f64, y: f64) -> Self {
        let Kernels { difference_science, difference_reference, .. } = difference.kernels.at(x, y);
        let cut = |kernel: &Array2<f32>| {
            let half = kernel.nrows() / 2;
            let mut small = Array2::zeros((2 * REACH + 1, 2 * REACH + 1));
            for ((iy, ix), out) in small.indexed_iter_mut() {
                if let Some(value) = kernel.get([(half + iy).wrapping_sub(REACH), (half + ix).wrapping_sub(REACH)]) {
                    *out = *value;
                }
            }
            small
        };
        Self {
            psf: difference.registration.psf_science.local(x, y),
            science: cut(&difference_science),
            reference: cut(&difference_reference),
        }
    }

    /// The PSF of D, `SIDE` × `SIDE`, for a source (dx, dy) from the middle pixel.
    fn profile(&self, dx: f64, dy: f64) -> Vec<f32> {
        let star = self.psf.stamp(dx, dy, RADIUS + REACH);
        let mut profile = vec![0.0; SIDE * SIDE];
        for y in 0..SIDE {
            for (ky, taps) in self.science.outer_iter().enumerate() {
                let row = star.row(y + 2 * REACH - ky);
                if let (Some(taps), Some(row)) = (taps.as_slice(), row.as_slice()) {
                    accumulate(row, taps, &mut profile[y * SIDE..(y + 1) * SIDE]);
                }
            }
        }
        profile
    }
}

/// `out[x] += Σ taps[k] row[x + 2 REACH − k]`.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn accumulate(row: &[f32], taps: &[f32], out: &mut [f32]) {
    let last = taps.len() - 1;
    for (k, tap) in taps.iter().enumerate() {
        for (value, pixel) in out.iter_mut().zip(&row[last - k..]) {
            *value += tap * pixel;
        }
    }
}

/// Fits a source of `flux` at about (x, y); `None` too near the edge.
pub fn fit(difference: &Difference, place: &Place, x: f64, y: f64, flux: f64) -> Option<Fit> {
    let image = &difference.difference.pixels;
    let (height, width) = image.dim();
    let (column, row) = (usize::try_from(x.round() as i64).ok()?, usize::try_from(y.round() as i64).ok()?);
    if column < RADIUS || row < RADIUS || column + RADIUS >= width || row + RADIUS >= height {
        return None;
    }
    let pixels = Pixels::new(difference, column, row);
    let (mut dx, mut dy, mut flux) = (x - column as f64, y - row as f64, flux);
    let (start_x, start_y) = (dx, dy);
    let mut last = None;
    for step in 0..STEPS {
        let profile = place.profile(dx, dy);
        let (mut normal, mut gradient) = (Matrix3::<f64>::zeros(), Vector3::<f64>::zeros());
        pixels.for_each(|i, value, weight| {
            let slopes = slopes(&profile, i);
            let j = Vector3::new(f64::from(profile[i]), -flux * slopes.0, -flux * slopes.1);
            normal += j * j.transpose() * weight;
            gradient += j * (weight * (value - flux * f64::from(profile[i])));
        });
        let inverse = normal.try_inverse()?;
        last = Some((profile, normal, inverse));
        if step + 1 == STEPS {
            break;
        }
        let change = inverse * gradient;
        flux += change[0];
        dx = (dx + change[1].clamp(-0.5, 0.5)).clamp(start_x - 1.5, start_x + 1.5);
        dy = (dy + change[2].clamp(-0.5, 0.5)).clamp(start_y - 1.5, start_y + 1.5);
    }
    let (profile, normal, inverse) = last?;
    // With the position settled the flux is linear.
    let mut numerator = 0.0;
    pixels.for_each(|i, value, weight| numerator += weight * f64::from(profile[i]) * value);
    flux = numerator / normal[(0, 0)];
    let formal = normal[(0, 0)].powf(-0.5);
    let (flux_err, photon_err) = place.flux_error(difference, &pixels, &profile, normal[(0, 0)]);
    let (mut chi2, mut core, mut count, mut core_pixels) = (0.0, 0.0, 0, 0);
    let (mut on_masked, mut all) = (0.0, 0.0);
    for (i, value) in profile.iter().enumerate() {
        let expected = flux * f64::from(*value);
        let square = f64::from(*value).powi(2);
        all += square;
        if pixels.masked[i] {
            on_masked += square;
        }
        let (ux, uy) = ((i % SIDE) as f64 - RADIUS as f64 - dx, (i / SIDE) as f64 - RADIUS as f64 - dy);
        if let Some((value, weight)) = pixels.at(i) {
            let square = weight * (value - expected).powi(2);
            chi2 += square;
            count += 1;
            if ux.hypot(uy) <= CORE {
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
        position_err: (0.5 * (inverse[(1, 1)] + inverse[(2, 2)])).sqrt() * (photon_err / formal).max(1.0),
        chi: chi2 / f64::from((count - 3).max(1)),
        pixels: count as usize,
        core_chi: core / f64::from(core_pixels.max(1)),
        core_pixels: core_pixels as usize,
        masked: on_masked / all.max(1e-30),
    })
}

/// Slopes of a profile at pixel `i` by central differences, one-sided at the border.
fn slopes(profile: &[f32], i: usize) -> (f64, f64) {
    let (x, y) = (i % SIDE, i / SIDE);
    let at = |x: usize, y: usize| f64::from(profile[y * SIDE + x]);
    let (x0, x1) = (x.saturating_sub(1), (x + 1).min(SIDE - 1));
    let (y0, y1) = (y.saturating_sub(1), (y + 1).min(SIDE - 1));
    ((at(x1, y) - at(x0, y)) / (x1 - x0) as f64, (at(x, y1) - at(x, y0)) / (y1 - y0) as f64)
}

/// Values, weights and masks of the pixels about a source.
struct Pixels {
    column: usize,
    row: usize,
    values: Vec<f64>,
    weights: Vec<f64>,
    masked: Vec<bool>,
}

impl Pixels {
    fn new(difference: &Difference, column: usize, row: usize) -> Self {
        use crate::image::mask;
        let sky = f64::from(difference.pixel_noise.at(column, row)).powi(2);
        let science = &difference.science.variance().pixels;
        let template = &difference.template_variance.pixels;
        // The quietest pixels around give the sky's share of both variances.
        let mut sums: Vec<f64> = Vec::with_capacity(SIDE * SIDE);
        let (mut values, mut masked) = (Vec::with_capacity(SIDE * SIDE), Vec::with_capacity(SIDE * SIDE));
        for y in row - RADIUS..=row + RADIUS {
            for x in column - RADIUS..=column + RADIUS {
                sums.push(f64::from(science[[y, x]]) + f64::from(template[[y, x]]));
                values.push(f64::from(difference.difference.pixels[[y, x]]));
                masked.push(difference.mask[[y, x]] & (mask::UNUSABLE | mask::REFERENCE) != 0);
            }
        }
        let mut sorted = sums.clone();
        sorted.sort_by(f64::total_cmp);
        let quiet = sorted[sorted.len() / 10].max(1e-12);
        let radius2 = (RADIUS * RADIUS) as f64 + 0.5;
        let weights = (0..SIDE * SIDE)
            .map(|i| {
                let (ux, uy) = ((i % SIDE) as f64 - RADIUS as f64, (i / SIDE) as f64 - RADIUS as f64);
                let used = !masked[i] && ux * ux + uy * uy <= radius2;
                if used { 1.0 / (sky * (sums[i] / quiet).max(1.0)) } else { 0.0 }
            })
            .collect();
        Self { column, row, values, weights, masked }
    }

    fn at(&self, i: usize) -> Option<(f64, f64)> {
        (self.weights[i] > 0.0).then(|| (self.values[i], self.weights[i]))
    }

    fn for_each(&self, mut visit: impl FnMut(usize, f64, f64)) {
        for i in 0..SIDE * SIDE {
            if self.weights[i] > 0.0 {
                visit(i, self.values[i], self.weights[i]);
            }
        }
    }
}

impl Place {
    /// Error of the flux, and its part by photon statistics: both images' variances through the functional
    /// that the fit is.
    fn flux_error(&self, difference: &Difference, pixels: &Pixels, profile: &[f32], curvature: f64) -> (f64, f64) {
        let functional: Vec<f32> =
            (0..SIDE * SIDE).map(|i| (pixels.weights[i] * f64::from(profile[i]) / curvature) as f32).collect();
        let (mut variance, mut share) = (0.0, 0.0);
        let planes = [
            (&self.science, &difference.science.variance().pixels),
            (&self.reference, &difference.template_variance.pixels),
        ];
        for (k, (kernel, plane)) in planes.into_iter().enumerate() {
            let weights = spread(&functional, kernel);
            let side = SIDE + 2 * REACH;
            for (i, weight) in weights.iter().enumerate() {
                let x = (pixels.column + i % side).wrapping_sub(RADIUS + REACH);
                let y = (pixels.row + i / side).wrapping_sub(RADIUS + REACH);
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
        (photon.hypot(difference.bright_star_floor * share).hypot(registration), photon)
    }
}

/// The functional on D carried back through a kernel to an image: `SIDE + 2 REACH` square.
fn spread(functional: &[f32], kernel: &Array2<f32>) -> Vec<f32> {
    let side = SIDE + 2 * REACH;
    let mut weights = vec![0.0; side * side];
    // D(p) = Σ k(u) N(p − u): the pixel q = p − u has the weight Σ_p w(p) k(p − q).
    for py in 0..SIDE {
        for px in 0..SIDE {
            let w = functional[py * SIDE + px];
            if w == 0.0 {
                continue;
            }
            for (ky, taps) in kernel.outer_iter().enumerate() {
                let out = &mut weights[(py + 2 * REACH - ky) * side..][..side];
                if let Some(taps) = taps.as_slice() {
                    scatter(w, taps, &mut out[px..px + 2 * REACH + 1]);
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
