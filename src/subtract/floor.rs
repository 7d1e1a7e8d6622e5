//! What the models of bright stars get wrong, as an error of S.
//!
//! Two parts, both measured on the difference itself: at a star the PSF's error is a fraction ε of what the
//! reference holds there, larger where the stars of the PSF leave the field's polynomials free (corners); around
//! a star what the models miss of its flanks and wings is a fraction of all of its flux, by the distance. (Where the
//! reference is twice as broad as the science image, four lobes about each star of 13 to 14 mag were seven false alerts
//! an image as long as the flanks had no part of their own.)

use std::collections::HashMap;

use ndarray::Array2;
use rayon::prelude::*;

use super::score::{Appraiser, Terms};
use crate::psf::PsfModel;

/// Typical changes of variable stars, as fractions of their fluxes.
const VARIATIONS: [f64; 4] = [0.01, 0.03, 0.1, 0.3];
/// ε where fewer stars than this are bright enough to tell.
const FEW: usize = 15;
const FLOOR_OF_FEW: f64 = 0.01;
/// A star is bright from this multiple of the noise of S on.
const BRIGHT: f64 = 100.0;
/// The rings about a star in which its flanks, its wings and its halo are judged, FWHM of the broader image, and how far
/// the halo is allowed for. (With a quarter of the light in a
/// halo of twice the width, most of 57 false alerts of an image stood 6 to 7 FWHM from stars of 10 to 11 mag; 15 are left.)
const FLANKS: [f64; 4] = [0.6, 0.9, 1.3, 1.7];
const RINGS: [f64; 3] = [2.2, 2.8, 3.5];
const HALO: [f64; 3] = [5.0, 6.2, 7.4];
const HALO_END: f64 = 8.5;
/// Places on each ring.
const ON_RING: usize = 8;
/// The brightest stars, by which the wings are judged.
const JUDGES: usize = 40;
/// Those by which the halo is.
const BRIGHTEST: usize = 20;
/// More than this is no error of flanks, and of wings.
const MOST_FLANKS: f64 = 1e-2;
const MOST_WINGS: f64 = 2e-3;

/// A star on the science image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BrightStar {
    /// Column, pixels.
    pub x: f64,
    /// Row, pixels.
    pub y: f64,
    /// Flux, electrons.
    pub flux: f64,
}

/// The errors of bright stars' models.
#[derive(Debug, Clone)]
pub struct BrightStarFloor {
    /// Fraction of a star's flux, at the star: ε.
    pub epsilon: f64,
    /// Fraction of a star's flux, around it.
    pub wings: f64,
    /// The same in each of its [`FLANKS`].
    flanks: [f64; FLANKS.len()],
    /// The same in its halo.
    halo: f64,
    /// FWHM of the broader image, pixels.
    fwhm: f64,
    reach: f64,
    models: [PsfModel; 2],
    stars: HashMap<(i64, i64), Vec<BrightStar>>,
}

impl BrightStarFloor {
    /// Measures both parts: ε on S at the `places` of bright stars, the wings about the brightest of `stars`.
    /// `models` are the PSFs of the science image and of the reference, whose places differ by little.
    pub fn measure(
        appraiser: &Appraiser<'_>,
        flux: &Array2<f32>,
        places: &[(usize, usize)],
        stars: &[BrightStar],
        models: [PsfModel; 2],
    ) -> Self {
        let (height, width) = flux.dim();
        let fwhm = models.iter().map(|m| m.fwhm_at(width as f64 / 2.0, height as f64 / 2.0)).fold(2.0, f64::max);
        let reach = HALO_END * fwhm;
        let flanks = [0.0; FLANKS.len()];
        let mut floor =
            Self { epsilon: 0.0, wings: 0.0, flanks, halo: 0.0, fwhm, reach, models, stars: HashMap::new() };
        let known: Vec<(f64, Terms)> = places
            .par_iter()
            .map(|&(x, y)| {
                let mut terms = appraiser.terms(x, y);
                terms.reference_share *= floor.stretch(x as f64, y as f64);
                (f64::from(flux[[y, x]]), terms)
            })
            .collect();
        floor.epsilon = epsilon(&known);
        let mut judges: Vec<BrightStar> = stars.to_vec();
        judges.sort_by(|a, b| b.flux.total_cmp(&a.flux));
        judges.truncate(JUDGES);
        let around = |radii: &[f64], axisymmetric| around(appraiser, flux, &judges, fwhm, radii, axisymmetric);
        floor.halo = self::around(appraiser, flux, &judges[..judges.len().min(BRIGHTEST)], fwhm, &HALO, true);
        floor.halo = floor.halo.min(MOST_WINGS);
        floor.wings = around(&RINGS, true).min(MOST_WINGS);
        floor.flanks = FLANKS.map(|radius| around(&[radius], false).clamp(floor.wings, MOST_FLANKS));
        let anything = floor.wings.max(floor.halo) > 0.0 || floor.flanks.iter().any(|part| *part > 0.0);
        for star in stars.iter().filter(|_| anything) {
            floor.stars.entry(floor.cell(star.x, star.y)).or_default().push(*star);
        }
        floor
    }

    /// Error of S at (x, y), where the reference holds `share`, electrons.
    pub fn error(&self, x: f64, y: f64, share: f64) -> f64 {
        let at = self.epsilon * self.stretch(x, y) * share;
        if self.stars.is_empty() {
            return at.abs();
        }
        let (column, row) = self.cell(x, y);
        let cells = (column - 1..=column + 1).flat_map(|c| (row - 1..=row + 1).map(move |r| (c, r)));
        let near = cells.filter_map(|cell| self.stars.get(&cell)).flatten();
        let around: f64 = near.map(|star| (self.part((star.x - x).hypot(star.y - y)) * star.flux).powi(2)).sum();
        around.sqrt().hypot(at)
    }

    /// The fraction of a star's flux that may be wrong at this distance from it, pixels.
    fn part(&self, distance: f64) -> f64 {
        if distance >= self.reach {
            return 0.0;
        }
        let (radius, mut before) = (distance / self.fwhm, (0.0, 0.0));
        for (ring, part) in FLANKS.into_iter().zip(self.flanks) {
            if radius < ring {
                return before.1 + (part - before.1) * (radius - before.0) / (ring - before.0);
            }
            before = (ring, part);
        }
        let between = |from: (f64, f64), to: (f64, f64)| {
            from.1 + (to.1 - from.1) * ((radius - from.0) / (to.0 - from.0)).clamp(0.0, 1.0)
        };
        let [first, .., last] = RINGS;
        if radius < last {
            between(before, (first, self.wings))
        } else {
            between((last, self.wings), (HALO[0], self.halo))
        }
    }

    /// How much more the PSFs may be wrong at a place than at a typical star.
    fn stretch(&self, x: f64, y: f64) -> f64 {
        self.models.iter().map(|model| model.leverage(x, y)).fold(1.0, f64::max).sqrt()
    }

    fn cell(&self, x: f64, y: f64) -> (i64, i64) {
        ((x / self.reach).floor() as i64, (y / self.reach).floor() as i64)
    }
}

/// The floor ε with which constant bright stars scatter by 1, from S at the places of bright stars.
///
/// Many bright stars of a field may vary: S at a star is drawn from N(0, noise² + ε² A²) where it is constant
/// and from a much wider distribution where it is not; ε and the share of constant stars are those of
/// the largest likelihood. (A quantile of |S| over noise took every second star's variation for an error.)
///
fn epsilon(stars: &[(f64, Terms)]) -> f64 {
    let bright: Vec<&(f64, Terms)> = stars.iter().filter(|(_, t)| t.reference_share > BRIGHT * t.noise).collect();
    if bright.len() < FEW {
        return FLOOR_OF_FEW;
    }
    let likelihood = |epsilon: f64| -> f64 {
        let densities: Vec<(f64, f64)> = bright
            .iter()
            .map(|(s, t)| {
                let noise = t.noise.hypot(epsilon * t.reference_share);
                let varying = VARIATIONS.map(|v| normal(*s, noise.hypot(v * t.reference_share)));
                (normal(*s, noise), varying.iter().sum::<f64>() / varying.len() as f64)
            })
            .collect();
        let mut constant = 0.6;
        for _ in 0..20 {
            let sum: f64 = densities.iter().map(|(c, v)| constant * c / (constant * c + (1.0 - constant) * v)).sum();
            constant = (sum / densities.len() as f64).clamp(0.05, 0.95);
        }
        densities.iter().map(|(c, v)| (constant * c + (1.0 - constant) * v).max(f64::MIN_POSITIVE).ln()).sum()
    };
    let grid = (0..=24).map(|step| 0.001 * 10f64.powf(f64::from(step) / 24.0));
    let best = grid.map(|epsilon| (likelihood(epsilon), epsilon)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(FLOOR_OF_FEW, |(_, epsilon)| epsilon)
}

/// The fraction of the brightest stars' flux that explains the scatter of S in rings about them: the median over the
/// stars, since where a star varies more than its wings is left. Where `axisymmetric` is false what all places of a ring
/// share is left out: near a star it is the star's own variation.
fn around(
    appraiser: &Appraiser<'_>,
    flux: &Array2<f32>,
    judges: &[BrightStar],
    fwhm: f64,
    radii: &[f64],
    axisymmetric: bool,
) -> f64 {
    let (height, width) = flux.dim();
    let mut excess: Vec<f64> = judges
        .par_iter()
        .filter_map(|star| {
            let places = (0..radii.len() * ON_RING).filter_map(|i| {
                let angle = std::f64::consts::TAU * (i % ON_RING) as f64 / ON_RING as f64;
                let radius = radii[i / ON_RING] * fwhm;
                let (x, y) = (star.x + radius * angle.cos(), star.y + radius * angle.sin());
                let inside = x >= 0.0 && y >= 0.0 && x < (width - 1) as f64 && y < (height - 1) as f64;
                inside.then(|| (x.round() as usize, y.round() as usize))
            });
            let each: Vec<(f64, f64)> =
                places.map(|(x, y)| (f64::from(flux[[y, x]]), appraiser.terms(x, y).noise.powi(2))).collect();
            let count = each.len() as f64;
            let mean = if axisymmetric { 0.0 } else { each.iter().map(|(s, _)| s).sum::<f64>() / count };
            let lost = if axisymmetric { 1.0 } else { count / (count - 1.0) };
            let sum: f64 = each.iter().map(|(s, variance)| lost * (s - mean).powi(2) - variance).sum();
            (each.len() >= ON_RING).then(|| sum / count / star.flux.powi(2))
        })
        .collect();
    if excess.len() < FEW {
        return 0.0;
    }
    excess.sort_by(f64::total_cmp);
    excess[excess.len() / 2].max(0.0).sqrt()
}

/// The density of a normal distribution of mean 0.
fn normal(value: f64, sigma: f64) -> f64 {
    (-0.5 * (value / sigma).powi(2)).exp() / sigma
}
