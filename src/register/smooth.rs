//! Separable Gaussian smoothing: the matched filter of star finding.

use multiversion::multiversion;
use ndarray::{Array2, Axis};
use rayon::prelude::*;

/// Rows that one task smooths; with its margin it stays in the second-level cache.
const BAND: usize = 64;

/// The image convolved with a unit-sum Gaussian of this sigma (pixels), zero beyond the edges, and the
/// factor by which white noise shrinks.
pub fn gaussian(image: &Array2<f32>, sigma: f64) -> (Array2<f32>, f64) {
    let taps = gaussian_taps(sigma);
    let reach = taps.len() / 2;
    let (height, width) = image.dim();
    let mut smooth = Array2::zeros((height, width));
    smooth.axis_chunks_iter_mut(Axis(0), BAND).into_par_iter().enumerate().for_each(|(band, mut out)| {
        let first = band * BAND;
        let (from, to) = (first.saturating_sub(reach), (first + out.nrows() + reach).min(height));
        let mut rows = vec![0.0f32; (to - from) * width];
        for (y, row) in (from..to).zip(rows.chunks_exact_mut(width)) {
            if let Some(source) = image.row(y).as_slice() {
                along_row(source, &taps, row);
            }
        }
        for (i, mut target) in out.axis_iter_mut(Axis(0)).enumerate() {
            let Some(target) = target.as_slice_mut() else { continue };
            for (k, tap) in taps.iter().enumerate() {
                let y = (first + i + k).wrapping_sub(reach);
                if (from..to).contains(&y) {
                    add_scaled(&rows[(y - from) * width..][..width], *tap, target);
                }
            }
        }
    });
    let sum_of_squares: f64 = taps.iter().map(|t| f64::from(*t).powi(2)).sum();
    (smooth, sum_of_squares)
}

fn gaussian_taps(sigma: f64) -> Vec<f32> {
    let reach = (3.5 * sigma).ceil().max(1.0) as i32;
    let taps: Vec<f64> = (-reach..=reach).map(|i| (-0.5 * (f64::from(i) / sigma).powi(2)).exp()).collect();
    let sum: f64 = taps.iter().sum();
    taps.iter().map(|t| (t / sum) as f32).collect()
}

#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn along_row(source: &[f32], taps: &[f32], row: &mut [f32]) {
    let reach = taps.len() / 2;
    let width = row.len();
    for (k, tap) in taps.iter().enumerate() {
        // Tap k takes the pixel at offset k − reach.
        let (from, to) = (reach.saturating_sub(k), (width + reach).saturating_sub(k).min(width));
        if from >= to {
            continue;
        }
        let shifted = &source[from + k - reach..to + k - reach];
        for (out, value) in row[from..to].iter_mut().zip(shifted) {
            *out += tap * value;
        }
    }
}

#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn add_scaled(source: &[f32], tap: f32, target: &mut [f32]) {
    for (out, value) in target.iter_mut().zip(source) {
        *out += tap * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_becomes_a_gaussian_of_the_same_flux() {
        let mut image = Array2::zeros((200, 90));
        image[[64, 40]] = 10.0;
        let (smooth, noise) = gaussian(&image, 1.5);
        assert!((smooth.sum() - 10.0).abs() < 1e-4);
        let peak = 10.0 / (2.0 * std::f32::consts::PI * 1.5 * 1.5);
        assert!((smooth[[64, 40]] - peak).abs() < 0.02 * peak);
        assert!((noise - 1.0 / (2.0 * std::f64::consts::PI.sqrt() * 1.5)).abs() < 1e-3);
    }
}
