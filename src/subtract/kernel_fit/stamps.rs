//! Small images around objects that both frames show, and their share of the normal equations.

use nalgebra::{DMatrix, DVector};
use ndarray::Array2;
use rayon::prelude::*;

use super::basis::Basis;
use crate::image::{Mask, mask};
use crate::register::MatchedStar;
use crate::register::smooth::gaussian;
use crate::register::stars::local_maxima;

/// Most stamps.
const MOST: usize = 160;
/// The field is divided into this many cells an axis, each giving its brightest objects.
const CELLS: usize = 8;
/// Objects fainter than this in either frame say little.
const SIGNIFICANCE: f64 = 12.0;
/// Fewer matched objects than this are supplemented by peaks of the template.
const FEW: usize = 40;
/// Significance of such peaks in the matched filter.
const PEAK_SIGNIFICANCE: f64 = 12.0;
/// Most that the smoothed images may differ there, as a factor.
const LIKENESS: f32 = 2.5;
/// Error of the kernel model, as a fraction of the target's value, added to the noise.
const MODEL_ERROR: f64 = 0.005;
/// Share of a stamp's pixels that may be masked.
const MASKED: f64 = 0.2;

/// The image that is convolved, and the one that it shall look like.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// The sharper image.
    pub source: &'a Array2<f32>,
    /// Its variance.
    pub source_variance: &'a Array2<f32>,
    /// The broader image.
    pub target: &'a Array2<f32>,
    /// Its variance.
    pub target_variance: &'a Array2<f32>,
    /// Mask of both.
    pub bits: &'a Mask,
}

/// One object's normal equations: a quadratic form of the kernel's coefficients at its place (those of the
/// basis, then the background).
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Column of the centre.
    pub x: f64,
    /// Row of the centre.
    pub y: f64,
    /// Weighted products of the columns.
    pub normal: DMatrix<f64>,
    /// Weighted products of the columns with the target.
    pub side: DVector<f64>,
    /// Weighted square of the target.
    pub square: f64,
    /// Pixels with weight.
    pub pixels: usize,
}

impl Stamp {
    /// Chi² with these local coefficients.
    pub fn chi2(&self, local: &DVector<f64>) -> f64 {
        (local.transpose() * &self.normal * local)[0] - 2.0 * self.side.dot(local) + self.square
    }

    /// The factor by which the kernel with these local coefficients would have to be multiplied for this object,
    /// whatever the background, and its error.
    pub fn factor(&self, local: &DVector<f64>) -> (f64, f64) {
        let last = local.len() - 1;
        let mut kernel = local.clone();
        kernel[last] = 0.0;
        let image = &self.normal * &kernel;
        let sky = self.normal[(last, last)].max(f64::MIN_POSITIVE);
        let curvature = kernel.dot(&image) - image[last] * image[last] / sky;
        let side = self.side.dot(&kernel) - image[last] / sky * self.side[last];
        if curvature > 0.0 && side.is_finite() { (side / curvature, curvature.powf(-0.5)) } else { (f64::MAX, 1.0) }
    }
}

/// Centres of the objects that the fit rests on: bright ones first, spread over the field, none inside
/// another's stamp.
pub fn places(objects: &[MatchedStar], (height, width): (usize, usize), half: usize) -> Vec<(usize, usize)> {
    let mut counts = [0usize; CELLS * CELLS];
    let each = if objects.len() > MOST { MOST / (CELLS * CELLS) + 1 } else { usize::MAX };
    let mut chosen: Vec<(usize, usize)> = Vec::new();
    for object in objects {
        let significance = (object.flux / object.flux_err).min(object.reference_flux / object.reference_flux_err);
        let inside = object.x >= 0.0 && object.y >= 0.0 && object.x < width as f64 && object.y < height as f64;
        if !inside || significance.is_nan() || significance < SIGNIFICANCE || chosen.len() >= MOST {
            continue;
        }
        let (x, y) = (object.x.round() as usize, object.y.round() as usize);
        let cell = (y * CELLS / height).min(CELLS - 1) * CELLS + (x * CELLS / width).min(CELLS - 1);
        let apart = chosen.iter().all(|&(cx, cy)| cx.abs_diff(x).max(cy.abs_diff(y)) > half);
        if apart && counts[cell] < each {
            counts[cell] += 1;
            chosen.push((x, y));
        }
    }
    chosen
}

/// Adds peaks that both images show, galaxies and all, where the objects that were matched are few. `noise` is that
/// of a pixel of either image.
pub fn supplement(
    places: &mut Vec<(usize, usize)>,
    images: (&Array2<f32>, &Array2<f32>),
    noise: (f64, f64),
    fwhm: f64,
    half: usize,
) {
    if places.len() >= FEW {
        return;
    }
    let smooth = [images.0, images.1].map(|image| gaussian(image, (fwhm / 2.3548).max(0.6)));
    let least = |noise: f64, sum_of_squares: f64| (PEAK_SIGNIFICANCE * noise * sum_of_squares) as f32;
    let mut peaks = local_maxima(&smooth[1].0, least(noise.1, smooth[1].1));
    peaks.sort_by(|a, b| b.2.total_cmp(&a.2));
    for (x, y, value) in peaks {
        if places.len() >= FEW {
            break;
        }
        let there = smooth[0].0[[y, x]];
        let alike = there > least(noise.0, smooth[0].1) && (value / LIKENESS..value * LIKENESS).contains(&there);
        if alike && places.iter().all(|&(cx, cy)| cx.abs_diff(x).max(cy.abs_diff(y)) > half) {
            places.push((x, y));
        }
    }
}

/// The stamps at `places`; those too near the edge or with too much masked are left out. `noise_share` is the
/// sum of the squares of the kernel that is expected: what the convolved image keeps of its variance.
pub fn cut(pair: Pair<'_>, basis: &Basis, places: &[(usize, usize)], half: usize, noise_share: f64) -> Vec<Stamp> {
    places.par_iter().filter_map(|&(x, y)| cut_one(pair, basis, (x, y), half, noise_share)).collect()
}

fn cut_one(pair: Pair<'_>, basis: &Basis, (x, y): (usize, usize), half: usize, noise_share: f64) -> Option<Stamp> {
    let (height, width) = pair.target.dim();
    let margin = half + basis.reach() + 1;
    if x < margin || y < margin || x + margin >= width || y + margin >= height {
        return None;
    }
    let side = 2 * half + 1;
    let columns = basis.len() + 1;
    let mut design = DMatrix::<f64>::zeros(columns, side * side);
    let mut weighted = design.clone();
    let mut values = DVector::<f64>::zeros(side * side);
    let (mut square, mut used) = (0.0, 0usize);
    for index in 0..side * side {
        let (px, py) = (x - half + index % side, y - half + index / side);
        if is_masked(pair.bits, px, py) {
            continue;
        }
        used += 1;
        let (value, level) = (f64::from(pair.target[[py, px]]), mean(pair.target, px, py).max(0.0));
        let from_source = mean(pair.source_variance, px, py);
        let variance = mean(pair.target_variance, px, py) + noise_share * from_source + (MODEL_ERROR * level).powi(2);
        let weight = 1.0 / variance.max(1e-12);
        let mut column = design.column_mut(index);
        basis.convolved(pair.source, px, py, &mut column.as_mut_slice()[..columns - 1]);
        column[columns - 1] = 1.0;
        weighted.column_mut(index).axpy(weight, &column, 0.0);
        values[index] = value;
        square += weight * value * value;
    }
    if (used as f64) < (1.0 - MASKED) * (side * side) as f64 || is_masked(pair.bits, x, y) {
        return None;
    }
    let normal = &weighted * design.transpose();
    let sums = &weighted * &values;
    let finite = square.is_finite() && normal.iter().all(|v| v.is_finite()) && sums.iter().all(|v| v.is_finite());
    finite.then_some(Stamp { x: x as f64, y: y as f64, normal, side: sums, square, pixels: used })
}

/// Whether an unusable pixel lies within one pixel.
fn is_masked(bits: &Mask, x: usize, y: usize) -> bool {
    let around = bits.slice(ndarray::s![y - 1..=y + 1, x - 1..=x + 1]);
    around.iter().any(|b| b & (mask::UNUSABLE | mask::REFERENCE) != 0)
}

/// Mean of 3×3 pixels: weights that follow single pixels' noise would bias the fit.
fn mean(image: &Array2<f32>, x: usize, y: usize) -> f64 {
    let around = image.slice(ndarray::s![y - 1..=y + 1, x - 1..=x + 1]);
    around.iter().map(|v| f64::from(*v)).sum::<f64>() / 9.0
}
