//! Columns that read too high or too low, from the frame alone.
//!
//! A weak column hides in the noise of its pixels and shows in their mean: over segments of rows each column is
//! held against those two pixels beside it, stars clipped away. What deviates over several segments on end is no
//! star and no diffraction spike, and is marked as bad.

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use crate::image::{Mask, mask};

/// Rows of a segment.
const SEGMENT: usize = 128;
/// Segments on end over which a column deviates, or all that there are.
const SEGMENTS: usize = 3;
/// Mean deviation of a bad column, standard deviations of a pixel; its error is 0.11.
const DEVIATION: f32 = 0.8;
/// Single deviations beyond this are stars and cosmic rays, unless most are.
const CLIP: f32 = 6.0;
/// Of columns two apart the one that is at fault deviates by twice as much.
const FAULT: f32 = 0.75;

/// Marks bad columns of an image less its background, with `noise` of a sky pixel; gives their number.
pub fn flag(pixels: ArrayView2<'_, f32>, bits: &mut Mask, noise: f32) -> usize {
    let (height, width) = pixels.dim();
    if height < SEGMENT || width < 5 || noise <= 0.0 {
        return 0;
    }
    let segments: Vec<Vec<bool>> = pixels
        .axis_chunks_iter(Axis(0), SEGMENT)
        .into_par_iter()
        .zip(bits.axis_chunks_iter(Axis(0), SEGMENT).into_par_iter())
        .map(|(pixels, bits)| faults(&deviations(pixels, bits, noise)))
        .collect();
    let on_end = SEGMENTS.min(segments.len());
    let mut flagged = 0;
    for x in 0..width {
        let mut from = 0;
        let mut found = false;
        while from < segments.len() {
            let length = segments[from..].iter().take_while(|segment| segment[x]).count();
            if length >= on_end {
                let rows = from * SEGMENT..((from + length) * SEGMENT).min(height);
                bits.slice_mut(ndarray::s![rows, x]).mapv_inplace(|b| b | mask::BAD);
                found = true;
            }
            from += length.max(1);
        }
        flagged += usize::from(found);
    }
    flagged
}

/// Mean deviation of each column of a segment from those beside it, in units of the noise.
fn deviations(pixels: ArrayView2<'_, f32>, bits: ndarray::ArrayView2<'_, u16>, noise: f32) -> Vec<f32> {
    let width = pixels.ncols();
    // Sum and number of what is kept, and of what is clipped.
    let mut sums = vec![[0.0_f32; 4]; width];
    for (row, bits) in pixels.outer_iter().zip(bits.outer_iter()) {
        let (Some(row), Some(bits)) = (row.to_slice(), bits.to_slice()) else { continue };
        for x in 2..width - 2 {
            if (bits[x] | bits[x - 2] | bits[x + 2]) & (mask::NO_DATA | mask::SATURATED | mask::BLEED) != 0 {
                continue;
            }
            let deviation = (row[x] - 0.5 * (row[x - 2] + row[x + 2])) / noise;
            let kept = f32::from(u8::from(deviation.abs() < CLIP));
            let sum = &mut sums[x];
            sum[0] += kept * deviation;
            sum[1] += kept;
            sum[2] += (1.0 - kept) * deviation;
            sum[3] += 1.0 - kept;
        }
    }
    sums.iter()
        .map(|[sum, kept, beyond, clipped]| match kept + clipped {
            n if n < 0.5 * SEGMENT as f32 => 0.0,
            n if *clipped > 0.5 * n => beyond / clipped,
            _ => sum / kept,
        })
        .collect()
}

/// The columns at fault for the deviations.
fn faults(deviations: &[f32]) -> Vec<bool> {
    (0..deviations.len())
        .map(|x| {
            let near = &deviations[x.saturating_sub(2)..(x + 3).min(deviations.len())];
            let most = near.iter().map(|d| d.abs()).fold(0.0, f32::max);
            deviations[x].abs() > DEVIATION && deviations[x].abs() >= FAULT * most
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn a_weak_column_is_found_and_a_column_of_stars_is_not() {
        let mut state = 3u64;
        let mut noise = || {
            let uniform = |state: &mut u64| {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (*state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            };
            (0..12).map(|_| uniform(&mut state)).sum::<f32>()
        };
        let mut image = Array2::from_shape_fn((1000, 200), |_| 10.0 * noise());
        for y in 300..1000 {
            image[[y, 50]] -= 20.0;
            image[[y, 120]] += 300.0;
            image[[y, 121]] += 300.0;
        }
        for y in (0..1000).step_by(100) {
            for (dy, dx) in (0..5).flat_map(|dy| (0..5).map(move |dx| (dy, dx))) {
                image[[(y + dy).min(999), 160 + dx]] +=
                    500.0 / (1.0 + ((dy as f32 - 2.0).powi(2) + (dx as f32 - 2.0).powi(2)));
            }
        }
        let mut bits = Mask::zeros((1000, 200));
        assert_eq!(flag(image.view(), &mut bits, 10.0), 3);
        assert!(bits[[800, 50]] & mask::BAD != 0 && bits[[800, 121]] & mask::BAD != 0);
        assert!(bits[[100, 50]] == 0 && bits.column(162).iter().all(|b| *b == 0));
    }
}
