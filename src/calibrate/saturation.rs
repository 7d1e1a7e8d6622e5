//! Saturated pixels: from the level that somebody wrote down, or from the plateau that they form.

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::camera::{Amplifier, RawFrame};
use crate::fits::Header;
use crate::image::{Mask, mask};

/// Response bends before it stops, and a flat field spreads the level: flagged from this part of it on.
pub(super) const MARGIN: f64 = 0.95;
/// The same for raw values, which no flat has spread.
const RAW_MARGIN: f64 = 0.99;
/// Saturated pixels one above the other that may bleed.
const BLEED_RUN: usize = 6;
/// Pixels within this part of the highest value form a plateau.
const PLATEAU: f32 = 0.02;
/// A plateau of this many touching pixels is no star's peak, whatever the seeing.
const PLATEAU_PIXELS: usize = 12;
/// So many separate peaks do not end at the same value by chance.
const PLATEAU_PEAKS: usize = 3;

/// The saturation level that a header gives, in units of the image. `ESATUR` is what is left of it
/// after sky subtraction, where a pipeline says so.
pub(super) fn level_of(header: &Header) -> Option<f64> {
    header.number(&["SATURATE", "SATLEVEL", "SATURAT", "SATUR", "MAXLIN"]).filter(|level| *level > 0.0)
}

/// Marks pixels at or above `limit`, and those that touch them.
pub(super) fn flag(pixels: ArrayView2<'_, f32>, bits: &mut Mask, limit: f32) {
    let (height, width) = pixels.dim();
    for (y, x) in places(pixels, |value| value >= limit) {
        if bits[[y, x]] & mask::NO_DATA == 0 {
            let (y0, y1) = (y.saturating_sub(1), (y + 2).min(height));
            let (x0, x1) = (x.saturating_sub(1), (x + 2).min(width));
            bits.slice_mut(ndarray::s![y0..y1, x0..x1]).mapv_inplace(|bits| bits | mask::SATURATED);
        }
    }
}

/// The pixels of whose values something is true, (row, column) in this order.
fn places(pixels: ArrayView2<'_, f32>, wanted: impl Fn(f32) -> bool + Sync) -> Vec<(usize, usize)> {
    let row = |(y, row): (usize, ndarray::ArrayView1<'_, f32>)| {
        let found = row.iter().enumerate().filter(|(_, value)| wanted(**value)).map(|(x, _)| (y, x));
        found.collect::<Vec<_>>()
    };
    pixels.outer_iter().into_par_iter().enumerate().flat_map_iter(row).collect()
}

/// The lower edge of the plateau that saturated stars form in an image with this `sky` and `noise`;
/// `None` when its brightest pixels look like peaks.
pub(super) fn plateau(pixels: ArrayView2<'_, f32>, sky: f32, noise: f32) -> Option<f32> {
    let highest_of = |row: ndarray::ArrayView1<'_, f32>| row.iter().copied().fold(f32::MIN, f32::max);
    let highest = pixels.outer_iter().into_par_iter().map(highest_of).reduce(|| f32::MIN, f32::max);
    if highest - sky < 50.0 * noise {
        return None;
    }
    let edge = highest - PLATEAU * (highest - sky);
    let mut at_top = places(pixels, |value| value >= edge);
    at_top.truncate(1_000_000);
    let sizes = connected(&at_top);
    let broad = sizes.iter().filter(|size| **size >= 2).count();
    (broad >= PLATEAU_PEAKS || sizes.iter().any(|size| *size >= PLATEAU_PIXELS)).then_some(edge)
}

/// The raw value, ADU, from which on a pixel of `amplifier` is saturated: what the header or the settings
/// say; else the plateau that stars form, and in any case the largest number of the file's pixels.
pub(super) fn raw_limit(raw: &RawFrame, amplifier: &Amplifier) -> f32 {
    if let Some(level) = amplifier.saturation {
        return (level * RAW_MARGIN) as f32;
    }
    let data = amplifier.data;
    let part = raw.pixels.pixels.slice(ndarray::s![data.y0..data.y1, data.x0..data.x1]);
    let stride = (part.len() / 4096).max(1);
    let mut sample: Vec<f32> = part.iter().step_by(stride).copied().collect();
    let (sky, noise) = middle_and_spread(&mut sample);
    let full = match raw.header.number(&["BITPIX"]) {
        Some(8.0) => 255.0,
        Some(16.0) => 32_767.0 + raw.header.number(&["BZERO"]).unwrap_or(0.0),
        _ => f64::INFINITY,
    };
    plateau(part, sky, noise.max(1.0)).unwrap_or(f32::INFINITY).min((full * RAW_MARGIN) as f32)
}

/// Median and robust standard deviation.
fn middle_and_spread(values: &mut [f32]) -> (f32, f32) {
    let middle = values.len() / 2;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let median = *values.select_nth_unstable_by(middle, f32::total_cmp).1;
    let mut deviations: Vec<f32> = values.iter().map(|value| (value - median).abs()).collect();
    (median, 1.4826 * *deviations.select_nth_unstable_by(middle, f32::total_cmp).1)
}

/// Follows the bleed trails of the saturated pixels in `bits` along their columns, and grows both by a
/// pixel. Gives the number of saturated pixels before growth.
pub(super) fn grow(bits: &mut Mask, pixels: ArrayView2<'_, f32>) -> usize {
    let (height, width) = bits.dim();
    let mut saturated: Vec<(usize, usize)> = bits
        .outer_iter()
        .into_par_iter()
        .enumerate()
        .flat_map_iter(|(y, row)| {
            let columns: Vec<usize> =
                row.iter().enumerate().filter(|(_, b)| **b & mask::SATURATED != 0).map(|(x, _)| x).collect();
            columns.into_iter().map(move |x| (x, y))
        })
        .collect();
    if saturated.is_empty() {
        return 0;
    }
    let stride = (pixels.len() / 4096).max(1);
    let mut sample: Vec<f32> = pixels.iter().step_by(stride).copied().collect();
    let (sky, noise) = middle_and_spread(&mut sample);
    saturated.par_sort_unstable();
    let mut trails = Vec::new();
    for run in saturated.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1).filter(|run| run.len() >= BLEED_RUN) {
        let (Some((x, first)), Some((_, last))) = (run.first(), run.last()) else { continue };
        let bleeds = |y: usize| {
            let beside = pixels[[y, x.saturating_sub(3)]].max(pixels[[y, (x + 3).min(width - 1)]]);
            pixels[[y, *x]] - beside > 0.5 * (beside - sky).max(0.0) + 5.0 * noise
        };
        trails.extend((0..*first).rev().take_while(|y| bleeds(*y)).map(|y| (*x, y)));
        trails.extend((last + 1..height).take_while(|y| bleeds(*y)).map(|y| (*x, y)));
    }
    for (all, bit) in [(&saturated, mask::SATURATED), (&trails, mask::BLEED)] {
        for &(x, y) in all {
            let (y0, y1) = (y.saturating_sub(1), (y + 2).min(height));
            let (x0, x1) = (x.saturating_sub(1), (x + 2).min(width));
            bits.slice_mut(ndarray::s![y0..y1, x0..x1]).mapv_inplace(|bits| bits | bit);
        }
    }
    saturated.len()
}

/// Sizes of the groups of touching pixels (eight neighbours) among `at`, which is in row order.
fn connected(at: &[(usize, usize)]) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..at.len()).collect();
    fn root(parent: &mut [usize], mut i: usize) -> usize {
        while parent[i] != i {
            parent[i] = parent[parent[i]];
            i = parent[i];
        }
        i
    }
    for (i, &(y, x)) in at.iter().enumerate() {
        let before = [
            (y, x.wrapping_sub(1)),
            (y.wrapping_sub(1), x.wrapping_sub(1)),
            (y.wrapping_sub(1), x),
            (y.wrapping_sub(1), x + 1),
        ];
        for j in before.iter().filter_map(|near| at[..i].binary_search(near).ok()) {
            let (a, b) = (root(&mut parent, i), root(&mut parent, j));
            parent[a] = b;
        }
    }
    let mut sizes = vec![0; at.len()];
    for i in 0..at.len() {
        let group = root(&mut parent, i);
        sizes[group] += 1;
    }
    sizes.retain(|size| *size > 0);
    sizes
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn stars(cut: f32) -> Array2<f32> {
        Array2::from_shape_fn((60, 200), |(y, x)| {
            let nearest = (x % 40) as f32 - 20.0;
            let peak = 1000.0 * (1 + x / 40) as f32 * 3.7;
            let r2 = nearest * nearest + (y as f32 - 30.0).powi(2);
            (100.0 + peak * (-r2 / 8.0).exp()).min(cut)
        })
    }

    #[test]
    fn saturated_stars_are_known_by_the_plateau_they_share() {
        let edge = plateau(stars(9_000.0).view(), 100.0, 5.0).unwrap();
        assert!((8_500.0..9_000.0).contains(&edge), "{edge}");
        assert_eq!(plateau(stars(1e9).view(), 100.0, 5.0), None);
    }

    #[test]
    fn a_bleed_trail_is_followed_beyond_the_saturated_pixels() {
        let mut pixels = stars(9_000.0);
        pixels.slice_mut(ndarray::s![40..55, 180]).fill(3_000.0);
        let mut bits = Mask::zeros(pixels.dim());
        bits.slice_mut(ndarray::s![20..40, 180]).fill(mask::SATURATED);
        assert_eq!(grow(&mut bits, pixels.view()), 20);
        assert_eq!(bits[[50, 181]], mask::BLEED);
        assert_eq!(bits[[57, 180]], 0);
        assert_eq!(bits[[30, 181]], mask::SATURATED);
    }

    #[test]
    fn a_saturated_pixel_takes_its_neighbours_with_it() {
        let pixels = stars(9_000.0);
        let mut bits = Mask::zeros(pixels.dim());
        flag(pixels.view(), &mut bits, 8_900.0);
        assert_eq!(bits[[30, 180]], mask::SATURATED);
        assert_eq!(bits[[30, 20]], 0);
    }
}
