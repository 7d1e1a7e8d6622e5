//! Whether the science image shows a point source or the track of a charged particle: a ratio of likelihoods.
//!
//! A particle leaves its charge along a line of any length, in pixels that light has not blurred; what looks
//! like the PSF at first sight is often a short or a faint track. Straight tracks of several lengths, angles and widths
//! are laid through the source, and the best of them is held against the best point source: on the science image, whose
//! noise is white, not on D.

use std::f64::consts::PI;
use std::sync::LazyLock;

use super::fit::Pixels;
use super::place::Place;
use crate::image::mask;
use crate::subtract::Difference;

/// Pixels of the comparison are within this distance of the source along each axis.
const HALF: usize = 4;
const SIDE: usize = 2 * HALF + 1;
/// And within this distance of it, pixels: what is farther off is not about this source.
const RADIUS: f64 = 4.5;
/// A source beside a track explains this part of what it explains alone.
const BESIDE: f64 = 0.4;
/// Pixels of a row in memory; those beyond [`SIDE`] have no weight.
const ROW: usize = 12;
/// Pixels that a template has beyond the comparison, for middles beside the source.
const MARGIN: usize = 4;
const ROWS: usize = SIDE + 2 * MARGIN;
const COLUMNS: usize = ROW + 2 * MARGIN;
/// How far from the source a track's middle may lie, pixels.
const FARTHEST: f64 = 3.0;
/// Lengths of tracks, pixels, and angles of each; the first look takes every second angle of the longer ones.
const LENGTHS: [(f64, usize); 6] = [(0.0, 1), (1.5, 8), (3.0, 16), (5.0, 16), (8.0, 16), (14.0, 16)];
const MANY_ANGLES: usize = 16;
/// A track is sampled this often, pixels.
const SAMPLING: f64 = 0.25;
/// Widths, Gaussian sigma, pixels: a pixel's own and that of the charge that spreads. The middle one is tried first.
const FIRST_WIDTH: f64 = 0.38;
const WIDTHS: [f64; 2] = [0.30, 0.46];
/// Places of a middle in a pixel along each axis, of the first look and of the second.
const FIRST_PHASES: usize = 2;
const PHASES: usize = 4;
/// Steps of the middle along and across of the first look, of the second, and of a point, pixels.
const FIRST_STEPS: (f64, f64) = (1.0, 0.5);
const STEP: f64 = 0.25;
/// Lines of the first look that get a second.
const SECOND_LOOKS: usize = 2;
/// The second look gains this part of what the first explains at most; and how far below light a track is out of the question.
const MOST_GAINED: f64 = 0.2;
const CERTAIN: f64 = 20.0;
/// What may be wrong with the PSF, as a part of a pixel's own light, and of what the reference holds there.
const MODEL_ERROR: f64 = 0.02;
const REFERENCE_ERROR: f64 = 0.3;

/// By rows; more columns than rows, so that rows can be read whole from any shift.
type Image = [[f32; COLUMNS]; ROWS];

/// Tracks of one length and direction, with their middles at each phase of the middle pixel.
struct Line {
    length: f64,
    direction: (f64, f64),
    phases: usize,
    images: Vec<Image>,
}

struct Tracks {
    first: Vec<Line>,
    /// For each of the first those of this direction and of the ones beside it, with each width.
    second: Vec<Vec<Line>>,
}

static TRACKS: LazyLock<Tracks> = LazyLock::new(|| {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (length, angles) in LENGTHS {
        let step = if angles < MANY_ANGLES { 1 } else { 2 };
        let direction = |k: isize| {
            let (sin, cos) = (k as f64 * PI / angles as f64).sin_cos();
            (cos, sin)
        };
        let beside: &[isize] = if step == 1 { &[0] } else { &[-1, 0, 1] };
        for k in (0..angles as isize).step_by(step) {
            first.push(Line::new(length, direction(k), FIRST_WIDTH, FIRST_PHASES));
            let near = beside.iter().flat_map(|d| WIDTHS.map(|w| Line::new(length, direction(k + d), w, PHASES)));
            second.push(near.collect());
        }
    }
    Tracks { first, second }
});

impl Line {
    fn new(length: f64, direction: (f64, f64), width: f64, phases: usize) -> Self {
        let at = |k: usize| (k as f64 + 0.5) / phases as f64 - 0.5;
        let images = (0..phases * phases).map(|p| track(length, direction, width, (at(p % phases), at(p / phases))));
        Self { length, direction, phases, images: images.collect() }
    }

    /// By how much the track with its middle at (x, y) from the stamp's middle lowers chi².
    fn gain(&self, stamp: &Stamp, x: f64, y: f64) -> f64 {
        let (image, left, top) = self.shifted(x, y);
        let [fit, size] = stamp.products(image, left, top);
        explained(fit, size)
    }

    fn shifted(&self, x: f64, y: f64) -> (&Image, usize, usize) {
        let limit = MARGIN as f64 - 0.01;
        let (x, y) = (x.clamp(-limit, limit), y.clamp(-limit, limit));
        let (column, row) = (x.round(), y.round());
        let phase = |rest: f64| (((rest + 0.5) * self.phases as f64) as usize).min(self.phases - 1);
        // Pixel i of the stamp is pixel i + MARGIN − shift of the image.
        let start = |shift: f64| (MARGIN as f64 - shift) as usize;
        (&self.images[phase(y - row) * self.phases + phase(x - column)], start(column), start(row))
    }

    /// The middle that is `along` and `across` from (x, y).
    fn middle(&self, (x, y): (f64, f64), along: f64, across: f64) -> (f64, f64) {
        let (cos, sin) = self.direction;
        (x + along * cos - across * sin, y + along * sin + across * cos)
    }
}

/// A track with its middle at `middle` from the middle pixel.
fn track(length: f64, (cos, sin): (f64, f64), width: f64, middle: (f64, f64)) -> Image {
    let mut image = [[0.0; COLUMNS]; ROWS];
    let samples = (length / SAMPLING).round() as usize + 1;
    let falls = |offset: f64| (-0.5 * (offset / width).powi(2)).exp();
    let centre = (MARGIN + HALF) as f64;
    for sample in 0..samples {
        let along = if samples > 1 { length * (sample as f64 / (samples - 1) as f64 - 0.5) } else { 0.0 };
        let (x, y) = (centre + middle.0 + along * cos, centre + middle.1 + along * sin);
        let columns: [f64; COLUMNS] = std::array::from_fn(|i| falls(i as f64 - x));
        for (row, pixels) in image.iter_mut().enumerate() {
            let across = falls(row as f64 - y) / samples as f64;
            for (pixel, column) in pixels.iter_mut().zip(&columns) {
                *pixel += (across * column) as f32;
            }
        }
    }
    image
}

/// What is compared: the science image less the reference.
struct Stamp {
    /// Values times weights.
    weighted: [[f32; ROW]; SIDE],
    weights: [[f32; ROW]; SIDE],
}

/// How much of chi² a profile explains, from its product with the weighted values and its own square.
fn explained(fit: f32, size: f32) -> f64 {
    if fit > 0.0 && size > 0.0 { f64::from(fit) * f64::from(fit) / f64::from(size) } else { 0.0 }
}

impl Stamp {
    /// The pixels about a source; `None` where they reach over the edge.
    fn new(difference: &Difference, column: usize, row: usize) -> Option<Self> {
        let (science, variance) = (&difference.science.pixels().pixels, &difference.science.variance().pixels);
        let (mut weighted, mut weights) = ([[0.0; ROW]; SIDE], [[0.0; ROW]; SIDE]);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let at = [(row + y).checked_sub(HALF)?, (column + x).checked_sub(HALF)?];
                let template = difference.template.pixels.get(at)?;
                let value = f64::from(science.get(at)? - template);
                let distance = (y as f64 - HALF as f64).hypot(x as f64 - HALF as f64);
                if distance > RADIUS || difference.mask.get(at)? & mask::UNUSABLE != 0 {
                    continue;
                }
                let noise = f64::from(*variance.get(at)?) + f64::from(*difference.template_variance.pixels.get(at)?);
                let model = (MODEL_ERROR * value).powi(2) + (REFERENCE_ERROR * f64::from(*template)).powi(2);
                let weight = 1.0 / (noise + model).max(1e-12);
                weights[y][x] = weight as f32;
                weighted[y][x] = (weight * value) as f32;
            }
        }
        Some(Self { weighted, weights })
    }

    /// Products of an image, read from (left, top), with the weighted values and with itself.
    fn products(&self, image: &Image, left: usize, top: usize) -> [f32; 2] {
        products(&image[top..top + SIDE], left, &self.weighted, &self.weights)
    }

    /// What light from these places, from the middle pixel, explains, and its image: the science PSF at each.
    fn light(&self, place: &Place, points: impl Iterator<Item = (f64, f64)>) -> (f64, Image) {
        let mut image = [[0.0; COLUMNS]; ROWS];
        for (x, y) in points {
            for (out, row) in image.iter_mut().zip(place.star(x, y, HALF).outer_iter()) {
                for (out, value) in out.iter_mut().zip(row) {
                    *out += *value;
                }
            }
        }
        let [fit, size] = self.products(&image, 0, 0);
        (explained(fit, size), image)
    }

    /// By how much a point source and a track together lower chi².
    fn together(&self, point: &Image, (track, left, top): (&Image, usize, usize)) -> f64 {
        let ([pd, pp], [td, tt]) = (self.products(point, 0, 0), self.products(track, left, top));
        let mut pt = 0.0f32;
        for y in 0..SIDE {
            for x in 0..SIDE {
                pt += point[y][x] * track[top + y][left + x] * self.weights[y][x];
            }
        }
        let [pd, pp, td, tt, pt] = [pd, pp, td, tt, pt].map(f64::from);
        let determinant = pp * tt - pt * pt;
        let (point, track) = ((tt * pd - pt * td) / determinant, (pp * td - pt * pd) / determinant);
        if determinant > 1e-6 * pp * tt && point > 0.0 && track > 0.0 { point * pd + track * td } else { 0.0 }
    }
}

#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn products(
    rows: &[[f32; COLUMNS]],
    left: usize,
    weighted: &[[f32; ROW]; SIDE],
    weights: &[[f32; ROW]; SIDE],
) -> [f32; 2] {
    let (mut fit, mut size) = ([0.0f32; ROW], [0.0f32; ROW]);
    for ((row, v), w) in rows.iter().zip(weighted).zip(weights) {
        let row = &row[left..left + ROW];
        for i in 0..ROW {
            fit[i] += row[i] * v[i];
            size[i] += row[i] * row[i] * w[i];
        }
    }
    [fit.iter().sum(), size.iter().sum()]
}

/// Chi² of the best point source less that of the best track, at a source (dx, dy) from the middle pixel of `pixels`:
/// positive where a track fits better. Where the two together explain much more than the track, there is a source
/// beside a track, and what it adds is given, with a minus.
pub(super) fn likeness(difference: &Difference, place: &Place, pixels: &Pixels, dx: f64, dy: f64) -> Option<f64> {
    let stamp = Stamp::new(difference, pixels.column, pixels.row)?;
    let near = [-STEP, 0.0, STEP];
    let points = near.iter().flat_map(|v| near.iter().map(move |u| (dx + u, dy + v)));
    let stars = points.map(|(x, y)| stamp.light(place, [(x, y)].into_iter()));
    let (point, star) = stars.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let (track, images) = best_track(&stamp, (dx, dy), point)?;
    let beside = stamp.together(&star, images) - track;
    Some(if beside > BESIDE * point { -beside } else { track - point })
}

/// The same of a source that moved along a line of `length` and `angle` about (x, y) on the image.
pub(super) fn likeness_of_trail(
    difference: &Difference,
    place: &Place,
    (x, y): (f64, f64),
    length: f64,
    angle: f64,
) -> Option<f64> {
    let (column, row) = (x.round().max(0.0), y.round().max(0.0));
    let stamp = Stamp::new(difference, column as usize, row as usize)?;
    let (dx, dy) = (x - column, y - row);
    // What is farther away than the stamp and a PSF does not matter.
    let shown = length.min(4.0 * HALF as f64);
    let steps = (shown / (2.0 * STEP)).ceil().max(1.0);
    let (sin, cos) = angle.sin_cos();
    let points = (0..=steps as usize).map(|i| {
        let along = shown * (i as f64 / steps - 0.5);
        (dx + along * cos, dy + along * sin)
    });
    let (trail, _) = stamp.light(place, points);
    Some(best_track(&stamp, (dx, dy), trail)?.0 - trail)
}

/// What the best track explains, and its image; after the first look where it cannot come near to what light explains.
fn best_track(stamp: &Stamp, source: (f64, f64), light: f64) -> Option<(f64, (&'static Image, usize, usize))> {
    let mut looks: Vec<(f64, usize, f64, f64)> = TRACKS
        .first
        .iter()
        .enumerate()
        .filter_map(|(i, line)| {
            let steps = ((0.5 * line.length).clamp(FIRST_STEPS.0, FARTHEST) / FIRST_STEPS.0) as i32;
            let places = (-steps..=steps).flat_map(|a| (-1..=1).map(move |b| (f64::from(a), f64::from(b))));
            let gains = places.map(|(a, b)| {
                let (along, across) = (a * FIRST_STEPS.0, b * FIRST_STEPS.1);
                let (x, y) = line.middle(source, along, across);
                (line.gain(stamp, x, y), i, along, across)
            });
            gains.max_by(|a, b| a.0.total_cmp(&b.0))
        })
        .collect();
    looks.sort_by(|a, b| b.0.total_cmp(&a.0));
    let &(first, i, along, across) = looks.first()?;
    if first * (1.0 + MOST_GAINED) + CERTAIN < light {
        let (x, y) = TRACKS.first[i].middle(source, along, across);
        return Some((first, TRACKS.first[i].shifted(x, y)));
    }
    let second = looks.iter().take(SECOND_LOOKS).flat_map(|&(_, i, along, across)| {
        TRACKS.second[i].iter().flat_map(move |line| {
            let steps = |n: i32| (-n..=n).map(|k| f64::from(k) * STEP);
            steps(2).flat_map(move |a| {
                steps(1).map(move |b| {
                    let (x, y) = line.middle(source, along + a, across + b);
                    (line.gain(stamp, x, y), line.shifted(x, y))
                })
            })
        })
    });
    second.max_by(|a, b| a.0.total_cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stamp of this light on noise of 1.
    fn stamp_of(image: &Image, scale: f32) -> Stamp {
        let (mut weighted, mut weights) = ([[0.0; ROW]; SIDE], [[0.0; ROW]; SIDE]);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let (u, v) = (x as f64 - HALF as f64, y as f64 - HALF as f64);
                if u.hypot(v) <= RADIUS {
                    weights[y][x] = 1.0;
                    weighted[y][x] = scale * image[y][x];
                }
            }
        }
        Stamp { weighted, weights }
    }

    fn star(x: f64, y: f64) -> Image {
        let mut image = [[0.0; COLUMNS]; ROWS];
        for (row, pixels) in image.iter_mut().enumerate() {
            for (column, pixel) in pixels.iter_mut().enumerate() {
                let (u, v) = (column as f64 - HALF as f64 - x, row as f64 - HALF as f64 - y);
                *pixel = (-0.5 * (u * u + v * v) / 0.95f64.powi(2)).exp() as f32;
            }
        }
        image
    }

    fn gain(stamp: &Stamp, image: &Image) -> f64 {
        let [fit, size] = stamp.products(image, 0, 0);
        explained(fit, size)
    }

    #[test]
    fn a_star_is_no_track_and_a_track_no_star() {
        let light = star(0.2, -0.3);
        let stamp = stamp_of(&light, 20.0);
        let (track, _) = best_track(&stamp, (0.2, -0.3), gain(&stamp, &light)).unwrap();
        assert!(gain(&stamp, &light) > 1.1 * track, "{} {track}", gain(&stamp, &light));
        for (length, angle) in [(0.0, 0.0), (2.2, 0.4), (4.0, 2.0), (9.0, 1.1_f64)] {
            let (sin, cos) = angle.sin_cos();
            let drawn = track_at(length, (cos, sin), 0.35);
            let stamp = stamp_of(&drawn, 20.0);
            let (track, _) = best_track(&stamp, (0.0, 0.0), 0.0).unwrap();
            assert!(track > 1.05 * gain(&stamp, &star(0.0, 0.0)), "length {length}");
        }
    }

    /// A track through the middle of a stamp.
    fn track_at(length: f64, direction: (f64, f64), width: f64) -> Image {
        let wide = super::track(length, direction, width, (0.125, -0.125));
        let mut image = [[0.0; COLUMNS]; ROWS];
        for y in 0..SIDE {
            for x in 0..SIDE {
                image[y][x] = wide[y + MARGIN][x + MARGIN];
            }
        }
        image
    }
}
