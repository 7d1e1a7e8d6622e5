//! `rb`: how likely a candidate is a change on the sky and no artefact, from what was measured of it.
//!
//! A network of two hidden layers over sixteen numbers: how the source fits the PSF, a far narrower profile and a
//! particle's track, its width and elongation, what is negative or bad around it, and how bright the reference is
//! there. It takes a microsecond and needs no picture. `packaging/realbogus/train.py` makes the weights
//! (`weights.rs`) on synthetic skies, half of them spoiled; its figures on skies that it never saw stand in
//! `packaging/realbogus/README.md`. A network over pictures is [`crate::alert::Network`] (`drb`).

#[allow(clippy::approx_constant, reason = "a trained weight may lie near a constant")]
mod weights;

use super::Candidate;
pub use weights::VERSION;

/// How many numbers the score is made of.
pub const INPUTS: usize = 16;

/// Their names in `candidates.csv`, in the order of [`evidence`].
pub const NAMES: [&str; INPUTS] = [
    "rb_significance",
    "rb_chi",
    "rb_core_chi",
    "rb_sharpness",
    "rb_track",
    "rb_has_track",
    "rb_width",
    "rb_elongation",
    "rb_negative",
    "rb_bad",
    "rb_sumrat",
    "rb_opposite",
    "rb_reference",
    "rb_flux",
    "rb_positive",
    "rb_trail",
];

/// No input is larger than this.
const LARGEST: f64 = 10.0;
/// Pixels of the box in which negative and bad ones are counted.
const BOX: f64 = 25.0;

/// What the score is made of; what is not a number counts as 0.
pub fn evidence(candidate: &Candidate) -> [f32; INPUTS] {
    let c = candidate;
    let ln = |x: f64| x.max(1e-3).ln();
    let flag = |truth: bool| if truth { 1.0 } else { 0.0 };
    [
        ln(c.snr),
        ln(c.chi),
        ln(c.core_chi),
        c.sharpness.asinh(),
        c.track.unwrap_or(0.0).asinh(),
        flag(c.track.is_some()),
        ln(c.width),
        ln(c.a / c.b),
        f64::from(c.nneg) / BOX,
        f64::from(c.nbad) / BOX,
        c.sumrat,
        c.opposite,
        c.reference_snr.asinh(),
        ln(c.flux.abs() / c.flux_err / c.snr),
        flag(c.positive),
        c.trail_px / 10.0,
    ]
    .map(|x| if x.is_finite() { x.clamp(-LARGEST, LARGEST) as f32 } else { 0.0 })
}

/// The score of `evidence`, 0 (bogus) to 1 (real).
pub fn score(evidence: &[f32; INPUTS]) -> f64 {
    let first = layer(&weights::FIRST, evidence);
    let second = layer(&weights::SECOND, &first);
    let sum = sum(&weights::LAST, &second);
    1.0 / (1.0 + f64::from(-sum).exp())
}

/// A layer of rectified units; the last weight of each is its bias.
fn layer<const UNITS: usize, const LENGTH: usize>(weights: &[[f32; LENGTH]; UNITS], inputs: &[f32]) -> [f32; UNITS] {
    std::array::from_fn(|unit| sum(&weights[unit], inputs).max(0.0))
}

fn sum<const LENGTH: usize>(weights: &[f32; LENGTH], inputs: &[f32]) -> f32 {
    let bias = weights[LENGTH - 1];
    weights.iter().zip(inputs).fold(bias, |sum, (weight, input)| sum + weight * input)
}
