//! Square two-dimensional complex transforms on rustfft, planned once.
//!
//! The spectrum is kept transposed (rows and columns swapped): one transposition a transform instead of
//! two, and products with other transposed spectra do not mind.

use std::sync::Arc;

use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftPlanner};

/// Side of the blocks of a transposition; two of them stay in the first-level cache.
const BLOCK: usize = 16;

/// Forward and inverse transform of `side` × `side` images.
#[derive(Clone)]
pub struct Transform {
    side: usize,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

impl Transform {
    /// Plans transforms of this side.
    pub fn new(side: usize) -> Self {
        let mut planner = FftPlanner::new();
        Self { side, forward: planner.plan_fft_forward(side), inverse: planner.plan_fft_inverse(side) }
    }

    /// Side of the images.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Work space for [`forward`](Self::forward) and [`inverse`](Self::inverse).
    pub fn scratch(&self) -> Vec<Complex32> {
        let length = self.forward.get_inplace_scratch_len().max(self.inverse.get_inplace_scratch_len());
        vec![Complex32::default(); length]
    }

    /// Image to transposed spectrum, in place.
    pub fn forward(&self, image: &mut [Complex32], scratch: &mut [Complex32]) {
        self.forward.process_with_scratch(image, scratch);
        transpose(image, self.side);
        self.forward.process_with_scratch(image, scratch);
    }

    /// Transposed spectrum to image, in place, not divided by the number of pixels.
    pub fn inverse(&self, spectrum: &mut [Complex32], scratch: &mut [Complex32]) {
        self.inverse.process_with_scratch(spectrum, scratch);
        transpose(spectrum, self.side);
        self.inverse.process_with_scratch(spectrum, scratch);
    }
}

/// Transposes a square in place, block by block.
fn transpose(square: &mut [Complex32], side: usize) {
    for by in (0..side).step_by(BLOCK) {
        for bx in (by..side).step_by(BLOCK) {
            for y in by..(by + BLOCK).min(side) {
                let first = if bx == by { y + 1 } else { bx };
                for x in first..(bx + BLOCK).min(side) {
                    square.swap(y * side + x, x * side + y);
                }
            }
        }
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
    fn forward_and_inverse_give_the_image_back() {
        let side = 48;
        let transform = Transform::new(side);
        let mut scratch = transform.scratch();
        let image: Vec<Complex32> = (0..side * side).map(|i| Complex32::new((i % 7) as f32, (i % 11) as f32)).collect();
        let mut copy = image.clone();
        transform.forward(&mut copy, &mut scratch);
        transform.inverse(&mut copy, &mut scratch);
        let scale = 1.0 / (side * side) as f32;
        for (a, b) in image.iter().zip(&copy) {
            assert!((a - b * scale).norm() < 1e-3);
        }
    }
}
