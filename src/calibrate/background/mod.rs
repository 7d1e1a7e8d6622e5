//! The background model: a mesh of sigma-clipped modes and its noise.
//!
//! As SExtractor does it (Bertin & Arnouts 1996, A&AS 117, 393, section 3): the sky level of each box
//! is the mode of its clipped histogram, a 3×3 median over the mesh removes boxes that a bright star
//! spoils, and a bicubic spline brings the mesh to full resolution. Beyond that, a second pass leaves
//! out the sources that stand above the first pass's sky, so that their wings do not lift it, and the
//! noise is that of the empty sky.

mod measure;
mod spline;

use ndarray::Array2;

pub use measure::measure;
pub use spline::Surface;

/// Side of a box, pixels, unless told otherwise.
pub const BOX_SIZE: usize = 64;

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

impl Background {
    /// The same level and noise everywhere on an image of `height` × `width` pixels.
    pub fn uniform(height: usize, width: usize, level: f32, noise: f32) -> Self {
        let shape = (boxes(height, BOX_SIZE), boxes(width, BOX_SIZE));
        Self { box_size: BOX_SIZE, level: Array2::from_elem(shape, level), noise: Array2::from_elem(shape, noise) }
    }

    /// The level at a point (zero-based pixels), electrons: bilinear between the boxes, constant
    /// beyond the outer ones. For single points; a whole image takes [`Self::level_surface`].
    pub fn level_at(&self, x: f64, y: f64) -> f32 {
        bilinear(&self.level, self.box_size, x, y)
    }

    /// The noise of the empty sky at a point (zero-based pixels), electrons.
    pub fn noise_at(&self, x: f64, y: f64) -> f32 {
        bilinear(&self.noise, self.box_size, x, y)
    }

    /// The level at full resolution, row by row.
    pub fn level_surface(&self) -> Surface {
        Surface::new(&self.level, self.box_size)
    }

    /// The noise at full resolution, row by row.
    pub fn noise_surface(&self) -> Surface {
        Surface::new(&self.noise, self.box_size)
    }

    /// Median level over the mesh, electrons.
    pub fn median_level(&self) -> f32 {
        median(self.level.iter().copied().collect())
    }

    /// Median noise over the mesh, electrons.
    pub fn median_noise(&self) -> f32 {
        median(self.noise.iter().copied().collect())
    }
}

/// Boxes along a side of `length` pixels: the last one may be cut, or leave less than half a box
/// beyond it, which is extrapolated.
fn boxes(length: usize, box_size: usize) -> usize {
    ((length + box_size / 2) / box_size).max(1)
}

/// Median of the values; 0 of none.
fn median(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

fn bilinear(mesh: &Array2<f32>, box_size: usize, x: f64, y: f64) -> f32 {
    let (rows, columns) = mesh.dim();
    let split = |at: f64, count: usize| {
        let node = ((at - (box_size as f64 - 1.0) / 2.0) / box_size as f64).clamp(0.0, (count - 1) as f64);
        let low = (node as usize).min(count.saturating_sub(2));
        (low, (low + 1).min(count - 1), (node - low as f64) as f32)
    };
    let ((x0, x1, fx), (y0, y1, fy)) = (split(x, columns), split(y, rows));
    let along = |row: usize| mesh[[row, x0]] * (1.0 - fx) + mesh[[row, x1]] * fx;
    along(y0) * (1.0 - fy) + along(y1) * fy
}
