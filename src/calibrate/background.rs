//! The background model: a mesh of sigma-clipped modes and its noise.

use ndarray::Array2;

/// Background and its noise on a mesh of boxes; full-resolution values by bicubic interpolation.
#[derive(Debug, Clone)]
pub struct Background {
    /// Side of a box, pixels.
    pub box_size: usize,
    /// Level of each box, electrons, `[[row, column]]`; box (0, 0) is centred on pixel
    /// `(box_size - 1) / 2`.
    pub level: Array2<f32>,
    /// Robust standard deviation of the empty sky in each box, electrons.
    pub noise: Array2<f32>,
}
