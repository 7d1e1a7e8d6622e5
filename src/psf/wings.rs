//! What the wings of stars hold beyond the stamps that the model is fitted to.
//!
//! The Moffat profile carries the wings as far as its core foretells them; a halo of another width is not
//! foretold, and a flux that misses it is low by as much (1.9 % with a fifth of the light in a halo of twice the
//! width). The mean of bright stars in rings about them gives what is missing; it becomes part of the residual.

use ndarray::Array2;
use rayon::prelude::*;

use super::PsfModel;
use super::cosine_taper;
use super::fit::StarStamp;
use super::residual::Residual;
use super::star::refit;

/// Rings reach this far, pixels.
pub const REACH: usize = 24;
/// Stars that are looked at, at most.
pub const STARS: usize = 60;
/// Fewest stars that a ring's mean rests on.
const FEWEST: usize = 8;
/// The wings are taken as measured where their flux stands this far above its error, and above this part of all.
const SIGNIFICANT: f64 = 6.0;
const NOTABLE: f64 = 3e-3;

/// Adds what bright stars, on stamps of half side [`REACH`], hold in rings from `inner` pixels on.
pub fn add(model: &mut PsfModel, stamps: &[StarStamp], inner: f64) {
    let stars = refit(model, stamps, &vec![true; stamps.len()]);
    let reach = REACH.min(model.radius);
    let each: Vec<Vec<Option<(f64, f64)>>> = stamps
        .par_iter()
        .zip(&stars)
        .filter(|(_, star)| star.flux > 0.0)
        .map(|(stamp, star)| rings_of(model, stamp, (star.x, star.y, star.flux), reach))
        .collect();
    let mean = |ring: usize| clipped_mean(each.iter().filter_map(|star| star[ring]).collect());
    let rings: Vec<(f64, f64)> = (0..=reach)
        .map(|ring| if (ring as f64) < inner { (0.0, 0.0) } else { mean(ring).unwrap_or((0.0, 0.0)) })
        .collect();
    let pixels = |ring: usize| std::f64::consts::TAU * (ring as f64).max(0.5);
    let flux: f64 = rings.iter().enumerate().map(|(r, ring)| pixels(r) * ring.0).sum();
    let error = rings.iter().enumerate().map(|(r, ring)| (pixels(r) * ring.1).powi(2)).sum::<f64>().sqrt();
    if flux.abs() < NOTABLE || flux.abs() < SIGNIFICANT * error {
        return;
    }
    let side = 2 * REACH + 1;
    let image = Array2::from_shape_fn((side, side), |(y, x)| {
        let r = (y as f64 - REACH as f64).hypot(x as f64 - REACH as f64);
        let at = |ring: usize| rings.get(ring).map_or(0.0, |r| r.0);
        let (ring, t) = (r.floor() as usize, r.fract());
        let taper = cosine_taper(r, 0.5 * reach as f64, reach as f64);
        (taper * (at(ring) * (1.0 - t) + at(ring + 1) * t)) as f32
    });
    model.residual = Some(match model.residual.take() {
        Some(residual) => residual.with(&image),
        None => Residual::constant(image),
    });
}

/// Mean of (pixel − model) / flux in rings of one pixel's breadth, and its error; `None` where most of one is unusable.
fn rings_of(
    model: &PsfModel,
    stamp: &StarStamp,
    (x, y, flux): (f64, f64, f64),
    reach: usize,
) -> Vec<Option<(f64, f64)>> {
    let half = stamp.pixels.nrows() / 2;
    let (dx, dy) = (x - stamp.middle.0 as f64, y - stamp.middle.1 as f64);
    let profile = model.local(stamp.centre.0, stamp.centre.1).stamp(dx, dy, half);
    let mut sums = vec![(0.0, 0usize); reach + 1];
    for ((iy, ix), value) in stamp.pixels.indexed_iter().filter(|(at, _)| stamp.good[*at]) {
        let (u, v) = (ix as f64 - half as f64 - dx, iy as f64 - half as f64 - dy);
        if let Some((sum, count)) = sums.get_mut((u * u + v * v).sqrt().round() as usize) {
            *sum += f64::from(*value) / flux - f64::from(profile[[iy, ix]]);
            *count += 1;
        }
    }
    let mean = |(ring, (sum, count)): (usize, &(f64, usize))| {
        let whole = std::f64::consts::TAU * (ring as f64).max(0.5);
        let count = *count as f64;
        (count > 0.5 * whole).then(|| (sum / count, (stamp.sky_variance / count).sqrt() / flux))
    };
    sums.iter().enumerate().map(mean).collect()
}

/// Weighted mean of the values that lie within three robust sigmas of their median, and its error from their scatter.
fn clipped_mean(mut values: Vec<(f64, f64)>) -> Option<(f64, f64)> {
    if values.len() < FEWEST {
        return None;
    }
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let median = values[values.len() / 2].0;
    let mut off: Vec<f64> = values.iter().map(|v| (v.0 - median).abs() / v.1).collect();
    off.sort_by(f64::total_cmp);
    let scatter = (1.4826 * off[off.len() / 2]).max(1.0);
    let kept: Vec<&(f64, f64)> = values.iter().filter(|v| (v.0 - median).abs() < 3.0 * scatter * v.1).collect();
    let weight: f64 = kept.iter().map(|v| v.1.powi(-2)).sum();
    (kept.len() >= FEWEST)
        .then(|| (kept.iter().map(|v| v.0 / v.1.powi(2)).sum::<f64>() / weight, scatter * weight.powf(-0.5)))
}
