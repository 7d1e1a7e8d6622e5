//! Cosmic rays: whatever is sharper than the light of a star can be.
//!
//! The test is that of the Sloan and Rubin pipelines (R. Lupton; LSST meas_algorithms, `findCosmicRays`):
//! a pixel is hit when, along at least one of the four directions through it, the mean of its two
//! opposite neighbours is less than the PSF allows for a pixel that bright. A star centred on the pixel
//! is the sharpest that the sky can offer, so that no star, no galaxy and no trail of a moving source is
//! touched, and one look at each pixel is enough. Around a hit the test is repeated with the hit taken
//! out, which uncovers the rest of its track. What is left over is rejected after the subtraction by its
//! shape.

use std::collections::HashMap;

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::image::{Mask, mask};

/// Pixels fainter than this many standard deviations are left alone.
const FIRST_SIGMAS: f32 = 6.0;
/// The same for neighbours of a hit.
const NEXT_SIGMAS: f32 = 3.5;
/// The neighbours' mean must be below this part of what the PSF predicts: the PSF varies over the field.
const SAFETY: f32 = 0.6;
/// Standard deviations by which noise may have lifted the pixel.
const PEAK_NOISE: f32 = 2.0;
/// Standard deviations by which noise may have lowered the neighbours' mean.
const MEAN_NOISE: f32 = 2.0;
/// Rounds of looking at the neighbours of hits.
const ROUNDS: usize = 4;
/// Below this FWHM stars and cosmic rays cannot be told apart, pixels.
pub(super) const MIN_FWHM: f32 = 1.5;
/// From this FWHM on not even a part of a track looks like a star, pixels.
pub(super) const BROAD_FWHM: f32 = 3.2;
/// Assumed where no star can be measured, pixels: careful.
const UNKNOWN_FWHM: f32 = 2.0;
/// No sharper PSF is assumed to need the full test: beyond it nothing is gained, pixels.
const MAX_FWHM: f32 = 6.0;

/// Pixels that are neither looked at nor compared with.
const BLOCKED: u16 = mask::SATURATED | mask::BLEED | mask::NO_DATA | mask::BAD | mask::LOW_FLAT | mask::HOT;

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Found {
    /// Pixels that were flagged.
    pub pixels: usize,
    /// Hits: groups of such pixels.
    pub hits: usize,
    /// Full width at half maximum of the stars, pixels; `None` where no star could be measured.
    pub fwhm: Option<f32>,
}

/// Flags the cosmic rays of a background-subtracted image whose stars are at least `least_fwhm` wide, pixels.
pub(super) fn flag(
    pixels: ArrayView2<'_, f32>,
    variance: ArrayView2<'_, f32>,
    bits: &mut Mask,
    least_fwhm: f32,
) -> Found {
    let fwhm = star_width(pixels, variance, bits);
    let width = fwhm.unwrap_or(UNKNOWN_FWHM).min(MAX_FWHM);
    if width < least_fwhm {
        return Found { fwhm, ..Found::default() };
    }
    let before: &Mask = bits;
    let test = Test {
        pixels,
        variance,
        bits: before,
        profile: [gaussian(1.0, width), gaussian(std::f32::consts::SQRT_2, width)],
    };
    let (height, columns) = pixels.dim();
    let mut fresh: Vec<(usize, f32)> = (1..height.saturating_sub(1))
        .into_par_iter()
        .flat_map_iter(|y| {
            let mut hits = Vec::new();
            let (Some(row), Some(noise)) = (pixels.row(y).to_slice(), variance.row(y).to_slice()) else { return hits };
            for x in 1..columns.saturating_sub(1) {
                if row[x] > 0.0
                    && row[x] * row[x] > FIRST_SIGMAS * FIRST_SIGMAS * noise[x]
                    && bits[[y, x]] & BLOCKED == 0
                {
                    let read = |y: usize, x: usize| pixels[[y, x]];
                    if let Some(level) = test.sharper_than_a_star(y, x, read) {
                        hits.push((y * columns + x, level));
                    }
                }
            }
            hits
        })
        .collect();
    // A saturated star's core is no neighbour to compare with.
    fresh.retain(|(at, _)| !near(bits, *at, columns, mask::SATURATED | mask::BLEED));
    let hits = fresh.len();
    let mut replaced: HashMap<usize, f32> = fresh.iter().copied().collect();
    for _ in 0..ROUNDS {
        let mut next: Vec<(usize, f32)> = Vec::new();
        for &(at, _) in &fresh {
            let (y, x) = (at / columns, at % columns);
            for (v, u) in (y - 1..=y + 1).flat_map(|v| (x - 1..=x + 1).map(move |u| (v, u))) {
                let inside = v > 0 && u > 0 && v + 1 < height && u + 1 < columns;
                if !inside || replaced.contains_key(&(v * columns + u)) || bits[[v, u]] & BLOCKED != 0 {
                    continue;
                }
                let value = pixels[[v, u]];
                if value <= 0.0 || value * value <= NEXT_SIGMAS * NEXT_SIGMAS * variance[[v, u]] {
                    continue;
                }
                let read = |y: usize, x: usize| replaced.get(&(y * columns + x)).copied().unwrap_or(pixels[[y, x]]);
                if let Some(level) = test.sharper_than_a_star(v, u, read) {
                    next.push((v * columns + u, level));
                }
            }
        }
        next.sort_by_key(|(at, _)| *at);
        next.dedup_by_key(|(at, _)| *at);
        if next.is_empty() {
            break;
        }
        replaced.extend(next.iter().copied());
        fresh = next;
    }
    for at in replaced.keys() {
        bits[[at / columns, at % columns]] |= mask::COSMIC_RAY;
    }
    Found { pixels: replaced.len(), hits, fwhm }
}

fn near(bits: &Mask, at: usize, columns: usize, wanted: u16) -> bool {
    let (y, x) = (at / columns, at % columns);
    let (height, width) = bits.dim();
    let (y0, y1) = (y.saturating_sub(2), (y + 3).min(height));
    let (x0, x1) = (x.saturating_sub(2), (x + 3).min(width));
    bits.slice(ndarray::s![y0..y1, x0..x1]).iter().any(|bits| bits & wanted != 0)
}

/// A Gaussian star's light at `distance` from its centre over that at the centre.
fn gaussian(distance: f32, fwhm: f32) -> f32 {
    (-4.0 * std::f32::consts::LN_2 * distance * distance / (fwhm * fwhm)).exp()
}

struct Test<'a> {
    pixels: ArrayView2<'a, f32>,
    variance: ArrayView2<'a, f32>,
    bits: &'a Mask,
    /// The PSF at a distance of 1 and √2 pixels, over its centre.
    profile: [f32; 2],
}

impl Test<'_> {
    /// The level of the surroundings when the pixel is sharper than a star along any direction.
    fn sharper_than_a_star(&self, y: usize, x: usize, read: impl Fn(usize, usize) -> f32) -> Option<f32> {
        let peak = self.pixels[[y, x]] - PEAK_NOISE * self.variance[[y, x]].sqrt();
        let pairs = [
            (0, (y, x - 1), (y, x + 1)),
            (0, (y - 1, x), (y + 1, x)),
            (1, (y - 1, x - 1), (y + 1, x + 1)),
            (1, (y - 1, x + 1), (y + 1, x - 1)),
        ];
        let (mut lowest, mut hit) = (f32::INFINITY, false);
        for (axis, before, behind) in pairs {
            if (self.bits[before] | self.bits[behind]) & BLOCKED != 0 {
                continue;
            }
            let mean = 0.5 * (read(before.0, before.1) + read(behind.0, behind.1));
            let noise = 0.5 * (self.variance[before] + self.variance[behind]).sqrt();
            hit |= mean + MEAN_NOISE * noise < SAFETY * self.profile[axis] * peak;
            lowest = lowest.min(mean);
        }
        hit.then_some(lowest)
    }
}

/// Width of the stars, pixels: the brightest pixel of each tile of 64 that stands out, its area at half
/// maximum, and of these areas the densest place; single hot pixels are left out.
fn star_width(pixels: ArrayView2<'_, f32>, variance: ArrayView2<'_, f32>, bits: &Mask) -> Option<f32> {
    let (height, width) = pixels.dim();
    let tiles: Vec<(usize, usize)> =
        (0..height).step_by(64).flat_map(|y| (0..width).step_by(64).map(move |x| (y, x))).collect();
    let mut widths: Vec<f32> = tiles
        .into_par_iter()
        .filter_map(|(y0, x0)| {
            let (y1, x1) = ((y0 + 64).min(height), (x0 + 64).min(width));
            let mut best = (0.0_f32, 0, 0);
            for y in y0..y1 {
                for x in x0..x1 {
                    if pixels[[y, x]] > best.0 && bits[[y, x]] & mask::UNUSABLE == 0 {
                        best = (pixels[[y, x]], y, x);
                    }
                }
            }
            let (peak, y, x) = best;
            let stands_out = peak * peak > 900.0 * variance[[y, x]];
            if !stands_out || near(bits, y * width + x, width, mask::SATURATED | mask::BLEED) {
                return None;
            }
            let area = half_maximum_area(pixels, y, x, peak);
            (area >= 3.0).then(|| 2.0 * (area / std::f32::consts::PI).sqrt())
        })
        .collect();
    if widths.len() < 5 {
        return None;
    }
    widths.sort_unstable_by(f32::total_cmp);
    Some(densest(&widths))
}

/// Area around a peak where the image is above half of it, interpolated at its border, square pixels.
fn half_maximum_area(pixels: ArrayView2<'_, f32>, y: usize, x: usize, peak: f32) -> f32 {
    const RADIUS: usize = 12;
    let (height, width) = pixels.dim();
    let half = 0.5 * peak;
    let mut area = 0.0;
    // Row by row outwards, each run connected to the peak's column.
    for rows in [(y..(y + RADIUS).min(height)).collect::<Vec<_>>(), (y.saturating_sub(RADIUS)..y).rev().collect()] {
        for v in rows {
            if pixels[[v, x]] < half {
                break;
            }
            let right = run((x..(x + RADIUS).min(width)).map(|u| pixels[[v, u]]), half);
            let left = run((x.saturating_sub(RADIUS)..=x).rev().map(|u| pixels[[v, u]]), half);
            area += right + left;
        }
    }
    area
}

/// Length from the first value to where the values fall below `half`, interpolated.
fn run(values: impl Iterator<Item = f32>, half: f32) -> f32 {
    let mut length = 0.0;
    let mut last = f32::INFINITY;
    for value in values {
        if value < half {
            return if last.is_finite() { length - 1.0 + (last - half) / (last - value).max(1e-20) } else { 0.0 };
        }
        (length, last) = (length + 1.0, value);
    }
    length
}

/// The middle of the shortest interval that holds half of the sorted values, taken again and again.
fn densest(sorted: &[f32]) -> f32 {
    let mut part = sorted;
    while part.len() > 4 {
        let half = part.len().div_ceil(2);
        let start = (0..=part.len() - half)
            .min_by(|a, b| (part[a + half - 1] - part[*a]).total_cmp(&(part[b + half - 1] - part[*b])))
            .unwrap_or(0);
        part = &part[start..start + half];
    }
    part.iter().sum::<f32>() / part.len() as f32
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};
    use rand_distr::{Distribution, Normal};

    use super::*;

    const SIDE: usize = 512;
    const SIGMA: f32 = 10.0;

    /// Gaussian stars of this width on noise; the image and its variance.
    fn stars(fwhm: f32) -> (Array2<f32>, Array2<f32>) {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(11);
        let noise = Normal::new(0.0_f32, 1.0).unwrap();
        let mut flux = Array2::<f32>::zeros((SIDE, SIDE));
        for _ in 0..150 {
            let (cx, cy): (f32, f32) = (random.random_range(0.0..511.0), random.random_range(0.0..511.0));
            let peak = 40.0 * 10.0_f32.powf(random.random_range(0.0..3.0));
            for y in (cy as usize).saturating_sub(12)..(cy as usize + 13).min(SIDE) {
                for x in (cx as usize).saturating_sub(12)..(cx as usize + 13).min(SIDE) {
                    let distance = ((x as f32 - cx).powi(2) + (y as f32 - cy).powi(2)).sqrt();
                    flux[[y, x]] += peak * gaussian(distance, fwhm);
                }
            }
        }
        let variance = flux.mapv(|flux| SIGMA * SIGMA + flux);
        let pixels =
            Array2::from_shape_fn((SIDE, SIDE), |at| flux[at] + variance[at].sqrt() * noise.sample(&mut random));
        (pixels, variance)
    }

    #[test]
    fn stars_keep_their_cores_and_tracks_are_found() {
        for fwhm in [2.0, 2.6, 3.5, 5.0] {
            let (mut pixels, mut variance) = stars(fwhm);
            let mut clean = Mask::zeros((SIDE, SIDE));
            let found = flag(pixels.view(), variance.view(), &mut clean, MIN_FWHM);
            assert!((found.fwhm.unwrap() / fwhm - 1.0).abs() < 0.15, "{:?} for {fwhm}", found.fwhm);
            assert!(found.pixels <= 3, "{} pixels of stars with FWHM {fwhm}", found.pixels);

            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(12);
            let mut truth = Vec::new();
            for _ in 0..100 {
                let (mut x, mut y) = (random.random_range(20.0..490.0_f32), random.random_range(20.0..490.0_f32));
                let angle: f32 = random.random_range(0.0..std::f32::consts::TAU);
                for _ in 0..random.random_range(1..12) {
                    truth.push((y as usize, x as usize));
                    (x, y) = (x + angle.cos(), y + angle.sin());
                }
            }
            truth.sort_unstable();
            truth.dedup();
            for at in &truth {
                pixels[*at] += 400.0;
                variance[*at] += 400.0;
            }
            let mut bits = Mask::zeros((SIDE, SIDE));
            flag(pixels.view(), variance.view(), &mut bits, MIN_FWHM);
            let hit = truth.iter().filter(|at| bits[**at] & mask::COSMIC_RAY != 0).count();
            let all = bits.iter().filter(|bits| **bits != 0).count();
            let wanted = if fwhm < 2.5 { 0.6 } else { 0.9 };
            assert!(hit as f32 > wanted * truth.len() as f32, "{hit} of {} at FWHM {fwhm}", truth.len());
            assert!(all as f32 <= 1.05 * hit as f32 + 5.0, "{all} flagged, {hit} of them hit");
        }
    }

    #[test]
    fn the_trail_of_a_moving_source_is_no_cosmic_ray() {
        let (mut pixels, variance) = stars(2.6);
        for step in 0..300 {
            let (cx, cy) = (200.0 + step as f32 * 0.087, 200.0 + step as f32 * 0.05);
            for y in 180..240 {
                for x in 180..250 {
                    let distance = ((x as f32 - cx).powi(2) + (y as f32 - cy).powi(2)).sqrt();
                    pixels[[y, x]] += 12.0 * gaussian(distance, 2.6);
                }
            }
        }
        let variance = variance + pixels.mapv(|p| p.max(0.0));
        let mut bits = Mask::zeros((SIDE, SIDE));
        flag(pixels.view(), variance.view(), &mut bits, MIN_FWHM);
        let part = bits.slice(ndarray::s![190..225, 190..235]);
        assert_eq!(part.iter().filter(|bits| **bits != 0).count(), 0);
    }
}
