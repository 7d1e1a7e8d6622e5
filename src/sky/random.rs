//! Random streams that do not depend on the order of the work.
//!
//! Each stream is a ChaCha8 generator whose 256-bit key is the quadruple (seed, purpose, frame,
//! row). Rows of a frame may therefore be drawn in any order and by any number of threads.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson, StandardNormal};

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Stars of a field.
    Stars = 1,
    /// Galaxies of a field.
    Galaxies,
    /// Sources that change.
    Changes,
    /// Point-spread function of a frame.
    Optics,
    /// Pointing, sky and weather of a frame.
    Conditions,
    /// Photon noise of a row.
    Photons,
    /// Read noise of a row.
    Readout,
    /// Cosmic rays of a frame.
    CosmicRays,
    /// The detector's own faults and structure.
    Detector,
    /// Pixel-to-pixel response of a row.
    Response,
}

/// The stream of `purpose` for one row (or other part) of one frame.
pub fn stream(seed: u64, purpose: Purpose, frame: u64, row: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, frame, row]) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Mean below which the Poisson distribution is drawn exactly.
const EXACT_BELOW: f32 = 60.0;

/// A Poisson deviate of this mean (electrons).
///
/// Above 60 by the Cornish-Fisher expansion to the skewness, λ + √λ z + (z² − 1)/6, rounded: mean,
/// variance and third moment are those of the Poisson distribution to 1/λ.
pub fn poisson(rng: &mut impl Rng, mean: f32) -> f32 {
    if mean >= EXACT_BELOW {
        let z = normal(rng);
        return (mean + mean.sqrt() * z + (z * z - 1.0) / 6.0).round().max(0.0);
    }
    Poisson::new(mean).map_or(0.0, |distribution| distribution.sample(rng))
}

/// A normal deviate of mean 0 and variance 1.
pub fn normal(rng: &mut impl Rng) -> f32 {
    StandardNormal.sample(rng)
}

/// A deviate whose logarithm is uniform between those of `low` and `high`.
pub fn log_uniform(rng: &mut impl Rng, low: f64, high: f64) -> f64 {
    low * (high / low).powf(rng.random::<f64>())
}

/// A uniform deviate between `low` and `high`.
pub fn uniform(rng: &mut impl Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_deviates_have_mean_variance_and_skewness_of_the_distribution() {
        for mean in [3.0_f32, 59.0, 61.0, 1200.0] {
            let mut rng = stream(1, Purpose::Photons, 0, mean as u64);
            let draws: Vec<f64> = (0..200_000).map(|_| f64::from(poisson(&mut rng, mean))).collect();
            let count = draws.len() as f64;
            let average = draws.iter().sum::<f64>() / count;
            let moment = |power| draws.iter().map(|d| (d - average).powi(power)).sum::<f64>() / count;
            let (expected, sigma) = (f64::from(mean), f64::from(mean).sqrt());
            assert!((average - expected).abs() < 5.0 * sigma / count.sqrt(), "mean {mean}: {average}");
            assert!((moment(2) / expected - 1.0).abs() < 0.02, "variance at {mean}: {}", moment(2));
            assert!((moment(3) / sigma.powi(3) - 1.0 / sigma).abs() < 0.03, "skewness at {mean}");
        }
    }

    #[test]
    fn streams_differ_by_row_and_repeat_by_name() {
        let draw = |row| stream(7, Purpose::Readout, 2, row).random::<u64>();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
