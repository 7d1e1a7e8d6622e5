//! Two-dimensional complex transforms of square blocks on rustfft, planned once, in strips that stay in cache.
//!
//! A transform runs along the rows, then along the columns. Columns are taken [`STRIP`] at a time: that many
//! complex numbers fill a cache line, so that each line of the block is read once and written once, and the
//! strip itself stays in the first- or second-level cache. The spectrum is kept transposed, column after
//! column. Rows of a block lie [`PADDING`] numbers further apart than they are long: with a power of two as
//! distance a column would lie in one set of the cache.
#![allow(clippy::needless_range_loop, reason = "the compiler makes vector instructions of loops over lanes")]

use std::sync::Arc;

use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftPlanner};

/// Columns that are transformed together.
pub const STRIP: usize = 8;
/// Numbers between the end of a row of a block and the beginning of the next.
pub const PADDING: usize = 8;

/// Forward and inverse transforms of rows of `side` numbers.
#[derive(Clone)]
pub struct Transform {
    side: usize,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

impl Transform {
    /// Plans transforms of this side, a multiple of [`STRIP`].
    pub fn new(side: usize) -> Self {
        debug_assert_eq!(side % STRIP, 0);
        let mut planner = FftPlanner::new();
        Self { side, forward: planner.plan_fft_forward(side), inverse: planner.plan_fft_inverse(side) }
    }

    /// Side of the blocks.
    pub fn side(&self) -> usize {
        self.side
    }

    /// From the beginning of a row of a block to that of the next.
    pub fn stride(&self) -> usize {
        self.side + PADDING
    }

    /// A block of zeros.
    pub fn block(&self) -> Vec<Complex32> {
        vec![Complex32::default(); self.side * self.stride()]
    }

    /// A transposed spectrum of zeros.
    pub fn spectrum(&self) -> Vec<Complex32> {
        vec![Complex32::default(); self.side * self.side]
    }

    /// Work space of all transforms.
    pub fn scratch(&self) -> Vec<Complex32> {
        let length = self.forward.get_inplace_scratch_len().max(self.inverse.get_inplace_scratch_len());
        vec![Complex32::default(); length]
    }

    /// Transforms rows that lie one behind the other.
    pub fn forward_rows(&self, rows: &mut [Complex32], scratch: &mut [Complex32]) {
        self.forward.process_with_scratch(rows, scratch);
    }

    /// Transforms rows that lie one behind the other back; not divided by their length.
    pub fn inverse_rows(&self, rows: &mut [Complex32], scratch: &mut [Complex32]) {
        self.inverse.process_with_scratch(rows, scratch);
    }

    /// Block to transposed spectrum; only the block's rows `rows` hold anything. The block is used up.
    pub fn forward(
        &self,
        block: &mut [Complex32],
        rows: std::ops::Range<usize>,
        spectrum: &mut [Complex32],
        scratch: &mut [Complex32],
    ) {
        for row in block.chunks_exact_mut(self.stride()).take(rows.end).skip(rows.start) {
            self.forward_rows(&mut row[..self.side], scratch);
        }
        for (strip, columns) in spectrum.chunks_exact_mut(STRIP * self.side).enumerate() {
            columns.fill(Complex32::default());
            gather(block, self.stride(), strip * STRIP, rows.clone(), columns, self.side);
            self.forward_rows(columns, scratch);
        }
    }
}

/// Copies [`STRIP`] columns of a block, from `column` on, one behind the other; of each the numbers `rows`.
fn gather(
    block: &[Complex32],
    stride: usize,
    column: usize,
    rows: std::ops::Range<usize>,
    out: &mut [Complex32],
    side: usize,
) {
    let mut y = rows.start;
    while y < rows.end {
        let count = (rows.end - y).min(STRIP);
        let mut square = [[Complex32::default(); STRIP]; STRIP];
        for (dy, line) in square.iter_mut().take(count).enumerate() {
            line.copy_from_slice(&block[(y + dy) * stride + column..][..STRIP]);
        }
        if count == STRIP {
            for k in 0..STRIP {
                let to: &mut [Complex32] = &mut out[k * side + y..][..STRIP];
                for (dy, line) in square.iter().enumerate() {
                    to[dy] = line[k];
                }
            }
        } else {
            for k in 0..STRIP {
                for (dy, line) in square.iter().take(count).enumerate() {
                    out[k * side + y + dy] = line[k];
                }
            }
        }
        y += count;
    }
}

/// The way back of `gather`: writes the numbers `rows` of [`STRIP`] columns into a block.
pub fn scatter(
    columns: &[Complex32],
    side: usize,
    rows: std::ops::Range<usize>,
    block: &mut [Complex32],
    stride: usize,
    column: usize,
) {
    let mut y = rows.start;
    while y < rows.end {
        let count = (rows.end - y).min(STRIP);
        let mut square = [[Complex32::default(); STRIP]; STRIP];
        for (k, line) in square.iter_mut().enumerate() {
            line[..count].copy_from_slice(&columns[k * side + y..][..count]);
        }
        for dy in 0..count {
            let to: &mut [Complex32] = &mut block[(y + dy) * stride + column..][..STRIP];
            for (k, line) in square.iter().enumerate() {
                to[k] = line[dy];
            }
        }
        y += count;
    }
}

/// Index of frequency `−k` where `k` is the index of a frequency.
pub fn mirrored(index: usize, side: usize) -> usize {
    (side - index) % side
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_and_inverse_give_the_block_back() {
        let side = 48;
        let transform = Transform::new(side);
        let (mut block, mut spectrum, mut scratch) = (transform.block(), transform.spectrum(), transform.scratch());
        let value = |y: usize, x: usize| match y {
            3..41 => Complex32::new(((7 * y + x) % 7) as f32, ((y + 5 * x) % 11) as f32),
            _ => Complex32::default(),
        };
        for (y, row) in block.chunks_exact_mut(transform.stride()).enumerate() {
            row[..side].iter_mut().enumerate().for_each(|(x, pixel)| *pixel = value(y, x));
        }
        transform.forward(&mut block, 3..41, &mut spectrum, &mut scratch);
        let sum: Complex32 = (0..side * side).map(|i| value(i / side, i % side)).sum();
        assert!((spectrum[0] - sum).norm() < 1e-2);
        for (strip, columns) in spectrum.chunks_exact_mut(STRIP * side).enumerate() {
            transform.inverse_rows(columns, &mut scratch);
            scatter(columns, side, 0..side, &mut block, transform.stride(), strip * STRIP);
        }
        for (y, row) in block.chunks_exact_mut(transform.stride()).enumerate() {
            transform.inverse_rows(&mut row[..side], &mut scratch);
            for (x, pixel) in row[..side].iter().enumerate() {
                assert!((pixel / (side * side) as f32 - value(y, x)).norm() < 1e-3);
            }
        }
    }
}
