//! Level and noise of the boxes of the mesh.
#![allow(clippy::needless_range_loop, reason = "the compiler makes vector instructions of loops over lanes")]

use multiversion::multiversion;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{Background, bilinear, boxes, median};
use crate::image::{Mask, mask};

/// A box of which less than this part can be used takes its values from its neighbours.
const MIN_USED: f32 = 0.1;
/// Clipping limit of a box's histogram, standard deviations.
const CLIP: f32 = 3.0;
/// What iterated clipping at [`CLIP`] leaves of a Gaussian's standard deviation: s solves
/// s² = 1 − 2 (3s) φ(3s) / (2 Φ(3s) − 1).
const CLIPPED_SIGMA: f32 = 0.98485;
/// Bins of a box's histogram, over ±[`HISTOGRAM_SIGMAS`].
const BINS: usize = 256;
const HISTOGRAM_SIGMAS: f32 = 6.0;
/// A 3×3 mean above the sky by this many standard deviations of a single pixel belongs to a source
/// (by chance: one in 6,000).
const SOURCE_LIMIT: f32 = 1.2;
/// Pixels by which sources are grown before they are left out.
const SOURCE_GROWTH: usize = 4;

/// Measures the background of `pixels` in boxes of `box_size`, leaving out what is masked as
/// unusable. `None` when no box has enough pixels.
pub fn measure(pixels: ArrayView2<'_, f32>, mask: &Mask, box_size: usize) -> Option<Background> {
    let (height, width) = pixels.dim();
    let shape = (boxes(height, box_size), boxes(width, box_size));
    if height == 0 || width == 0 || box_size == 0 || mask.dim() != pixels.dim() {
        return None;
    }
    let first = mesh(shape, |buffer, row, column| {
        let (rows, columns) = (span(row, box_size, height), span(column, box_size, width));
        for y in rows.clone() {
            gather(&pixels, mask, y, columns.clone(), buffer);
        }
        statistics(buffer, rows.len() * columns.len())
    });
    let first = finish(first, box_size)?;
    let second = mesh(shape, |buffer, row, column| {
        let (rows, columns) = (span(row, box_size, height), span(column, box_size, width));
        gather_sky(&pixels, mask, &first, rows.clone(), columns.clone(), buffer);
        statistics(buffer, rows.len() * columns.len())
    });
    // A box full of sources keeps what the first pass found.
    let merged = ndarray::Zip::from(&second)
        .and(&first.level)
        .and(&first.noise)
        .map_collect(|found, level, noise| Some(found.unwrap_or((*level, *noise))));
    finish(merged, box_size)
}

fn span(index: usize, box_size: usize, length: usize) -> std::ops::Range<usize> {
    let start = index * box_size;
    start..(start + box_size).min(length)
}

/// Level and noise of a box.
type Sky = (f32, f32);

fn mesh(
    shape: (usize, usize),
    measure_box: impl Fn(&mut Vec<f32>, usize, usize) -> Option<Sky> + Sync,
) -> Array2<Option<Sky>> {
    let mut found = Array2::from_elem(shape, None);
    if let Some(all) = found.as_slice_mut() {
        all.par_chunks_mut(shape.1).enumerate().for_each_init(Vec::new, |buffer, (row, line)| {
            for (column, sky) in line.iter_mut().enumerate() {
                buffer.clear();
                *sky = measure_box(buffer, row, column);
            }
        });
    }
    found
}

fn gather(pixels: &ArrayView2<'_, f32>, mask: &Mask, y: usize, columns: std::ops::Range<usize>, buffer: &mut Vec<f32>) {
    let (values, bits) = (row(pixels, y, &columns), row(&mask.view(), y, &columns));
    append(buffer, values.len(), |k| (values[k], usable(values[k], bits[k])));
}

/// Part of a row of an image whose rows are contiguous.
#[inline(always)]
fn row<'a, T>(image: &ArrayView2<'a, T>, y: usize, columns: &std::ops::Range<usize>) -> &'a [T] {
    let row = image.index_axis_move(ndarray::Axis(0), y).to_slice();
    row.and_then(|row| row.get(columns.clone())).unwrap_or_default()
}

#[inline(always)]
fn usable(value: f32, bits: u16) -> bool {
    (bits & mask::UNUSABLE == 0) & value.is_finite()
}

/// Appends those of `count` values that are to be kept, without a branch for each.
#[inline(always)]
fn append(buffer: &mut Vec<f32>, count: usize, value: impl Fn(usize) -> (f32, bool)) {
    let mut end = buffer.len();
    buffer.resize(end + count, 0.0);
    for k in 0..count {
        let (value, keep) = value(k);
        buffer[end] = value;
        end += usize::from(keep);
    }
    buffer.truncate(end);
}

/// Sky under a row of a box: a value in its middle, and a slope to the left and to the right of it.
#[derive(Clone, Copy)]
struct Slopes {
    middle: f32,
    left: f32,
    right: f32,
    /// Column of the middle.
    half: f32,
}

/// What stands above the sky in a row; 0 where a pixel is not usable.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn residuals(values: &[f32], bits: &[u16], sky: Slopes, out: &mut [f32]) {
    let length = out.len().min(values.len()).min(bits.len());
    let (values, bits, out) = (&values[..length], &bits[..length], &mut out[..length]);
    for k in 0..length {
        let offset = k as f32 - sky.half;
        let level = sky.middle + offset * if offset < 0.0 { sky.left } else { sky.right };
        out[k] = if usable(values[k], bits[k]) { values[k] - level } else { 0.0 };
    }
}

/// Sums of three neighbours, 0 at the ends.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn triples(row: &[f32], out: &mut [f32]) {
    let length = out.len().min(row.len());
    out.fill(0.0);
    if length < 3 {
        return;
    }
    let inner = &mut out[1..length - 1];
    for k in 0..inner.len() {
        inner[k] = row[k] + row[k + 1] + row[k + 2];
    }
}

/// Whether the sum over three rows stands above a limit, 1 or 0 a pixel, and whether any does.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn above_limit(rows: [&[f32]; 3], limit: f32, out: &mut [u8]) -> bool {
    let length = out.len();
    let (above, here, below) = (&rows[0][..length], &rows[1][..length], &rows[2][..length]);
    let mut any = 0;
    for k in 0..length {
        out[k] = u8::from(above[k] + here[k] + below[k] > limit);
        any |= out[k];
    }
    any != 0
}

/// Gathers the pixels of a box that belong to no source above the sky of `first`.
fn gather_sky(
    pixels: &ArrayView2<'_, f32>,
    mask: &Mask,
    first: &Background,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    buffer: &mut Vec<f32>,
) {
    let (height, width) = pixels.dim();
    let margin = SOURCE_GROWTH + 1;
    let (y0, y1) = (rows.start.saturating_sub(margin), (rows.end + margin).min(height));
    let (x0, x1) = (columns.start.saturating_sub(margin), (columns.end + margin).min(width));
    let (high, wide) = (y1 - y0, x1 - x0);
    let centre = ((columns.start + columns.end - 1) as f64 / 2.0, (rows.start + rows.end - 1) as f64 / 2.0);
    let level = bilinear(&first.level, first.box_size, centre.0, centre.1);
    let limit = SOURCE_LIMIT * first.noise_at(centre.0, centre.1) * 9.0;
    // Residuals above a plane of sky, summed over three columns.
    let mut sums = vec![0.0_f32; high * wide];
    let mut residual = vec![0.0_f32; high * wide];
    let half = (centre.0 - x0 as f64) as f32;
    for (line, y) in (y0..y1).enumerate() {
        let left = bilinear(&first.level, first.box_size, x0 as f64, y as f64);
        let middle = bilinear(&first.level, first.box_size, centre.0, y as f64);
        let right = bilinear(&first.level, first.box_size, (x1 - 1) as f64, y as f64);
        let sky = Slopes {
            middle,
            left: (middle - left) / half.max(1.0),
            right: (right - middle) / (wide as f32 - 1.0 - half).max(1.0),
            half,
        };
        let here = line * wide..(line + 1) * wide;
        residuals(row(pixels, y, &(x0..x1)), row(&mask.view(), y, &(x0..x1)), sky, &mut residual[here.clone()]);
        triples(&residual[here.clone()], &mut sums[here]);
    }
    // A source's pixel, grown along x and then along y.
    let mut along_x = vec![0_u8; high * wide];
    let mut is_source = vec![0_u8; wide];
    for line in 1..high.saturating_sub(1) {
        let three = [line - 1, line, line + 1].map(|line| &sums[line * wide..(line + 1) * wide]);
        if !above_limit(three, limit, &mut is_source) {
            continue;
        }
        let out = &mut along_x[line * wide..(line + 1) * wide];
        for k in (0..wide).filter(|k| is_source[*k] != 0) {
            out[k.saturating_sub(SOURCE_GROWTH)..(k + SOURCE_GROWTH + 1).min(wide)].fill(1);
        }
    }
    let mut grown = vec![0_u8; wide];
    for y in rows {
        let line = y - y0;
        grown.fill(0);
        for near in line.saturating_sub(SOURCE_GROWTH)..(line + SOURCE_GROWTH + 1).min(high) {
            for (all, here) in grown.iter_mut().zip(&along_x[near * wide..(near + 1) * wide]) {
                *all |= *here;
            }
        }
        // The slope of the sky inside the box is no noise: what is handed on has it taken out.
        let (values, bits) = (row(pixels, y, &columns), row(&mask.view(), y, &columns));
        let (grown, residual) = (&grown[columns.start - x0..], &residual[line * wide + columns.start - x0..]);
        append(buffer, values.len(), |k| (residual[k] + level, (grown[k] == 0) & usable(values[k], bits[k])));
    }
}

/// Mode and standard deviation of a box's values after clipping; `None` when too few of `all` are there.
fn statistics(values: &[f32], all: usize) -> Option<Sky> {
    if (values.len() as f32) < (MIN_USED * all as f32).max(16.0) {
        return None;
    }
    // A robust start from a sample, then a histogram of everything near it.
    let stride = (values.len() / 512).max(1);
    let mut sample: Vec<f32> = values.iter().step_by(stride).copied().collect();
    let middle = median(sample.clone());
    for value in &mut sample {
        *value = (*value - middle).abs();
    }
    let deviation = 1.4826 * median(sample.clone());
    // More than half the values alike: take the mean deviation of the sample.
    let width = if deviation > 0.0 { deviation } else { sample.iter().sum::<f32>() / sample.len() as f32 };
    if !(width > 0.0 && width.is_finite()) {
        return middle.is_finite().then_some((middle, 0.0));
    }
    let low = middle - HISTOGRAM_SIGMAS * width;
    let per_bin = BINS as f32 / (2.0 * HISTOGRAM_SIGMAS * width);
    let mut histogram = [0_u32; BINS];
    for value in values {
        let bin = (value - low) * per_bin;
        if bin >= 0.0 && bin < BINS as f32 {
            histogram[bin as usize] += 1;
        }
    }
    let (median, mean, sigma) = clipped(&histogram)?;
    let mode = if (mean - median).abs() < 0.3 * sigma { 2.5 * median - 1.5 * mean } else { median };
    Some((low + mode / per_bin, sigma / CLIPPED_SIGMA / per_bin))
}

/// Median, mean and standard deviation of a histogram, in bins, clipped until nothing changes.
fn clipped(histogram: &[u32; BINS]) -> Option<(f32, f32, f32)> {
    let (mut from, mut to) = (0, BINS);
    for _ in 0..20 {
        let (mut count, mut sum, mut squares) = (0_u64, 0_f64, 0_f64);
        for (bin, n) in histogram.iter().enumerate().take(to).skip(from) {
            let centre = bin as f64 + 0.5;
            count += u64::from(*n);
            sum += f64::from(*n) * centre;
            squares += f64::from(*n) * centre * centre;
        }
        if count == 0 {
            return None;
        }
        let mean = sum / count as f64;
        let sigma = (squares / count as f64 - mean * mean).max(1.0 / 12.0).sqrt();
        let mut below = 0.0;
        let mut median = mean;
        for (bin, n) in histogram.iter().enumerate().take(to).skip(from) {
            let n = f64::from(*n);
            if below + n >= count as f64 / 2.0 {
                median = bin as f64 + (count as f64 / 2.0 - below) / n;
                break;
            }
            below += n;
        }
        let (lower, upper) = (median - f64::from(CLIP) * sigma, median + f64::from(CLIP) * sigma);
        let next = ((lower.round().max(from as f64)) as usize, (upper.round().min(to as f64)) as usize);
        if next == (from, to) || next.1 <= next.0 {
            return Some((median as f32, mean as f32, sigma as f32));
        }
        (from, to) = next;
    }
    None
}

/// Fills boxes without values from their neighbours and filters the mesh with a 3×3 median.
fn finish(found: Array2<Option<Sky>>, box_size: usize) -> Option<Background> {
    let (rows, columns) = found.dim();
    let mut filled = found;
    let mut missing = filled.iter().filter(|sky| sky.is_none()).count();
    if missing == rows * columns {
        return None;
    }
    while missing > 0 {
        let before = filled.clone();
        for ((row, column), sky) in filled.indexed_iter_mut().filter(|(_, sky)| sky.is_none()) {
            let near: Vec<Sky> = neighbours(row, column, rows, columns).filter_map(|at| before[at]).collect();
            if !near.is_empty() {
                let n = near.len() as f32;
                *sky = Some((near.iter().map(|s| s.0).sum::<f32>() / n, near.iter().map(|s| s.1).sum::<f32>() / n));
                missing -= 1;
            }
        }
    }
    let of = |part: fn(&Sky) -> f32| filled.map(|sky| sky.as_ref().map_or(0.0, part));
    Some(Background { box_size, level: median_filter(&of(|sky| sky.0)), noise: median_filter(&of(|sky| sky.1)) })
}

/// 3×3 median. Beyond the edge the mesh is continued by its point reflection, so that a plane stays
/// the plane it is; plain cutting of the window would flatten a gradient there.
fn median_filter(mesh: &Array2<f32>) -> Array2<f32> {
    let (rows, columns) = mesh.dim();
    let reflect = |at: isize, count: usize| at.clamp(0, count as isize - 1) as usize;
    let beyond = |at: isize, count: usize| {
        let inside = reflect(at, count);
        let mirrored = reflect(2 * inside as isize - at, count);
        (inside, mirrored)
    };
    Array2::from_shape_fn((rows, columns), |(row, column)| {
        let mut window = [0.0_f32; 9];
        for (k, value) in window.iter_mut().enumerate() {
            let (r, c) = (row as isize + k as isize / 3 - 1, column as isize + k as isize % 3 - 1);
            let ((inside_r, mirror_r), (inside_c, mirror_c)) = (beyond(r, rows), beyond(c, columns));
            *value = match (mirror_r == inside_r, mirror_c == inside_c) {
                (true, true) => mesh[[inside_r, inside_c]],
                _ => 2.0 * mesh[[inside_r, inside_c]] - mesh[[mirror_r, mirror_c]],
            };
        }
        window.sort_unstable_by(f32::total_cmp);
        window[4]
    })
}

/// The box and those that touch it.
fn neighbours(row: usize, column: usize, rows: usize, columns: usize) -> impl Iterator<Item = [usize; 2]> {
    let lines = row.saturating_sub(1)..(row + 2).min(rows);
    lines.flat_map(move |r| (column.saturating_sub(1)..(column + 2).min(columns)).map(move |c| [r, c]))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_distr::{Distribution, Normal};

    use super::*;

    /// A sloping sky of noise 12 with Gaussian stars on it, 400 × 300.
    fn scene(stars: usize) -> Array2<f32> {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let noise = Normal::new(0.0_f32, 12.0).unwrap();
        let mut pixels = Array2::from_shape_fn((300, 400), |(y, x)| sky(x, y) + noise.sample(&mut random));
        for star in 0..stars {
            let (cx, cy) = ((star * 7919 % 400) as f32, (star * 104_729 % 300) as f32);
            let peak = 200.0 * 1.1_f32.powi((star % 40) as i32);
            for ((y, x), pixel) in pixels.indexed_iter_mut() {
                let r2 = (x as f32 - cx).powi(2) + (y as f32 - cy).powi(2);
                if r2 < 900.0 {
                    *pixel += peak * (1.0 + r2 / 6.0).powf(-2.5);
                }
            }
        }
        pixels
    }

    fn sky(x: usize, y: usize) -> f32 {
        900.0 + 0.1 * x as f32 - 0.05 * y as f32
    }

    fn errors(background: &Background) -> (f32, f32) {
        let surface = background.level_surface();
        let (mut sum, mut worst, mut row) = (0.0, 0.0_f32, vec![0.0; 400]);
        for y in 0..300 {
            surface.fill_row(y, &mut row);
            for (x, level) in row.iter().enumerate() {
                sum += level - sky(x, y);
                worst = worst.max((level - sky(x, y)).abs());
            }
        }
        (sum / 120_000.0, worst)
    }

    #[test]
    fn an_empty_sloping_sky_is_found_to_a_third_of_its_noise_even_in_the_corners() {
        let background = measure(scene(0).view(), &Mask::zeros((300, 400)), 64).unwrap();
        let (mean, worst) = errors(&background);
        assert!(mean.abs() < 0.4 && worst < 4.0, "mean error {mean}, worst {worst}");
        assert!((background.median_noise() / 12.0 - 1.0).abs() < 0.01, "{}", background.median_noise());
    }

    #[test]
    fn stars_lift_neither_the_level_nor_the_noise() {
        let background = measure(scene(60).view(), &Mask::zeros((300, 400)), 64).unwrap();
        let (mean, worst) = errors(&background);
        assert!(mean.abs() < 1.2 && worst < 5.0, "mean error {mean}, worst {worst}");
        assert!((background.median_noise() / 12.0 - 1.0).abs() < 0.04, "{}", background.median_noise());
    }

    #[test]
    fn a_box_that_is_masked_takes_its_sky_from_its_neighbours() {
        let mut bits = Mask::zeros((300, 400));
        bits.slice_mut(ndarray::s![64..128, 64..192]).fill(mask::SATURATED);
        let mut pixels = scene(0);
        pixels.slice_mut(ndarray::s![64..128, 64..192]).fill(60_000.0);
        let (mean, worst) = errors(&measure(pixels.view(), &bits, 64).unwrap());
        assert!(mean.abs() < 0.5 && worst < 5.0, "mean error {mean}, worst {worst}");
        assert!(measure(pixels.view(), &Mask::from_elem((300, 400), mask::BAD), 64).is_none());
    }

    #[test]
    fn a_constant_image_has_its_level_and_no_noise() {
        let background = measure(Array2::from_elem((100, 100), 7.0).view(), &Mask::zeros((100, 100)), 64).unwrap();
        assert_eq!((background.median_level(), background.median_noise()), (7.0, 0.0));
    }
}
