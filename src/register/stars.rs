//! Finds and measures the stars that registration, PSF and photometry rest on.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use super::smooth::gaussian;
use crate::calibrate::CalibratedFrame;
use crate::image::mask;

/// Stars are kept down to this significance in the matched filter.
const THRESHOLD: f32 = 8.0;
/// At most this many, the brightest.
const MOST_STARS: usize = 12_000;
/// Peaks that the first estimate of the FWHM looks at.
const MOST_PEAKS: usize = 3_000;
/// Half-maximum areas below this are hot pixels and cosmic rays.
const HOT_PIXEL_AREA: f64 = 1.6;

/// One detected source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Star {
    /// Windowed centroid, pixels, zero-based.
    pub x: f64,
    /// Windowed centroid, pixels, zero-based.
    pub y: f64,
    /// Flux in an aperture of one FWHM radius, electrons.
    pub flux: f64,
    /// Significance in the matched filter.
    pub snr: f64,
    /// Windowed rms radius, pixels: compares sizes.
    pub size: f64,
    /// Highest pixel within one FWHM, electrons above the sky.
    pub peak: f64,
    /// Mask bits within one FWHM.
    pub flags: u16,
}

impl Star {
    /// Whether no pixel under it is unusable.
    pub fn is_clean(&self) -> bool {
        self.flags & (mask::UNUSABLE | mask::FILLED) == 0
    }
}

/// The stars of an image, brightest first.
#[derive(Debug, Clone, Default)]
pub struct StarList {
    /// Brightest first.
    pub stars: Vec<Star>,
    /// First estimate of the FWHM, pixels.
    pub fwhm: f64,
}

/// Finds the stars of a frame. An image without any gives an empty list with an FWHM of 0.
pub fn find(frame: &CalibratedFrame) -> StarList {
    let noise = typical_noise(frame);
    first_fwhm(frame, noise).map(|fwhm| find_with(frame, fwhm)).unwrap_or_default()
}

/// Finds the stars of a frame whose FWHM (pixels) is known.
pub fn find_with(frame: &CalibratedFrame, fwhm: f64) -> StarList {
    let noise = typical_noise(frame);
    let clean = clean_copy(frame, noise);
    let (smooth, sum_of_squares) = gaussian(&clean, (fwhm / 2.3548).max(0.6));
    // The noise of the filtered image: in each axis the sum of squared taps.
    let threshold = THRESHOLD * noise * sum_of_squares as f32;
    let mut peaks = local_maxima(&smooth, threshold);
    peaks.sort_by(|a, b| b.2.total_cmp(&a.2));
    peaks.truncate(MOST_STARS);
    let scale = f64::from(noise) * sum_of_squares;
    let mut stars: Vec<Star> = peaks
        .par_iter()
        .filter_map(|&(x, y, value)| measure(frame, &clean, (x, y), f64::from(value) / scale, fwhm))
        .collect();
    stars.sort_by(|a, b| b.flux.total_cmp(&a.flux));
    StarList { stars, fwhm }
}

/// FWHM from the half-maximum areas of the stars `chosen` (the best of them), pixels: what two frames show at the
/// same place is no cosmic ray. `None` where fewer than three have one.
pub fn fwhm_of(frame: &CalibratedFrame, list: &StarList, chosen: &[usize]) -> Option<f64> {
    const BEST: usize = 60;
    let mut stars: Vec<&Star> = chosen.iter().map(|&i| &list.stars[i]).filter(|s| s.is_clean()).collect();
    stars.sort_by(|a, b| b.snr.total_cmp(&a.snr));
    let pixels = &frame.pixels().pixels;
    let mut widths: Vec<f64> = stars
        .into_iter()
        .take(BEST)
        .filter_map(|s| {
            let (x, y) = (s.x.round().max(0.0) as usize, s.y.round().max(0.0) as usize);
            let area = half_maximum_area(frame, x, y, *pixels.get([y, x])?)?;
            (area >= HOT_PIXEL_AREA).then_some(2.0 * (area / std::f64::consts::PI).sqrt())
        })
        .collect();
    widths.sort_by(f64::total_cmp);
    if widths.len() < 3 { None } else { smallest_locus(&widths) }
}

/// Median of the background's noise over the frame, electrons.
pub fn typical_noise(frame: &CalibratedFrame) -> f32 {
    let mut values: Vec<f32> = frame.background().noise.iter().copied().filter(|v| v.is_finite() && *v > 0.0).collect();
    if values.is_empty() {
        return 1.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// The pixels with what cannot be used set to the sky, except saturated cores, which mark bright stars.
fn clean_copy(frame: &CalibratedFrame, noise: f32) -> Array2<f32> {
    let hidden = mask::UNUSABLE & !(mask::SATURATED | mask::COSMIC_RAY);
    let pixels = &frame.pixels().pixels;
    let mut clean = Array2::zeros(pixels.dim());
    let rows = pixels.axis_iter(Axis(0)).into_par_iter().zip(frame.mask().axis_iter(Axis(0)));
    clean.axis_iter_mut(Axis(0)).into_par_iter().zip(rows).for_each(|(mut out, (pixels, bits))| {
        if let (Some(out), Some(pixels), Some(bits)) = (out.as_slice_mut(), pixels.to_slice(), bits.to_slice()) {
            for ((out, pixel), bits) in out.iter_mut().zip(pixels).zip(bits) {
                *out = if bits & hidden != 0 { 0.0 } else { pixel.max(-5.0 * noise) };
            }
        }
    });
    clean
}

/// Local maxima of 3×3 above a threshold: (x, y, value).
pub fn local_maxima(image: &Array2<f32>, threshold: f32) -> Vec<(usize, usize, f32)> {
    let (height, width) = image.dim();
    (1..height.saturating_sub(1))
        .into_par_iter()
        .flat_map_iter(|y| {
            let mut found = Vec::new();
            let rows = [y - 1, y, y + 1].map(|y| image.row(y).to_slice().unwrap_or_default());
            if rows.iter().any(|row| row.len() < width) {
                return found;
            }
            for x in 1..width.saturating_sub(1) {
                let value = rows[1][x];
                if value > threshold
                    && value > rows[0][x - 1]
                    && value > rows[0][x]
                    && value > rows[0][x + 1]
                    && value > rows[1][x - 1]
                    && value >= rows[1][x + 1]
                    && value >= rows[2][x - 1]
                    && value >= rows[2][x]
                    && value >= rows[2][x + 1]
                {
                    found.push((x, y, value));
                }
            }
            found
        })
        .collect()
}

/// FWHM from the half-maximum areas of bright peaks: the smallest well-populated size, since galaxies may
/// outnumber the stars.
fn first_fwhm(frame: &CalibratedFrame, noise: f32) -> Option<f64> {
    let pixels = &frame.pixels().pixels;
    let mut peaks: Vec<_> = Vec::new();
    for threshold in [50.0, 20.0, 8.0] {
        peaks = local_maxima(pixels, threshold * noise);
        peaks.retain(|&(x, y, _)| frame.mask()[[y, x]] & mask::UNUSABLE == 0);
        if peaks.len() >= 200 {
            break;
        }
    }
    peaks.sort_by(|a, b| b.2.total_cmp(&a.2));
    peaks.truncate(MOST_PEAKS);
    let mut widths: Vec<f64> = peaks
        .par_iter()
        .filter_map(|&(x, y, peak)| half_maximum_area(frame, x, y, peak))
        .filter(|&area| area >= HOT_PIXEL_AREA)
        .map(|area| 2.0 * (area / std::f64::consts::PI).sqrt())
        .collect();
    widths.sort_by(f64::total_cmp);
    smallest_locus(&widths)
}

/// Area (pixels) above half of the peak, connected to it; interpolated along rows so that small images are
/// not counted in whole pixels. `None` where it runs into a masked pixel or grows beyond a star.
fn half_maximum_area(frame: &CalibratedFrame, x: usize, y: usize, peak: f32) -> Option<f64> {
    const REACH: isize = 20;
    let pixels = &frame.pixels().pixels;
    let half = peak / 2.0;
    let at = |px: isize, py: isize| -> Option<f32> {
        let (px, py) = (usize::try_from(px).ok()?, usize::try_from(py).ok()?);
        let value = *pixels.get([py, px])?;
        (frame.mask()[[py, px]] & mask::UNUSABLE == 0).then_some(value)
    };
    let chord = |py: isize| -> Option<f64> {
        let mut length = 0.0;
        if at(x as isize, py)? < half {
            return Some(0.0);
        }
        for direction in [-1, 1] {
            let mut inside = at(x as isize, py)?;
            for step in 1..=REACH {
                let outside = at(x as isize + direction * step, py)?;
                if outside < half {
                    length += f64::from(step as f32 - 1.0 + (inside - half) / (inside - outside).max(1e-6));
                    break;
                }
                if step == REACH {
                    return None;
                }
                inside = outside;
            }
        }
        Some(length)
    };
    // A bad column or a trail is no star: as long in one axis as short in the other.
    let mut rows = 0;
    let mut area = chord(y as isize)?;
    let across = area;
    for direction in [-1, 1] {
        for step in 1..=REACH {
            let length = chord(y as isize + direction * step)?;
            if length == 0.0 {
                break;
            }
            rows += 1;
            area += length;
        }
    }
    let along = area / across.max(0.5);
    (across < 3.0 * along && along < 3.0 * across && rows < 2 * REACH).then_some(area)
}

/// The smallest value about which at least 0.4 of the densest neighbourhood gathers (±12 %), as the median
/// of that neighbourhood.
pub(super) fn smallest_locus(sorted: &[f64]) -> Option<f64> {
    let around = |value: f64| {
        let from = sorted.partition_point(|v| *v < 0.88 * value);
        let to = sorted.partition_point(|v| *v <= 1.12 * value);
        &sorted[from..to]
    };
    let densest = sorted.iter().map(|v| around(*v).len()).max()?;
    let needed = ((0.4 * densest as f64).ceil() as usize).max(1);
    let mut best = sorted.iter().find(|v| around(**v).len() >= needed).copied()?;
    // Climb from the edge of the locus to its middle.
    for _ in 0..4 {
        let near = around(best);
        best = near[near.len() / 2];
    }
    Some(best)
}

/// Windowed centroid and size (Bertin, SExtractor manual: XWIN, YWIN), aperture flux, flags.
fn measure(frame: &CalibratedFrame, clean: &Array2<f32>, peak: (usize, usize), snr: f64, fwhm: f64) -> Option<Star> {
    let (height, width) = clean.dim();
    let sigma = (fwhm / 2.3548).max(0.7);
    let reach = (3.0 * sigma).ceil().max(2.0) as usize;
    let (px, py) = peak;
    if px < reach + 1 || py < reach + 1 || px + reach + 1 >= width || py + reach + 1 >= height {
        return None;
    }
    let (mut x, mut y) = (px as f64, py as f64);
    let mut size = 0.0;
    for _ in 0..8 {
        let (mut sum, mut sum_x, mut sum_y, mut sum_r2) = (0.0, 0.0, 0.0, 0.0);
        for iy in py - reach..=py + reach {
            for ix in px - reach..=px + reach {
                let (dx, dy) = (ix as f64 - x, iy as f64 - y);
                let r2 = dx * dx + dy * dy;
                let weight = (-0.5 * r2 / (sigma * sigma)).exp() * f64::from(clean[[iy, ix]]);
                sum += weight;
                sum_x += weight * dx;
                sum_y += weight * dy;
                sum_r2 += weight * r2;
            }
        }
        if sum <= 0.0 {
            return None;
        }
        let (step_x, step_y) = (2.0 * sum_x / sum, 2.0 * sum_y / sum);
        x += step_x;
        y += step_y;
        size = (sum_r2 / sum).max(0.0).sqrt();
        if (x - px as f64).abs() > 1.5 + sigma || (y - py as f64).abs() > 1.5 + sigma {
            return None;
        }
        if step_x.hypot(step_y) < 1e-4 {
            break;
        }
    }
    let radius = fwhm.max(1.5);
    let (mut flux, mut flags, mut highest) = (0.0, 0u16, f32::MIN);
    for iy in py - reach..=py + reach {
        for ix in px - reach..=px + reach {
            let distance = (ix as f64 - x).hypot(iy as f64 - y);
            // A soft edge of one pixel: the part of the pixel inside the aperture.
            let inside = (radius + 0.5 - distance).clamp(0.0, 1.0);
            flux += inside * f64::from(clean[[iy, ix]]);
            if inside > 0.0 {
                flags |= frame.mask()[[iy, ix]];
                highest = highest.max(clean[[iy, ix]]);
            }
        }
    }
    (flux > 0.0).then_some(Star { x, y, flux, snr, size, peak: f64::from(highest), flags })
}
