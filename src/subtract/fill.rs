//! Fills what cannot be used before the transforms, which would spread it.
//!
//! A saturated star's core and bleed trails are filled with the star's own PSF, its flux and place fitted
//! to the wings; a star that is saturated in one image only takes both from the other, so that what is
//! filled in cancels in the difference. Small defects are filled from their surroundings.

use ndarray::Array2;
use rayon::prelude::*;

use crate::image::{Mask, mask};
use crate::psf::PsfModel;

/// Connected unusable pixels.
#[derive(Debug, Clone)]
pub struct Patch {
    /// The pixels (x, y).
    pub pixels: Vec<(usize, usize)>,
    /// Whether a saturated star lies in it.
    pub saturated: bool,
}

/// Flux and place of a star, pixels of its own image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilledStar {
    /// Column of the centre.
    pub x: f64,
    /// Row of the centre.
    pub y: f64,
    /// Flux, electrons.
    pub flux: f64,
    /// Half the diagonal of the saturated core, pixels.
    pub core: f64,
}

/// Finds the patches of unusable pixels, diagonal neighbours included. Pixels without data belong to none.
pub fn patches(bits: &Mask) -> Vec<Patch> {
    let (height, width) = bits.dim();
    let belongs = |b: u16| b & mask::UNUSABLE & !mask::NO_DATA != 0;
    let mut seeds: Vec<(usize, usize)> = (0..height)
        .into_par_iter()
        .flat_map_iter(|y| {
            let row = bits.row(y);
            (0..width).filter(move |&x| belongs(row[x])).map(move |x| (x, y)).collect::<Vec<_>>()
        })
        .collect();
    seeds.sort_unstable();
    let mut waiting: std::collections::HashSet<(usize, usize)> = seeds.iter().copied().collect();
    let mut found = Vec::new();
    for seed in seeds {
        if !waiting.remove(&seed) {
            continue;
        }
        let mut pixels = vec![seed];
        let mut next = 0;
        while next < pixels.len() {
            let (x, y) = pixels[next];
            next += 1;
            for ny in y.saturating_sub(1)..=y + 1 {
                for nx in x.saturating_sub(1)..=x + 1 {
                    if waiting.remove(&(nx, ny)) {
                        pixels.push((nx, ny));
                    }
                }
            }
        }
        let saturated = pixels.iter().any(|&(x, y)| bits[[y, x]] & mask::SATURATED != 0);
        found.push(Patch { pixels, saturated });
    }
    found
}

/// The star of a saturated patch, fitted to the usable pixels around its core; `None` where too little
/// of it is left.
pub fn fit_saturated(
    image: &Array2<f32>,
    bits: &Mask,
    psf: &PsfModel,
    patch: &Patch,
    noise: f64,
) -> Option<FilledStar> {
    let core = core_of(bits, patch)?;
    fit_star(image, bits, psf, core, noise)
}

/// The star at about (x, y) with a core of some radius, fitted to its usable pixels; `None` where too little
/// of it is left, or where there is none.
pub fn fit_star(
    image: &Array2<f32>,
    bits: &Mask,
    psf: &PsfModel,
    core: (f64, f64, f64),
    noise: f64,
) -> Option<FilledStar> {
    let local = psf.local(core.0, core.1);
    let half = ((core.2 + 4.0 * local.moffat.fwhm()).ceil() as usize).clamp(8, 45);
    let (height, width) = image.dim();
    let (mut x, mut y, mut flux) = (core.0, core.1, 0.0);
    for step in 0..8 {
        let middle = (x.round().max(0.0) as usize, y.round().max(0.0) as usize);
        let (dx, dy) = (x - middle.0 as f64, y - middle.1 as f64);
        let profile = local.stamp(dx, dy, half);
        let by_x = local.stamp(dx + 0.1, dy, half) - local.stamp(dx - 0.1, dy, half);
        let by_y = local.stamp(dx, dy + 0.1, half) - local.stamp(dx, dy - 0.1, half);
        let mut normal = nalgebra::Matrix3::<f64>::zeros();
        let mut gradient = nalgebra::Vector3::<f64>::zeros();
        let mut used = 0;
        for ((iy, ix), value) in profile.indexed_iter() {
            let (px, py) = ((middle.0 + ix).wrapping_sub(half), (middle.1 + iy).wrapping_sub(half));
            if px >= width || py >= height || bits[[py, px]] & mask::UNUSABLE != 0 {
                continue;
            }
            let value = f64::from(*value);
            let model = flux * value;
            // The model is good to some percent where the star is this bright.
            let weight = 1.0 / (noise * noise + model.max(0.0) + (0.05 * model).powi(2));
            let j = nalgebra::Vector3::new(
                value,
                flux * 5.0 * f64::from(by_x[[iy, ix]]),
                flux * 5.0 * f64::from(by_y[[iy, ix]]),
            );
            normal += j * j.transpose() * weight;
            gradient += j * (weight * (f64::from(image[[py, px]]) - model));
            used += 1;
        }
        if used < 20 {
            return None;
        }
        if step == 0 {
            flux = gradient[0] / normal[(0, 0)].max(1e-30);
            continue;
        }
        let Some(inverse) = normal.try_inverse() else { break };
        let change = inverse * gradient;
        flux += change[0];
        x += change[1].clamp(-0.5, 0.5);
        y += change[2].clamp(-0.5, 0.5);
    }
    let strayed = (x - core.0).hypot(y - core.1) > core.2 + 3.0;
    (flux.is_finite() && flux > 0.0 && !strayed).then_some(FilledStar { x, y, flux, core: core.2 })
}

/// Centre and half diagonal of the saturated part of a patch. Bleed trails run along one axis: the centre
/// is where the patch is widest.
fn core_of(bits: &Mask, patch: &Patch) -> Option<(f64, f64, f64)> {
    let saturated: Vec<(usize, usize)> =
        patch.pixels.iter().copied().filter(|&(x, y)| bits[[y, x]] & mask::SATURATED != 0).collect();
    let median = |mut values: Vec<usize>| {
        let middle = values.len() / 2;
        (!values.is_empty()).then(|| *values.select_nth_unstable(middle).1)
    };
    let x = median(saturated.iter().map(|p| p.0).collect())?;
    // Rows of the trail hold few pixels, rows of the core many: weight each row by its width.
    let mut widths = std::collections::BTreeMap::<usize, usize>::new();
    for (_, y) in &saturated {
        *widths.entry(*y).or_default() += 1;
    }
    let widest = widths.values().copied().max()?;
    let rows: Vec<usize> = widths.iter().filter(|(_, w)| 2 * **w >= widest).map(|(y, _)| *y).collect();
    let y = median(rows.clone())?;
    let columns: Vec<f64> = saturated.iter().filter(|p| rows.contains(&p.1)).map(|p| p.0 as f64).collect();
    let mean_x = columns.iter().sum::<f64>() / columns.len().max(1) as f64;
    let x = if columns.is_empty() { x as f64 } else { mean_x };
    let mean_y = rows.iter().sum::<usize>() as f64 / rows.len().max(1) as f64;
    Some((x, if rows.is_empty() { y as f64 } else { mean_y }, 0.5 * (widest as f64).hypot(rows.len() as f64)))
}

/// What fills a patch with the star, in the order of its pixels.
pub fn from_star(psf: &PsfModel, patch: &Patch, star: &FilledStar) -> Vec<f32> {
    let local = psf.local(star.x, star.y);
    let reach = local_reach(patch, star).min(psf.radius());
    let middle = (star.x.round().max(0.0) as usize, star.y.round().max(0.0) as usize);
    let stamp = local.stamp(star.x - middle.0 as f64, star.y - middle.1 as f64, reach);
    let value = |&(x, y): &(usize, usize)| {
        let (ix, iy) = ((x + reach).wrapping_sub(middle.0), (y + reach).wrapping_sub(middle.1));
        stamp.get([iy, ix]).map_or(0.0, |v| (star.flux * f64::from(*v)) as f32)
    };
    patch.pixels.iter().map(value).collect()
}

fn local_reach(patch: &Patch, star: &FilledStar) -> usize {
    let farthest =
        patch.pixels.iter().map(|&(x, y)| (x as f64 - star.x).abs().max((y as f64 - star.y).abs())).fold(0.0, f64::max);
    farthest.ceil() as usize + 2
}

/// What fills a patch from the usable pixels around it, nearer ones counting more, in the order of its pixels;
/// the sky where there are none.
pub fn from_surroundings(image: &Array2<f32>, bits: &Mask, patch: &Patch) -> Vec<f32> {
    const REACH: usize = 4;
    let (height, width) = image.dim();
    let value = |&(x, y): &(usize, usize)| {
        let (mut sum, mut weights) = (0.0, 0.0);
        for py in y.saturating_sub(REACH)..(y + REACH + 1).min(height) {
            for px in x.saturating_sub(REACH)..(x + REACH + 1).min(width) {
                if bits[[py, px]] & mask::UNUSABLE == 0 {
                    let r2 = (px as f32 - x as f32).powi(2) + (py as f32 - y as f32).powi(2);
                    let weight = 1.0 / (r2 * r2);
                    sum += weight * image[[py, px]];
                    weights += weight;
                }
            }
        }
        if weights > 0.0 { sum / weights } else { 0.0 }
    };
    patch.pixels.iter().map(value).collect()
}
