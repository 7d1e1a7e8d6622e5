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
/// FWHM of what a charged particle leaves, of the PSF's, and pixels at most.
const SHARP: f64 = 0.55;
const MOST_SHARP: f64 = 1.3;
/// What the resampling of an undersampled reference leaves of a bright star near the Nyquist frequency, as a part
/// of the star's own pixels (1 to 4 % of the peak at a FWHM of 2.1 px). It does not reach S, which has no such
/// frequencies, but would make every variable star look like a cosmic ray.
const RIPPLE: f64 = 0.03;

/// The kernels of D and the science PSF at one place of the field, shared by the sources near it.
pub struct Place {
    psf: LocalPsf,
    /// What a charged particle leaves: far narrower than the PSF.
    sharp: LocalPsf,
    science: Array2<f32>,
    reference: Array2<f32>,
    /// Variance of empty sky, science image and template together, electrons².
    sky_variance: f64,
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
    /// What the reference holds there, in units of that error.
    pub reference_snr: f64,
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
    /// How much better a profile far narrower than the PSF takes part in it, standard deviations: about 0 for a
    /// point source, positive for cosmic rays and hot pixels.
    pub sharpness: f64,
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
        let psf = difference.registration.psf_science.local(x, y);
        Self {
            sharp: psf.narrowed((SHARP * psf.moffat.fwhm()).min(MOST_SHARP)),
            psf,
            science: cut(&difference_science),
            reference: cut(&difference_reference),
            sky_variance: sky_variance(difference, x, y),
        }
    }

    /// The PSF of D, `SIDE` × `SIDE`, for a source (dx, dy) from the middle pixel.
    fn profile(&self, dx: f64, dy: f64) -> Vec<f32> {
        through(&self.science, &self.psf.stamp(dx, dy, RADIUS + REACH))
    }

    /// The same of a particle in the image that the source is brighter in.
    fn sharp_profile(&self, dx: f64, dy: f64, positive: bool) -> Vec<f32> {
        let kernel = if positive { &self.science } else { &self.reference };
        through(kernel, &self.sharp.stamp(dx, dy, RADIUS + REACH))
    }
}

impl Place {
    /// The PSF of D in the middle of a pixel.
    pub(super) fn centred(&self) -> Array2<f32> {
        square(self.profile(0.0, 0.0))
    }

    /// The same of a particle.
    pub(super) fn centred_sharp(&self, positive: bool) -> Array2<f32> {
        square(self.sharp_profile(0.0, 0.0, positive))
    }

    /// Weight of a pixel of D: 1 over its variance.
    pub(super) fn weight(&self, difference: &Difference, x: usize, y: usize) -> f64 {
        let sum = f64::from(difference.science.variance().pixels[[y, x]])
            + f64::from(difference.template_variance.pixels[[y, x]]);
        let sky = f64::from(difference.pixel_noise.at(x, y)).powi(2);
        1.0 / (sky * (sum / self.sky_variance).max(1.0))
    }
}

fn square(profile: Vec<f32>) -> Array2<f32> {
    Array2::from_shape_vec((SIDE, SIDE), profile).unwrap_or_else(|_| Array2::zeros((SIDE, SIDE)))
}

/// A stamp of half side `RADIUS + REACH` as a kernel leaves it, `SIDE` × `SIDE`.
fn through(kernel: &Array2<f32>, star: &Array2<f32>) -> Vec<f32> {
    let mut profile = vec![0.0; SIDE * SIDE];
    for y in 0..SIDE {
        for (ky, taps) in kernel.outer_iter().enumerate() {
            let row = star.row(y + 2 * REACH - ky);
            if let (Some(taps), Some(row)) = (taps.as_slice(), row.as_slice()) {
                accumulate(row, taps, &mut profile[y * SIDE..(y + 1) * SIDE]);
            }
        }
    }
    profile
}

/// Median variance of both images about a place.
fn sky_variance(difference: &Difference, x: f64, y: f64) -> f64 {
    const REACH: usize = 96;
    const STEP: usize = 8;
    let (science, template) = (&difference.science.variance().pixels, &difference.template_variance.pixels);
    let (height, width) = science.dim();
    let around = |at: f64, length: usize| {
        let at = at.max(0.0) as usize;
        (at.saturating_sub(REACH)..(at + REACH).min(length)).step_by(STEP)
    };
    let mut values: Vec<f32> = around(y, height)
        .flat_map(|py| around(x, width).map(move |px| (py, px)))
        .map(|place| science[place] + template[place])
        .collect();
    if values.is_empty() {
        return 1.0;
    }
    let middle = values.len() / 2;
    f64::from(*values.select_nth_unstable_by(middle, f32::total_cmp).1).max(1e-12)
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
    let pixels = Pixels::new(difference, place.sky_variance, column, row);
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
    let (flux_err, photon_err, share) = place.flux_error(difference, &pixels, &profile, normal[(0, 0)]);
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
        if let Some((value, weight)) = pixels.judged(i) {
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
        reference_snr: share.abs() / photon_err.max(f64::MIN_POSITIVE),
        position_err: (0.5 * (inverse[(1, 1)] + inverse[(2, 2)])).sqrt() * (photon_err / formal).max(1.0),
        chi: chi2 / f64::from((count - 3).max(1)),
        pixels: count as usize,
        core_chi: core / f64::from(core_pixels.max(1)),
        core_pixels: core_pixels as usize,
        masked: on_masked / all.max(1e-30),
        sharpness: {
            let sharp = place.sharp_profile(dx, dy, flux > 0.0);
            let each = (0..SIDE * SIDE).filter_map(|i| pixels.judged(i).map(|(v, w)| (i, v, w)));
            sharpness_of(each.map(|(i, v, w)| (v, f64::from(profile[i]), f64::from(sharp[i]), w)))
        },
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
    /// The reference, electrons of the science image.
    template: Vec<f64>,
    masked: Vec<bool>,
}

impl Pixels {
    fn new(difference: &Difference, quiet: f64, column: usize, row: usize) -> Self {
        use crate::image::mask;
        let sky = f64::from(difference.pixel_noise.at(column, row)).powi(2);
        let science = &difference.science.variance().pixels;
        let template = &difference.template_variance.pixels;
        let mut sums: Vec<f64> = Vec::with_capacity(SIDE * SIDE);
        let new = || Vec::with_capacity(SIDE * SIDE);
        let (mut values, mut reference, mut masked) = (new(), new(), Vec::with_capacity(SIDE * SIDE));
        for y in row - RADIUS..=row + RADIUS {
            for x in column - RADIUS..=column + RADIUS {
                sums.push(f64::from(science[[y, x]]) + f64::from(template[[y, x]]));
                values.push(f64::from(difference.difference.pixels[[y, x]]));
                reference.push(f64::from(difference.template.pixels[[y, x]]));
                masked.push(difference.mask[[y, x]] & (mask::UNUSABLE | mask::REFERENCE) != 0);
            }
        }
        let radius2 = (RADIUS * RADIUS) as f64 + 0.5;
        let weights = (0..SIDE * SIDE)
            .map(|i| {
                let (ux, uy) = ((i % SIDE) as f64 - RADIUS as f64, (i / SIDE) as f64 - RADIUS as f64);
                let used = !masked[i] && ux * ux + uy * uy <= radius2;
                if used { 1.0 / (sky * (sums[i] / quiet).max(1.0)) } else { 0.0 }
            })
            .collect();
        Self { column, row, values, weights, template: reference, masked }
    }

    /// Value and weight of a pixel for the judgement of shapes.
    fn judged(&self, i: usize) -> Option<(f64, f64)> {
        let weight = self.weights[i];
        (weight > 0.0).then(|| (self.values[i], 1.0 / (1.0 / weight + (RIPPLE * self.template[i]).powi(2))))
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
    /// Error of the flux, its part by photon statistics (both images' variances through the functional that the
    /// fit is), and what the same functional makes of the reference.
    fn flux_error(&self, difference: &Difference, pixels: &Pixels, profile: &[f32], curvature: f64) -> (f64, f64, f64) {
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
        (photon.hypot(difference.bright_star_floor * share).hypot(registration), photon, share)
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
