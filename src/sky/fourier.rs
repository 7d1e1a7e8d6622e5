//! Small square Fourier transforms, for galaxies and for the true signal-to-noise ratio.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex64;

/// Plans transforms and keeps the plans; one for each thread.
pub struct Transforms {
    planner: FftPlanner<f64>,
}

impl Default for Transforms {
    fn default() -> Self {
        Self { planner: FftPlanner::new() }
    }
}

impl Transforms {
    /// Transforms a square image of `side`² values in place. The result is transposed, which
    /// products do not mind and [`Transforms::inverse`] turns back.
    pub fn forward(&mut self, side: usize, values: &mut [Complex64]) {
        let plan = self.planner.plan_fft_forward(side);
        plan.process(values);
        transpose(side, values);
        plan.process(values);
    }

    /// The inverse of [`Transforms::forward`], normalised.
    pub fn inverse(&mut self, side: usize, values: &mut [Complex64]) {
        let plan = self.planner.plan_fft_inverse(side);
        plan.process(values);
        transpose(side, values);
        plan.process(values);
        let norm = 1.0 / (side * side) as f64;
        values.iter_mut().for_each(|value| *value *= norm);
    }
}

fn transpose(side: usize, values: &mut [Complex64]) {
    for row in 0..side {
        for column in row + 1..side {
            values.swap(row * side + column, column * side + row);
        }
    }
}

/// Samples `density` about the origin with wrap-around, `step` pixels a sample.
pub fn wrapped(side: usize, step: f64, density: impl Fn(f64, f64) -> f64) -> Vec<Complex64> {
    let offset = |index: usize| if index < side / 2 { index as f64 } else { index as f64 - side as f64 } * step;
    let sample = |index: usize| Complex64::new(density(offset(index % side), offset(index / side)), 0.0);
    (0..side * side).map(sample).collect()
}

/// The smallest length that transforms fast (2 or 3 times a power of two) and is at least `length`.
pub fn fast_length(length: usize) -> usize {
    let power = length.next_power_of_two();
    if power >= 4 && power / 4 * 3 >= length { power / 4 * 3 } else { power }
}
