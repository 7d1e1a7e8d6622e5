//! Peaks of Scorr, both signs.

use ndarray::Array2;
use rayon::prelude::*;

/// Mean of the square that a peak of correlated noise adds to a source's own: √(S² − 2) is reported.
const PEAK_BIAS: f64 = 2.0;
/// The threshold is held against √(S² − 1), between what finds most and what rejects best: at 5 sigma and a true
/// S/N of 5 to 7, √(S² − 2) found 0.77 with 0.7 false alerts an image of 9.5 Mpx, √(S² − 1) 0.80 with 1.0, S itself 0.82
/// with 3, on three synthetic scenes.
const THRESHOLD_BIAS: f64 = 1.0;
/// A pixel counts as connected to a peak above this part of it.
const CONNECTED: f32 = 0.4;

/// A peak of |Scorr|.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Column, interpolated, pixels.
    pub x: f64,
    /// Row, interpolated, pixels.
    pub y: f64,
    /// Column of the highest pixel.
    pub column: usize,
    /// Row of the highest pixel.
    pub row: usize,
    /// Scorr, interpolated, signed.
    pub scorr: f64,
    /// √(Scorr² − 2), not negative.
    pub snr: f64,
    /// Pixels of the 3×3 about the peak that are connected to it, itself included.
    pub connected: usize,
}

/// Peaks whose significance reaches `threshold`, strongest first; of peaks within `radius` pixels
/// of each other the strongest of each sign stays.
pub fn find(score: &Array2<f32>, threshold: f64, radius: f64) -> Vec<Peak> {
    let (height, width) = score.dim();
    // The interpolated peak is at most about a tenth above the highest pixel.
    let least = (threshold * threshold + THRESHOLD_BIAS).sqrt();
    let lowest = (0.88 * least) as f32;
    let mut peaks: Vec<Peak> = (1..height.saturating_sub(1))
        .into_par_iter()
        .flat_map_iter(|y| {
            let row = score.row(y);
            (1..width.saturating_sub(1))
                .filter(move |&x| row[x].abs() > lowest)
                .filter_map(move |x| peak_at(score, x, y))
        })
        .filter(|peak| peak.scorr.abs() >= least)
        .collect();
    peaks.sort_by(|a, b| b.snr.total_cmp(&a.snr));
    merged(peaks, radius)
}

fn peak_at(score: &Array2<f32>, x: usize, y: usize) -> Option<Peak> {
    let sign = score[[y, x]].signum();
    let v = |dx: isize, dy: isize| sign * score[[y.wrapping_add_signed(dy), x.wrapping_add_signed(dx)]];
    let centre = v(0, 0);
    let mut connected = 0;
    for dy in -1..=1 {
        for dx in -1..=1 {
            let value = v(dx, dy);
            // Of equal neighbours the first in reading order is the peak.
            if value > centre || (value == centre && (dy, dx) < (0, 0)) {
                return None;
            }
            connected += usize::from(value > CONNECTED * centre);
        }
    }
    let (offset_x, gain_x) = parabola(v(-1, 0), centre, v(1, 0));
    let (offset_y, gain_y) = parabola(v(0, -1), centre, v(0, 1));
    let height = f64::from(centre) + gain_x + gain_y;
    Some(Peak {
        x: x as f64 + offset_x,
        y: y as f64 + offset_y,
        column: x,
        row: y,
        scorr: f64::from(sign) * height,
        snr: (height * height - PEAK_BIAS).max(0.0).sqrt(),
        connected,
    })
}

/// Offset of the vertex of a parabola through three values at −1, 0, 1, and its height above the middle one.
fn parabola(left: f32, middle: f32, right: f32) -> (f64, f64) {
    let (l, m, r) = (f64::from(left), f64::from(middle), f64::from(right));
    let curvature = l - 2.0 * m + r;
    if curvature >= 0.0 {
        return (0.0, 0.0);
    }
    let offset = (0.5 * (l - r) / curvature).clamp(-0.5, 0.5);
    (offset, (-0.125 * (l - r).powi(2) / curvature).min(0.25 * m))
}

fn merged(peaks: Vec<Peak>, radius: f64) -> Vec<Peak> {
    let cell = radius.max(1.0);
    let key = |x: f64, y: f64| ((x / cell) as i64, (y / cell) as i64);
    let mut kept: Vec<Peak> = Vec::with_capacity(peaks.len());
    let mut cells = std::collections::HashMap::<(i64, i64), Vec<usize>>::new();
    for peak in peaks {
        let (cx, cy) = key(peak.x, peak.y);
        let near = (cx - 1..=cx + 1).flat_map(|i| (cy - 1..=cy + 1).map(move |j| (i, j)));
        let twin = near.filter_map(|c| cells.get(&c)).flatten().any(|&k| {
            let other: &Peak = &kept[k];
            other.scorr.signum() == peak.scorr.signum() && (other.x - peak.x).hypot(other.y - peak.y) < radius
        });
        if !twin {
            cells.entry((cx, cy)).or_default().push(kept.len());
            kept.push(peak);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_signs_are_found_between_the_pixels() {
        let mut score = Array2::<f32>::zeros((40, 40));
        for ((y, x), value) in score.indexed_iter_mut() {
            let r2 = |cx: f32, cy: f32| (x as f32 - cx).powi(2) + (y as f32 - cy).powi(2);
            *value = 20.0 * (-r2(10.3, 12.8) / 3.0).exp() - 8.0 * (-r2(30.0, 25.4) / 3.0).exp();
        }
        let peaks = find(&score, 5.0, 2.0);
        assert_eq!(peaks.len(), 2);
        assert!((peaks[0].x - 10.3).abs() < 0.06 && (peaks[0].y - 12.8).abs() < 0.06);
        assert!(peaks[1].scorr < -7.6 && peaks[1].connected >= 7);
    }
}
