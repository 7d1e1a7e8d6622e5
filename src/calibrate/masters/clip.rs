//! The clipped mean of a pixel's values in several frames.

/// Values further than this from the median are left out, robust standard deviations.
pub const CLIP: f32 = 3.0;

/// Mean of the values within [`CLIP`] standard deviations of their median; the standard deviation is
/// that of the values (from their median absolute deviation), but at least `noise`, since few values
/// may agree by chance. Sorts the values; NaN counts as an outlier. NaN for none.
pub fn clipped_mean(values: &mut [f32], noise: f32) -> f32 {
    let finite = values.iter().filter(|value| value.is_finite()).count();
    if finite == 0 {
        return f32::NAN;
    }
    // NaN sorts behind (or before, with its sign bit set) everything; both ends are cut off.
    sort(values);
    let start = values.iter().position(|value| value.is_finite()).unwrap_or(0);
    let values = &values[start..start + finite];
    let median = middle(values);
    let sigma = (1.4826 * median_deviation(values, median)).max(noise);
    let (mut sum, mut count) = (0.0_f64, 0_u32);
    for value in values.iter().filter(|value| (**value - median).abs() <= CLIP * sigma) {
        sum += f64::from(*value);
        count += 1;
    }
    if count == 0 { median } else { (sum / f64::from(count)) as f32 }
}

/// Insertion sort for the handful that frames are, the library's beyond it.
fn sort(values: &mut [f32]) {
    if values.len() > 24 {
        values.sort_unstable_by(f32::total_cmp);
        return;
    }
    for i in 1..values.len() {
        let mut at = i;
        while at > 0 && values[at - 1].total_cmp(&values[at]).is_gt() {
            values.swap(at - 1, at);
            at -= 1;
        }
    }
}

fn middle(sorted: &[f32]) -> f32 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f32::midpoint(sorted[half - 1], sorted[half]) }
}

/// Median absolute deviation of sorted values, by walking outwards from the middle.
fn median_deviation(sorted: &[f32], median: f32) -> f32 {
    let above = sorted.partition_point(|value| *value < median);
    let (mut low, mut high) = (above, above);
    let mut pair = [0.0; 2];
    for _ in 0..=sorted.len() / 2 {
        let down = if low > 0 { median - sorted[low - 1] } else { f32::INFINITY };
        let up = if high < sorted.len() { sorted[high] - median } else { f32::INFINITY };
        pair[0] = pair[1];
        pair[1] = down.min(up);
        if down < up {
            low -= 1;
        } else {
            high += 1;
        }
    }
    if sorted.len() % 2 == 1 { pair[1] } else { f32::midpoint(pair[0], pair[1]) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_cosmic_ray_among_five_frames_leaves_no_trace() {
        assert_eq!(clipped_mean(&mut [100.0, 102.0, 5000.0, 98.0, 101.0], 2.0), 100.25);
        assert_eq!(clipped_mean(&mut [f32::NAN, 4.0, 6.0], 1.0), 5.0);
        assert!(clipped_mean(&mut [f32::NAN], 1.0).is_nan());
    }

    #[test]
    fn values_that_agree_by_chance_do_not_throw_out_the_third() {
        assert_eq!(clipped_mean(&mut [10.0, 10.0, 13.0], 2.0), 11.0);
    }

    proptest! {
        #[test]
        fn the_median_deviation_is_that_of_its_definition(mut values in prop::collection::vec(-1e3f32..1e3, 1..40)) {
            values.sort_by(f32::total_cmp);
            let median = middle(&values);
            let mut deviations: Vec<f32> = values.iter().map(|v| (v - median).abs()).collect();
            deviations.sort_by(f32::total_cmp);
            prop_assert!((median_deviation(&values, median) - middle(&deviations)).abs() < 1e-3);
        }
    }
}
