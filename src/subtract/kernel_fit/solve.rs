//! The kernel's coefficients as polynomials of the field position, with the degree, the smoothing and the
//! stamps that cross-validation and clipping leave.

use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use super::basis::Basis;
use super::stamps::Stamp;
use crate::psf::Field;

/// Weights of the penalty on rough kernels that are tried, in units of chi².
const SMOOTHING: [f64; 8] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];
/// Parts into which the stamps are divided for cross-validation.
const FOLDS: usize = 5;
/// Stamps that each term of a polynomial needs.
const STAMPS_A_TERM: usize = 4;
/// A richer model must predict better by this factor.
const GAIN: f64 = 1.002;
/// Fewer stamps determine no kernel.
pub const LEAST_STAMPS: usize = 3;
/// Stamps are left out beyond this many robust sigmas of the others' chi² a pixel, and only above [`CHI_FLOOR`].
const CLIP: f64 = 4.0;
const CHI_FLOOR: f64 = 1.5;
/// Stamps are left out whose flux factor is off the others' by more than this many sigmas, with a floor on sigma.
const FACTOR_CLIP: f64 = 3.0;
const FACTOR_FLOOR: f64 = 0.004;
/// The floor is doubled up to so many times until half of the stamps agree.
const DOUBLINGS: usize = 6;
const ROUNDS: usize = 6;

/// How the kernel may vary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Degree of the kernel's shape over the field.
    pub degree: usize,
    /// Degree of its sum: 0, or 1 where the photometric scale has a gradient.
    pub sum_degree: usize,
    /// Degree of the background.
    pub background_degree: usize,
    /// Weight of the penalty on rough kernels.
    pub smoothing: f64,
}

/// Where each local coefficient's polynomial stands among the unknowns.
#[derive(Debug, Clone)]
struct Layout {
    offsets: Vec<(usize, usize)>,
    size: usize,
    degree: usize,
}

impl Layout {
    fn new(basis: &Basis, shape: &Shape) -> Self {
        let mut size = 0;
        let mut offsets = Vec::with_capacity(basis.len() + 1);
        for column in 0..=basis.len() {
            let degree = match column {
                0 => shape.sum_degree,
                c if c == basis.len() => shape.background_degree,
                c if basis.varies(c) => shape.degree,
                _ => 0,
            };
            offsets.push((size, Field::terms(degree)));
            size += Field::terms(degree);
        }
        Self { offsets, size, degree: shape.degree.max(shape.sum_degree).max(shape.background_degree) }
    }

    /// The local coefficients at a place.
    fn local(&self, field: &Field, solution: &DVector<f64>, x: f64, y: f64) -> DVector<f64> {
        let terms = field.basis(x, y, self.degree);
        DVector::from_iterator(
            self.offsets.len(),
            self.offsets.iter().map(|&(from, count)| (0..count).map(|t| terms[t] * solution[from + t]).sum()),
        )
    }

    /// Adds a stamp's equations.
    fn add(&self, field: &Field, stamp: &Stamp, normal: &mut DMatrix<f64>, side: &mut DVector<f64>) {
        let terms = field.basis(stamp.x, stamp.y, self.degree);
        for (k, &(row, rows)) in self.offsets.iter().enumerate() {
            for t in 0..rows {
                side[row + t] += terms[t] * stamp.side[k];
            }
            for (l, &(column, columns)) in self.offsets[..=k].iter().enumerate() {
                let value = stamp.normal[(k, l)];
                for t in 0..rows {
                    let scaled = terms[t] * value;
                    for u in 0..columns {
                        normal[(row + t, column + u)] += scaled * terms[u];
                    }
                }
            }
        }
    }

    /// Adds the penalty on rough kernels to the lower triangle.
    fn smooth(&self, basis: &Basis, weight: f64, normal: &mut DMatrix<f64>) {
        let roughness = basis.roughness();
        for (k, &(row, rows)) in self.offsets[..basis.len()].iter().enumerate() {
            for (l, &(column, columns)) in self.offsets[..=k].iter().enumerate() {
                for t in 0..rows.min(columns) {
                    normal[(row + t, column + t)] += weight * roughness[(k, l)];
                }
            }
        }
    }
}

/// Normal equations of a part of the stamps, lower triangle.
struct Equations {
    normal: DMatrix<f64>,
    side: DVector<f64>,
}

impl Equations {
    fn of<'a>(layout: &Layout, field: &Field, stamps: impl Iterator<Item = &'a Stamp>) -> Self {
        let mut sum = Self { normal: DMatrix::zeros(layout.size, layout.size), side: DVector::zeros(layout.size) };
        stamps.for_each(|stamp| layout.add(field, stamp, &mut sum.normal, &mut sum.side));
        sum
    }

    fn solve(mut self, layout: &Layout, basis: &Basis, smoothing: f64) -> Option<DVector<f64>> {
        layout.smooth(basis, smoothing, &mut self.normal);
        let solved = self.normal.cholesky()?.solve(&self.side);
        solved.iter().all(|v| v.is_finite()).then_some(solved)
    }
}

/// A matching kernel that varies over the field.
#[derive(Debug, Clone)]
pub struct Solution {
    field: Field,
    basis: Basis,
    layout: Layout,
    coefficients: DVector<f64>,
    /// How it varies.
    pub shape: Shape,
    /// Stamps that it rests on.
    pub stamps: usize,
    /// Chi² a pixel of stamps that the fit had not seen.
    pub unseen_chi2: f64,
}

impl Solution {
    /// The kernel at a place of the field, an image of odd side.
    pub fn kernel(&self, x: f64, y: f64) -> ndarray::Array2<f64> {
        let local = self.layout.local(&self.field, &self.coefficients, x, y);
        self.basis.kernel(&local.as_slice()[..self.basis.len()])
    }

    /// Sum of the kernel at a place of the field: flux of the target over flux of the source.
    pub fn sum(&self, x: f64, y: f64) -> f64 {
        self.layout.local(&self.field, &self.coefficients, x, y)[0]
    }
}

/// Fits the kernel; `None` where fewer than [`LEAST_STAMPS`] stamps agree.
///
/// The shape is chosen from all stamps, those that disagree are left out, and it is chosen again from the rest.
pub fn solve(field: Field, basis: Basis, mut stamps: Vec<Stamp>) -> Option<Solution> {
    if stamps.len() < LEAST_STAMPS {
        return None;
    }
    let enough = stamps.len().div_ceil(2);
    let (mut shape, _) = choose(&field, &basis, &stamps, false)?;
    for round in 0..ROUNDS {
        let layout = Layout::new(&basis, &shape);
        let coefficients = Equations::of(&layout, &field, stamps.iter()).solve(&layout, &basis, shape.smoothing)?;
        let kept = agreeing(&field, &layout, &coefficients, &stamps, enough);
        let count = kept.iter().filter(|k| **k).count();
        if count < LEAST_STAMPS {
            return None;
        }
        let settled = count == stamps.len();
        let mut keep = kept.into_iter();
        stamps.retain(|_| keep.next().unwrap_or(true));
        if settled && round > 0 {
            break;
        }
        // Once the worst are gone the others may tell more of the shape.
        if round == 1 {
            shape = choose(&field, &basis, &stamps, true)?.0;
        }
    }
    let (shape, unseen_chi2) = choose(&field, &basis, &stamps, true)?;
    let layout = Layout::new(&basis, &shape);
    let coefficients = Equations::of(&layout, &field, stamps.iter()).solve(&layout, &basis, shape.smoothing)?;
    Some(Solution { field, basis, layout, coefficients, shape, stamps: stamps.len(), unseen_chi2 })
}

/// Which stamps the kernel fits as well as the others: variable stars, blends and cosmic rays do not.
///
/// A variable star differs by a factor first of all, and many bright stars of a field may vary: those that are
/// constant gather at one value of the factor, the mode, and not at the mean.
fn agreeing(field: &Field, layout: &Layout, coefficients: &DVector<f64>, stamps: &[Stamp], enough: usize) -> Vec<bool> {
    let locals: Vec<DVector<f64>> = stamps.iter().map(|s| layout.local(field, coefficients, s.x, s.y)).collect();
    let factors: Vec<(f64, f64)> = stamps.iter().zip(&locals).map(|(s, local)| s.factor(local)).collect();
    let (common, floor) = agreement(&factors, enough);
    let chi2: Vec<f64> = stamps.iter().zip(&locals).map(|(s, l)| s.chi2(l) / s.pixels.max(1) as f64).collect();
    let median = middle(chi2.clone());
    let spread = 1.4826 * middle(chi2.iter().map(|c| (c - median).abs()).collect());
    let limit = (median + CLIP * spread).max(CHI_FLOOR * median.max(1.0));
    let same = |factor: &(f64, f64)| (factor.0 - common).abs() <= FACTOR_CLIP * factor.1.hypot(floor);
    chi2.iter().zip(&factors).map(|(c, f)| *c <= limit && same(f)).collect()
}

/// The common factor, and the least error with which `enough` stamps agree on it.
fn agreement(factors: &[(f64, f64)], enough: usize) -> (f64, f64) {
    let (mut common, mut floor) = (1.0, FACTOR_FLOOR);
    for _ in 0..DOUBLINGS {
        common = mode(factors, floor);
        let agree = factors.iter().filter(|f| (f.0 - common).abs() <= FACTOR_CLIP * f.1.hypot(floor)).count();
        if agree >= enough.min(factors.len()) {
            break;
        }
        floor *= 2.0;
    }
    (common, floor)
}

/// The factor about which most of the weight gathers, within the errors and `floor`.
fn mode(factors: &[(f64, f64)], floor: f64) -> f64 {
    let density = |centre: f64| -> f64 {
        let normal = |&(value, error): &(f64, f64)| {
            let width = error.hypot(floor);
            (-0.5 * ((value - centre) / width).powi(2)).exp() / width
        };
        factors.iter().map(normal).sum()
    };
    let best = factors.iter().map(|f| (density(f.0), f.0)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(1.0, |(_, factor)| factor)
}

fn middle(mut values: Vec<f64>) -> f64 {
    let half = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(half, f64::total_cmp).1 }
}

/// The smoothing, then the degrees with which stamps that were left out are predicted best.
fn choose(field: &Field, basis: &Basis, stamps: &[Stamp], all: bool) -> Option<(Shape, f64)> {
    let constant = Shape { degree: 0, sum_degree: 0, background_degree: 0, smoothing: 0.0 };
    let mut best = SMOOTHING
        .par_iter()
        .filter_map(|&smoothing| {
            let shape = Shape { smoothing, ..constant };
            unseen(field, basis, stamps, &shape).map(|error| (shape, error))
        })
        .min_by(|a, b| a.1.total_cmp(&b.1))?;
    let supports = |degree: usize| stamps.len() >= STAMPS_A_TERM * Field::terms(degree);
    for degree in (1..=2).filter(|&d| supports(d)) {
        for sum_degree in 0..=usize::from(all && supports(2)) {
            let shape = Shape { degree, sum_degree, background_degree: 1, ..best.0 };
            if let Some(error) = unseen(field, basis, stamps, &shape).filter(|e| e * GAIN < best.1) {
                best = (shape, error);
            }
        }
    }
    Some(best)
}

/// Chi² a pixel of the stamps, each predicted by the others.
fn unseen(field: &Field, basis: &Basis, stamps: &[Stamp], shape: &Shape) -> Option<f64> {
    let layout = Layout::new(basis, shape);
    let folds = FOLDS.min(stamps.len());
    let parts: Vec<Equations> = (0..folds)
        .into_par_iter()
        .map(|fold| Equations::of(&layout, field, stamps.iter().skip(fold).step_by(folds)))
        .collect();
    let errors: Option<Vec<f64>> = (0..folds)
        .into_par_iter()
        .map(|fold| {
            let mut rest =
                Equations { normal: DMatrix::zeros(layout.size, layout.size), side: DVector::zeros(layout.size) };
            for (_, part) in parts.iter().enumerate().filter(|(other, _)| *other != fold) {
                rest.normal += &part.normal;
                rest.side += &part.side;
            }
            let solution = rest.solve(&layout, basis, shape.smoothing)?;
            let held = stamps.iter().skip(fold).step_by(folds);
            Some(held.map(|s| s.chi2(&layout.local(field, &solution, s.x, s.y))).sum())
        })
        .collect();
    let pixels: usize = stamps.iter().map(|s| s.pixels).sum();
    errors.map(|e| e.iter().sum::<f64>() / pixels.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::super::stamps::{Pair, cut};
    use super::*;
    use crate::image::Mask;

    /// Elliptical Gaussian stars; the width by x may grow over the field.
    fn stars(places: &[(usize, usize)], variance: impl Fn(f64) -> (f64, f64), scale: f64) -> Array2<f32> {
        let mut image = Array2::<f32>::zeros((256, 256));
        for (i, &(cx, cy)) in places.iter().enumerate() {
            let (vx, vy) = variance(cx as f64);
            let flux = scale * (2e4 + 1e3 * i as f64) / (2.0 * std::f64::consts::PI * (vx * vy).sqrt());
            let shift = 0.37 * (i % 3) as f64;
            for y in cy - 14..=cy + 14 {
                for x in cx - 14..=cx + 14 {
                    let (u, v) = (x as f64 - cx as f64 - shift, y as f64 - cy as f64 + shift);
                    image[[y, x]] += (flux * (-0.5 * (u * u / vx + v * v / vy)).exp()) as f32;
                }
            }
        }
        image
    }

    fn places() -> Vec<(usize, usize)> {
        (0..36).map(|i| (30 + i % 6 * 39 + i / 6, 30 + i / 6 * 39)).collect()
    }

    fn solution(source: &Array2<f32>, target: &Array2<f32>) -> Solution {
        let variance = Array2::from_elem(source.dim(), 100.0f32);
        let bits = Mask::zeros(source.dim());
        let pair =
            Pair { source, source_variance: &(&variance * 1e-6), target, target_variance: &variance, bits: &bits };
        let basis = Basis::grid(8.0, 1, 5.0);
        let stamps = cut(pair, &basis, &places(), 9, 0.2);
        assert!(stamps.len() >= 30, "{}", stamps.len());
        solve(Field::new(256, 256), basis, stamps).unwrap()
    }

    #[test]
    fn the_kernel_between_two_gaussians_is_the_gaussian_between_them() {
        let sharp = stars(&places(), |_| (1.44, 1.44), 1.0);
        let broad = stars(&places(), |_| (3.4, 2.9), 1.25);
        let found = solution(&sharp, &broad);
        assert!((found.sum(128.0, 128.0) - 1.25).abs() < 0.005, "{}", found.sum(128.0, 128.0));
        let kernel = found.kernel(128.0, 128.0);
        let half = (kernel.nrows() / 2) as f64;
        let (vx, vy) = (3.4 - 1.44, 2.9 - 1.44);
        let peak = 1.25 / (2.0 * std::f64::consts::PI * f64::sqrt(vx * vy));
        for ((y, x), value) in kernel.indexed_iter() {
            let (u, v) = (x as f64 - half, y as f64 - half);
            let truth = peak * (-0.5 * (u * u / vx + v * v / vy)).exp();
            assert!((value - truth).abs() < 0.03 * peak, "({u}, {v}): {value} for {truth}");
        }
    }

    #[test]
    fn a_kernel_that_widens_across_the_field_is_followed() {
        let sharp = stars(&places(), |_| (1.44, 1.44), 1.0);
        let broad = stars(&places(), |x| (2.6 + 0.006 * x, 2.9), 1.0);
        let found = solution(&sharp, &broad);
        assert!(found.shape.degree >= 1, "{:?}", found.shape);
        let width = |x: f64| {
            let kernel = found.kernel(x, 128.0);
            let half = (kernel.nrows() / 2) as f64;
            kernel.indexed_iter().map(|((_, ix), v)| v * (ix as f64 - half).powi(2)).sum::<f64>() / kernel.sum()
        };
        for x in [50.0, 128.0, 200.0] {
            let truth = 2.6 + 0.006 * x - 1.44;
            assert!((width(x) - truth).abs() < 0.12, "at {x}: {} for {truth}", width(x));
        }
    }

    #[test]
    fn stamps_that_changed_are_left_out() {
        let all = places();
        let sharp = stars(&all, |_| (1.44, 1.44), 1.0);
        let mut broad = stars(&all, |_| (3.0, 3.0), 1.0);
        for &(x, y) in &all[10..14] {
            let mut around = broad.slice_mut(ndarray::s![y - 12..=y + 12, x - 12..=x + 12]);
            around.mapv_inplace(|v| 1.6 * v);
        }
        let found = solution(&sharp, &broad);
        assert!((found.sum(128.0, 128.0) - 1.0).abs() < 0.005, "{}", found.sum(128.0, 128.0));
        assert_eq!(found.stamps, all.len() - 4);
    }
}
