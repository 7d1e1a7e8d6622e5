//! Whether the stars of the reference shine on the science image as they should: clouds, a half-closed dome and
//! another filter leave the registration in order, and the difference full of changes.

use std::collections::HashMap;

use super::polynomial::Map;
use super::stars::{Star, StarList};
use crate::image::{Mask, mask};

/// Stars are looked for that the science image should show at this significance.
const EXPECTED_SNR: f64 = 40.0;
/// A star is the same within this distance, pixels of the reference, and this part of its flux.
const SAME_PLACE: f64 = 2.0;
const SAME_FLUX: f64 = 0.5;
/// Sizes of stars, in units of the median of those in common.
const SIZES: (f64, f64) = (0.88, 1.15);
/// No star is looked for nearer to the edge of the science image, pixels.
const EDGE: f64 = 30.0;

/// Stars of the reference that the science image shows as bright as most of them, and all that it should show;
/// `pairs` are indices of stars in common.
pub(super) fn kept(
    science: &StarList,
    reference: &StarList,
    pairs: &[(usize, usize)],
    map: &Map,
    bits: &Mask,
) -> (usize, usize) {
    let (height, width) = bits.dim();
    let usable = |s: &Star| s.is_clean() && s.flux > 0.0 && s.snr > 0.0;
    let mut ratios: Vec<f64> = pairs
        .iter()
        .map(|&(s, r)| (&science.stars[s], &reference.stars[r]))
        .filter(|(s, r)| usable(s) && usable(r) && s.snr > EXPECTED_SNR && r.snr > EXPECTED_SNR)
        .map(|(s, r)| s.flux / r.flux)
        .collect();
    let mut noises: Vec<f64> = science.stars.iter().filter(|s| usable(s)).map(|s| s.flux / s.snr).collect();
    let (Some(ratio), Some(noise)) = (median(&mut ratios), median(&mut noises)) else { return (0, 0) };
    let mut places = HashMap::<(i64, i64), Vec<(f64, f64, &Star)>>::new();
    let cell = |x: f64, y: f64| ((x / SAME_PLACE).floor() as i64, (y / SAME_PLACE).floor() as i64);
    for star in &science.stars {
        let [x, y] = map.value(star.x, star.y);
        places.entry(cell(x, y)).or_default().push((x, y, star));
    }
    let mut sizes: Vec<f64> = pairs.iter().map(|&(_, r)| reference.stars[r].size).collect();
    let size = median(&mut sizes).unwrap_or(1.0);
    // A reference of one exposure has cosmic rays, of all sizes but a star's.
    let is_star = |s: &Star| (SIZES.0 * size..SIZES.1 * size).contains(&s.size);
    let inside = |star: &Star| {
        map.inverse([star.x, star.y], [star.x, star.y]).is_some_and(|[x, y]| {
            (EDGE..width as f64 - EDGE).contains(&x)
                && (EDGE..height as f64 - EDGE).contains(&y)
                && bits[[y as usize, x as usize]] & mask::UNUSABLE == 0
        })
    };
    let looked_for = reference.stars.iter().filter(|r| {
        usable(r) && is_star(r) && r.snr > EXPECTED_SNR && r.flux * ratio > EXPECTED_SNR * noise && inside(r)
    });
    looked_for.fold((0, 0), |(kept, of), star| {
        let (column, row) = cell(star.x, star.y);
        let near = (column - 1..=column + 1).flat_map(|c| (row - 1..=row + 1).map(move |r| (c, r)));
        let same = near.filter_map(|c| places.get(&c)).flatten().any(|(x, y, other)| {
            // A star that is saturated here is there all the same.
            let flux = !other.is_clean() || ((other.flux / star.flux / ratio).ln().abs() < SAME_FLUX);
            (x - star.x).hypot(y - star.y) < SAME_PLACE && flux
        });
        (kept + usize::from(same), of + 1)
    })
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
