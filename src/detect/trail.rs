//! Movers: sources that trail during the exposure, up to 30 px, fitted as what they are.
//!
//! The model is the PSF of D drawn along a line of length L at an angle θ: along the line it is the difference
//! of two values of the PSF's running integral, which is tabled once an angle. Flux, place, L and θ are fitted
//! by Gauss–Newton steps to a band of pixels about the line; chi² and [sharpness](super::fit::Fit::sharpness)
//! tell a mover from the track of a cosmic ray, which is as long but far narrower than the PSF, or bent.

use nalgebra::{Matrix5, Vector5};

use super::fit::sharpness_of;
use super::particle::likeness_of_trail;
use super::place::Place;
use crate::image::mask;
use crate::psf::residual::interpolate;
use crate::subtract::Difference;

/// Longest trail that is looked for, pixels.
const LONGEST: f64 = 40.0;
/// The band that is fitted ends this many pixels inside the PSF's stamp, beside the line and beyond its ends.
const MARGIN: f64 = 1.0;
/// A trail's pixels are connected above this part of the peak's score, and above [`LOWEST`].
const CONNECTED: f32 = 0.3;
const LOWEST: f32 = 3.0;
/// Most pixels of a connected region: more is no trail.
const MOST_PIXELS: usize = 1500;
/// Major over minor variance of the region that is worth a fit.
const ELONGATED: f64 = 1.25;
/// Spacing of the tables, pixels.
const SPACING: f64 = 0.4;
const STEPS: usize = 5;
/// Steps smaller than this, pixels and pixels at the ends, end the fit.
const SETTLED: f64 = 0.01;

/// A fitted trail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trail {
    /// Column of its middle, pixels.
    pub x: f64,
    /// Row of its middle, pixels.
    pub y: f64,
    /// Flux of all of it, electrons, signed, and its error.
    pub flux: f64,
    /// Error of the flux.
    pub flux_err: f64,
    /// Error of a coordinate of its middle, pixels.
    pub position_err: f64,
    /// Length, pixels.
    pub length: f64,
    /// Angle of the line from the x axis, radians.
    pub angle: f64,
    /// Chi² a degree of freedom.
    pub chi: f64,
    /// Pixels of the fit.
    pub pixels: usize,
    /// As of a point source.
    pub sharpness: f64,
    /// Chi² of the trail less that of a particle's track, on the science image, for trails of light.
    pub track: Option<f64>,
}

impl Trail {
    /// Along and across coordinates of a place, from the middle.
    pub fn along_and_across(&self, x: f64, y: f64) -> (f64, f64) {
        let (sin, cos) = self.angle.sin_cos();
        let (dx, dy) = (x - self.x, y - self.y);
        (dx * cos + dy * sin, dy * cos - dx * sin)
    }
}

/// The trail that the peak at pixel (column, row) is part of; `None` where what is connected to it is not
/// longer than it is broad, or no line fits.
pub fn fit(difference: &Difference, place: &Place, column: usize, row: usize) -> Option<Trail> {
    let start = Region::about(difference, column, row)?.line()?;
    let pixels = Band::about(difference, place, &start)?;
    let positive = difference.score.pixels[[row, column]] > 0.0;
    let mut line = start;
    let mut fitted = None;
    for _ in 0..STEPS {
        let (normal, gradient, flux) = pixels.normal_equations(place, &line)?;
        let inverse = normal.try_inverse()?;
        let step = inverse * gradient;
        fitted = Some((flux, inverse));
        line.x += step[1].clamp(-1.0, 1.0);
        line.y += step[2].clamp(-1.0, 1.0);
        line.length = (line.length + step[3].clamp(-3.0, 3.0)).clamp(0.5, LONGEST + 5.0);
        line.angle += step[4].clamp(-0.2, 0.2);
        if step[1].abs() + step[2].abs() + step[3].abs() + (step[4] * line.length).abs() < SETTLED {
            break;
        }
        if (line.x - start.x).hypot(line.y - start.y) > 0.5 * start.length + 3.0 {
            return None;
        }
    }
    let (_, inverse) = fitted?;
    let model = pixels.model(&Table::new(place, line.angle), &line);
    let (flux, chi2) = pixels.flux_and_chi2(&model);
    let sharp = pixels.model(&Table::sharp(place, line.angle, positive), &line);
    let finite = flux.is_finite() && chi2.is_finite() && line.length.is_finite();
    let degrees = pixels.values.len().saturating_sub(5).max(1);
    let each = pixels.values.iter().zip(&model).zip(&sharp).map(|((v, p), s)| (v.0, *p, *s, v.1));
    (finite && line.length <= LONGEST).then(|| Trail {
        x: line.x,
        y: line.y,
        flux,
        flux_err: inverse[(0, 0)].max(0.0).sqrt(),
        position_err: (0.5 * (inverse[(1, 1)] + inverse[(2, 2)])).max(0.0).sqrt(),
        length: line.length,
        angle: line.angle,
        chi: chi2 / degrees as f64,
        pixels: pixels.values.len(),
        sharpness: sharpness_of(each) / place.dispersion(positive),
        track: if positive {
            likeness_of_trail(difference, place, (line.x, line.y), line.length, line.angle)
        } else {
            None
        },
    })
}

/// Connected pixels of one sign.
struct Region {
    pixels: Vec<(usize, usize, f64)>,
}

impl Region {
    fn about(difference: &Difference, column: usize, row: usize) -> Option<Self> {
        let score = &difference.score.pixels;
        let (height, width) = score.dim();
        let peak = score[[row, column]];
        let limit = LOWEST.max(CONNECTED * peak.abs());
        let reach = (LONGEST + 5.0) as usize;
        let (x0, y0) = (column.saturating_sub(reach), row.saturating_sub(reach));
        let side = 2 * reach + 1;
        let mut seen = vec![false; side * side];
        let mut waiting = vec![(column, row)];
        let mut pixels = Vec::new();
        while let Some((x, y)) = waiting.pop() {
            let (ix, iy) = (x - x0, y - y0);
            if ix >= side || iy >= side || std::mem::replace(&mut seen[iy * side + ix], true) {
                continue;
            }
            let value = peak.signum() * score[[y, x]];
            if value < limit {
                continue;
            }
            pixels.push((x, y, f64::from(value)));
            if pixels.len() > MOST_PIXELS {
                return None;
            }
            for ny in y.saturating_sub(1).max(y0)..=(y + 1).min(height - 1) {
                for nx in x.saturating_sub(1).max(x0)..=(x + 1).min(width - 1) {
                    waiting.push((nx, ny));
                }
            }
        }
        (pixels.len() >= 4).then_some(Self { pixels })
    }

    /// The line through it, by its moments; `None` where it is not longer than it is broad.
    fn line(&self) -> Option<Line> {
        let total: f64 = self.pixels.iter().map(|p| p.2).sum();
        let mean =
            |of: &dyn Fn(&(usize, usize, f64)) -> f64| self.pixels.iter().map(|p| p.2 * of(p)).sum::<f64>() / total;
        let (x, y) = (mean(&|p| p.0 as f64), mean(&|p| p.1 as f64));
        let xx = mean(&|p| (p.0 as f64 - x).powi(2));
        let yy = mean(&|p| (p.1 as f64 - y).powi(2));
        let xy = mean(&|p| (p.0 as f64 - x) * (p.1 as f64 - y));
        let (half, spread) = (0.5 * (xx + yy), (0.25 * (xx - yy).powi(2) + xy * xy).sqrt());
        let (major, minor) = (half + spread, (half - spread).max(0.1));
        (major > ELONGATED * minor).then(|| Line {
            x,
            y,
            length: (12.0 * (major - minor)).sqrt().clamp(1.0, LONGEST),
            angle: 0.5 * (2.0 * xy).atan2(xx - yy),
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Line {
    x: f64,
    y: f64,
    length: f64,
    angle: f64,
}

/// The running integral of a profile along a line, at several distances from it.
struct Table {
    /// How far it reaches along and across, pixels.
    reach: f64,
    /// Samples along and across.
    side: usize,
    values: Vec<f64>,
}

impl Table {
    fn new(place: &Place, angle: f64) -> Self {
        Self::of(&place.centred(), angle)
    }

    fn sharp(place: &Place, angle: f64, positive: bool) -> Self {
        Self::of(&place.centred_sharp(positive), angle)
    }

    fn of(profile: &ndarray::Array2<f32>, angle: f64) -> Self {
        let reach = (profile.nrows() / 2) as f64;
        let steps = (2.0 * reach / SPACING) as usize + 1;
        let (sin, cos) = angle.sin_cos();
        let mut values = Vec::with_capacity(steps * steps);
        for row in 0..steps {
            let across = row as f64 * SPACING - reach;
            let mut sum = 0.0;
            for column in 0..steps {
                let along = column as f64 * SPACING - reach;
                sum += SPACING * interpolate(profile, along * cos - across * sin, along * sin + across * cos);
                values.push(sum);
            }
        }
        Self { reach, side: steps, values }
    }

    /// The integral from far behind up to `along`, at a distance of `across`.
    fn at(&self, along: f64, across: f64) -> f64 {
        // The sum up to a sample reaches half a spacing beyond it.
        let (x, y) = ((along + self.reach) / SPACING - 0.5, (across + self.reach) / SPACING);
        if y < 0.0 || y >= (self.side - 1) as f64 || x <= 0.0 {
            return 0.0;
        }
        let x = x.min((self.side - 1) as f64 - 1e-9);
        let (ix, iy) = (x as usize, y as usize);
        let (fx, fy) = (x - ix as f64, y - iy as f64);
        let value = |r: usize, c: usize| self.values[r * self.side + c];
        let row = |r: usize| value(r, ix) + fx * (value(r, ix + 1) - value(r, ix));
        row(iy) + fy * (row(iy + 1) - row(iy))
    }
}

/// The pixels about a line.
struct Band {
    places: Vec<(f64, f64)>,
    /// Value and weight.
    values: Vec<(f64, f64)>,
}

impl Band {
    fn about(difference: &Difference, place: &Place, line: &Line) -> Option<Self> {
        let image = &difference.difference.pixels;
        let (height, width) = image.dim();
        let (sin, cos) = line.angle.sin_cos();
        let band = place.radius() as f64 - MARGIN;
        let reach = 0.5 * line.length + band;
        let extent = |a: f64, b: f64| a.abs() * reach + b.abs() * band;
        let range = |centre: f64, extent: f64, length: usize| {
            let low = (centre - extent).floor().max(0.0) as usize;
            low..((centre + extent).ceil().max(0.0) as usize + 1).min(length)
        };
        let (mut places, mut values) = (Vec::new(), Vec::new());
        for y in range(line.y, extent(sin, cos), height) {
            for x in range(line.x, extent(cos, sin), width) {
                let (dx, dy) = (x as f64 - line.x, y as f64 - line.y);
                let (along, across) = (dx * cos + dy * sin, dy * cos - dx * sin);
                let bad = difference.mask[[y, x]] & (mask::UNUSABLE | mask::REFERENCE) != 0;
                if along.abs() > reach || across.abs() > band || bad {
                    continue;
                }
                places.push((x as f64, y as f64));
                values.push((f64::from(image[[y, x]]), place.weight(difference, x, y)));
            }
        }
        (places.len() >= 30).then_some(Self { places, values })
    }

    fn model(&self, table: &Table, line: &Line) -> Vec<f64> {
        let (sin, cos) = line.angle.sin_cos();
        let half = 0.5 * line.length;
        self.places
            .iter()
            .map(|(x, y)| {
                let (dx, dy) = (x - line.x, y - line.y);
                let (along, across) = (dx * cos + dy * sin, dy * cos - dx * sin);
                (table.at(along + half, across) - table.at(along - half, across)) / line.length
            })
            .collect()
    }

    /// The flux that fits a model best, and its chi².
    fn flux_and_chi2(&self, model: &[f64]) -> (f64, f64) {
        let (mut mm, mut md, mut dd) = (0.0, 0.0, 0.0);
        for ((value, weight), m) in self.values.iter().zip(model) {
            mm += weight * m * m;
            md += weight * m * value;
            dd += weight * value * value;
        }
        if mm > 0.0 { (md / mm, dd - md * md / mm) } else { (0.0, dd) }
    }

    /// Normal matrix and gradient for flux, x, y, length, angle, and the flux that they are taken at.
    fn normal_equations(&self, place: &Place, line: &Line) -> Option<(Matrix5<f64>, Vector5<f64>, f64)> {
        const STEP: f64 = 0.1;
        const TURN: f64 = 0.01;
        let table = Table::new(place, line.angle);
        let model = self.model(&table, line);
        let (flux, _) = self.flux_and_chi2(&model);
        if flux == 0.0 || !flux.is_finite() {
            return None;
        }
        let moved = [
            self.model(&table, &Line { x: line.x + STEP, ..*line }),
            self.model(&table, &Line { y: line.y + STEP, ..*line }),
            self.model(&table, &Line { length: line.length + STEP, ..*line }),
            // A turn moves the pixels; that it turns the PSF too matters little.
            self.model(&table, &Line { angle: line.angle + TURN, ..*line }),
        ];
        let (mut normal, mut gradient) = (Matrix5::zeros(), Vector5::zeros());
        for (i, (value, weight)) in self.values.iter().enumerate() {
            let slope = |k: usize, step: f64| flux * (moved[k][i] - model[i]) / step;
            let j = Vector5::new(model[i], slope(0, STEP), slope(1, STEP), slope(2, STEP), slope(3, TURN));
            normal += j * j.transpose() * *weight;
            gradient += j * (weight * (value - flux * model[i]));
        }
        for k in 0..5 {
            normal[(k, k)] *= 1.0 + 1e-6;
        }
        Some((normal, gradient, flux))
    }
}
