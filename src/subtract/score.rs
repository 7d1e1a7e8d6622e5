//! Scorr: the score divided by everything that makes it uncertain.
//!
//! `Scorr = S / √(s² (V + σx² |∇A_R|² + …) + (ε A_R)²)` with V the variance of both images through the squared
//! kernels, A_R the reference's share of S, σx the registration's excess noise, ε the error of bright stars'
//! models, s the scale measured on empty sky. These terms only ever lower |S|/σ, so they are computed only
//! where |S|/σ stands above a preselection: under one pixel in a hundred. The candidate list is the same as
//! of the full computation.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use super::floor::BrightStarFloor;
use super::kernels::KernelField;
use super::mesh::Mesh;

/// Pixels below this |S|/σ of the empty sky cannot become candidates and keep S/σ.
pub const PRESELECTION: f32 = 4.5;
/// Spacing of the places at which kernels are worked out for direct sums, pixels.
const CELL: usize = 160;
/// Half side of the kernels of the direct sums, pixels: they hold nearly all of the squared kernels.
const REACH: usize = 12;

/// What Scorr is made from.
pub struct Score<'a> {
    /// Rows and columns of the image.
    pub shape: (usize, usize),
    /// Robust standard deviation of S on empty sky.
    pub sky_noise: &'a Mesh,
    /// Variance of the science image, electrons².
    pub science_variance: &'a Array2<f32>,
    /// The resampled, scaled reference.
    pub template: &'a Array2<f32>,
    /// Its variance, electrons² of the science image.
    pub template_variance: &'a Array2<f32>,
    /// The kernels.
    pub kernels: &'a KernelField,
    /// Registration noise σx, pixels.
    pub registration_noise: f64,
    /// Typical background noise of science image and template, electrons.
    pub noise: (f64, f64),
}

/// What is known of S at one pixel.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Noise of S by photon statistics and registration, electrons, scaled to the empty sky.
    pub noise: f64,
    /// The reference's share of S, electrons.
    pub reference_share: f64,
}

/// Squared kernels and reference kernel at one place of the field.
struct Cell {
    science_squared: Vec<f32>,
    reference_squared: Vec<f32>,
    reference: Vec<f32>,
    /// Sum of the squares over the whole kernel, and the part of it beyond [`REACH`].
    sums: (f64, f64),
    rests: (f64, f64),
}

/// Computes the terms of single pixels.
pub struct Appraiser<'a> {
    score: &'a Score<'a>,
    cells: Vec<Cell>,
    columns: usize,
}

impl<'a> Appraiser<'a> {
    /// Works out the kernels on a grid of cells.
    pub fn new(score: &'a Score<'a>) -> Self {
        let (height, width) = score.shape;
        let (rows, columns) = (height.div_ceil(CELL), width.div_ceil(CELL));
        let cells = (0..rows * columns)
            .into_par_iter()
            .map(|i| {
                let x = (i % columns * CELL + CELL / 2).min(width - 1) as f64;
                let y = (i / columns * CELL + CELL / 2).min(height - 1) as f64;
                Cell::new(score.kernels, x, y)
            })
            .collect();
        Self { score, cells, columns }
    }

    /// The terms at pixel (x, y).
    pub fn terms(&self, x: usize, y: usize) -> Terms {
        let cell = &self.cells[y / CELL * self.columns + x / CELL];
        let (n, r) = (self.score.noise.0.powi(2), self.score.noise.1.powi(2));
        let expected_sky = n * cell.sums.0 + r * cell.sums.1;
        let variance = sum_around(self.score.science_variance, &cell.science_squared, x, y)
            + sum_around(self.score.template_variance, &cell.reference_squared, x, y)
            + n * cell.rests.0
            + r * cell.rests.1;
        let share = |x: usize, y: usize| sum_around(self.score.template, &cell.reference, x, y);
        let (height, width) = self.score.shape;
        let slope_x = 0.5 * (share((x + 1).min(width - 1), y) - share(x.saturating_sub(1), y));
        let slope_y = 0.5 * (share(x, (y + 1).min(height - 1)) - share(x, y.saturating_sub(1)));
        let sky = f64::from(self.score.sky_noise.at(x, y)).powi(2);
        let scale = if expected_sky > 0.0 { sky / expected_sky } else { 1.0 };
        let registration = self.score.registration_noise.powi(2) * (slope_x * slope_x + slope_y * slope_y);
        // Source noise only ever adds to the sky's.
        let photon = variance.max(expected_sky);
        Terms { noise: (scale * (photon + registration)).sqrt(), reference_share: share(x, y) }
    }

    /// Makes Scorr of S, with the errors of bright stars' models.
    pub fn correct(&self, flux: &mut Array2<f32>, floor: &BrightStarFloor) {
        let width = flux.ncols();
        flux.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each_init(
            || vec![0.0; width],
            |noise, (y, mut row)| {
                self.score.sky_noise.fill_row(y, noise);
                for (x, value) in row.iter_mut().enumerate() {
                    let flux = *value;
                    let significance = flux / noise[x].max(f32::MIN_POSITIVE);
                    *value = if significance.abs() < PRESELECTION {
                        significance
                    } else {
                        let terms = self.terms(x, y);
                        (f64::from(flux) / terms.noise.hypot(floor.error(x as f64, y as f64, terms.reference_share)))
                            as f32
                    };
                }
            },
        );
    }
}

impl Cell {
    fn new(kernels: &KernelField, x: f64, y: f64) -> Self {
        let at = kernels.at(x, y);
        let half = at.score_science.nrows() / 2;
        let reach = REACH.min(half);
        let side = 2 * REACH + 1;
        let cut = |kernel: &Array2<f32>, squared: bool| {
            let mut values = vec![0.0; side * side];
            for dy in 0..=2 * reach {
                for dx in 0..=2 * reach {
                    let value = kernel[[half - reach + dy, half - reach + dx]];
                    values[(dy + REACH - reach) * side + dx + REACH - reach] =
                        if squared { value * value } else { value };
                }
            }
            // A convolution runs over the kernel backwards.
            values.reverse();
            values
        };
        let total = |kernel: &Array2<f32>| kernel.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let science_squared = cut(&at.score_science, true);
        let reference_squared = cut(&at.score_reference, true);
        let sums = (total(&at.score_science), total(&at.score_reference));
        let inside = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
        let rests = (sums.0 - inside(&science_squared), sums.1 - inside(&reference_squared));
        Self { science_squared, reference_squared, reference: cut(&at.score_reference, false), sums, rests }
    }
}

/// Σ kernel · image around (x, y); zero beyond the image.
fn sum_around(image: &Array2<f32>, kernel: &[f32], x: usize, y: usize) -> f64 {
    let side = 2 * REACH + 1;
    let (height, width) = image.dim();
    let first = REACH.saturating_sub(x);
    let last = (width + REACH - x).min(side);
    let mut sum = 0.0;
    for (row, taps) in kernel.chunks_exact(side).enumerate() {
        let py = (y + row).wrapping_sub(REACH);
        if py >= height {
            continue;
        }
        let line = image.row(py);
        if let Some(pixels) = line.as_slice() {
            sum += f64::from(dot(&pixels[x + first - REACH..x + last - REACH], &taps[first..last]));
        }
    }
    sum
}

#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (mut a8, mut b8) = (a.chunks_exact(8), b.chunks_exact(8));
    for (x, y) in (&mut a8).zip(&mut b8) {
        for k in 0..8 {
            lanes[k] += x[k] * y[k];
        }
    }
    lanes.iter().sum::<f32>() + a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum::<f32>()
}
