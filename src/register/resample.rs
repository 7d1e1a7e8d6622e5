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
use super::spline::{BSpline, LONGEST_RUN};
use crate::image::{Mask, mask};

/// Variance of single pixels of resampled white noise over the variance before, averaged over the
/// sub-pixel phase: the squared effective weights of the interpolation, summed.
pub const PIXEL_NOISE_FACTOR: f64 = 0.843;

/// Pixels that share one linear piece of the area and whose positions are computed together.
const CHUNK: usize = LONGEST_RUN;
/// Runs of neighbours shorter than this are not worth their set-up.
const SHORTEST_RUN: usize = 4;

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

/// For each pixel (x, y), 1 where any of the 4×4 pixels from (x−1, y−1) to (x+2, y+2) is unusable:
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
    // Rows without any mark, which are most, end here.
    if row.iter().fold(0, |all, flags| all | flags) & mask::UNUSABLE == 0 {
        return;
    }
    let any = |window: &[u16]| u8::from(window.iter().fold(0, |all, flags| all | flags) & mask::UNUSABLE != 0);
    for (out, window) in out[1.min(row.len())..].iter_mut().zip(row.windows(4)) {
        *out = any(window);
    }
    for x in [0].into_iter().chain(row.len().saturating_sub(2)..row.len()) {
        out[x] = any(&row[x.saturating_sub(1)..(x + 3).min(row.len())]);
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
        let borders =
            (0..=width.div_ceil(CHUNK)).map(|border| map.determinant((border * CHUNK) as f64, y).abs() as f32);
        let borders: Vec<f32> = borders.collect();
        // Where the map turns the frame round, neighbours are those of falling columns.
        let turned = map.gradient(width as f64 / 2.0, y)[0][0] < 0.0;
        let pieces = pixels.chunks_mut(CHUNK).zip(variance.chunks_mut(CHUNK)).zip(flags.chunks_mut(CHUNK));
        for (index, (((pixels, variance), flags), areas)) in pieces.zip(borders.windows(2)).enumerate() {
            let first = (index * CHUNK) as f64;
            let slope = (areas[1] - areas[0]) / CHUNK as f32;
            let piece = if turned {
                let last = pixels.len() - 1;
                Piece {
                    x: first + last as f64,
                    step: -1.0,
                    row: &row,
                    area: areas[0] + slope * last as f32,
                    slope: -slope,
                }
            } else {
                Piece { x: first, step: 1.0, row: &row, area: areas[0], slope }
            };
            resample_piece(&source, &piece, pixels, variance, flags);
            if turned {
                pixels.reverse();
                variance.reverse();
                flags.reverse();
            }
        }
    });
    out
}

/// Up to [`CHUNK`] neighbouring pixels of a row.
struct Piece<'a> {
    /// Column of the first.
    x: f64,
    /// From each to the next: 1 or −1.
    step: f64,
    row: &'a Row<2>,
    /// Area of the first pixel in the source, and by how much it grows from each to the next.
    area: f32,
    slope: f32,
}

impl Piece<'_> {
    #[inline(always)]
    fn area(&self, index: usize) -> f32 {
        self.area + self.slope * index as f32
    }
}

/// Where the pixels of a piece lie in the source: whole pixels and fractions.
struct Places {
    column: [i32; CHUNK],
    row: [i32; CHUNK],
    tx: [f32; CHUNK],
    ty: [f32; CHUNK],
}

impl Places {
    /// Places farther than two pixels outside the source are drawn in to there.
    #[inline(always)]
    fn new(piece: &Piece<'_>, (height, width): (usize, usize)) -> Self {
        let mut xs = [0.0; CHUNK];
        for (index, x) in xs.iter_mut().enumerate() {
            *x = piece.x + piece.step * index as f64;
        }
        let [x, y] = piece.row.values(&xs);
        let mut places = Self { column: [0; CHUNK], row: [0; CHUNK], tx: [0.0; CHUNK], ty: [0.0; CHUNK] };
        split(&x, width, &mut places.column, &mut places.tx);
        split(&y, height, &mut places.row, &mut places.ty);
        places
    }

    /// The length of the run from `start` in which each pixel lies one column right of the one
    /// before it, in one row, and between four pixels of the source.
    #[inline(always)]
    fn run(&self, start: usize, end: usize, (height, width): (usize, usize)) -> usize {
        let (column, row) = (self.column[start], self.row[start]);
        if column < 0 || row < 0 || row as usize + 1 >= height {
            return 0;
        }
        let longest = (end - start).min((width - 1).saturating_sub(column as usize));
        let ends = |step: &usize| self.column[start + step] != column + *step as i32 || self.row[start + step] != row;
        (1..longest).find(ends).unwrap_or(longest)
    }
}

/// Splits coordinates into whole pixels and fractions.
#[inline(always)]
fn split(coordinates: &[f64; CHUNK], length: usize, whole: &mut [i32; CHUNK], fraction: &mut [f32; CHUNK]) {
    /// Added to a whole number below 2³¹, it leaves that number in the low bits of the sum: a
    /// conversion that vectorises where a cast, which has to saturate, does not.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    for index in 0..CHUNK {
        let at = coordinates[index].max(-2.0).min(length as f64 + 1.0);
        let floor = at.floor();
        whole[index] = (floor + SHIFT).to_bits() as i32;
        fraction[index] = (at - floor) as f32;
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn resample_piece(source: &Source<'_>, piece: &Piece<'_>, pixels: &mut [f32], variance: &mut [f32], flags: &mut [u16]) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    let count = pixels.len().min(variance.len()).min(flags.len()).min(CHUNK);
    let places = Places::new(piece, source.spline.shape());
    let mut start = 0;
    while start < count {
        let length = places.run(start, count, source.spline.shape());
        if length >= SHORTEST_RUN {
            let run = start..start + length;
            let out = (&mut pixels[run.clone()], &mut variance[run.clone()], &mut flags[run]);
            resample_run::<FMA>(source, piece, &places, start, out);
            start += length;
        } else {
            let out = (&mut pixels[start], &mut variance[start], &mut flags[start]);
            resample_pixel::<FMA>(source, piece, &places, start, out);
            start += 1;
        }
    }
}

/// `length` numbers of a plane from (`column`, `row`) on.
#[inline(always)]
fn stretch<T>(plane: &Array2<T>, column: usize, row: usize, length: usize) -> &[T] {
    let first = row * plane.ncols() + column;
    plane.as_slice().and_then(|all| all.get(first..first + length)).unwrap_or_default()
}

/// Pixels that are neighbours in the source too, so that all sums run over neighbouring numbers.
#[inline(always)]
fn resample_run<const FMA: bool>(
    source: &Source<'_>,
    piece: &Piece<'_>,
    places: &Places,
    start: usize,
    (pixels, variance, flags): (&mut [f32], &mut [f32], &mut [u16]),
) {
    let length = pixels.len();
    let (column, row) = (places.column[start] as usize, places.row[start] as usize);
    let (tx, ty) = (&places.tx[start..start + length], &places.ty[start..start + length]);
    source.spline.taps().run::<FMA>(column, row, tx, ty, pixels);
    let upper = stretch(source.variance, column, row, length + 1);
    let lower = stretch(source.variance, column, row + 1, length + 1);
    let marks = stretch(source.marks, column, row, length);
    if upper.len() != length + 1 || lower.len() != length + 1 || marks.len() != length {
        return;
    }
    for index in 0..length {
        let area = piece.area(start + index);
        pixels[index] *= area;
        let above = upper[index] + tx[index] * (upper[index + 1] - upper[index]);
        let below = lower[index] + tx[index] * (lower[index + 1] - lower[index]);
        variance[index] = area * area * (above + ty[index] * (below - above));
        flags[index] = u16::from(marks[index]) * mask::REFERENCE;
    }
}

/// One pixel, anywhere.
#[inline(always)]
fn resample_pixel<const FMA: bool>(
    source: &Source<'_>,
    piece: &Piece<'_>,
    places: &Places,
    index: usize,
    (pixel, variance, flags): (&mut f32, &mut f32, &mut u16),
) {
    let area = piece.area(index);
    let (height, width) = source.spline.shape();
    let (column, row, tx, ty) = (places.column[index], places.row[index], places.tx[index], places.ty[index]);
    let within = |at: i32, length: usize| at.clamp(0, length as i32 - 1) as usize;
    let (x0, x1) = (within(column, width), within(column.saturating_add(1), width));
    let (y0, y1) = (within(row, height), within(row.saturating_add(1), height));
    let at = |y: usize, x: usize| source.variance.get((y, x)).copied().unwrap_or(0.0);
    let above = at(y0, x0) + tx * (at(y0, x1) - at(y0, x0));
    let below = at(y1, x0) + tx * (at(y1, x1) - at(y1, x0));
    *variance = area * area * (above + ty * (below - above));
    // Half a pixel beyond the outermost centres is still the image.
    let inside = |at: i32, t: f32, length: usize| {
        (0..length as i32 - 1).contains(&at) || (at == -1 && t >= 0.5) || (at == length as i32 - 1 && t <= 0.5)
    };
    if inside(column, tx, width) && inside(row, ty, height) {
        *pixel = area * source.spline.taps().value::<FMA>(column as isize, row as isize, tx, ty);
        let marked = source.marks.get((y0, x0)).is_some_and(|mark| *mark != 0);
        *flags = if marked { mask::REFERENCE } else { 0 };
    } else {
        *pixel = 0.0;
        *flags = mask::REFERENCE | mask::NO_DATA;
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
