//! What the Moffat profile leaves: a pixel image that is a polynomial of the field position.
//!
//! Each star's residual is moved to its centre and divided by its flux; a ridge regression over the stars
//! then gives each pixel's polynomial. The degree (or none) is chosen by the leave-one-out error, which
//! ridge regression gives in closed form: all pixels share one design matrix.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, s};

use super::{Field, cosine_taper};

/// One star's residual, centred, in units of its flux.
#[derive(Debug, Clone)]
pub struct StarResidual {
    /// Place in the field, pixels.
    pub x: f64,
    /// Place in the field, pixels.
    pub y: f64,
    /// Weight: 1 over the variance of a sky pixel in units of the star's flux.
    pub weight: f64,
    /// The residual, `[[y, x]]`, the star's centre on the middle pixel.
    pub stamp: Array2<f32>,
}

/// The polynomial of residual images.
#[derive(Debug, Clone)]
pub struct Residual {
    degree: usize,
    planes: Vec<Array2<f32>>,
}

impl Residual {
    /// Degree of the polynomial.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// A residual that is the same all over the field.
    pub(super) fn constant(image: Array2<f32>) -> Self {
        Self { degree: 0, planes: vec![image] }
    }

    /// With another image, of at least the same size, added all over the field.
    pub(super) fn with(self, image: &Array2<f32>) -> Self {
        let planes = self.planes.into_iter().enumerate().map(|(k, plane)| {
            let mut larger = if k == 0 { image.clone() } else { Array2::zeros(image.dim()) };
            let margin = (image.nrows() - plane.nrows().min(image.nrows())) / 2;
            let inner = plane.nrows().min(image.nrows());
            let mut middle = larger.slice_mut(s![margin..margin + inner, margin..margin + inner]);
            let skip = (plane.nrows() - inner) / 2;
            middle += &plane.slice(s![skip..skip + inner, skip..skip + inner]);
            larger
        });
        Self { degree: self.degree, planes: planes.collect() }
    }

    /// The residual image at pixel (x, y).
    pub(super) fn at(&self, field: &Field, x: f64, y: f64) -> Array2<f32> {
        let basis = field.basis(x, y, self.degree);
        let mut sum = Array2::zeros(self.planes[0].dim());
        for (plane, term) in self.planes.iter().zip(basis) {
            sum.scaled_add(term as f32, plane);
        }
        sum
    }

    /// The polynomial of degree 2 (less where the places are few) through images at places of the field.
    pub(super) fn through(field: &Field, images: &[(f64, f64, Array2<f32>)]) -> Option<Self> {
        let dim = images.first()?.2.dim();
        let degree = (0..=2).rev().find(|&d| images.len() >= Field::terms(d))?;
        let rows: Vec<Vec<f64>> = images.iter().map(|(x, y, _)| field.basis(*x, *y, degree)).collect();
        let design = DMatrix::from_fn(images.len(), Field::terms(degree), |s, k| rows[s][k]);
        let solver = (design.transpose() * &design).cholesky()?.solve(&design.transpose());
        let mut planes = vec![Array2::zeros(dim); Field::terms(degree)];
        for (k, plane) in planes.iter_mut().enumerate() {
            for (s, (_, _, image)) in images.iter().enumerate() {
                plane.scaled_add(solver[(k, s)] as f32, image);
            }
        }
        Some(Self { degree, planes })
    }

    /// Fits the residuals, degree by leave-one-out error; `None` where no residual predicts better.
    /// `core` is the radius (pixels) over which the error counts.
    pub fn fit(field: &Field, stars: &[StarResidual], max_degree: usize, core: f64) -> Option<Self> {
        let side = stars.first()?.stamp.nrows();
        let half = (side / 2) as f64;
        let in_core = |iy: usize, ix: usize| (iy as f64 - half).hypot(ix as f64 - half) <= core;
        let core_pixels: Vec<(usize, usize)> =
            (0..side * side).map(|i| (i / side, i % side)).filter(|&(iy, ix)| in_core(iy, ix)).collect();
        let error_without: f64 = stars
            .iter()
            .map(|s| s.weight * core_pixels.iter().map(|&p| f64::from(s.stamp[p]).powi(2)).sum::<f64>())
            .sum();
        let mut best: Option<(f64, usize, DMatrix<f64>)> = None;
        for degree in 0..=max_degree {
            if stars.len() < 4 * Field::terms(degree) {
                break;
            }
            let Some((solver, leverage)) = ridge(field, stars, degree) else { break };
            let error = leave_one_out(field, stars, degree, &solver, &leverage, &core_pixels);
            if best.as_ref().map_or(error_without, |b| b.0) > 1.002 * error {
                best = Some((error, degree, solver));
            }
        }
        let (_, degree, solver) = best?;
        let mut planes = vec![Array2::zeros((side, side)); Field::terms(degree)];
        for iy in 0..side {
            for ix in 0..side {
                let taper = cosine_taper((iy as f64 - half).hypot(ix as f64 - half), 0.7 * half, half);
                if taper > 0.0 {
                    let values =
                        DVector::from_iterator(stars.len(), stars.iter().map(|s| f64::from(s.stamp[[iy, ix]])));
                    for (plane, c) in planes.iter_mut().zip((&solver * values).iter()) {
                        plane[[iy, ix]] = (c * taper) as f32;
                    }
                }
            }
        }
        Some(Self { degree, planes })
    }
}

/// The matrix that takes the stars' values of a pixel to its coefficients, and each star's leverage.
fn ridge(field: &Field, stars: &[StarResidual], degree: usize) -> Option<(DMatrix<f64>, Vec<f64>)> {
    let terms = Field::terms(degree);
    let design = design_matrix(field, stars, degree);
    // Equal weights above the median: a few very bright stars must not decide alone.
    let mut sorted: Vec<f64> = stars.iter().map(|s| s.weight).collect();
    sorted.sort_by(f64::total_cmp);
    let cap = sorted[sorted.len() / 2];
    let weights: Vec<f64> = stars.iter().map(|s| s.weight.min(cap) / cap).collect();
    let weighted = DMatrix::from_fn(stars.len(), terms, |s, k| weights[s] * design[(s, k)]);
    let mut normal = weighted.transpose() * &design;
    let ridge = 0.01 * normal[(0, 0)];
    for k in 1..terms {
        normal[(k, k)] += ridge;
    }
    let solver = normal.cholesky()?.solve(&weighted.transpose());
    let leverage = (0..stars.len()).map(|s| (design.row(s) * solver.column(s))[0]).collect();
    Some((solver, leverage))
}

fn design_matrix(field: &Field, stars: &[StarResidual], degree: usize) -> DMatrix<f64> {
    let rows: Vec<Vec<f64>> = stars.iter().map(|s| field.basis(s.x, s.y, degree)).collect();
    DMatrix::from_fn(stars.len(), Field::terms(degree), |s, k| rows[s][k])
}

fn leave_one_out(
    field: &Field,
    stars: &[StarResidual],
    degree: usize,
    solver: &DMatrix<f64>,
    leverage: &[f64],
    pixels: &[(usize, usize)],
) -> f64 {
    let hat = design_matrix(field, stars, degree) * solver;
    let values = DMatrix::from_fn(stars.len(), pixels.len(), |s, p| f64::from(stars[s].stamp[pixels[p]]));
    let predicted = hat * &values;
    (0..stars.len())
        .map(|s| {
            let free = (1.0 - leverage[s]).max(0.05);
            let sum: f64 = (0..pixels.len()).map(|p| ((values[(s, p)] - predicted[(s, p)]) / free).powi(2)).sum();
            stars[s].weight * sum
        })
        .sum()
}

/// Keys' cubic interpolation (a = −1/2) of a centred image at (u, v) from its middle pixel; 0 outside.
pub fn interpolate(image: &Array2<f32>, u: f64, v: f64) -> f64 {
    let half = (image.nrows() / 2) as f64;
    let (x, y) = (u + half, v + half);
    let (x0, y0) = (x.floor(), y.floor());
    if x0 < 1.0 || y0 < 1.0 || x0 + 2.0 >= image.ncols() as f64 || y0 + 2.0 >= image.nrows() as f64 {
        return 0.0;
    }
    let (wx, wy) = (keys(x - x0), keys(y - y0));
    let (ix, iy) = (x0 as usize - 1, y0 as usize - 1);
    let mut sum = 0.0;
    for (j, wj) in wy.iter().enumerate() {
        for (i, wi) in wx.iter().enumerate() {
            sum += wj * wi * f64::from(image[[iy + j, ix + i]]);
        }
    }
    sum
}

/// [`interpolate`] for a whole stamp: its pixels lie at whole distances, so that all have the same weights.
pub(super) struct Mover<'a> {
    image: &'a Array2<f32>,
    /// First of the four rows and columns that the stamp's first pixel is made of.
    first: (isize, isize),
    weights: ([f64; 4], [f64; 4]),
    buffer: Vec<f64>,
}

impl<'a> Mover<'a> {
    /// For a stamp of half side `half` whose star lies (dx, dy) from its middle pixel.
    pub(super) fn new(image: &'a Array2<f32>, half: usize, dx: f64, dy: f64) -> Self {
        let middle = (image.nrows() / 2) as f64;
        let (x, y) = (middle - half as f64 - dx, middle - half as f64 - dy);
        let (x0, y0) = (x.floor(), y.floor());
        Self {
            image,
            first: (x0 as isize - 1, y0 as isize - 1),
            weights: (keys(x - x0), keys(y - y0)),
            buffer: vec![0.0; image.ncols()],
        }
    }

    /// Adds row `iy` of the moved image.
    pub(super) fn add_row(&mut self, iy: usize, row: &mut [f64]) {
        let (height, width) = self.image.dim();
        let top = self.first.1 + iy as isize;
        if top < 0 || top as usize + 3 >= height {
            return;
        }
        // The stamp's pixel ix is made of the columns from first + ix on.
        let from = (-self.first.0).max(0) as usize;
        let start = (self.first.0 + from as isize) as usize;
        let end = (start + row.len().saturating_sub(from) + 3).min(width);
        let Some(buffer) = self.buffer.get_mut(start..end) else { return };
        buffer.fill(0.0);
        for (j, weight) in self.weights.1.iter().enumerate() {
            let pixels = self.image.row(top as usize + j);
            let pixels = pixels.to_slice().and_then(|row| row.get(start..end)).unwrap_or_default();
            for (sum, pixel) in buffer.iter_mut().zip(pixels) {
                *sum += weight * f64::from(*pixel);
            }
        }
        let w = self.weights.0;
        for (pixel, near) in row.iter_mut().skip(from).zip(buffer.windows(4)) {
            *pixel += w[0] * near[0] + w[1] * near[1] + w[2] * near[2] + w[3] * near[3];
        }
    }
}

/// Weights of the four neighbours at −1, 0, 1, 2 of a point at `t` (Keys 1981, IEEE ASSP 29, 1153).
fn keys(t: f64) -> [f64; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [-0.5 * t3 + t2 - 0.5 * t, 1.5 * t3 - 2.5 * t2 + 1.0, -1.5 * t3 + 2.0 * t2 + 0.5 * t, 0.5 * t3 - 0.5 * t2]
}
