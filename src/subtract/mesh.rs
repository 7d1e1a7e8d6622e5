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
        .map_init(Ranks::default, |ranks, i| {
            let (y0, x0) = (i / columns * box_size, i % columns * box_size);
            let x1 = (x0 + box_size).min(width);
            ranks.values.clear();
            for y in y0..(y0 + box_size).min(height) {
                let (Some(pixels), Some(bits)) = (image.row(y).to_slice(), bits.row(y).to_slice()) else { continue };
                // Every second pixel, in a chequered pattern: neighbours are correlated.
                for x in (x0 + y % 2..x1).step_by(2) {
                    if bits[x] & (mask::UNUSABLE | mask::REFERENCE) == 0 {
                        ranks.values.push(pixels[x]);
                    }
                }
            }
            clipped(ranks)
        })
        .collect();
    let of = |pick: fn((f32, f32)) -> f32| {
        let grid = Array2::from_shape_fn((rows, columns), |(r, c)| measured[r * columns + c].map_or(f32::NAN, pick));
        Mesh { box_size, values: filled(grid) }
    };
    (of(|m| m.0), of(|m| m.1))
}

/// Median and robust standard deviation after clipping at 3 sigma.
fn clipped(ranks: &mut Ranks) -> Option<(f32, f32)> {
    if ranks.values.len() < 100 {
        return None;
    }
    ranks.sort_roughly();
    let (mut centre, mut sigma) = (0.0, f32::INFINITY);
    let mut kept = 0..ranks.values.len();
    for _ in 0..4 {
        if sigma.is_finite() {
            let below = ranks.values.iter().filter(|v| **v - centre <= -3.0 * sigma).count();
            let above = ranks.values.iter().filter(|v| **v - centre >= 3.0 * sigma).count();
            kept = kept.start.max(below)..kept.end.min(ranks.values.len() - above);
        }
        if kept.len() < 50 {
            return None;
        }
        let mut quantile = |q: f32| ranks.nth(kept.start + (q * kept.len() as f32) as usize);
        let (low, high) = (quantile(0.1587), quantile(0.8413));
        centre = quantile(0.5);
        let next = 0.5 * (high - low);
        if (next - sigma).abs() < 0.002 * next {
            break;
        }
        sigma = next.max(f32::MIN_POSITIVE);
    }
    // A normal distribution cut at 3 sigma has a 16–84 % half width of 0.9944 sigma.
    Some((centre, sigma / 0.9944))
}

/// Numbers whose order statistics are asked for many times: sorted into buckets by their leading bits, of which
/// only those that are asked for are sorted out.
#[derive(Default)]
struct Ranks {
    values: Vec<f32>,
    /// The values in the order of their buckets.
    grouped: Vec<f32>,
    /// Where each bucket begins, and the end of the last.
    starts: Vec<u32>,
}

/// Leading bits of a number that name its bucket: sign, exponent and three digits, 12 % of the value.
const BUCKET_BITS: u32 = 12;

/// The bucket of a number; buckets are in the order of the numbers.
#[inline(always)]
fn bucket(value: f32) -> usize {
    let bits = value.to_bits();
    let ordered = bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000);
    (ordered >> (32 - BUCKET_BITS)) as usize
}

impl Ranks {
    /// Fills the buckets.
    fn sort_roughly(&mut self) {
        self.starts.clear();
        self.starts.resize((1 << BUCKET_BITS) + 1, 0);
        for value in &self.values {
            self.starts[bucket(*value) + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut self.starts {
            sum += *start;
            *start = sum;
        }
        self.grouped.clear();
        self.grouped.resize(self.values.len(), 0.0);
        // Each value goes to the next free place of its bucket, which leaves the starts one bucket on.
        for value in &self.values {
            let place = &mut self.starts[bucket(*value)];
            self.grouped[*place as usize] = *value;
            *place += 1;
        }
        self.starts.pop();
        self.starts.insert(0, 0);
    }

    /// The value of this rank, from 0.
    fn nth(&mut self, rank: usize) -> f32 {
        let rank = rank.min(self.values.len() - 1);
        let bucket = self.starts.partition_point(|start| *start as usize <= rank) - 1;
        let (from, to) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        *self.grouped[from..to].select_nth_unstable_by(rank - from, f32::total_cmp).1
    }
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
        let ((c, fx), (r, fy)) = (self.place(x, columns), self.place(y, rows));
        let (c1, r1) = ((c + 1).min(columns - 1), (r + 1).min(rows - 1));
        let v = &self.values;
        let top = v[[r, c]] * (1.0 - fx) + v[[r, c1]] * fx;
        let bottom = v[[r1, c]] * (1.0 - fx) + v[[r1, c1]] * fx;
        top * (1.0 - fy) + bottom * fy
    }

    /// The surface along row `y`.
    pub fn fill_row(&self, y: usize, row: &mut [f32]) {
        let (rows, columns) = self.values.dim();
        let (r, fy) = self.place(y, rows);
        let r1 = (r + 1).min(rows - 1);
        let node = |c: usize| self.values[[r, c]] * (1.0 - fy) + self.values[[r1, c]] * fy;
        // From the middle of each box to that of the next the surface is straight.
        let mut from = 0;
        for c in 0..columns.max(2) - 1 {
            let last = c + 2 >= columns;
            let to = if last { row.len() } else { ((2 * c + 3) * self.box_size / 2).min(row.len()) };
            let (left, right) = (node(c), node((c + 1).min(columns - 1)));
            for (x, out) in row.iter_mut().enumerate().take(to).skip(from) {
                let t = ((x as f32 + 0.5) / self.box_size as f32 - 0.5 - c as f32).clamp(0.0, 1.0);
                *out = left + (right - left) * t;
            }
            from = to.max(from);
        }
    }

    /// Index of the box before a pixel, along an axis of `count` boxes, and the part of the way to the next.
    fn place(&self, pixel: usize, count: usize) -> (usize, f32) {
        let position = (pixel as f32 + 0.5) / self.box_size as f32 - 0.5;
        let position = position.clamp(0.0, (count - 1) as f32);
        let index = (position as usize).min(count.saturating_sub(2));
        (index, position - index as f32)
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
    fn order_statistics_are_those_of_the_sorted_numbers() {
        let mut ranks = Ranks::default();
        for count in [1, 2, 777] {
            ranks.values = (0..count).map(|i| ((i * 7919 % 1009) as f32 - 500.0).powi(3) * 1e-3).collect();
            ranks.sort_roughly();
            let mut sorted = ranks.values.clone();
            sorted.sort_by(f32::total_cmp);
            assert!((0..count).all(|rank| ranks.nth(rank) == sorted[rank]));
        }
    }

    #[test]
    fn a_row_of_the_surface_is_the_surface() {
        for (rows, columns) in [(4, 5), (1, 1), (2, 1), (1, 3)] {
            let values = Array2::from_shape_fn((rows, columns), |(r, c)| ((r * 5 + c * 3) % 7) as f32);
            let mesh = Mesh { box_size: 9, values };
            let mut row = vec![0.0; 9 * columns - 4];
            for y in 0..9 * rows - 2 {
                mesh.fill_row(y, &mut row);
                for (x, value) in row.iter().enumerate() {
                    assert!((value - mesh.at(x, y)).abs() < 1e-5, "({x}, {y}) of {rows} x {columns}");
                }
            }
        }
    }

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
