//! Rings about what is far sharper than the PSF: D is sharpened where the reference is the broader image, and so a
//! cosmic ray has rings that stand above the noise several pixels away.

use super::{Candidate, Rule};

/// A ring is weaker than what it surrounds by at least this factor.
const WEAKER: f64 = 30.0;
/// Chi² of a fit that reaches into the particle itself.
const CHI: f64 = 5.0;
/// How far rings reach, in units of the sum of both images' FWHM.
const REACH: f64 = 2.2;

/// Rejects candidates that are rings about far stronger ones; `fwhm` is the sum of both images', pixels.
pub(super) fn reject(candidates: &mut [Candidate], fwhm: f64) {
    let mut strong: Vec<(f64, f64, f64)> =
        candidates.iter().filter(|c| c.snr > WEAKER).map(|c| (c.y, c.x, c.snr)).collect();
    strong.sort_by(|a, b| a.0.total_cmp(&b.0));
    let reach = REACH * fwhm;
    for candidate in candidates.iter_mut().filter(|c| c.rejected.is_none() && c.chi > CHI) {
        let from = strong.partition_point(|s| s.0 < candidate.y - reach);
        let to = strong.partition_point(|s| s.0 <= candidate.y + reach);
        let near = |s: &(f64, f64, f64)| (s.0 - candidate.y).hypot(s.1 - candidate.x) < reach;
        if strong[from..to].iter().any(|s| s.2 > WEAKER * candidate.snr && near(s)) {
            candidate.rejected = Some(Rule::Shape);
            candidate.cutouts = None;
        }
    }
}
