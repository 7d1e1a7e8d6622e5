//! Polynomials of two variables over an image: maps from pixels to pixels, and fields of any
//! number of quantities that vary over it.
//!
//! The variables are normalised to about −1…1 over the domain, which keeps least squares well
//! conditioned up to degree 5, and nothing else of the numbers shows outside.

use nalgebra::DMatrix;

use crate::wcs::Wcs;

/// Highest degree that is fitted.
pub const MAX_DEGREE: usize = 5;

/// Number of coefficients of one output of a polynomial of `degree` in two variables.
pub const fn terms(degree: usize) -> usize {
    (degree + 1) * (degree + 2) / 2
}

/// The rectangle over which the variables are normalised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Domain {
    /// Centre, pixels.
    pub centre: [f64; 2],
    /// Half of the longer side, pixels.
    pub half: f64,
}

impl Domain {
    /// The domain of an image of this width and height.
    pub fn of_image(width: usize, height: usize) -> Self {
        let (w, h) = (width as f64, height as f64);
        Self { centre: [(w - 1.0) / 2.0, (h - 1.0) / 2.0], half: (w.max(h) / 2.0).max(1.0) }
    }

    fn normalise(&self, x: f64, y: f64) -> (f64, f64) {
        ((x - self.centre[0]) / self.half, (y - self.centre[1]) / self.half)
    }
}

/// A polynomial of two variables with `N` outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Polynomial2<const N: usize> {
    domain: Domain,
    degree: usize,
    /// By total degree d, and within it xᵈ, xᵈ⁻¹y, …, yᵈ.
    coefficients: Vec<[f64; N]>,
}

/// A map from the pixels of one image to those of another.
pub type Map = Polynomial2<2>;

fn powers(x: f64) -> [f64; MAX_DEGREE + 1] {
    let mut all = [1.0; MAX_DEGREE + 1];
    for k in 1..=MAX_DEGREE {
        all[k] = all[k - 1] * x;
    }
    all
}

/// Monomials of the normalised variables, in the order of the coefficients.
fn basis(degree: usize, u: f64, v: f64, mut each: impl FnMut(usize, f64)) {
    let (pu, pv) = (powers(u), powers(v));
    let mut index = 0;
    for d in 0..=degree {
        for j in 0..=d {
            each(index, pu[d - j] * pv[j]);
            index += 1;
        }
    }
}

impl<const N: usize> Polynomial2<N> {
    /// The same values everywhere.
    pub fn constant(domain: Domain, values: [f64; N]) -> Self {
        Self { domain, degree: 0, coefficients: vec![values] }
    }

    /// Weighted least squares: `values` at `points` (pixels), each with the weight 1/σ².
    ///
    /// `None` where the points do not determine the coefficients (too few, or on a line), or where
    /// a number is not finite. The degree is cut at [`MAX_DEGREE`].
    pub fn fit(
        domain: Domain,
        degree: usize,
        points: &[[f64; 2]],
        values: &[[f64; N]],
        weights: &[f64],
    ) -> Option<Self> {
        let degree = degree.min(MAX_DEGREE);
        let columns = terms(degree);
        let used: Vec<usize> = (0..points.len().min(values.len()).min(weights.len()))
            .filter(|&i| {
                let finite = points[i].iter().chain(&values[i]).all(|x| x.is_finite());
                finite && weights[i].is_finite() && weights[i] > 0.0
            })
            .collect();
        if used.len() < columns {
            return None;
        }
        let mut design = DMatrix::<f64>::zeros(used.len(), columns);
        let mut sides = DMatrix::<f64>::zeros(used.len(), N);
        for (row, &i) in used.iter().enumerate() {
            let root = weights[i].sqrt();
            let (u, v) = domain.normalise(points[i][0], points[i][1]);
            basis(degree, u, v, |column, value| design[(row, column)] = root * value);
            for (output, value) in values[i].iter().enumerate() {
                sides[(row, output)] = root * value;
            }
        }
        let decomposed = design.qr();
        let r = decomposed.r();
        let diagonal = r.diagonal().abs();
        if diagonal.min() <= 1e-9 * diagonal.max() {
            return None;
        }
        decomposed.q_tr_mul(&mut sides);
        let solved = r.solve_upper_triangular(&sides.rows(0, columns).into_owned())?;
        let coefficients: Vec<[f64; N]> =
            (0..columns).map(|row| std::array::from_fn(|output| solved[(row, output)])).collect();
        let finite = coefficients.iter().flatten().all(|c| c.is_finite());
        finite.then_some(Self { domain, degree, coefficients })
    }

    /// The polynomial with `values` added everywhere.
    pub fn plus(mut self, values: [f64; N]) -> Self {
        for (coefficient, value) in self.coefficients[0].iter_mut().zip(values) {
            *coefficient += value;
        }
        self
    }

    /// The degree.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// The domain of the normalised variables.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// The values at a pixel.
    pub fn value(&self, x: f64, y: f64) -> [f64; N] {
        let (u, v) = self.domain.normalise(x, y);
        let mut sum = [0.0; N];
        basis(self.degree, u, v, |index, monomial| {
            for (s, c) in sum.iter_mut().zip(&self.coefficients[index]) {
                *s += c * monomial;
            }
        });
        sum
    }

    /// The derivatives of each output by x and by y, a pixel.
    pub fn gradient(&self, x: f64, y: f64) -> [[f64; 2]; N] {
        let (u, v) = self.domain.normalise(x, y);
        let (pu, pv) = (powers(u), powers(v));
        let mut sum = [[0.0; 2]; N];
        let mut index = 0;
        for d in 0..=self.degree {
            for j in 0..=d {
                let i = d - j;
                let by_u = if i > 0 { i as f64 * pu[i - 1] * pv[j] } else { 0.0 };
                let by_v = if j > 0 { j as f64 * pu[i] * pv[j - 1] } else { 0.0 };
                for (s, c) in sum.iter_mut().zip(&self.coefficients[index]) {
                    s[0] += c * by_u / self.domain.half;
                    s[1] += c * by_v / self.domain.half;
                }
                index += 1;
            }
        }
        sum
    }

    /// The polynomial along row `y`, for evaluation at many x: see [`Row`].
    pub fn row(&self, y: f64) -> Row<N> {
        let (_, v) = self.domain.normalise(0.0, y);
        let powers = powers(v);
        let mut coefficients = [[0.0; N]; MAX_DEGREE + 1];
        let mut index = 0;
        for d in 0..=self.degree {
            for j in 0..=d {
                for (sum, c) in coefficients[d - j].iter_mut().zip(&self.coefficients[index]) {
                    *sum += c * powers[j];
                }
                index += 1;
            }
        }
        Row { domain: self.domain, degree: self.degree, coefficients }
    }
}

/// A polynomial along one row of pixels: a polynomial of x alone.
#[derive(Debug, Clone, Copy)]
pub struct Row<const N: usize> {
    domain: Domain,
    degree: usize,
    coefficients: [[f64; N]; MAX_DEGREE + 1],
}

impl<const N: usize> Row<N> {
    /// The values at some columns `x`: an array of them for each output.
    #[inline(always)]
    pub fn values<const M: usize>(&self, x: &[f64; M]) -> [[f64; M]; N] {
        let mut u = [0.0; M];
        for (u, x) in u.iter_mut().zip(x) {
            *u = (x - self.domain.centre[0]) / self.domain.half;
        }
        let mut values = [[0.0; M]; N];
        for (output, sums) in values.iter_mut().enumerate() {
            *sums = [self.coefficients[self.degree][output]; M];
            for power in self.coefficients[..self.degree].iter().rev() {
                for (sum, u) in sums.iter_mut().zip(&u) {
                    *sum = *sum * u + power[output];
                }
            }
        }
        values
    }
}

impl Map {
    /// The affine map p ↦ `matrix` · p + `offset`.
    pub fn affine(domain: Domain, matrix: [[f64; 2]; 2], offset: [f64; 2]) -> Self {
        let [cx, cy] = domain.centre;
        let at_centre = std::array::from_fn(|k| matrix[k][0] * cx + matrix[k][1] * cy + offset[k]);
        let by = |column: usize| std::array::from_fn(|k| matrix[k][column] * domain.half);
        Self { domain, degree: 1, coefficients: vec![at_centre, by(0), by(1)] }
    }

    /// The map that leaves every pixel where it is.
    pub fn identity(domain: Domain) -> Self {
        Self::affine(domain, [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    }

    /// Area of the image of one pixel at (`x`, `y`), pixels²; negative where the map mirrors.
    pub fn determinant(&self, x: f64, y: f64) -> f64 {
        let [[a, b], [c, d]] = self.gradient(x, y);
        a * d - b * c
    }

    /// The point that is mapped to `target`, by Newton's method from `start`; `None` where that
    /// does not converge.
    pub fn inverse(&self, target: [f64; 2], start: [f64; 2]) -> Option<[f64; 2]> {
        let [mut x, mut y] = start;
        for _ in 0..30 {
            let at = self.value(x, y);
            let [[a, b], [c, d]] = self.gradient(x, y);
            let determinant = a * d - b * c;
            if !determinant.is_finite() || determinant == 0.0 {
                return None;
            }
            let (ex, ey) = (target[0] - at[0], target[1] - at[1]);
            let (dx, dy) = ((d * ex - b * ey) / determinant, (a * ey - c * ex) / determinant);
            x += dx;
            y += dy;
            if dx.hypot(dy) < 1e-9 {
                return Some([x, y]);
            }
        }
        None
    }

    /// From the pixels of an image of `shape` (rows, columns) to those of another, by the world
    /// coordinates of both; `None` where they lie on different sides of the sky. Good to 0.05 px
    /// where a polynomial of degree 5 can be.
    pub fn between(from: &Wcs, to: &Wcs, shape: (usize, usize)) -> Option<Self> {
        let through_the_sky = |x: f64, y: f64| {
            let (ra, dec) = from.pixel_to_sky(x, y);
            to.sky_to_pixel(ra, dec)
        };
        let fitted = [3, MAX_DEGREE].map(|degree| Self::approximate(shape.1, shape.0, degree, through_the_sky));
        let [simple, full] = fitted;
        match simple {
            Some((map, worst)) if worst < 0.05 => Some(map),
            _ => full.map(|(map, _)| map),
        }
    }

    /// The polynomial of `degree` that maps each pixel of an image of `width` × `height` as `map`
    /// does, fitted to a grid; and the largest deviation on that grid, pixels of the target.
    /// `None` where `map` fails on too much of the grid.
    pub fn approximate(
        width: usize,
        height: usize,
        degree: usize,
        map: impl Fn(f64, f64) -> Option<(f64, f64)>,
    ) -> Option<(Self, f64)> {
        const NODES: usize = 16;
        let at = |index: usize, side: usize| index as f64 / (NODES - 1) as f64 * (side as f64 - 1.0);
        let (points, values): (Vec<_>, Vec<_>) = (0..NODES * NODES)
            .filter_map(|index| {
                let (x, y) = (at(index % NODES, width), at(index / NODES, height));
                map(x, y).map(|(to_x, to_y)| ([x, y], [to_x, to_y]))
            })
            .unzip();
        if points.len() < NODES * NODES / 2 {
            return None;
        }
        let weights = vec![1.0; points.len()];
        let fitted = Self::fit(Domain::of_image(width, height), degree, &points, &values, &weights)?;
        let deviation = points.iter().zip(&values).map(|(point, value)| {
            let at = fitted.value(point[0], point[1]);
            (at[0] - value[0]).hypot(at[1] - value[1])
        });
        let worst = deviation.fold(0.0, f64::max);
        Some((fitted, worst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Vec<[f64; 2]> {
        (0..100).map(|i| [(i % 10) as f64 * 300.0 + 7.0, (i / 10) as f64 * 280.0 + (i % 3) as f64]).collect()
    }

    /// A distorted map of degree 5 with rotation and mirror.
    fn distorted(x: f64, y: f64) -> [f64; 2] {
        let (u, v) = ((x - 1400.0) / 1500.0, (y - 1500.0) / 1500.0);
        [
            20.0 - 0.6 * x + 0.8 * y + 3.0 * u * v - 2.0 * u.powi(3) + 0.5 * v.powi(5),
            3000.0 + 0.8 * x + 0.6 * y + v * v + 0.3 * u.powi(2) * v.powi(3),
        ]
    }

    #[test]
    fn a_polynomial_of_degree_five_is_recovered_with_its_derivatives_and_its_inverse() {
        let points = grid();
        let values: Vec<_> = points.iter().map(|p| distorted(p[0], p[1])).collect();
        let domain = Domain::of_image(3072, 3080);
        let map = Map::fit(domain, 5, &points, &values, &vec![2.5; points.len()]).unwrap();
        let (x, y) = (1234.5, 777.25);
        let at = map.value(x, y);
        let truth = distorted(x, y);
        assert!((at[0] - truth[0]).hypot(at[1] - truth[1]) < 1e-8);
        for (row_values, value) in map.row(y).values(&[x, 0.0]).iter().zip(at) {
            assert!((row_values[0] - value).abs() < 1e-9);
        }
        let step = 1e-3;
        for (k, gradient) in map.gradient(x, y).iter().enumerate() {
            let by_x = (map.value(x + step, y)[k] - map.value(x - step, y)[k]) / (2.0 * step);
            let by_y = (map.value(x, y + step)[k] - map.value(x, y - step)[k]) / (2.0 * step);
            assert!((gradient[0] - by_x).abs() < 1e-7 && (gradient[1] - by_y).abs() < 1e-7);
        }
        assert!(map.determinant(x, y) < 0.0, "the map mirrors");
        let back = map.inverse(at, [1500.0, 1500.0]).unwrap();
        assert!((back[0] - x).hypot(back[1] - y) < 1e-7);
    }

    #[test]
    fn points_that_do_not_determine_the_coefficients_give_no_polynomial() {
        let domain = Domain::of_image(100, 100);
        let on_a_line: Vec<[f64; 2]> = (0..20).map(|i| [f64::from(i), 2.0 * f64::from(i)]).collect();
        let ones = vec![1.0; 20];
        assert!(Map::fit(domain, 1, &on_a_line, &on_a_line, &ones).is_none());
        assert!(Map::fit(domain, 1, &on_a_line[..2], &on_a_line[..2], &ones).is_none());
        let mut points = grid();
        points.truncate(20);
        let mut weights = ones.clone();
        weights[3] = f64::NAN;
        assert!(Map::fit(domain, 3, &points[..10], &points[..10], &weights).is_none(), "nine usable points of ten");
    }

    #[test]
    fn weights_decide_between_two_measurements_of_one_place() {
        let domain = Domain::of_image(10, 10);
        let fitted = Polynomial2::<1>::fit(domain, 0, &[[1.0, 1.0]; 2], &[[10.0], [20.0]], &[3.0, 1.0]).unwrap();
        assert!((fitted.value(5.0, 5.0)[0] - 12.5).abs() < 1e-12);
    }

    #[test]
    fn an_affine_map_is_what_its_matrix_says() {
        let map = Map::affine(Domain::of_image(512, 256), [[0.0, -1.0], [1.0, 0.0]], [300.0, -5.0]);
        assert_eq!(map.value(10.0, 20.0), [280.0, 5.0]);
        assert!((map.determinant(3.0, 3.0) - 1.0).abs() < 1e-12);
        let identity = Map::identity(Domain::of_image(512, 256));
        assert!((identity.value(33.25, 7.5)[0] - 33.25).abs() < 1e-12);
    }
}
