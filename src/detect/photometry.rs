//! The zero point from stars of a catalogue, with its colour term, as ZTF has it (Masci et al. 2019, PASP 131,
//! 018003, §3.6): m = −2.5 log10 f + ZP + c · colour, the least squares over the calibration stars.

use super::context::median;
use crate::register::{MatchedStar, Registration};

/// Fewest stars for a zero point, and for a colour term beside it.
const LEAST_STARS: usize = 5;
const LEAST_FOR_COLOUR: usize = 12;
/// Least spread of colours for a colour term, magnitudes rms.
const LEAST_SPREAD: f64 = 0.1;
/// Stars fainter than this are left out.
const LEAST_SNR: f64 = 20.0;
/// What no star is better than: the catalogue's own error and the flat field's, magnitudes.
const FLOOR: f64 = 0.01;
/// Stars beyond this many robust standard deviations are variable or misidentified.
const CLIP: f64 = 3.0;
/// A star of the catalogue is this close, pixels of the reference.
const RADIUS: f64 = 1.5;

/// A star of known magnitude, on the reference's pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standard {
    /// Column on the reference, pixels.
    pub x: f64,
    /// Row on the reference, pixels.
    pub y: f64,
    /// Magnitude in the exposure's filter.
    pub mag: f64,
    /// Colour: g − r for g and r, r − i for i; not a number where it is not known.
    pub colour: f64,
}

/// The colour term of a zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColourTerm {
    /// Coefficient c of the colour (`clrcoeff`).
    pub coefficient: f64,
    /// Its standard error (`clrcounc`).
    pub error: f64,
    /// Covariance of zero point and coefficient (`zpclrcov`).
    pub covariance: f64,
    /// Median colour of the calibration stars (`clrmed`).
    pub median: f64,
    /// Rms of their colours about the mean (`clrrms`).
    pub rms: f64,
}

/// A zero point from a catalogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Photometry {
    /// Magnitude of one electron an exposure for a star of colour 0 (`magzpsci`).
    pub zero_point: f64,
    /// Its standard error (`magzpsciunc`).
    pub error: f64,
    /// Rms of the stars about it, colour term allowed for (`magzpscirms`).
    pub rms: f64,
    /// Median of catalogue less instrumental magnitude (`zpmed`).
    pub median: f64,
    /// Stars that it rests on (`nmatches`).
    pub stars: usize,
    /// The colour term, where the stars tell one.
    pub colour: Option<ColourTerm>,
}

/// One calibration star.
struct Pair {
    /// Catalogue less instrumental magnitude.
    offset: f64,
    colour: f64,
    weight: f64,
}

/// The zero point of the science image from `standards`; `None` where fewer than five are on it.
pub fn zero_point(standards: &[Standard], registration: &Registration) -> Option<Photometry> {
    let mut by_x: Vec<&Standard> = standards.iter().filter(|s| s.mag.is_finite()).collect();
    by_x.sort_by(|a, b| a.x.total_cmp(&b.x));
    let nearest = |star: &MatchedStar| {
        let from = by_x.partition_point(|s| s.x < star.reference_x - RADIUS);
        let to = by_x.partition_point(|s| s.x <= star.reference_x + RADIUS);
        let near: Vec<&&Standard> =
            by_x[from..to].iter().filter(|s| (s.y - star.reference_y).abs() <= RADIUS).collect();
        // Two within a pixel and a half are one blend on the image.
        if let [one] = near[..] { Some(**one) } else { None }
    };
    let pairs: Vec<Pair> = registration
        .matched
        .iter()
        .filter(|star| star.flux > LEAST_SNR * star.flux_err && star.flux_err > 0.0)
        .filter_map(|star| {
            let standard = nearest(star)?;
            let error = (1.0857 * star.flux_err / star.flux).hypot(FLOOR);
            let offset = standard.mag + 2.5 * star.flux.log10();
            Some(Pair { offset, colour: standard.colour, weight: error.powi(-2) })
        })
        .collect();
    let coloured = pairs.iter().filter(|pair| pair.colour.is_finite()).count();
    let spread = rms(&pairs.iter().map(|pair| pair.colour).filter(|c| c.is_finite()).collect::<Vec<_>>());
    let with_colour = coloured >= LEAST_FOR_COLOUR && spread >= LEAST_SPREAD;
    let kept: Vec<Pair> = pairs.into_iter().filter(|pair| !with_colour || pair.colour.is_finite()).collect();
    fit(kept, with_colour)
}

/// Weighted least squares with clipping about the median until nothing changes.
fn fit(mut pairs: Vec<Pair>, with_colour: bool) -> Option<Photometry> {
    loop {
        if pairs.len() < LEAST_STARS {
            return None;
        }
        let solution = solve(&pairs, with_colour)?;
        let residual = |pair: &Pair| pair.offset - solution.predict(pair.colour);
        let deviations = pairs.iter().map(|pair| residual(pair).abs()).collect();
        let limit = CLIP * (1.4826 * median(deviations)?).max(FLOOR);
        let before = pairs.len();
        let residuals: Vec<f64> = pairs.iter().map(residual).collect();
        let mut keep = residuals.iter().map(|r| r.abs() <= limit);
        pairs.retain(|_| keep.next().unwrap_or(false));
        if pairs.len() < before {
            continue;
        }
        let degrees = (pairs.len() - if with_colour { 2 } else { 1 }).max(1) as f64;
        let chi2: f64 = pairs.iter().zip(&residuals).map(|(pair, r)| pair.weight * r * r).sum();
        // Weights are relative: the scatter of the stars says how good they are.
        let scale = (chi2 / degrees).max(1.0);
        let colours: Vec<f64> = pairs.iter().map(|pair| pair.colour).collect();
        return Some(Photometry {
            zero_point: solution.zero_point,
            error: (solution.covariance[0] * scale).sqrt(),
            rms: (residuals.iter().map(|r| r * r).sum::<f64>() / residuals.len() as f64).sqrt(),
            median: median(pairs.iter().map(|pair| pair.offset).collect())?,
            stars: pairs.len(),
            colour: with_colour.then(|| ColourTerm {
                coefficient: solution.coefficient,
                error: (solution.covariance[2] * scale).sqrt(),
                covariance: solution.covariance[1] * scale,
                median: median(colours.clone()).unwrap_or(f64::NAN),
                rms: rms(&colours),
            }),
        });
    }
}

struct Solution {
    zero_point: f64,
    coefficient: f64,
    /// Of zero point, of both, of coefficient.
    covariance: [f64; 3],
}

impl Solution {
    fn predict(&self, colour: f64) -> f64 {
        // Without a colour term the colour may be unknown.
        if self.coefficient == 0.0 { self.zero_point } else { self.zero_point + self.coefficient * colour }
    }
}

fn solve(pairs: &[Pair], with_colour: bool) -> Option<Solution> {
    let sum = |value: &dyn Fn(&Pair) -> f64| pairs.iter().map(|pair| pair.weight * value(pair)).sum::<f64>();
    let (s, sy) = (sum(&|_| 1.0), sum(&|p| p.offset));
    if !with_colour {
        return Some(Solution { zero_point: sy / s, coefficient: 0.0, covariance: [1.0 / s, 0.0, 0.0] });
    }
    let (sx, sxx, sxy) = (sum(&|p| p.colour), sum(&|p| p.colour * p.colour), sum(&|p| p.colour * p.offset));
    let determinant = s * sxx - sx * sx;
    (determinant > 0.0).then(|| Solution {
        zero_point: (sxx * sy - sx * sxy) / determinant,
        coefficient: (s * sxy - sx * sy) / determinant,
        covariance: [sxx / determinant, -sx / determinant, s / determinant],
    })
}

fn rms(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets of 26.3 + 0.11 colour with a scatter of 0.02 and one variable star in ten.
    fn pairs(count: usize) -> Vec<Pair> {
        let star = |i: usize| {
            let colour = 0.2 + (i * 37 % 100) as f64 / 100.0;
            let noise = 0.02 * ((i * 7919 % 1000) as f64 / 500.0 - 1.0) * 3f64.sqrt();
            let variable = if i.is_multiple_of(10) { 0.8 } else { 0.0 };
            Pair { offset: 26.3 + 0.11 * colour + noise + variable, colour, weight: 1e3 }
        };
        (0..count).map(star).collect()
    }

    #[test]
    fn zero_point_and_colour_term_come_back_within_their_errors() {
        let found = fit(pairs(400), true).unwrap();
        let colour = found.colour.unwrap();
        assert!((found.zero_point - 26.3).abs() < 4.0 * found.error, "{found:?}");
        assert!((colour.coefficient - 0.11).abs() < 4.0 * colour.error && colour.error < 0.01, "{found:?}");
        assert!(found.stars == 360 && (0.015..0.025).contains(&found.rms) && colour.covariance < 0.0, "{found:?}");
        assert!((found.median - 26.3 - 0.11 * colour.median).abs() < 0.01);
    }

    #[test]
    fn without_stars_enough_there_is_none() {
        assert!(fit(pairs(4), false).is_none());
        assert!(fit(pairs(6), false).unwrap().colour.is_none());
    }
}
