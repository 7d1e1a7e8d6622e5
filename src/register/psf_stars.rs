//! Chooses the stars that make the PSF models, and cuts out their pixels.

use ndarray::Array2;
use rayon::prelude::*;

use super::stars::{Star, StarList};
use crate::calibrate::CalibratedFrame;
use crate::image::mask;
use crate::psf::PsfModel;
use crate::psf::fit::StarStamp;

/// Significance that a PSF star has, relaxed step by step where there are too few.
const SIGNIFICANCE: [f64; 4] = [60.0, 30.0, 20.0, 12.0];
/// Enough stars for a model of degree 2 with a residual; spread over the field.
const ENOUGH: usize = 60;
const MOST: usize = 180;
/// FWHM, pixels, beyond which fewer stars serve, as their stamps grow: a broad PSF has pixels enough.
const BROAD: f64 = 5.0;
/// The field is divided into this many cells an axis, each giving its best stars.
const CELLS: usize = 8;

/// Indices of the PSF stars among `candidates` (indices into `list`), best spread over the field.
pub fn choose(list: &StarList, candidates: &[usize], frame: &CalibratedFrame) -> Vec<usize> {
    let sizes = locus_of_sizes(list, candidates);
    let mut chosen = Vec::new();
    for significance in SIGNIFICANCE {
        chosen = candidates
            .iter()
            .copied()
            .filter(|&i| {
                let star = &list.stars[i];
                let fits = sizes.is_none_or(|(low, high)| (low..high).contains(&star.size));
                star.snr > significance
                    && fits
                    && star.is_clean()
                    && is_isolated(list, i)
                    && stamp_is_clean(frame, star, list.fwhm)
            })
            .collect();
        if chosen.len() >= ENOUGH {
            break;
        }
    }
    spread(list, chosen, frame)
}

/// Bounds of the sizes of stars: the smallest significant locus, since galaxies may outnumber the stars.
fn locus_of_sizes(list: &StarList, candidates: &[usize]) -> Option<(f64, f64)> {
    let mut sizes: Vec<f64> =
        candidates.iter().map(|&i| &list.stars[i]).filter(|s| s.snr > 15.0 && s.is_clean()).map(|s| s.size).collect();
    if sizes.len() < 4 {
        return None;
    }
    sizes.sort_by(f64::total_cmp);
    let locus = super::stars::smallest_locus(&sizes)?;
    Some((0.75 * locus, 1.2 * locus))
}

/// No neighbour within three FWHM that is brighter than a twentieth of the star.
fn is_isolated(list: &StarList, index: usize) -> bool {
    let star = &list.stars[index];
    let radius = 3.0 * list.fwhm;
    list.stars.iter().take_while(|other| other.flux > 0.05 * star.flux).all(|other| {
        (other.x - star.x).abs() > radius || (other.y - star.y).abs() > radius || std::ptr::eq(other, star)
    })
}

fn stamp_is_clean(frame: &CalibratedFrame, star: &Star, fwhm: f64) -> bool {
    let reach = (2.5 * fwhm).ceil() as isize;
    let (cx, cy) = (star.x.round() as isize, star.y.round() as isize);
    let bits = frame.mask();
    (cy - reach..=cy + reach).all(|y| {
        (cx - reach..=cx + reach).all(|x| {
            usize::try_from(x)
                .ok()
                .zip(usize::try_from(y).ok())
                .and_then(|(x, y)| bits.get([y, x]))
                .is_some_and(|b| b & mask::UNUSABLE == 0)
        })
    })
}

/// The brightest of each cell of the field, cell by cell, until there are enough.
fn spread(list: &StarList, mut chosen: Vec<usize>, frame: &CalibratedFrame) -> Vec<usize> {
    let most = (MOST as f64 * (BROAD / list.fwhm).min(1.0).powi(2)).ceil() as usize;
    let most = most.max(ENOUGH);
    if chosen.len() <= most {
        return chosen;
    }
    chosen.sort_by(|&a, &b| list.stars[b].snr.total_cmp(&list.stars[a].snr));
    let (height, width) = frame.pixels().shape();
    let cell = |s: &Star| {
        let column = (s.x / width as f64 * CELLS as f64) as usize;
        let row = (s.y / height as f64 * CELLS as f64) as usize;
        row.min(CELLS - 1) * CELLS + column.min(CELLS - 1)
    };
    let each = most / (CELLS * CELLS) + 1;
    let mut counts = [0usize; CELLS * CELLS];
    chosen.retain(|&i| {
        let count = &mut counts[cell(&list.stars[i])];
        *count += 1;
        *count <= each
    });
    chosen.truncate(most);
    chosen
}

/// Half side of the stamps of PSF stars for this FWHM, pixels.
pub fn stamp_half(fwhm: f64) -> usize {
    (4.0 * fwhm).ceil().clamp(7.0, 40.0) as usize
}

/// Cuts out the stars' pixels; stars too near the edge are left out (`None`). Neighbours are subtracted
/// where a model is given, else their surroundings are not used.
pub fn cut(
    frame: &CalibratedFrame,
    list: &StarList,
    chosen: &[usize],
    model: Option<&PsfModel>,
) -> Vec<Option<StarStamp>> {
    cut_to(frame, list, chosen, model, stamp_half(list.fwhm))
}

/// The same with stamps of another half side.
pub fn cut_to(
    frame: &CalibratedFrame,
    list: &StarList,
    chosen: &[usize],
    model: Option<&PsfModel>,
    half: usize,
) -> Vec<Option<StarStamp>> {
    let index = NeighbourIndex::new(list, frame.pixels().shape(), 2 * half);
    chosen.par_iter().map(|&i| cut_one(frame, list, i, half, model, &index)).collect()
}

fn cut_one(
    frame: &CalibratedFrame,
    list: &StarList,
    index: usize,
    half: usize,
    model: Option<&PsfModel>,
    neighbours: &NeighbourIndex,
) -> Option<StarStamp> {
    let star = &list.stars[index];
    let pixels = &frame.pixels().pixels;
    let (height, width) = pixels.dim();
    let middle = (star.x.round().max(0.0) as usize, star.y.round().max(0.0) as usize);
    if middle.0 < half || middle.1 < half || middle.0 + half >= width || middle.1 + half >= height {
        return None;
    }
    let (x0, y0) = (middle.0 - half, middle.1 - half);
    let side = 2 * half + 1;
    let mut stamp = Array2::from_shape_fn((side, side), |(y, x)| pixels[[y0 + y, x0 + x]]);
    let mut good = Array2::from_shape_fn((side, side), |(y, x)| frame.mask()[[y0 + y, x0 + x]] & mask::UNUSABLE == 0);
    for &other in neighbours.near(star.x, star.y).iter().filter(|&&other| other != index) {
        let neighbour = &list.stars[other];
        let (dx, dy) = (neighbour.x - middle.0 as f64, neighbour.y - middle.1 as f64);
        let reach = half as f64 + 2.0 * list.fwhm;
        if dx.abs() > reach || dy.abs() > reach || neighbour.flux < 0.002 * star.flux {
            continue;
        }
        match model {
            Some(model) if neighbour.is_clean() => subtract_star(&mut stamp, model, neighbour, (dx, dy), list.fwhm),
            _ => {
                let radius = if neighbour.is_clean() { 1.5 } else { 4.0 } * list.fwhm;
                for ((y, x), good) in good.indexed_iter_mut() {
                    let (u, v) = (x as f64 - half as f64 - dx, y as f64 - half as f64 - dy);
                    *good &= u * u + v * v > radius * radius;
                }
            }
        }
    }
    let (sky_variance, source_variance) = noise_of(frame, middle, half);
    Some(StarStamp { middle, centre: (star.x, star.y), pixels: stamp, sky_variance, source_variance, good })
}

/// Takes a neighbour away: its aperture flux turned into a PSF flux by the model's own aperture.
fn subtract_star(stamp: &mut Array2<f32>, model: &PsfModel, star: &Star, offset: (f64, f64), fwhm: f64) {
    let local = model.local(star.x, star.y);
    let half = stamp.nrows() / 2;
    let image = local.stamp(offset.0, offset.1, half);
    let radius = fwhm.max(1.5);
    let reach = (radius + 2.0) as usize;
    let centred = local.stamp(0.0, 0.0, reach);
    let inside: f64 = centred
        .indexed_iter()
        .map(|((y, x), v)| {
            let distance = (x as f64 - reach as f64).hypot(y as f64 - reach as f64);
            (radius + 0.5 - distance).clamp(0.0, 1.0) * f64::from(*v)
        })
        .sum();
    if inside > 0.1 {
        stamp.scaled_add(-(star.flux / inside) as f32, &image);
    }
}

/// Variance of the sky at a stamp, and what an electron of source adds to the variance.
fn noise_of(frame: &CalibratedFrame, middle: (usize, usize), half: usize) -> (f64, f64) {
    let variance = &frame.variance().pixels;
    let pixels = &frame.pixels().pixels;
    let (mut sky, mut source, mut flux) = (Vec::new(), 0.0, 0.0);
    for y in middle.1 - half..=middle.1 + half {
        for x in middle.0 - half..=middle.0 + half {
            sky.push(variance[[y, x]]);
        }
    }
    let low = sky.len() / 5;
    let sky_variance = f64::from(*sky.select_nth_unstable_by(low, f32::total_cmp).1).max(1e-12);
    for y in middle.1 - half / 3..=middle.1 + half / 3 {
        for x in middle.0 - half / 3..=middle.0 + half / 3 {
            source += f64::from(variance[[y, x]]) - sky_variance;
            flux += f64::from(pixels[[y, x]].max(0.0));
        }
    }
    (sky_variance, if flux > 0.0 { (source / flux).clamp(0.0, 1e3) } else { 0.0 })
}

/// Stars by cells, for finding neighbours.
struct NeighbourIndex {
    cell: f64,
    columns: usize,
    cells: Vec<Vec<usize>>,
}

impl NeighbourIndex {
    fn new(list: &StarList, (height, width): (usize, usize), cell: usize) -> Self {
        let columns = width / cell + 1;
        let mut cells = vec![Vec::new(); columns * (height / cell + 1)];
        for (i, star) in list.stars.iter().enumerate() {
            cells[star.y as usize / cell * columns + star.x as usize / cell].push(i);
        }
        Self { cell: cell as f64, columns, cells }
    }

    /// Stars in the cell of a place and the eight around it.
    fn near(&self, x: f64, y: f64) -> Vec<usize> {
        let (column, row) = ((x / self.cell) as isize, (y / self.cell) as isize);
        let mut found = Vec::new();
        for r in row - 1..=row + 1 {
            for c in column - 1..=column + 1 {
                let inside = r >= 0 && c >= 0 && (c as usize) < self.columns;
                let cell = inside.then(|| self.cells.get(r as usize * self.columns + c as usize)).flatten();
                found.extend(cell.into_iter().flatten());
            }
        }
        found
    }
}
