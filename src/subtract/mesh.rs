//! Medians and scatters of an image in boxes, and a smooth surface through them.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::image::{Mask, mask};

/// Values on a grid of boxes, interpolated bilinearly between their centres.
#[derive(Debug, Clone)]
pub struct Mesh {
    box_size: usize,
    values: Array2<f32>,
}

/// Clipped median and robust standard deviation of each box of the image, usable pixels alone. Boxes with
/// too few of them take the median of their neighbours.
pub fn measure(image: &Array2<f32>, bits: &Mask, box_size: usize) -> (Mesh, Mesh) {
    let (height, width) = image.dim();
    let (rows, columns) = (height.div_ceil(box_size), width.div_ceil(box_size));
    let measured: Vec<Option<(f32, f32)>> = (0..rows * columns)
        .into_par_iter()
        .map(|i| {
            let (y0, x0) = (i / columns * box_size, i % columns * box_size);
            let mut values = Vec::with_capacity(box_size * box_size / 2);
            for y in y0..(y0 + box_size).min(height) {
                // Every second pixel, in a chequered pattern: neighbours are correlated.
                for x in (x0 + y % 2..(x0 + box_size).min(width)).step_by(2) {
                    if bits[[y, x]] & (mask::UNUSABLE | mask::REFERENCE) == 0 {
                        values.push(image[[y, x]]);
                    }
                }
            }
            clipped(&mut values)
        })
        .collect();
    let of = |pick: fn((f32, f32)) -> f32| {
        let grid = Array2::from_shape_fn((rows, columns), |(r, c)| measured[r * columns + c].map_or(f32::NAN, pick));
        Mesh { box_size, values: filled(grid) }
    };
    (of(|m| m.0), of(|m| m.1))
}

/// Median and robust standard deviation after clipping at 3 sigma.
fn clipped(values: &mut Vec<f32>) -> Option<(f32, f32)> {
    if values.len() < 100 {
        return None;
    }
    let (mut centre, mut sigma) = (0.0, f32::INFINITY);
    for _ in 0..4 {
        if sigma.is_finite() {
            values.retain(|v| (v - centre).abs() < 3.0 * sigma);
        }
        if values.len() < 50 {
            return None;
        }
        let count = values.len();
        let quantile = |values: &mut Vec<f32>, q: f32| {
            *values.select_nth_unstable_by((q * count as f32) as usize, f32::total_cmp).1
        };
        let low = quantile(values, 0.1587);
        let high = quantile(values, 0.8413);
        centre = quantile(values, 0.5);
        let next = 0.5 * (high - low);
        if (next - sigma).abs() < 0.002 * next {
            break;
        }
        sigma = next.max(f32::MIN_POSITIVE);
    }
    // A normal distribution cut at 3 sigma has a 16–84 % half width of 0.9944 sigma.
    Some((centre, sigma / 0.9944))
}

fn filled(mut grid: Array2<f32>) -> Array2<f32> {
    let mut all: Vec<f32> = grid.iter().copied().filter(|v| v.is_finite()).collect();
    if all.is_empty() {
        grid.fill(0.0);
        return grid;
    }
    let middle = all.len() / 2;
    let median = *all.select_nth_unstable_by(middle, f32::total_cmp).1;
    grid.mapv_inplace(|v| if v.is_finite() { v } else { median });
    grid
}

impl Mesh {
    /// The median of `(2 reach + 1)²` boxes in place of each.
    pub fn smoothed(&self, reach: usize) -> Self {
        let (rows, columns) = self.values.dim();
        let values = Array2::from_shape_fn((rows, columns), |(r, c)| {
            let mut near = Vec::new();
            for y in r.saturating_sub(reach)..(r + reach + 1).min(rows) {
                for x in c.saturating_sub(reach)..(c + reach + 1).min(columns) {
                    near.push(self.values[[y, x]]);
                }
            }
            let middle = near.len() / 2;
            *near.select_nth_unstable_by(middle, f32::total_cmp).1
        });
        Self { box_size: self.box_size, values }
    }

    /// The boxes' values.
    pub fn values(&self) -> &Array2<f32> {
        &self.values
    }

    /// The surface at pixel (x, y).
    pub fn at(&self, x: usize, y: usize) -> f32 {
        let (rows, columns) = self.values.dim();
        let place = |pixel: usize, count: usize| {
            let position = (pixel as f32 + 0.5) / self.box_size as f32 - 0.5;
            let position = position.clamp(0.0, (count - 1) as f32);
            let index = (position as usize).min(count.saturating_sub(2));
            (index, position - index as f32)
        };
        let ((c, fx), (r, fy)) = (place(x, columns), place(y, rows));
        let (c1, r1) = ((c + 1).min(columns - 1), (r + 1).min(rows - 1));
        let v = &self.values;
        let top = v[[r, c]] * (1.0 - fx) + v[[r, c1]] * fx;
        let bottom = v[[r1, c]] * (1.0 - fx) + v[[r1, c1]] * fx;
        top * (1.0 - fy) + bottom * fy
    }

    /// The surface along row `y`.
    pub fn fill_row(&self, y: usize, row: &mut [f32]) {
        const STEP: usize = 8;
        for from in (0..row.len()).step_by(STEP) {
            let to = (from + STEP).min(row.len());
            let (left, right) = (self.at(from, y), self.at(to, y));
            let slope = (right - left) / (to - from) as f32;
            for (i, out) in row[from..to].iter_mut().enumerate() {
                *out = left + slope * i as f32;
            }
        }
    }

    /// Takes the surface from the image.
    pub fn subtract_from(&self, image: &mut Array2<f32>) {
        let width = image.ncols();
        image.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each_init(
            || vec![0.0; width],
            |level, (y, mut row)| {
                self.fill_row(y, level);
                for (pixel, level) in row.iter_mut().zip(level.iter()) {
                    *pixel -= level;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilted_plane_with_noise_is_measured_and_taken_away() {
        let mut state = 1u64;
        let mut noise = || {
            (0..12)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
                })
                .sum::<f32>()
        };
        let mut image = Array2::from_shape_fn((480, 480), |(y, x)| 0.003 * x as f32 - 0.004 * y as f32 + 2.0 * noise());
        let bits = Mask::zeros((480, 480));
        let (level, scatter) = measure(&image, &bits, 96);
        assert!(scatter.values().iter().all(|s| (s - 2.0).abs() < 0.2));
        level.subtract_from(&mut image);
        let (left, _) = measure(&image, &bits, 96);
        assert!(left.values().iter().all(|v| v.abs() < 0.25));
    }
}
