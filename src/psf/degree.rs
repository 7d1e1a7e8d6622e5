//! The degree of the shape's polynomials over the field, by cross-validation over the stars.
//!
//! With a star's own flux, place and background eliminated, what it says of the shape (ln α, e1, e2, β) is a
//! quadratic form: hessian `H` and gradient `g` about the present model. So the fit of any degree to a part of
//! the stars, and how well it foretells the rest, follow without looking at a pixel again.

use nalgebra::{DMatrix, DVector, Matrix4, Vector4};

use super::Field;

/// Highest degree of the shape over the field.
pub const MAX_DEGREE: usize = 4;
/// Parts into which the stars are divided.
const FOLDS: usize = 8;
/// A higher degree has to foretell the stars left out better by this much chi² for each of its coefficients.
const GAIN_A_TERM: f64 = 0.5;

/// What one star says of the shape.
pub(super) struct ShapeForm {
    /// Place in the field, pixels.
    pub place: (f64, f64),
    /// Second derivatives of chi²/2 by ln α, e1, e2, β.
    pub hessian: Matrix4<f64>,
    /// Downhill gradient of chi²/2 by the same.
    pub gradient: Vector4<f64>,
}

/// The degree, at most `most`, whose fit to seven eighths of the stars foretells the rest best.
pub(super) fn choose(field: &Field, stars: &[ShapeForm], most: usize) -> usize {
    let mut best = (f64::INFINITY, 0);
    for degree in 0..=most.min(MAX_DEGREE) {
        let terms = Field::terms(degree);
        if degree > 0 && stars.len() < 2 * terms {
            break;
        }
        let Some(cost) = left_out(field, stars, degree) else { break };
        if cost + GAIN_A_TERM * (3 * terms) as f64 <= best.0 {
            best = (cost + GAIN_A_TERM * (3 * terms) as f64, degree);
        }
    }
    best.1
}

/// Chi² of the stars left out, less that of the present model.
fn left_out(field: &Field, stars: &[ShapeForm], degree: usize) -> Option<f64> {
    let terms = Field::terms(degree);
    let size = 3 * terms + 1;
    let bases: Vec<Vec<f64>> = stars.iter().map(|s| field.basis(s.place.0, s.place.1, degree)).collect();
    let folds = FOLDS.min(stars.len());
    let mut parts = vec![(DMatrix::<f64>::zeros(size, size), DVector::<f64>::zeros(size)); folds];
    for (s, star) in stars.iter().enumerate() {
        let (hessian, gradient) = &mut parts[s % folds];
        add(&star.hessian, &star.gradient, &bases[s], hessian, gradient);
    }
    let mut whole = (DMatrix::<f64>::zeros(size, size), DVector::<f64>::zeros(size));
    for (hessian, gradient) in &parts {
        whole.0 += hessian;
        whole.1 += gradient;
    }
    let mut cost = 0.0;
    for (hessian, gradient) in &parts {
        let mut rest = &whole.0 - hessian;
        for k in 0..size {
            rest[(k, k)] += 1e-9 * rest[(k, k)] + 1e-12;
        }
        let step = rest.cholesky()?.solve(&(&whole.1 - gradient));
        cost += (step.transpose() * hessian * &step)[0] - 2.0 * gradient.dot(&step);
    }
    cost.is_finite().then_some(cost)
}

/// Adds a star's form to the normal equations of (ln α, e1, e2: each a polynomial with this `basis`; β).
pub(super) fn add(
    hessian: &Matrix4<f64>,
    gradient: &Vector4<f64>,
    basis: &[f64],
    sum: &mut DMatrix<f64>,
    slope: &mut DVector<f64>,
) {
    let n = basis.len();
    let size = 3 * n + 1;
    // Index and factor of each global parameter: which of ln α, e1, e2, β it moves, and by how much.
    let place = |k: usize| if k == size - 1 { (3, 1.0) } else { (k / n, basis[k % n]) };
    for k in 0..size {
        let (p, fp) = place(k);
        slope[k] += fp * gradient[p];
        for l in 0..size {
            let (q, fq) = place(l);
            sum[(k, l)] += fp * fq * hessian[(p, q)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stars that each measure ln α with an error of 0.01 about `truth`.
    fn stars(count: usize, truth: impl Fn(f64, f64) -> f64) -> Vec<ShapeForm> {
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        (0..count)
            .map(|_| {
                let place = (2000.0 * uniform(), 2000.0 * uniform());
                let noise: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
                let measured = truth(place.0 / 1000.0 - 1.0, place.1 / 1000.0 - 1.0) + 0.01 * noise;
                let hessian = Matrix4::from_diagonal(&Vector4::new(1e4, 1e4, 1e4, 1e4));
                ShapeForm { place, hessian, gradient: Vector4::new(1e4 * measured, 0.0, 0.0, 0.0) }
            })
            .collect()
    }

    #[test]
    fn the_degree_is_that_of_the_field_and_few_stars_support_a_low_one() {
        let field = Field::new(2000, 2000);
        assert_eq!(choose(&field, &stars(180, |_, _| 0.02), MAX_DEGREE), 0);
        assert_eq!(choose(&field, &stars(180, |u, _| 0.1 * u), MAX_DEGREE), 1);
        assert_eq!(choose(&field, &stars(180, |u, v| 0.1 * u * v), MAX_DEGREE), 2);
        assert_eq!(choose(&field, &stars(180, |u, v| 0.1 * (2.5 * u - 1.8 * v).sin()), MAX_DEGREE), 4);
        assert_eq!(choose(&field, &stars(7, |u, v| 0.1 * (2.5 * u - 1.8 * v).sin()).split_off(2), MAX_DEGREE), 0);
    }
}
