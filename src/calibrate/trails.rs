//! Trails of satellites and aircraft: long straight ridges in the binned image.
//!
//! A trail is too faint to stand out pixel by pixel and too wide to be a cosmic ray. In bins of 8×8
//! pixels it does stand out; a Hough transform of the bins above the sky finds the straight lines among
//! them, each is followed to its ends, and the pixels under it are masked. Short trails (fast asteroids,
//! to 30 pixels and more) are far below the length that is asked for.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::Background;
use crate::image::{Mask, mask};

/// Side of a bin, pixels.
const BIN: usize = 8;
/// A bin stands out from this many standard deviations of its mean on.
const BIN_SIGMAS: f32 = 4.0;
/// Angles of the transform, over half a turn.
const ANGLES: usize = 360;
/// Shortest trail, bins: 320 pixels.
const MIN_BINS: usize = 40;
/// Part of a trail's bins that stand out.
const MIN_FILLED: f32 = 0.75;
/// Part of the bins 5 bins to its sides that may stand out (a galaxy is filled there too).
const MAX_BESIDE: f32 = 0.4;
/// Trails of one frame, at most.
const MAX_TRAILS: usize = 16;

/// Marks trails in the mask of a background-subtracted image and gives their number.
pub(super) fn flag(pixels: ArrayView2<'_, f32>, background: &Background, bits: &mut Mask) -> usize {
    let mut bright = bright_bins(pixels, background, bits);
    let mut count = 0;
    while count < MAX_TRAILS {
        let Some(trail) = strongest(&bright) else { break };
        mask_trail(&trail, pixels, background, bits);
        remove(&trail, &mut bright);
        count += 1;
    }
    count
}

/// Whether the mean of each bin stands out, pixels clipped so that a star does not fill its bin.
fn bright_bins(pixels: ArrayView2<'_, f32>, background: &Background, bits: &Mask) -> Array2<bool> {
    let (height, width) = pixels.dim();
    let mut bright = Array2::from_elem((height / BIN, width / BIN), false);
    let unusable = mask::UNUSABLE;
    bright.outer_iter_mut().into_par_iter().enumerate().for_each(|(j, mut row)| {
        for (i, bright) in row.iter_mut().enumerate() {
            let noise = background.noise_at((i * BIN + BIN / 2) as f64, (j * BIN + BIN / 2) as f64);
            let (mut sum, mut count) = (0.0_f32, 0.0_f32);
            for y in j * BIN..(j + 1) * BIN {
                for x in i * BIN..(i + 1) * BIN {
                    if bits[[y, x]] & unusable == 0 {
                        sum += pixels[[y, x]].clamp(-4.0 * noise, 4.0 * noise);
                        count += 1.0;
                    }
                }
            }
            *bright = count >= 16.0 && sum > BIN_SIGMAS * noise * count.sqrt();
        }
    });
    bright
}

/// A straight trail between two points, in bins.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trail {
    from: (f32, f32),
    to: (f32, f32),
}

/// The longest line of bright bins; `None` when there is none that is long enough.
fn strongest(bright: &Array2<bool>) -> Option<Trail> {
    let (rows, columns) = bright.dim();
    let diagonal = ((rows * rows + columns * columns) as f32).sqrt().ceil() as usize + 1;
    let points: Vec<(f32, f32)> =
        bright.indexed_iter().filter(|(_, on)| **on).map(|((j, i), _)| (i as f32, j as f32)).collect();
    if points.len() < MIN_BINS {
        return None;
    }
    let density = points.len() as f32 / bright.len() as f32;
    // For each angle the distances with more votes than stars by chance would give.
    let mut peaks: Vec<(u32, usize, usize)> = (0..ANGLES)
        .into_par_iter()
        .flat_map_iter(|angle| {
            let (sine, cosine) = (angle as f32 * std::f32::consts::PI / ANGLES as f32).sin_cos();
            let mut votes = vec![0_u32; 2 * diagonal];
            for (x, y) in &points {
                votes[(x * cosine + y * sine + diagonal as f32).round() as usize] += 1;
            }
            let most = diagonal as f32 * density;
            let limit = (MIN_FILLED * MIN_BINS as f32).max(0.5 * most);
            let found: Vec<_> =
                votes.iter().enumerate().filter(|(_, n)| **n as f32 > limit).map(|(d, n)| (*n, angle, d)).collect();
            found
        })
        .collect();
    peaks.sort_unstable_by(|a, b| b.cmp(a));
    peaks.iter().take(200).find_map(|&(_, angle, distance)| {
        let (sine, cosine) = (angle as f32 * std::f32::consts::PI / ANGLES as f32).sin_cos();
        follow(bright, sine, cosine, distance as f32 - diagonal as f32)
    })
}

/// The longest stretch of the line x cos + y sin = distance on which bins are bright and those beside it
/// are not.
fn follow(bright: &Array2<bool>, sine: f32, cosine: f32, distance: f32) -> Option<Trail> {
    let (rows, columns) = bright.dim();
    let on = |x: f32, y: f32| {
        let (i, j) = (x.round(), y.round());
        i >= 0.0 && j >= 0.0 && (i as usize) < columns && (j as usize) < rows && bright[[j as usize, i as usize]]
    };
    let reach = (rows + columns) as i32;
    let at = |step: i32, off: f32| {
        let (x0, y0) = ((distance + off) * cosine, (distance + off) * sine);
        (x0 - step as f32 * sine, y0 + step as f32 * cosine)
    };
    let filled = |step: i32, off: f32| {
        [-1.0, 0.0, 1.0].iter().any(|d| {
            let (x, y) = at(step, off + d * 0.7);
            on(x, y)
        })
    };
    let inside = |step: i32| {
        let (x, y) = at(step, 0.0);
        x >= 0.0 && y >= 0.0 && x <= (columns - 1) as f32 && y <= (rows - 1) as f32
    };
    // Stretches with gaps of at most 6 bins.
    let mut best: Option<(i32, i32)> = None;
    let mut start = None;
    let mut last = i32::MIN;
    for step in (-reach..=reach).filter(|step| inside(*step) && filled(*step, 0.0)) {
        if start.is_none() || step - last > 6 {
            start = Some(step);
        }
        last = step;
        let from = start.unwrap_or(step);
        if best.is_none_or(|(a, b)| step - from > b - a) {
            best = Some((from, step));
        }
    }
    let (from, to) = best.filter(|(from, to)| to - from >= MIN_BINS as i32)?;
    let part = |off: f32| {
        let strict = |step: &i32| {
            let (x, y) = at(*step, off);
            on(x, y)
        };
        (from..=to).filter(strict).count() as f32 / (to - from + 1) as f32
    };
    let along = [-0.5, 0.0, 0.5].map(part).into_iter().fold(0.0, f32::max);
    // Along an edge nothing tells a ridge from the frame's own rim.
    let seen = |off: f32| {
        let within = |step: &i32| {
            let (x, y) = at(*step, off);
            x >= 0.0 && y >= 0.0 && x <= (columns - 1) as f32 && y <= (rows - 1) as f32
        };
        (from..=to).filter(within).count() as f32 / (to - from + 1) as f32
    };
    if seen(-5.0).min(seen(5.0)) < 0.5 {
        return None;
    }
    let beside = 0.5 * (part(-5.0) + part(5.0));
    (along >= MIN_FILLED && beside <= MAX_BESIDE.min(0.5 * along))
        .then(|| Trail { from: at(from, 0.0), to: at(to, 0.0) })
}

impl Trail {
    fn length(&self) -> f32 {
        (self.to.0 - self.from.0).hypot(self.to.1 - self.from.1)
    }

    /// Distance along and across the trail of a point, bins.
    fn along_and_across(&self, x: f32, y: f32) -> (f32, f32) {
        let length = self.length().max(1e-6);
        let (ux, uy) = ((self.to.0 - self.from.0) / length, (self.to.1 - self.from.1) / length);
        let (dx, dy) = (x - self.from.0, y - self.from.1);
        (dx * ux + dy * uy, dy * ux - dx * uy)
    }
}

fn remove(trail: &Trail, bright: &mut Array2<bool>) {
    let length = trail.length();
    for ((j, i), on) in bright.indexed_iter_mut() {
        let (along, across) = trail.along_and_across(i as f32, j as f32);
        if across.abs() <= 2.5 && (-2.0..=length + 2.0).contains(&along) {
            *on = false;
        }
    }
}

/// Straightens the trail by its own profile and masks what it covers.
fn mask_trail(trail: &Trail, pixels: ArrayView2<'_, f32>, background: &Background, bits: &mut Mask) {
    let (height, width) = pixels.dim();
    let scale = BIN as f32;
    let length = trail.length() * scale;
    let centre = |bin: (f32, f32)| ((bin.0 + 0.5) * scale - 0.5, (bin.1 + 0.5) * scale - 0.5);
    let fine = Trail { from: centre(trail.from), to: centre(trail.to) };
    // The ridge's offset and width in stretches along it.
    const HALF: i32 = 20;
    let stretches = ((length / 64.0) as usize).max(2);
    let sky = background.median_noise();
    let step = ((fine.to.0 - fine.from.0) / length, (fine.to.1 - fine.from.1) / length);
    let mut ridge: Vec<(f32, f32, f32)> = Vec::new();
    for stretch in 0..stretches {
        let middle = (stretch as f32 + 0.5) * length / stretches as f32;
        let profile: Vec<f32> = (-HALF..=HALF)
            .map(|across| {
                let mut values: Vec<f32> = (-32..32)
                    .filter_map(|d| {
                        let along = middle + d as f32;
                        let x = fine.from.0 + along * step.0 - across as f32 * step.1;
                        let y = fine.from.1 + along * step.1 + across as f32 * step.0;
                        let inside = x >= 0.0 && y >= 0.0 && x < width as f32 - 0.5 && y < height as f32 - 0.5;
                        inside.then(|| pixels[[y.round() as usize, x.round() as usize]])
                    })
                    .collect();
                let at = values.len() / 2;
                if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(at, f32::total_cmp).1 }
            })
            .collect();
        let limit = 0.5 * sky;
        let peak = (0..profile.len()).max_by(|a, b| profile[*a].total_cmp(&profile[*b])).unwrap_or(0);
        if profile[peak] > limit {
            let right = (peak..profile.len()).take_while(|k| profile[*k] > limit).count() as f32;
            let left = (0..=peak).rev().take_while(|k| profile[*k] > limit).count() as f32;
            ridge.push((middle, peak as f32 - HALF as f32 + 0.5 * (right - left), 0.5 * (right + left)));
        }
    }
    let line = straight_line(&ridge);
    let mut widths: Vec<f32> = ridge.iter().map(|(.., width)| *width).collect();
    let at = widths.len() / 2;
    let half_width = if widths.is_empty() { scale } else { *widths.select_nth_unstable_by(at, f32::total_cmp).1 } + 2.0;
    let margin = 2.0 * scale;
    let rows = bits.outer_iter_mut().into_par_iter().enumerate();
    rows.for_each(|(y, mut row)| {
        for (x, bits) in row.iter_mut().enumerate() {
            let (along, across) = fine.along_and_across(x as f32, y as f32);
            let on_line = (across - line.0 - line.1 * along).abs() <= half_width;
            if on_line && (-margin..=length + margin).contains(&along) {
                *bits |= mask::TRAIL;
            }
        }
    });
}

/// Offset and slope of the line through (along, across) points, outliers left out; zero for too few.
fn straight_line(ridge: &[(f32, f32, f32)]) -> (f32, f32) {
    let mut offsets: Vec<f32> = ridge.iter().map(|(_, across, _)| *across).collect();
    if offsets.len() < 2 {
        return (offsets.first().copied().unwrap_or(0.0), 0.0);
    }
    let at = offsets.len() / 2;
    let middle = *offsets.select_nth_unstable_by(at, f32::total_cmp).1;
    let good: Vec<_> = ridge.iter().filter(|(_, across, _)| (across - middle).abs() <= 8.0).collect();
    let n = good.len() as f32;
    let (sx, sy) = good.iter().fold((0.0, 0.0), |(x, y), (along, across, _)| (x + along, y + across));
    let (mx, my) = (sx / n, sy / n);
    let (sxx, sxy) = good.iter().fold((0.0, 0.0), |(a, b), (along, across, _)| {
        (a + (along - mx) * (along - mx), b + (along - mx) * (across - my))
    });
    let slope = if sxx > 0.0 { sxy / sxx } else { 0.0 };
    (my - slope * mx, slope)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_distr::{Distribution, Normal};

    use super::*;

    const SIDE: usize = 768;

    /// Noise of 10 with 200 stars, and a trail of this height per pixel between two points.
    fn scene(height: f32, from: (f32, f32), to: (f32, f32)) -> Array2<f32> {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(21);
        let noise = Normal::new(0.0_f32, 10.0).unwrap();
        let mut pixels = Array2::from_shape_fn((SIDE, SIDE), |_| noise.sample(&mut random));
        for _ in 0..200 {
            let (cx, cy): (f32, f32) = (random.random_range(15.0..750.0), random.random_range(15.0..750.0));
            let peak = 50.0 * 10.0_f32.powf(random.random_range(0.0..2.5));
            for y in cy as usize - 12..cy as usize + 13 {
                for x in cx as usize - 12..cx as usize + 13 {
                    let r2 = (x as f32 - cx).powi(2) + (y as f32 - cy).powi(2);
                    pixels[[y, x]] += peak * (-r2 / 3.0).exp();
                }
            }
        }
        let trail = Trail { from, to };
        let length = trail.length();
        for ((y, x), pixel) in pixels.indexed_iter_mut() {
            let (along, across) = trail.along_and_across(x as f32, y as f32);
            if (0.0..=length).contains(&along) {
                *pixel += height * (-across * across / 3.0).exp();
            }
        }
        pixels
    }

    fn found(pixels: &Array2<f32>) -> (usize, Mask) {
        let mut bits = Mask::zeros(pixels.dim());
        let background = Background::uniform(SIDE, SIDE, 0.0, 10.0);
        (flag(pixels.view(), &background, &mut bits), bits)
    }

    #[test]
    fn a_faint_satellite_is_masked_along_its_whole_trail() {
        let (from, to) = ((0.0, 100.0), (767.0, 480.0));
        let pixels = scene(25.0, from, to);
        let (count, bits) = found(&pixels);
        assert_eq!(count, 1);
        let trail = Trail { from, to };
        let (mut under, mut masked, mut elsewhere) = (0, 0, 0);
        for ((y, x), bits) in bits.indexed_iter() {
            let (_, across) = trail.along_and_across(x as f32, y as f32);
            under += usize::from(across.abs() < 1.5);
            masked += usize::from(across.abs() < 1.5 && bits & mask::TRAIL != 0);
            elsewhere += usize::from(across.abs() > 12.0 && bits & mask::TRAIL != 0);
        }
        assert!(masked as f32 > 0.97 * under as f32, "{masked} of {under}");
        assert_eq!(elsewhere, 0);
    }

    #[test]
    fn a_field_of_stars_and_a_fast_asteroid_has_no_trail() {
        assert_eq!(found(&scene(0.0, (0.0, 0.0), (1.0, 1.0))).0, 0);
        assert_eq!(found(&scene(200.0, (300.0, 300.0), (326.0, 315.0))).0, 0);
    }

    #[test]
    fn a_glow_along_the_edge_is_no_trail() {
        let mut pixels = scene(0.0, (0.0, 0.0), (1.0, 1.0));
        pixels.slice_mut(ndarray::s![.., SIDE - 6..]).mapv_inplace(|pixel| pixel + 25.0);
        assert_eq!(found(&pixels).0, 0);
    }

    #[test]
    fn a_large_galaxy_is_no_trail() {
        let mut pixels = scene(0.0, (0.0, 0.0), (1.0, 1.0));
        for ((y, x), pixel) in pixels.indexed_iter_mut() {
            let (u, v) = ((x as f32 - 400.0) / 150.0, (y as f32 - 380.0) / 60.0);
            *pixel += 300.0 * (-(u * u + v * v)).exp();
        }
        assert_eq!(found(&pixels).0, 0);
    }
}
