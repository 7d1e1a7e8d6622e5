//! Puts the reference on the pixels of the science image.
//!
//! Each science pixel takes the value of the reference's [`BSpline`] at the place to which the map
//! sends its centre, times the area that the pixel has there, so that fluxes are conserved.
//!
//! **Variance.** It is interpolated bilinearly and scaled by the square of the area. It is *not*
//! lowered by the smoothing of the interpolation: resampling leaves the noise of the image unchanged
//! at low spatial frequencies and correlates it at high ones, so that a sum over a PSF-sized kernel,
//! which is what subtraction makes of it, has the variance that this plane predicts. The scatter of
//! single pixels is lower, on average over the sub-pixel phase by [`PIXEL_NOISE_FACTOR`].
//!
//! **Mask.** A pixel is marked [`mask::REFERENCE`] when any reference pixel within two pixels of its
//! place (4×4 of them) is unusable. Farther ones enter with weights below 5 % of the difference
//! between what was filled in and what should stand there. Pixels that fall outside the reference
//! are 0, have the variance of the nearest pixel, and are marked [`mask::NO_DATA`] besides.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use ndarray::parallel::prelude::*;
use ndarray::{Array2, Axis, Zip};

use super::polynomial::{Map, Row};
use super::spline::{BSpline, Taps};
use crate::image::{Mask, mask};

/// Variance of single pixels of resampled white noise over the variance before, averaged over the
/// sub-pixel phase: the squared effective weights of the interpolation, summed.
pub const PIXEL_NOISE_FACTOR: f64 = 0.843;

/// Pixels that share one linear piece of the area and whose positions are computed together.
const CHUNK: usize = 64;

/// What is resampled. The pixels of the spline must have been finite, and filled where masked.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The pixels as a spline.
    pub spline: &'a BSpline,
    /// Their variance.
    pub variance: &'a Array2<f32>,
    /// Which pixels are marked, from [`marks`].
    pub marks: &'a Array2<u8>,
}

/// An image on another image's grid.
#[derive(Debug, Clone)]
pub struct Resampled {
    /// Pixels, flux conserved.
    pub pixels: Array2<f32>,
    /// Variance; see the module for what it means.
    pub variance: Array2<f32>,
    /// [`mask::REFERENCE`] and [`mask::NO_DATA`].
    pub mask: Mask,
}

/// For each pixel (x, y), whether any of the 4×4 pixels from (x−1, y−1) to (x+2, y+2) is unusable:
/// those within two pixels of a place between (x, y) and (x+1, y+1).
pub fn marks(flags: &Mask) -> Array2<u8> {
    let (height, width) = flags.dim();
    let mut along_rows = Array2::<u8>::zeros((height, width));
    let rows = along_rows.axis_iter_mut(Axis(0)).into_par_iter().zip(flags.axis_iter(Axis(0)));
    rows.for_each(|(mut out, row)| {
        if let (Some(out), Some(row)) = (out.as_slice_mut(), row.as_slice()) {
            dilate_row(row, out);
        }
    });
    let mut both = Array2::<u8>::zeros((height, width));
    both.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(y, mut out)| {
        for from in y.saturating_sub(1)..(y + 3).min(height) {
            Zip::from(&mut out).and(along_rows.row(from)).for_each(|out, row| *out |= row);
        }
    });
    both
}

fn dilate_row(row: &[u16], out: &mut [u8]) {
    let unusable = |flags: &u16| u8::from(flags & mask::UNUSABLE != 0);
    // Rows without any mark, which are most, end here.
    if row.iter().fold(0, |all, flags| all | flags) & mask::UNUSABLE == 0 {
        return;
    }
    for (x, out) in out.iter_mut().enumerate() {
        let window = &row[x.saturating_sub(1)..(x + 3).min(row.len())];
        *out = window.iter().fold(0, |any, flags| any | unusable(flags));
    }
}

/// Resamples `source` to a grid of `shape` (rows, columns), whose pixel p lies at `map`(p) in it.
///
/// # Examples
///
/// ```
/// use ndarray::Array2;
/// use nightjar::register::{polynomial::{Domain, Map}, resample::{Source, marks, resample}, spline::BSpline};
///
/// let reference = Array2::from_shape_fn((64, 64), |(y, x)| if (x, y) == (20, 30) { 1.0 } else { 0.0 });
/// let spline = BSpline::new(&reference);
/// let (variance, marks) = (Array2::ones((64, 64)), marks(&Array2::zeros((64, 64))));
/// let shift = Map::affine(Domain::of_image(64, 64), [[1.0, 0.0], [0.0, 1.0]], [5.0, -2.0]);
/// let source = Source { spline: &spline, variance: &variance, marks: &marks };
/// let moved = resample(source, &shift, (64, 64));
/// assert!((moved.pixels[[32, 15]] - 1.0).abs() < 1e-5);
/// ```
pub fn resample(source: Source<'_>, map: &Map, shape: (usize, usize)) -> Resampled {
    resample_band(source, map, shape.1, 0..shape.0)
}

/// The rows `rows` of [`resample`] alone, for work in bands of bounded memory.
pub fn resample_band(source: Source<'_>, map: &Map, width: usize, rows: std::ops::Range<usize>) -> Resampled {
    let shape = (rows.len(), width);
    let mut out =
        Resampled { pixels: Array2::zeros(shape), variance: Array2::zeros(shape), mask: Array2::zeros(shape) };
    let planes =
        (out.pixels.axis_iter_mut(Axis(0)), out.variance.axis_iter_mut(Axis(0)), out.mask.axis_iter_mut(Axis(0)));
    planes.0.into_par_iter().zip(planes.1).zip(planes.2).enumerate().for_each(|(index, ((mut p, mut v), mut m))| {
        let (Some(pixels), Some(variance), Some(flags)) = (p.as_slice_mut(), v.as_slice_mut(), m.as_slice_mut()) else {
            return;
        };
        let y = (rows.start + index) as f64;
        let row = map.row(y);
        for (piece, ((pixels, variance), flags)) in
            pixels.chunks_mut(CHUNK).zip(variance.chunks_mut(CHUNK)).zip(flags.chunks_mut(CHUNK)).enumerate()
        {
            let x = (piece * CHUNK) as f64;
            let areas = [map.determinant(x, y).abs(), map.determinant(x + CHUNK as f64, y).abs()];
            let piece = Piece { x, row: &row, areas: areas.map(|a| a as f32) };
            resample_piece(&source, &piece, pixels, variance, flags);
        }
    });
    out
}

/// Up to [`CHUNK`] neighbouring pixels of a row.
struct Piece<'a> {
    /// Column of the first.
    x: f64,
    row: &'a Row<2>,
    /// Area of a pixel in the source at the first pixel and one past the last.
    areas: [f32; 2],
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn resample_piece(source: &Source<'_>, piece: &Piece<'_>, pixels: &mut [f32], variance: &mut [f32], flags: &mut [u16]) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    let mut places = [[0.0_f64; 2]; CHUNK];
    for (index, place) in places.iter_mut().enumerate() {
        *place = piece.row.value(piece.x + index as f64);
    }
    let taps: Taps<'_> = source.spline.taps();
    let (height, width) = source.spline.shape();
    let variances = source.variance.as_slice().unwrap_or_default();
    let marks = source.marks.as_slice().unwrap_or_default();
    let (last_column, last_row) = (width as f64 - 1.0, height as f64 - 1.0);
    let slope = (piece.areas[1] - piece.areas[0]) / CHUNK as f32;
    for (index, ((pixel, variance), flags)) in pixels.iter_mut().zip(variance).zip(flags).enumerate() {
        let [x, y] = places[index];
        let area = piece.areas[0] + slope * index as f32;
        if !source.spline.holds(x, y) {
            *flags = mask::REFERENCE | mask::NO_DATA;
            let nearest = y.clamp(0.0, last_row) as usize * width + x.clamp(0.0, last_column) as usize;
            *variance = area * area * variances.get(nearest).copied().unwrap_or(0.0);
            continue;
        }
        let (column, row) = (x.floor(), y.floor());
        let (tx, ty) = ((x - column) as f32, (y - row) as f32);
        let (column, row) = (column as isize, row as isize);
        *pixel = area * taps.value::<FMA>(column, row, tx, ty);
        let (x0, y0) = (column.max(0) as usize, row.max(0) as usize);
        let (x1, y1) = (((column + 1) as usize).min(width - 1), ((row + 1) as usize).min(height - 1));
        let at = |y: usize, x: usize| variances.get(y * width + x).copied().unwrap_or(0.0);
        let upper = at(y0, x0) + tx * (at(y0, x1) - at(y0, x0));
        let lower = at(y1, x0) + tx * (at(y1, x1) - at(y1, x0));
        *variance = area * area * (upper + ty * (lower - upper));
        *flags = if marks.get(y0 * width + x0).is_some_and(|m| *m != 0) { mask::REFERENCE } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::polynomial::Domain;

    const SIDE: usize = 96;

    fn flat_planes() -> (Array2<f32>, Array2<u8>) {
        (Array2::from_elem((SIDE, SIDE), 4.0), Array2::zeros((SIDE, SIDE)))
    }

    /// A star of unit flux and `fwhm` px at (`x`, `y`), sampled at the centres of the pixels.
    fn star(x: f64, y: f64, fwhm: f64) -> Array2<f32> {
        let variance = (fwhm / 2.354_82_f64).powi(2);
        Array2::from_shape_fn((SIDE, SIDE), |(row, column)| {
            let r2 = (column as f64 - x).powi(2) + (row as f64 - y).powi(2);
            ((-r2 / (2.0 * variance)).exp() / (2.0 * std::f64::consts::PI * variance)) as f32
        })
    }

    fn flux_and_centroid(image: &Array2<f32>) -> (f64, f64, f64) {
        let (mut sum, mut x, mut y) = (0.0, 0.0, 0.0);
        for ((row, column), pixel) in image.indexed_iter() {
            sum += f64::from(*pixel);
            x += f64::from(*pixel) * column as f64;
            y += f64::from(*pixel) * row as f64;
        }
        (sum, x / sum, y / sum)
    }

    #[test]
    fn a_star_of_two_pixels_keeps_its_flux_and_place_at_any_phase() {
        let (variance, marks) = flat_planes();
        let mut worst = (0.0_f64, 0.0_f64);
        for phase in 0..10 {
            let (sx, sy) = (0.1 * f64::from(phase), 0.07 * f64::from(phase) - 0.3);
            let spline = BSpline::new(&star(47.3, 50.1, 2.0));
            let shift = Map::affine(Domain::of_image(SIDE, SIDE), [[1.0, 0.0], [0.0, 1.0]], [sx, sy]);
            let source = Source { spline: &spline, variance: &variance, marks: &marks };
            let moved = resample(source, &shift, (SIDE, SIDE));
            let (flux, x, y) = flux_and_centroid(&moved.pixels);
            worst.0 = worst.0.max((flux - 1.0).abs());
            worst.1 = worst.1.max((x - 47.3 + sx).hypot(y - 50.1 + sy));
        }
        assert!(worst.0 < 1e-3 && worst.1 < 1e-3, "flux off by {}, place by {} px", worst.0, worst.1);
    }

    #[test]
    fn flux_is_conserved_under_rotation_mirror_and_change_of_scale() {
        let (variance, marks) = flat_planes();
        let spline = BSpline::new(&star(48.0, 47.0, 3.0));
        for matrix in [[[0.8, -0.6], [0.6, 0.8]], [[-1.0, 0.0], [0.0, 1.0]], [[0.7, 0.0], [0.0, 0.8]]] {
            let centre = 47.5;
            let offset: [f64; 2] = std::array::from_fn(|k| centre * (1.0 - matrix[k][0] - matrix[k][1]));
            let map = Map::affine(Domain::of_image(SIDE, SIDE), matrix, offset);
            let source = Source { spline: &spline, variance: &variance, marks: &marks };
            let moved = resample(source, &map, (SIDE, SIDE));
            let (flux, x, y) = flux_and_centroid(&moved.pixels);
            assert!((flux - 1.0).abs() < 1e-3, "{matrix:?}: {flux}");
            let at = map.value(x, y);
            assert!((at[0] - 48.0).hypot(at[1] - 47.0) < 2e-3, "{matrix:?}: {at:?}");
            let area = map.determinant(x, y);
            assert!((f64::from(moved.variance[[48, 48]]) - 4.0 * area * area).abs() < 1e-5);
        }
    }

    #[test]
    fn pixels_near_a_bad_one_are_marked_and_those_outside_have_no_data() {
        let (variance, _) = flat_planes();
        let mut flags = Mask::zeros((SIDE, SIDE));
        flags[[40, 30]] = mask::BAD;
        flags[[70, 70]] = mask::FILLED;
        let marks = marks(&flags);
        let spline = BSpline::new(&star(20.0, 20.0, 3.0));
        let shift = Map::affine(Domain::of_image(SIDE, SIDE), [[1.0, 0.0], [0.0, 1.0]], [5.5, 0.0]);
        let source = Source { spline: &spline, variance: &variance, marks: &marks };
        let moved = resample(source, &shift, (SIDE, SIDE));
        // The bad pixel lies at (24.5, 40): columns 23 to 26 hold it within two pixels.
        let columns: Vec<usize> = (0..80).filter(|&x| moved.mask[[40, x]] != 0).collect();
        assert_eq!(columns, [23, 24, 25, 26]);
        let rows: Vec<usize> = (0..SIDE).filter(|&y| moved.mask[[y, 24]] != 0).collect();
        assert_eq!(rows, [38, 39, 40, 41]);
        assert_eq!(moved.mask[[70, 64]], 0, "a value that was filled in is no reason by itself");
        assert_eq!(moved.mask[[10, 95]], mask::REFERENCE | mask::NO_DATA);
        assert_eq!(moved.pixels[[10, 95]], 0.0);
        assert!(moved.variance.iter().all(|v| *v > 0.0));
    }

    #[test]
    fn a_band_is_the_same_as_those_rows_of_the_whole() {
        let (variance, marks) = flat_planes();
        let spline = BSpline::new(&star(48.0, 47.0, 3.0));
        let map = Map::affine(Domain::of_image(SIDE, SIDE), [[0.8, -0.6], [0.6, 0.8]], [30.0, -20.0]);
        let source = Source { spline: &spline, variance: &variance, marks: &marks };
        let whole = resample(source, &map, (SIDE, SIDE));
        let band = resample_band(source, &map, SIDE, 40..57);
        assert_eq!(band.pixels, whole.pixels.slice(ndarray::s![40..57, ..]));
        assert_eq!(band.mask, whole.mask.slice(ndarray::s![40..57, ..]));
    }

    #[test]
    fn the_noise_of_single_pixels_falls_by_the_documented_factor() {
        // Effective weights: the response to one bright pixel, squared and summed over all phases.
        let mut image = Array2::zeros((SIDE, SIDE));
        image[[48, 48]] = 1.0;
        let spline = BSpline::new(&image);
        let steps = 20;
        let mut sum = 0.0;
        for row in 0..SIDE * steps {
            let value = spline.value(48.0, row as f64 / steps as f64);
            sum += f64::from(value).powi(2) / steps as f64;
        }
        assert!((sum * sum - PIXEL_NOISE_FACTOR).abs() < 0.001, "{}", sum * sum);
    }
}
