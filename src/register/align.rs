//! The registration: pairs of stars, PSF centroids, a polynomial map, the flux ratio.

use super::polynomial::{Domain, Map, Polynomial2};
use super::psf_stars;
use super::stars::StarList;
use super::{MatchedStar, RegisterError, triangles, vote};
use crate::calibrate::CalibratedFrame;
use crate::psf::degree::MAX_DEGREE;
use crate::psf::fit::{FittedStar, fit};
use crate::psf::star::refit;
use crate::psf::wings;
use crate::psf::{Field, PsfModel};

/// Brightest stars of each list that vote on the offset.
const VOTERS: usize = 600;
/// Offsets up to this many pixels are voted on.
const VOTE_REACH: f64 = 40.0;
/// Radius of the first pairs after the vote, pixels: rotation up to 0.1 degree moves stars by this much.
const VOTE_RADIUS: f64 = 5.0;
/// Pixel scales science over reference that the triangles allow.
const SCALES: std::ops::RangeInclusive<f64> = 0.9..=1.1;
/// Stars whose PSF centroids and fluxes are measured.
const MOST_MEASURED: usize = 300;
/// Stars of the first PSF model, which only takes the neighbours of the others away.
const ROUGH_STARS: usize = 60;
/// Floor of a centroid's error, pixels: what the models themselves are good for.
const CENTROID_FLOOR: f64 = 0.003;
/// The same where a few stars carry the whole registration: proper motions.
const SPARSE_FLOOR: f64 = 0.05;
/// A field with at most this many matches is sparse.
const SPARSE: usize = 12;
/// Matches needed for each coefficient of the map.
const MATCHES_A_COEFFICIENT: usize = 4;
/// Residual, pixels, beyond which the registration is refused.
const WORST_RESIDUAL: f64 = 0.5;
/// Fractional floor of a flux's error in the flux ratio.
const FLUX_FLOOR: f64 = 0.003;

/// PSF model of one frame and PSF photometry of the stars `chosen`.
pub(super) struct Measured {
    pub model: PsfModel,
    pub used: usize,
    pub misfit: f64,
    pub stars: Vec<Option<FittedStar>>,
}

/// Fits the PSF from the stars `psf_stars` and measures the stars `wanted` with it; without a fit, with a guess.
pub(super) fn measure_psf(frame: &CalibratedFrame, list: &StarList, psf_stars: &[usize], wanted: &[usize]) -> Measured {
    let (height, width) = frame.pixels().shape();
    let field = Field::new(width, height);
    let few = &psf_stars[..psf_stars.len().min(ROUGH_STARS)];
    let first: Vec<_> = psf_stars::cut(frame, list, few, None).into_iter().flatten().collect();
    let Some(rough) = fit(field, &first, list.fwhm, 1) else { return guessed(frame, list, wanted) };
    // With a model in hand the neighbours can be taken away.
    let second: Vec<_> = psf_stars::cut(frame, list, psf_stars, Some(&rough.model)).into_iter().flatten().collect();
    let Some(mut fitted) = fit(field, &second, list.fwhm, MAX_DEGREE) else { return guessed(frame, list, wanted) };
    let bright = &psf_stars[..psf_stars.len().min(wings::STARS)];
    let wide = psf_stars::cut_to(frame, list, bright, Some(&fitted.model), wings::REACH);
    let inner = 0.5 * psf_stars::stamp_half(list.fwhm) as f64;
    wings::add(&mut fitted.model, &wide.into_iter().flatten().collect::<Vec<_>>(), inner);
    let stars = measure(frame, list, wanted, &fitted.model);
    Measured { used: fitted.used(), misfit: fitted.misfit(), model: fitted.model, stars }
}

/// Measures the stars with a round profile of the list's FWHM, where no star gives a better one.
fn guessed(frame: &CalibratedFrame, list: &StarList, wanted: &[usize]) -> Measured {
    const BETA: f64 = 3.0;
    let (height, width) = frame.pixels().shape();
    let model = PsfModel::uniform(Field::new(width, height), list.fwhm, BETA);
    let stars = measure(frame, list, wanted, &model);
    Measured { model, used: 0, misfit: 0.0, stars }
}

fn measure(frame: &CalibratedFrame, list: &StarList, wanted: &[usize], model: &PsfModel) -> Vec<Option<FittedStar>> {
    let stamps = psf_stars::cut(frame, list, wanted, Some(model));
    let present: Vec<_> = stamps.iter().flatten().cloned().collect();
    let mut results = refit(model, &present, &vec![true; present.len()]).into_iter();
    stamps.iter().map(|stamp| stamp.as_ref().and_then(|_| results.next())).collect()
}

/// Matches worth measuring: clean, significant in both frames, at most [`MOST_MEASURED`] of the brightest.
pub(super) fn worth_measuring(
    science: &StarList,
    reference: &StarList,
    pairs: &[(usize, usize)],
) -> Vec<(usize, usize)> {
    let mut good: Vec<(usize, usize)> =
        pairs.iter().copied().filter(|&(s, r)| science.stars[s].is_clean() && reference.stars[r].is_clean()).collect();
    let lesser = |&(s, r): &(usize, usize)| science.stars[s].snr.min(reference.stars[r].snr);
    good.sort_by(|a, b| lesser(b).total_cmp(&lesser(a)));
    good.truncate(MOST_MEASURED);
    good
}

/// The map from science to reference pixels with its residuals.
pub(super) struct MapFit {
    pub map: Map,
    pub rms_px: f64,
    pub excess_px: f64,
    pub used: usize,
    pub shift_and_rotation_only: bool,
}

/// Fits the map to the matched stars, leaving out those that disagree.
pub(super) fn fit_map(shape: (usize, usize), stars: &[MatchedStar]) -> Result<MapFit, RegisterError> {
    let domain = Domain::of_image(shape.1, shape.0);
    let sparse = stars.len() <= SPARSE;
    let agreed = consensus(domain, stars);
    let mut used = agreed.clone();
    let mut fitted: Option<(Map, bool)> = None;
    for _ in 0..6 {
        let kept: Vec<&MatchedStar> = stars.iter().zip(&used).filter(|(_, u)| **u).map(|(s, _)| s).collect();
        if kept.len() < 3 {
            return Err(RegisterError::FewStars { stars: kept.len() });
        }
        let map = fit_once(domain, &kept).ok_or(RegisterError::FewStars { stars: kept.len() })?;
        let pulls: Vec<f64> = stars.iter().map(|s| distance(&map.0, s) / error(s, sparse)).collect();
        let mut sorted: Vec<f64> = pulls.iter().zip(&used).filter(|(_, u)| **u).map(|(p, _)| *p).collect();
        sorted.sort_by(f64::total_cmp);
        let typical = sorted[sorted.len() / 2].max(0.5);
        let keep: Vec<bool> = pulls.iter().zip(&agreed).map(|(p, a)| *a && *p < 4.5 * typical).collect();
        fitted = Some(map);
        if keep == used {
            break;
        }
        used = keep;
    }
    let (map, shift_and_rotation_only) = fitted.ok_or(RegisterError::FewStars { stars: 0 })?;
    let (rms_px, excess_px) = residuals(&map, stars, &used);
    if rms_px > WORST_RESIDUAL {
        return Err(RegisterError::Residual { rms_px });
    }
    let used = used.iter().filter(|u| **u).count();
    Ok(MapFit { map, rms_px, excess_px, used, shift_and_rotation_only })
}

/// In a sparse field galaxies and blends are many among the matches: start from the largest set that agrees with
/// a rigid motion through two of its stars. A rich field starts from all.
fn consensus(domain: Domain, stars: &[MatchedStar]) -> Vec<bool> {
    const MOST: usize = 40;
    const TOLERANCE: f64 = 0.15;
    let all = vec![true; stars.len()];
    if stars.len() > MOST || stars.len() < 4 {
        return all;
    }
    let mut best: (f64, Vec<bool>) = (0.0, all);
    for first in 0..stars.len() {
        for second in 0..first {
            let pair = [&stars[first], &stars[second]];
            if (pair[0].x - pair[1].x).hypot(pair[0].y - pair[1].y) < 20.0 {
                continue;
            }
            let Some(map) = shift_and_rotation(domain, &pair) else { continue };
            let agree: Vec<bool> =
                stars.iter().map(|s| distance(&map, s) < TOLERANCE.max(3.0 * s.position_err)).collect();
            // A star counts by how precisely it says so.
            let score = stars
                .iter()
                .zip(&agree)
                .filter(|(_, a)| **a)
                .map(|(s, _)| 1.0 / (1.0 + s.position_err / SPARSE_FLOOR))
                .sum();
            if score > best.0 && agree.iter().filter(|a| **a).count() >= 3 {
                best = (score, agree);
            }
        }
    }
    best.1
}

/// Error of a match: in a sparse field the brightest star must not decide alone, since it may be one that moves.
fn error(star: &MatchedStar, sparse: bool) -> f64 {
    star.position_err.hypot(if sparse { SPARSE_FLOOR } else { CENTROID_FLOOR })
}

fn distance(map: &Map, star: &MatchedStar) -> f64 {
    let at = map.value(star.x, star.y);
    (at[0] - star.reference_x).hypot(at[1] - star.reference_y)
}

/// Residual rms a axis of the bright stars, and how much of it their centroid errors do not explain.
fn residuals(map: &Map, stars: &[MatchedStar], used: &[bool]) -> (f64, f64) {
    let mut kept: Vec<&MatchedStar> = stars.iter().zip(used).filter(|(_, u)| **u).map(|(s, _)| s).collect();
    kept.sort_by(|a, b| a.position_err.total_cmp(&b.position_err));
    let bright = &kept[..kept.len().min((kept.len() / 2).clamp(4, 150))];
    let mut squares: Vec<f64> = bright.iter().map(|s| distance(map, s).powi(2) / 2.0).collect();
    let rms = (squares.iter().sum::<f64>() / squares.len().max(1) as f64).sqrt();
    squares.sort_by(f64::total_cmp);
    // Of a two-dimensional normal distribution the median of r²/2 is ln 2 variances.
    let scatter = squares.get(squares.len() / 2).map_or(0.0, |m| m / std::f64::consts::LN_2);
    let explained = bright.iter().map(|s| s.position_err.powi(2)).sum::<f64>() / bright.len().max(1) as f64;
    let degrees_lost = 1.0 - (6.0 / bright.len().max(7) as f64);
    (rms, (scatter / degrees_lost - explained).max(0.0).sqrt())
}

/// The map of the degree that the number of stars supports; shift and rotation alone below 12: an affine map
/// through 9 DECam matches, galaxies among them, missed by 0.3 px.
fn fit_once(domain: Domain, stars: &[&MatchedStar]) -> Option<(Map, bool)> {
    if stars.len() < MATCHES_A_COEFFICIENT * Field::terms(1) {
        return shift_and_rotation(domain, stars).map(|map| (map, true));
    }
    let degree = (1..=3).rev().find(|&d| stars.len() >= MATCHES_A_COEFFICIENT * Field::terms(d)).unwrap_or(1);
    let points: Vec<[f64; 2]> = stars.iter().map(|s| [s.x, s.y]).collect();
    let values: Vec<[f64; 2]> = stars.iter().map(|s| [s.reference_x, s.reference_y]).collect();
    let weights: Vec<f64> = stars.iter().map(|s| error(s, stars.len() <= SPARSE).powi(-2)).collect();
    Polynomial2::fit(domain, degree, &points, &values, &weights).map(|map| (map, false))
}

/// The rigid motion (with the parity that fits) between weighted point sets.
fn shift_and_rotation(domain: Domain, stars: &[&MatchedStar]) -> Option<Map> {
    let weights: Vec<f64> = stars.iter().map(|s| error(s, true).powi(-2)).collect();
    let total: f64 = weights.iter().sum();
    let mean = |of: fn(&MatchedStar) -> f64| stars.iter().zip(&weights).map(|(s, w)| w * of(s)).sum::<f64>() / total;
    let (mx, my, mu, mv) = (mean(|s| s.x), mean(|s| s.y), mean(|s| s.reference_x), mean(|s| s.reference_y));
    let best = [1.0, -1.0].map(|parity| {
        let (mut cosine, mut sine) = (0.0, 0.0);
        for (s, w) in stars.iter().zip(&weights) {
            let (x, y) = (s.x - mx, s.y - my);
            let (u, v) = (s.reference_x - mu, parity * (s.reference_y - mv));
            cosine += w * (x * u + y * v);
            sine += w * (x * v - y * u);
        }
        (cosine.hypot(sine), sine.atan2(cosine), parity)
    });
    let (strength, angle, parity) = if best[0].0 >= best[1].0 { best[0] } else { best[1] };
    if !strength.is_finite() || strength == 0.0 {
        return None;
    }
    let (sin, cos) = angle.sin_cos();
    let matrix = [[cos, -sin], [parity * sin, parity * cos]];
    let offset = [mu - matrix[0][0] * mx - matrix[0][1] * my, mv - matrix[1][0] * mx - matrix[1][1] * my];
    Some(Map::affine(domain, matrix, offset))
}

/// The flux ratio science over reference as a polynomial of ln ratio over the science image.
pub(super) struct FluxRatio {
    pub ln_ratio: Polynomial2<1>,
    /// Fractional error of the mean ratio.
    pub error: f64,
    pub used: usize,
}

/// From the stars' PSF fluxes: started at the mode of the log ratios, then clipped; `None` where fewer than
/// three stars agree.
pub(super) fn flux_ratio(shape: (usize, usize), stars: &[MatchedStar]) -> Option<FluxRatio> {
    let domain = Domain::of_image(shape.1, shape.0);
    let points: Vec<(f64, f64, &MatchedStar)> = stars
        .iter()
        .filter(|s| s.flux > 0.0 && s.reference_flux > 0.0)
        .map(|s| {
            let error = (s.flux_err / s.flux).hypot(s.reference_flux_err / s.reference_flux).hypot(FLUX_FLOOR);
            ((s.flux / s.reference_flux).ln(), error, s)
        })
        .collect();
    let mut centre = mode(&points.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>())?;
    let mut kept: Vec<&(f64, f64, &MatchedStar)> = Vec::new();
    let mut scale = 1.0;
    for _ in 0..8 {
        kept = points.iter().filter(|p| (p.0 - centre).abs() < 3.0 * scale * p.1.max(0.004)).collect();
        if kept.len() < 3 {
            return None;
        }
        let weight: f64 = kept.iter().map(|p| p.1.powi(-2)).sum();
        centre = kept.iter().map(|p| p.0 / p.1.powi(2)).sum::<f64>() / weight;
        let mut pulls: Vec<f64> = kept.iter().map(|p| (p.0 - centre).abs() / p.1).collect();
        pulls.sort_by(f64::total_cmp);
        scale = (1.4826 * pulls[pulls.len() / 2]).clamp(1.0, 4.0);
    }
    let weight: f64 = kept.iter().map(|p| (scale * p.1).powi(-2)).sum();
    let constant = Polynomial2::constant(domain, [centre]);
    let ln_ratio = gradient_of_ratio(domain, &kept, scale).unwrap_or(constant);
    Some(FluxRatio { ln_ratio, error: weight.powf(-0.5), used: kept.len() })
}

/// The median of the objects' flux ratios, where no three of them agree: a start for a fit to the images.
pub(super) fn median_ratio(shape: (usize, usize), stars: &[MatchedStar]) -> FluxRatio {
    let domain = Domain::of_image(shape.1, shape.0);
    let mut ratios: Vec<f64> =
        stars.iter().map(|s| (s.flux / s.reference_flux).ln()).filter(|ratio| ratio.is_finite()).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or(0.0);
    FluxRatio { ln_ratio: Polynomial2::constant(domain, [median]), error: 0.1, used: 0 }
}

/// A polynomial of degree 2 where the stars demand it: flat-field errors and thin cloud.
fn gradient_of_ratio(domain: Domain, kept: &[&(f64, f64, &MatchedStar)], scale: f64) -> Option<Polynomial2<1>> {
    if kept.len() < 60 {
        return None;
    }
    let places: Vec<[f64; 2]> = kept.iter().map(|p| [p.2.x, p.2.y]).collect();
    let values: Vec<[f64; 1]> = kept.iter().map(|p| [p.0]).collect();
    let weights: Vec<f64> = kept.iter().map(|p| (scale * p.1).powi(-2)).collect();
    let chi2 = |fit: &Polynomial2<1>| -> f64 {
        kept.iter().zip(&weights).map(|(p, w)| w * (p.0 - fit.value(p.2.x, p.2.y)[0]).powi(2)).sum()
    };
    let flat = Polynomial2::fit(domain, 0, &places, &values, &weights)?;
    let curved = Polynomial2::fit(domain, 2, &places, &values, &weights)?;
    (chi2(&flat) - chi2(&curved) > 30.0).then_some(curved)
}

/// The value about which most of the weight gathers, within its errors.
fn mode(values: &[(f64, f64)]) -> Option<f64> {
    let score = |centre: f64| -> f64 {
        values.iter().map(|(v, e)| (-0.5 * ((v - centre) / e.max(0.01)).powi(2)).exp() / e.max(0.01)).sum()
    };
    values.iter().map(|(v, _)| (score(*v), *v)).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, v)| v)
}

/// A star measured on both frames; `None` where either fit failed.
pub(super) fn matched(science: &FittedStar, reference: &FittedStar) -> Option<MatchedStar> {
    let star = MatchedStar {
        x: science.x,
        y: science.y,
        reference_x: reference.x,
        reference_y: reference.y,
        position_err: science.position_err.hypot(reference.position_err),
        flux: science.flux,
        flux_err: science.flux_err,
        reference_flux: reference.flux,
        reference_flux_err: reference.flux_err,
    };
    let finite =
        [star.x, star.y, star.reference_x, star.reference_y, star.position_err, star.flux, star.reference_flux]
            .iter()
            .all(|v| v.is_finite());
    (finite && science.flux > 5.0 * science.flux_err && reference.flux > 5.0 * reference.flux_err).then_some(star)
}

/// Pairs of stars of the two frames: by an offset vote about the first guess (or about the same pixels), else
/// blindly by triangles; then refined by an affine map.
pub(super) fn find_pairs(
    science: &StarList,
    reference: &StarList,
    shape: (usize, usize),
    guess: Option<&Map>,
) -> Result<Vec<(usize, usize)>, RegisterError> {
    let domain = Domain::of_image(shape.1, shape.0);
    let places =
        |list: &StarList, most: usize| -> Vec<[f64; 2]> { list.stars.iter().take(most).map(|s| [s.x, s.y]).collect() };
    let (from, to) = (places(science, VOTERS), places(reference, VOTERS));
    let identity = Map::identity(domain);
    let voted = guess.into_iter().chain([&identity]).find_map(|map| {
        let mapped: Vec<[f64; 2]> = from.iter().map(|p| map.value(p[0], p[1])).collect();
        let vote = vote::vote(&mapped, &to, VOTE_REACH).filter(|v| v.clear)?;
        let shifted: Vec<[f64; 2]> = mapped.iter().map(|p| [p[0] + vote.offset[0], p[1] + vote.offset[1]]).collect();
        let found = vote::pairs(&shifted, &to, VOTE_RADIUS);
        (found.len() >= 3).then_some(found)
    });
    let found = match voted {
        Some(found) => found,
        None => triangles::blind_match(&from, &to, SCALES).map(|m| m.pairs).unwrap_or_default(),
    };
    if found.len() < 3 {
        return Err(RegisterError::WrongField { science: science.stars.len(), reference: reference.stars.len() });
    }
    let (all_from, all_to) = (places(science, usize::MAX), places(reference, usize::MAX));
    let mut pairs = found;
    for radius in [3.0, 1.5] {
        let Some(map) = rough_map(domain, &all_from, &all_to, &pairs) else { break };
        let mapped: Vec<[f64; 2]> = all_from.iter().map(|p| map.value(p[0], p[1])).collect();
        let again = vote::pairs(&mapped, &all_to, radius);
        if again.len() < 3 {
            break;
        }
        pairs = again;
    }
    Ok(pairs)
}

/// A map through pairs some of which may be wrong: the middle half of the residuals decides.
fn rough_map(domain: Domain, from: &[[f64; 2]], to: &[[f64; 2]], pairs: &[(usize, usize)]) -> Option<Map> {
    let mut kept = pairs.to_vec();
    for _ in 0..4 {
        let points: Vec<[f64; 2]> = kept.iter().map(|p| from[p.0]).collect();
        let values: Vec<[f64; 2]> = kept.iter().map(|p| to[p.1]).collect();
        let degree = (0..=3).rev().find(|&d| kept.len() >= MATCHES_A_COEFFICIENT * Field::terms(d)).unwrap_or(0);
        let map = if degree == 0 {
            let mean = |k: usize| points.iter().zip(&values).map(|(p, v)| v[k] - p[k]).sum::<f64>() / kept.len() as f64;
            Map::affine(domain, [[1.0, 0.0], [0.0, 1.0]], [mean(0), mean(1)])
        } else {
            Polynomial2::fit(domain, degree, &points, &values, &vec![1.0; kept.len()])?
        };
        let residual = |p: &(usize, usize)| {
            let at = map.value(from[p.0][0], from[p.0][1]);
            (at[0] - to[p.1][0]).hypot(at[1] - to[p.1][1])
        };
        let mut sorted: Vec<f64> = kept.iter().map(residual).collect();
        sorted.sort_by(f64::total_cmp);
        let limit = 3.0 * sorted[sorted.len() / 2] + 0.1;
        let count = kept.len();
        kept.retain(|p| residual(p) <= limit);
        if kept.len() == count || kept.len() < 6 {
            return Some(map);
        }
    }
    let points: Vec<[f64; 2]> = kept.iter().map(|p| from[p.0]).collect();
    let values: Vec<[f64; 2]> = kept.iter().map(|p| to[p.1]).collect();
    Polynomial2::fit(domain, 1, &points, &values, &vec![1.0; kept.len()])
}
