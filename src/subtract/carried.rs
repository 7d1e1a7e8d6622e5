//! The reference's PSF on the science image's grid: the model star put through the resampling that the image
//! goes through, averaged over sub-pixel phases.

use ndarray::Array2;

use super::kernels::NodePsfs;
use crate::psf::PsfModel;
use crate::register::polynomial::Map;
use crate::register::spline::BSpline;

/// Sub-pixel phases along each axis over which the resampled star is averaged.
const PHASES: usize = 2;

/// Both PSFs at (x, y) of the science image, stamps of half side `half`, unit sum.
pub fn psfs_at(science: &PsfModel, reference: &PsfModel, map: &Map, x: f64, y: f64, half: usize) -> NodePsfs {
    NodePsfs {
        x,
        y,
        science: normalised(science.local(x, y).stamp(0.0, 0.0, half)),
        reference: resampled(reference, map, x, y, half),
    }
}

fn resampled(reference: &PsfModel, map: &Map, x: f64, y: f64, half: usize) -> Array2<f32> {
    let [rx, ry] = map.value(x, y);
    let [[a, b], [c, d]] = map.gradient(x, y);
    let local = reference.local(rx, ry);
    // How far the stamp reaches on the reference's grid.
    let stretch = (a.abs() + b.abs()).max(c.abs() + d.abs());
    let reach = (((half + 1) as f64) * stretch).ceil() as usize + 4;
    let mut sum = Array2::<f32>::zeros((2 * half + 1, 2 * half + 1));
    for phase in 0..PHASES * PHASES {
        let shift = |k: usize| (k as f64 + 0.5) / PHASES as f64 - 0.5;
        let (px, py) = (shift(phase % PHASES), shift(phase / PHASES));
        let spline = BSpline::new(&local.stamp(px, py, reach));
        for (iy, mut row) in sum.outer_iter_mut().enumerate() {
            let (u, v) = (-(half as f64), iy as f64 - half as f64);
            let start = [reach as f64 + px + a * u + b * v, reach as f64 + py + c * u + d * v];
            spline.add_along(start, [a, c], row.as_slice_mut().unwrap_or_default());
        }
    }
    normalised(sum)
}

fn normalised(mut stamp: Array2<f32>) -> Array2<f32> {
    let sum: f64 = stamp.iter().map(|v| f64::from(*v)).sum();
    if sum > 0.0 {
        stamp.mapv_inplace(|v| (f64::from(v) / sum) as f32);
    }
    stamp
}
