//! The overscan level of each row.
//!
//! The pixels of one row's overscan are few: their median carries noise into the whole row. Where the
//! rows' levels scatter by no more than that noise about a smooth curve, the curve is subtracted; where
//! rows really jump (interference, a drifting reference) each row's own level is.

use ndarray::ArrayView2;

use crate::camera::Amplifier;

/// Rows averaged by the smooth curve.
const SMOOTH_ROWS: usize = 65;
/// Scatter of the rows' levels, in units of what noise makes, from which rows have a life of their own.
const ROWS_JUMP: f64 = 1.5;

/// Levels of one amplifier's overscan.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Overscan {
    /// Level of each row of the data section, ADU.
    pub levels: Vec<f32>,
    /// Noise of a single overscan pixel, ADU.
    pub noise: f64,
}

/// Measures the overscan of `amplifier` on the whole raw frame; `None` where it has none.
pub(super) fn measure(raw: ArrayView2<'_, f32>, amplifier: &Amplifier) -> Option<Overscan> {
    let section = amplifier.overscan?;
    let data = amplifier.data;
    let strip = raw.slice(ndarray::s![section.y0..section.y1, section.x0..section.x1]);
    let mut row_levels = Vec::with_capacity(strip.nrows());
    let mut deviations = Vec::with_capacity(strip.len());
    let mut buffer = Vec::with_capacity(strip.ncols());
    for row in strip.rows() {
        buffer.clear();
        buffer.extend(row.iter().copied());
        let level = clipped_mean(&mut buffer);
        deviations.extend(row.iter().map(|value| (value - level).abs()));
        row_levels.push(level);
    }
    let columns = strip.ncols() as f64;
    let noise = 1.4826 * f64::from(median(&mut deviations)) * (columns / (columns - 1.0).max(1.0)).sqrt();
    let beside = section.y0 <= data.y0 && section.y1 >= data.y1;
    if !beside {
        // Rows above or below the image: one level for all.
        let level = median(&mut row_levels);
        return Some(Overscan { levels: vec![level; data.height()], noise });
    }
    let smooth = smoothed(&row_levels);
    let mut residuals: Vec<f32> = row_levels.iter().zip(&smooth).map(|(level, curve)| (level - curve).abs()).collect();
    let scatter = 1.4826 * f64::from(median(&mut residuals));
    let expected = (noise / columns.sqrt()).max(1e-6);
    let chosen = if scatter > ROWS_JUMP * expected { row_levels } else { smooth };
    let from = data.y0 - section.y0;
    Some(Overscan { levels: chosen[from..from + data.height()].to_vec(), noise })
}

/// Mean of what lies within three robust standard deviations of the median.
fn clipped_mean(values: &mut [f32]) -> f32 {
    let middle = median(values);
    let mut deviations: Vec<f32> = values.iter().map(|value| (value - middle).abs()).collect();
    // Integers may agree exactly; half a unit is kept open for them.
    let limit = (3.0 * 1.4826 * median(&mut deviations)).max(1.0);
    let (mut sum, mut count) = (0.0_f64, 0.0);
    for value in values.iter().filter(|value| (**value - middle).abs() <= limit) {
        sum += f64::from(*value);
        count += 1.0;
    }
    if count > 0.0 { (sum / count) as f32 } else { middle }
}

/// Running mean of the clipped levels; at the ends of the frame over a window that stays inside and is
/// centred as far as it can be, with the slope of its straight line.
fn smoothed(levels: &[f32]) -> Vec<f32> {
    let window = SMOOTH_ROWS.min(levels.len());
    (0..levels.len())
        .map(|row| {
            let from = row.saturating_sub(window / 2).min(levels.len() - window);
            let part = &levels[from..from + window];
            let mut sorted = part.to_vec();
            let middle = median(&mut sorted);
            let mut deviations: Vec<f32> = part.iter().map(|level| (level - middle).abs()).collect();
            let limit = (4.0 * 1.4826 * median(&mut deviations)).max(1e-3);
            line_at(part, row - from, middle, limit)
        })
        .collect()
}

/// Value at index `at` of the straight line through those `levels` that lie within `limit` of `middle`.
fn line_at(levels: &[f32], at: usize, middle: f32, limit: f32) -> f32 {
    let (mut n, mut sx, mut sy, mut sxx, mut sxy) = (0.0_f64, 0.0, 0.0, 0.0, 0.0);
    for (i, level) in levels.iter().enumerate().filter(|(_, level)| (**level - middle).abs() <= limit) {
        let (x, y) = (i as f64 - at as f64, f64::from(*level));
        (n, sx, sy, sxx, sxy) = (n + 1.0, sx + x, sy + y, sxx + x * x, sxy + x * y);
    }
    let determinant = n * sxx - sx * sx;
    if n < 3.0 || determinant <= 0.0 {
        return middle;
    }
    ((sxx * sy - sx * sxy) / determinant) as f32
}

fn median(values: &mut [f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    let upper = *values.select_nth_unstable_by(middle, f32::total_cmp).1;
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = values[..middle].iter().copied().fold(f32::MIN, f32::max);
    f32::midpoint(lower, upper)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::SeedableRng;
    use rand_distr::{Distribution, Normal};

    use super::*;
    use crate::camera::Section;

    fn amplifier() -> Amplifier {
        let data = Section { x0: 0, x1: 40, y0: 0, y1: 300 };
        let overscan = Some(Section { x0: 40, x1: 64, y0: 0, y1: 300 });
        Amplifier { data, overscan, gain: None, read_noise: None, saturation: None }
    }

    fn frame(level: impl Fn(usize) -> f32) -> Array2<f32> {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let noise = Normal::new(0.0_f32, 5.0).unwrap();
        Array2::from_shape_fn((300, 64), |(y, _)| (level(y) + noise.sample(&mut random)).round())
    }

    fn rms(found: &Overscan, level: impl Fn(usize) -> f32) -> f32 {
        let squares = found.levels.iter().enumerate().map(|(y, found)| (found - level(y)).powi(2));
        (squares.sum::<f32>() / found.levels.len() as f32).sqrt()
    }

    #[test]
    fn a_smooth_overscan_puts_no_noise_into_the_rows() {
        let level = |y: usize| 1000.0 + 0.05 * y as f32;
        let mut raw = frame(level);
        raw[[100, 50]] = 60_000.0;
        let found = measure(raw.view(), &amplifier()).unwrap();
        assert!((found.noise / 5.0 - 1.0).abs() < 0.1, "{}", found.noise);
        assert!(rms(&found, level) < 0.35, "{}", rms(&found, level));
    }

    #[test]
    fn rows_that_jump_are_followed_one_by_one() {
        let level = |y: usize| 1000.0 + if (y / 3).is_multiple_of(2) { 12.0 } else { 0.0 };
        let found = measure(frame(level).view(), &amplifier()).unwrap();
        assert!(rms(&found, level) < 1.5, "{}", rms(&found, level));
    }
}
