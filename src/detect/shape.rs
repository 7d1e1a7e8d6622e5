//! Aperture fluxes, windowed moments and pixel counts of a source on the difference image.

use ndarray::Array2;

use crate::image::mask;
use crate::subtract::Difference;

/// Radii of the two apertures, pixels: ZTF's 14 and 18 px diameters.
const APERTURES: [f64; 2] = [7.0, 9.0];
/// Parts into which a pixel on an aperture's edge is divided along each axis.
const SUBPIXELS: usize = 5;

/// Shape of a source, on the difference turned so that it is positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Flux and error in 14 px diameter, electrons.
    pub aperture14: (f64, f64),
    /// Flux and error in 18 px diameter, electrons.
    pub aperture18: (f64, f64),
    /// Full width at half maximum of a Gaussian of the same windowed size, pixels.
    pub fwhm: f64,
    /// Windowed rms along the major axis, pixels.
    pub a: f64,
    /// Windowed rms along the minor axis, pixels.
    pub b: f64,
    /// Angle of the major axis, degrees.
    pub theta: f64,
    /// Negative pixels of the 5×5.
    pub nneg: u32,
    /// Masked pixels of the 5×5.
    pub nbad: u32,
    /// Sum over sum of absolute values of the 5×5.
    pub sumrat: f64,
    /// Mask bits of the 5×5.
    pub flags: u16,
    /// Deepest opposite score within 1.4 FWHM over the score of the source, 0 to 1 and more.
    pub opposite: f64,
}

/// Measures the source at (x, y); `sign` is +1 or −1, `psf_fwhm` the science PSF's.
pub fn measure(difference: &Difference, x: f64, y: f64, sign: f64, psf_fwhm: f64) -> Shape {
    let image = &difference.difference.pixels;
    let [aperture14, aperture18] = APERTURES.map(|radius| aperture(difference, x, y, sign, radius));
    let (a, b, theta) = moments(image, x, y, sign, psf_fwhm);
    let (mut nneg, mut nbad, mut sum, mut absolute, mut flags) = (0, 0, 0.0, 0.0, 0);
    for_box(image, x, y, 2, |px, py| {
        let value = sign * f64::from(image[[py, px]]);
        nneg += u32::from(value < 0.0);
        let bits = difference.mask[[py, px]];
        nbad += u32::from(bits & (mask::UNUSABLE | mask::REFERENCE) != 0);
        flags |= bits;
        sum += value;
        absolute += value.abs();
    });
    let (mut peak, mut deepest) = (0.0f64, 0.0f64);
    let reach = (1.4 * psf_fwhm).round() as isize;
    for_box(image, x, y, reach, |px, py| {
        let value = sign * f64::from(difference.score.pixels[[py, px]]);
        peak = peak.max(value);
        deepest = deepest.min(value);
    });
    Shape {
        aperture14,
        aperture18,
        fwhm: 2.3548 * (0.5 * (a * a + b * b)).sqrt(),
        a,
        b,
        theta,
        nneg,
        nbad,
        sumrat: if absolute > 0.0 { sum / absolute } else { 0.0 },
        flags,
        opposite: if peak > 0.0 { -deepest / peak } else { 0.0 },
    }
}

/// Visits the pixels of the image in a box about (x, y).
fn for_box(image: &Array2<f32>, x: f64, y: f64, reach: isize, mut visit: impl FnMut(usize, usize)) {
    let (height, width) = image.dim();
    let (cx, cy) = (x.round() as isize, y.round() as isize);
    for py in (cy - reach).max(0)..=(cy + reach).min(height as isize - 1) {
        for px in (cx - reach).max(0)..=(cx + reach).min(width as isize - 1) {
            visit(px as usize, py as usize);
        }
    }
}

fn aperture(difference: &Difference, x: f64, y: f64, sign: f64, radius: f64) -> (f64, f64) {
    let image = &difference.difference.pixels;
    let sky = f64::from(difference.pixel_noise.at(x.max(0.0) as usize, y.max(0.0) as usize)).powi(2);
    let (mut flux, mut variance) = (0.0, 0.0);
    for_box(image, x, y, radius.ceil() as isize + 1, |px, py| {
        let inside = share_inside(px as f64 - x, py as f64 - y, radius);
        if inside > 0.0 {
            let value = sign * f64::from(image[[py, px]]);
            flux += inside * value;
            variance += inside * (sky + value.max(0.0));
        }
    });
    (flux, variance.sqrt())
}

/// The share of a pixel at (dx, dy) from an aperture's centre that lies inside it.
fn share_inside(dx: f64, dy: f64, radius: f64) -> f64 {
    let distance2 = dx * dx + dy * dy;
    if distance2 < (radius - 0.75).powi(2) {
        return 1.0;
    }
    if distance2 > (radius + 0.75).powi(2) {
        return 0.0;
    }
    let mut inside = 0;
    for i in 0..SUBPIXELS * SUBPIXELS {
        let offset = |k: usize| (k as f64 + 0.5) / SUBPIXELS as f64 - 0.5;
        let (dx, dy) = (dx + offset(i % SUBPIXELS), dy + offset(i / SUBPIXELS));
        inside += usize::from(dx * dx + dy * dy < radius * radius);
    }
    inside as f64 / (SUBPIXELS * SUBPIXELS) as f64
}

/// Second moments in a Gaussian window of the PSF's size, freed from the window (the product of two Gaussians:
/// 1/σ² = 1/m − 1/w²); the PSF's own where the pixels give none.
fn moments(image: &Array2<f32>, x: f64, y: f64, sign: f64, psf_fwhm: f64) -> (f64, f64, f64) {
    let window2 = (psf_fwhm / 2.3548).powi(2) * 2.0;
    let reach = (3.0 * window2.sqrt()).ceil() as isize;
    let (mut sum, mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0, 0.0);
    for_box(image, x, y, reach, |px, py| {
        let (dx, dy) = (px as f64 - x, py as f64 - y);
        let weight = (-0.5 * (dx * dx + dy * dy) / window2).exp() * sign * f64::from(image[[py, px]]);
        sum += weight;
        xx += weight * dx * dx;
        yy += weight * dy * dy;
        xy += weight * dx * dy;
    });
    let psf = psf_fwhm / 2.3548;
    if sum <= 0.0 {
        return (psf, psf, 0.0);
    }
    let (xx, yy, xy) = (xx / sum, yy / sum, xy / sum);
    let mean = 0.5 * (xx + yy);
    let spread = (0.25 * (xx - yy).powi(2) + xy * xy).sqrt();
    let theta = 0.5 * (2.0 * xy).atan2(xx - yy);
    let freed = |m: f64| {
        let m = m.clamp(0.02 * window2, 0.95 * window2);
        (1.0 / (1.0 / m - 1.0 / window2)).sqrt()
    };
    (freed(mean + spread), freed(mean - spread), theta.to_degrees())
}
