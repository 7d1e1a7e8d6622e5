//! What spoils pixels: full wells that bleed, cosmic rays, bad columns.

use ndarray::{Array2, ArrayViewMut1, Axis};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::random::{log_uniform, uniform};

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefectKind {
    /// A full well or its bleed trail, on the science image.
    Saturated,
    /// A full well or its bleed trail, on the reference.
    ReferenceSaturated,
    /// A cosmic ray.
    CosmicRay,
    /// A column without use.
    BadColumn,
    /// A pixel with a large dark current.
    HotPixel,
}

/// A box of spoilt pixels, zero-based and inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defect {
    /// What it is.
    pub kind: DefectKind,
    /// First and last column.
    pub x: (f64, f64),
    /// First and last row.
    pub y: (f64, f64),
}

impl Defect {
    /// Distance from a pixel to the box, 0 inside.
    pub fn distance(&self, x: f64, y: f64) -> f64 {
        let outside = |value: f64, (first, last): (f64, f64)| (first - value).max(value - last).max(0.0);
        outside(x, self.x).hypot(outside(y, self.y))
    }
}

/// Lets charge above `full_well` electrons bleed along the columns, half to either side, and lists
/// the runs of full wells. Charge is conserved but for what leaves the frame.
pub fn bleed(image: &mut Array2<f32>, full_well: f32, kind: DefectKind) -> Vec<Defect> {
    let per_column: Vec<Vec<Defect>> = image
        .axis_iter_mut(Axis(1))
        .into_par_iter()
        .enumerate()
        .map(|(x, mut column)| {
            if column.iter().all(|&value| value <= full_well) {
                return Vec::new();
            }
            bleed_column(&mut column, full_well);
            let full = |value: f32| value >= 0.999 * full_well;
            let mut runs = Vec::new();
            let mut first = None;
            for y in 0..=column.len() {
                match (first, y < column.len() && full(column[y])) {
                    (None, true) => first = Some(y),
                    (Some(begin), false) => {
                        let x = x as f64;
                        runs.push(Defect { kind, x: (x, x), y: (begin as f64, y as f64 - 1.0) });
                        first = None;
                    }
                    _ => {}
                }
            }
            runs
        })
        .collect();
    per_column.into_iter().flatten().collect()
}

fn bleed_column(column: &mut ArrayViewMut1<f32>, full_well: f32) {
    let excess: Vec<f32> = column.iter().map(|&value| (value - full_well).max(0.0)).collect();
    column.mapv_inplace(|value| value.min(full_well));
    let mut flow = |rows: &mut dyn Iterator<Item = usize>| {
        let mut carried = 0.0;
        for y in rows {
            carried += 0.5 * excess[y];
            let taken = carried.min(full_well - column[y]);
            column[y] += taken;
            carried -= taken;
        }
    };
    flow(&mut (0..excess.len()));
    flow(&mut (0..excess.len()).rev());
}

/// Cosmic rays a pixel in an exposure of 30 s.
const RAYS: f64 = 8e-6;

/// Adds the cosmic rays of an exposure (electrons): tracks of 1 to about 30 pixels at any angle,
/// with 80 to 2,000 electrons a pixel of track and a little diffusion.
pub fn cosmic_rays(image: &mut Array2<f32>, rng: &mut ChaCha8Rng, exposure_s: f64) -> Vec<Defect> {
    let (height, width) = image.dim();
    let expected = RAYS * (height * width) as f64 * exposure_s / 30.0;
    let count = super::random::poisson(rng, expected as f32) as usize;
    (0..count)
        .map(|_| {
            let (x, y) = (uniform(rng, 0.0, width as f64), uniform(rng, 0.0, height as f64));
            let length = log_uniform(rng, 0.5, 8.0) * if rng.random_bool(0.1) { 4.0 } else { 1.0 };
            let angle = uniform(rng, 0.0, std::f64::consts::TAU);
            let charge = log_uniform(rng, 80.0, 2000.0) * (length + 1.0) * 3.0;
            track(image, (x, y), (length * angle.cos(), length * angle.sin()), charge)
        })
        .collect()
}

fn track(image: &mut Array2<f32>, (x, y): (f64, f64), (dx, dy): (f64, f64), charge: f64) -> Defect {
    let (height, width) = image.dim();
    let steps = (10.0 * dx.hypot(dy)).ceil() as usize + 1;
    // Charge diffuses over a tenth of a pixel: each step is spread over its four nearest pixels
    // only where it lies near an edge between them.
    let share = |offset: f64| ((offset - 0.5) / 0.3 + 0.5).clamp(0.0, 1.0);
    for step in 0..steps {
        let along = (step as f64 + 0.5) / steps as f64;
        let (px, py) = (x + along * dx, y + along * dy);
        let (fx, fy) = (share(px - px.floor()), share(py - py.floor()));
        for (ox, oy, weight) in [
            (0.0, 0.0, (1.0 - fx) * (1.0 - fy)),
            (1.0, 0.0, fx * (1.0 - fy)),
            (0.0, 1.0, (1.0 - fx) * fy),
            (1.0, 1.0, fx * fy),
        ] {
            let (column, row) = (px.floor() + ox, py.floor() + oy);
            if column >= 0.0 && row >= 0.0 && column < width as f64 && row < height as f64 {
                image[[row as usize, column as usize]] += (charge * weight / steps as f64) as f32;
            }
        }
    }
    let span = |from: f64, by: f64| (from.min(from + by).floor(), from.max(from + by).ceil());
    Defect { kind: DefectKind::CosmicRay, x: span(x, dx), y: span(y, dy) }
}

/// A column without use: its response and what it adds, from a row upwards.
#[derive(Debug, Clone, Copy)]
pub struct BadColumn {
    /// The column, zero-based.
    pub x: usize,
    /// Its first bad row.
    pub from: usize,
    /// Share of the light that arrives.
    pub response: f32,
    /// Electrons that it adds.
    pub added: f32,
}

impl BadColumn {
    /// Draws the bad columns of a detector of `shape` (rows, columns): one in a thousand or so.
    pub fn draw(rng: &mut ChaCha8Rng, (height, width): (usize, usize)) -> Vec<Self> {
        (0..width.div_ceil(1000))
            .map(|_| {
                let dead = rng.random_bool(0.5);
                Self {
                    x: rng.random_range(0..width),
                    from: if rng.random_bool(0.5) { 0 } else { rng.random_range(0..height) },
                    response: if dead { 0.05 } else { 1.0 },
                    added: if dead { 0.0 } else { uniform(rng, 300.0, 4000.0) as f32 },
                }
            })
            .collect()
    }

    /// Spoils the column in an image of electrons.
    pub fn apply(&self, image: &mut Array2<f32>) {
        image
            .column_mut(self.x)
            .iter_mut()
            .skip(self.from)
            .for_each(|value| *value = *value * self.response + self.added);
    }

    /// The box that it covers in an image of `height` rows.
    pub fn defect(&self, height: usize) -> Defect {
        let x = self.x as f64;
        Defect { kind: DefectKind::BadColumn, x: (x, x), y: (self.from as f64, height as f64 - 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_well_bleeds_along_its_column_and_loses_no_charge() {
        let mut image = Array2::from_elem((100, 3), 10.0_f32);
        image[[50, 1]] = 100_000.0;
        let before = image.sum();
        let runs = bleed(&mut image, 10_000.0, DefectKind::Saturated);
        assert!((image.sum() / before - 1.0).abs() < 1e-5);
        assert_eq!(runs.len(), 1);
        assert!((runs[0].y.1 - runs[0].y.0 - 8.0).abs() <= 1.0, "{:?}", runs[0]);
        assert!((runs[0].y.1 + runs[0].y.0 - 100.0).abs() <= 1.0);
        assert!(image.iter().all(|&value| value <= 10_000.0));
    }

    #[test]
    fn a_ray_lies_in_its_box() {
        let mut image = Array2::zeros((60, 60));
        let defect = track(&mut image, (20.3, 30.9), (-7.5, 3.2), 5000.0);
        assert!((image.sum() - 5000.0).abs() < 1.0);
        for ((y, x), &value) in image.indexed_iter() {
            assert!(value == 0.0 || defect.distance(x as f64, y as f64) == 0.0, "{x} {y} {value}");
        }
    }
}
