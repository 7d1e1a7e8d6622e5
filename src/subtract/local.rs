//! The weights of the kernels' terms within a block: polynomials of low degree.

use nalgebra::{DMatrix, DVector};

/// Places along each axis at which the weights are taken: the zeros of the Chebyshev polynomial of this degree,
/// with which a least-squares fit comes next to the polynomial of the smallest error.
const NODES: usize = 6;
/// Places along each axis at which the error is looked at, corners included.
const PROBES: usize = 5;
/// Weights are polynomials of a low degree over the whole field: within a block this one is enough.
const MOST: usize = 4;

/// Polynomials in u and v, which run from −1 to 1 over a block.
pub(super) struct Local {
    degree: usize,
    /// For each term uᵃ vᵇ, in the order of [`Local::term`], its coefficient in each weight.
    weights: Vec<Vec<f32>>,
}

impl Local {
    /// The polynomials of the lowest degree that leave at most `tolerance` of the kernels, whose `sizes` are
    /// those of the terms that `weights` gives at pixel (x, y); over a block at `origin`, `width` × `height`.
    pub(super) fn fit(
        origin: (usize, usize),
        (width, height): (usize, usize),
        sizes: &[f64],
        tolerance: f64,
        weights: impl Fn(f64, f64) -> Vec<f64>,
    ) -> Self {
        let place = |t: f64, origin: usize, length: usize| origin as f64 + (length as f64 - 1.0) * 0.5 * (1.0 + t);
        let at = |(u, v): (f64, f64)| weights(place(u, origin.0, width), place(v, origin.1, height));
        let node = |i: usize| ((i as f64 + 0.5) / NODES as f64 * std::f64::consts::PI).cos();
        let probe = |i: usize| 2.0 * i as f64 / (PROBES - 1) as f64 - 1.0;
        let nodes: Vec<(f64, f64)> = (0..NODES * NODES).map(|i| (node(i % NODES), node(i / NODES))).collect();
        let probes: Vec<(f64, f64)> = (0..PROBES * PROBES).map(|i| (probe(i % PROBES), probe(i / PROBES))).collect();
        let (values, probed): (Vec<_>, Vec<_>) =
            (nodes.iter().map(|p| at(*p)).collect(), probes.iter().map(|p| at(*p)).collect());
        let fitted = (0..=MOST).map(|degree| {
            let coefficients = coefficients(&nodes, &values, sizes.len(), degree);
            let left = |(place, wanted): (&(f64, f64), &Vec<f64>)| -> f64 {
                let basis = basis(*place, degree);
                let off = |j: usize| (0..basis.len()).map(|m| basis[m] * coefficients[(m, j)]).sum::<f64>() - wanted[j];
                (0..sizes.len()).map(|j| (off(j) * sizes[j]).powi(2)).sum::<f64>().sqrt()
            };
            let error = probes.iter().zip(&probed).map(left).fold(0.0, f64::max);
            (degree, coefficients, error)
        });
        let mut best = None;
        for (degree, coefficients, error) in fitted {
            best = Some((degree, coefficients));
            if error <= tolerance {
                break;
            }
        }
        let (degree, coefficients) = best.unwrap_or_else(|| (0, DMatrix::zeros(1, sizes.len())));
        let weights = coefficients.row_iter().map(|row| row.iter().map(|c| *c as f32).collect()).collect();
        Self { degree, weights }
    }

    /// Degree of the polynomials.
    pub(super) fn degree(&self) -> usize {
        self.degree
    }

    /// For each term uᵃ vᵇ its coefficient in each weight.
    pub(super) fn weights(&self) -> &[Vec<f32>] {
        &self.weights
    }

    /// Number of terms of a polynomial.
    pub(super) fn terms(degree: usize) -> usize {
        (degree + 1) * (degree + 2) / 2
    }

    /// Index of the term uᵃ vᵇ.
    pub(super) fn term(a: usize, b: usize) -> usize {
        Self::terms(a + b) - 1 - a
    }

    /// u of the pixels along an axis of the block.
    pub(super) fn places(&self, length: usize) -> impl Iterator<Item = f32> + use<> {
        let step = 2.0 / (length as f32 - 1.0).max(1.0);
        (0..length).map(move |pixel| pixel as f32 * step - 1.0)
    }
}

/// Values of the terms at (u, v).
fn basis((u, v): (f64, f64), degree: usize) -> Vec<f64> {
    (0..=degree).flat_map(|total| (0..=total).map(move |b| u.powi((total - b) as i32) * v.powi(b as i32))).collect()
}

/// Least-squares coefficients, a row a term and a column a weight.
fn coefficients(nodes: &[(f64, f64)], values: &[Vec<f64>], weights: usize, degree: usize) -> DMatrix<f64> {
    let rows: Vec<Vec<f64>> = nodes.iter().map(|place| basis(*place, degree)).collect();
    let terms = Local::terms(degree);
    let design = DMatrix::from_fn(nodes.len(), terms, |n, m| rows[n][m]);
    let normal = design.transpose() * &design;
    let Some(cholesky) = normal.cholesky() else { return DMatrix::zeros(terms, weights) };
    let mut found = DMatrix::zeros(terms, weights);
    for j in 0..weights {
        let wanted = DVector::from_iterator(nodes.len(), values.iter().map(|v| v[j]));
        found.set_column(j, &cholesky.solve(&(design.transpose() * wanted)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_take_the_degree_that_they_need() {
        let quadratic = |x: f64, y: f64| vec![1.0 + 1e-3 * x, 2.0 - 1e-3 * y + 1e-6 * x * y];
        for (tolerance, degree) in [(1.0, 0), (1e-2, 1), (1e-7, 2)] {
            let local = Local::fit((100, 200), (101, 301), &[1.0, 1.0], tolerance, quadratic);
            assert_eq!(local.degree(), degree, "for {tolerance}");
            let (us, vs): (Vec<f32>, Vec<f32>) = (local.places(101).collect(), local.places(301).collect());
            for (x, y) in [(0, 0), (100, 300), (31, 170)] {
                for (j, wanted) in quadratic(100.0 + x as f64, 200.0 + y as f64).into_iter().enumerate() {
                    let mut sum = 0.0;
                    for a in 0..=degree {
                        for b in 0..=degree - a {
                            let power = us[x].powi(a as i32) * vs[y].powi(b as i32);
                            sum += f64::from(local.weights()[Local::term(a, b)][j] * power);
                        }
                    }
                    assert!((sum - wanted).abs() < 2.0 * tolerance.max(1e-6), "{sum} for {wanted}");
                }
            }
        }
    }
}
