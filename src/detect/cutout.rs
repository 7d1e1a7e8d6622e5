//! Cut-out images about a candidate.

use ndarray::Array2;

use super::{CUTOUT_SIDE, Cutouts};
use crate::subtract::Difference;

/// The three images about (x, y); `sign` turns the difference so that the source is positive.
pub(super) fn cut_out(difference: &Difference, x: f64, y: f64, sign: f64) -> Cutouts {
    let half = (CUTOUT_SIDE / 2) as i64;
    let (cx, cy) = (x.round() as i64 - half, y.round() as i64 - half);
    let cut = |image: &Array2<f32>, factor: f32| {
        let mut cutout = Array2::from_elem((CUTOUT_SIDE, CUTOUT_SIDE), f32::NAN);
        let (height, width) = image.dim();
        // Columns of the cut-out that lie on the image.
        let (from, to) = ((-cx).clamp(0, CUTOUT_SIDE as i64), (width as i64 - cx).clamp(0, CUTOUT_SIDE as i64));
        for (iy, mut row) in cutout.outer_iter_mut().enumerate() {
            let y = usize::try_from(cy + iy as i64).ok().filter(|y| *y < height && from < to);
            let Some(pixels) = y.and_then(|y| image.row(y).to_slice()) else { continue };
            let (Some(row), pixels) = (row.as_slice_mut(), &pixels[(cx + from) as usize..(cx + to) as usize]) else {
                continue;
            };
            for (out, pixel) in row[from as usize..to as usize].iter_mut().zip(pixels) {
                *out = factor * pixel;
            }
        }
        cutout
    };
    Cutouts {
        science: cut(&difference.science.pixels().pixels, 1.0),
        template: cut(&difference.template.pixels, 1.0),
        difference: cut(&difference.difference.pixels, sign as f32),
    }
}

/// Highest pixel of the central 9×9 over the robust rms of the cut-out.
pub(super) fn peak_over_rms(cutout: &Array2<f32>) -> f64 {
    let mut values: Vec<f32> = cutout.iter().copied().filter(|v| v.is_finite()).collect();
    if values.len() < 16 {
        return 0.0;
    }
    let middle = values.len() / 2;
    let median = *values.select_nth_unstable_by(middle, f32::total_cmp).1;
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    let mad = *values.select_nth_unstable_by(middle, f32::total_cmp).1;
    let c = CUTOUT_SIDE / 2;
    let peak = cutout
        .slice(ndarray::s![c - 4..=c + 4, c - 4..=c + 4])
        .iter()
        .copied()
        .filter(|v| v.is_finite())
        .fold(f32::MIN, f32::max);
    if mad > 0.0 { f64::from((peak - median) / (1.4826 * mad)) } else { 0.0 }
}

/// Median of a cut-out in the annulus from 10 to 20 pixels about its centre, beyond any aperture.
pub(super) fn level_around(cutout: &Array2<f32>) -> f64 {
    let centre = (CUTOUT_SIDE / 2) as f64;
    let around =
        |(y, x): (usize, usize)| (100.0..400.0).contains(&((x as f64 - centre).powi(2) + (y as f64 - centre).powi(2)));
    let mut values: Vec<f32> =
        cutout.indexed_iter().filter(|(at, v)| v.is_finite() && around(*at)).map(|(_, v)| *v).collect();
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    f64::from(*values.select_nth_unstable_by(middle, f32::total_cmp).1)
}
