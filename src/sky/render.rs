//! Noiseless images: sources integrated over pixels.
//!
//! Bands of rows are rendered apart, each adding its sources in the order of the catalogue: the sum
//! in every pixel has one order whatever the number of threads.

use ndarray::{Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::optics::Profile;

/// Rows a band.
const BAND: usize = 32;
/// Surface brightness below which the wings of a source are left out, electrons a pixel.
const FAINTEST: f64 = 0.01;
/// No source reaches farther than this, pixels.
const FARTHEST: f64 = 220.0;

/// A point source, or a short straight trail of one.
#[derive(Debug, Clone)]
pub struct Point {
    /// Zero-based pixel of the centroid.
    pub x: f64,
    /// Zero-based pixel of the centroid.
    pub y: f64,
    /// Electrons.
    pub flux: f64,
    /// The PSF there.
    pub profile: Profile,
    /// From the beginning to the end of the trail, pixels.
    pub trail: (f64, f64),
}

/// A small image to be added.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Column of its first pixel.
    pub x0: i64,
    /// Row of its first pixel.
    pub y0: i64,
    /// Electrons a pixel.
    pub pixels: Array2<f32>,
}

/// The image of these sources, `height` rows of `width` pixels, electrons.
pub fn render((height, width): (usize, usize), points: &[Point], stamps: &[Stamp]) -> Array2<f32> {
    let bands = height.div_ceil(BAND);
    let reach: Vec<f64> = points.iter().map(Point::reach).collect();
    let mut of_band: Vec<Vec<usize>> = vec![Vec::new(); bands];
    for (index, (point, reach)) in points.iter().zip(&reach).enumerate() {
        let last = (point.y + reach).min(height as f64 - 1.0);
        let first = (point.y - reach).max(0.0);
        if last >= first && point.x + reach >= 0.0 && point.x - reach < width as f64 {
            for band in &mut of_band[first as usize / BAND..=last as usize / BAND] {
                band.push(index);
            }
        }
    }
    let mut image = Array2::zeros((height, width));
    image.axis_chunks_iter_mut(Axis(0), BAND).into_par_iter().zip(&of_band).enumerate().for_each(
        |(band, (mut rows, indices))| {
            let y0 = band * BAND;
            for stamp in stamps {
                add_stamp(&mut rows, y0 as i64, stamp);
            }
            for &index in indices {
                points[index].add(&mut rows, y0, reach[index]);
            }
        },
    );
    image
}

fn add_stamp(rows: &mut ArrayViewMut2<f32>, y0: i64, stamp: &Stamp) {
    let (height, width) = (rows.nrows() as i64, rows.ncols() as i64);
    let first = (y0 - stamp.y0).max(0);
    let last = (y0 + height - stamp.y0).min(stamp.pixels.nrows() as i64);
    for row in first..last {
        for (column, value) in stamp.pixels.row(row as usize).iter().enumerate() {
            let x = stamp.x0 + column as i64;
            if (0..width).contains(&x) {
                rows[[(stamp.y0 + row - y0) as usize, x as usize]] += value;
            }
        }
    }
}

/// Nodes and weights of Gauss-Legendre quadrature on a pixel.
const TWO: [(f64, f64); 2] = [(-0.288_675_135, 0.5), (0.288_675_135, 0.5)];
const THREE: [(f64, f64); 3] = [(-0.387_298_335, 0.277_777_778), (0.0, 0.444_444_444), (0.387_298_335, 0.277_777_778)];
const FIVE: [(f64, f64); 5] = [
    (-0.453_089_923, 0.118_463_443),
    (-0.269_234_655, 0.239_314_335),
    (0.0, 0.284_444_444),
    (0.269_234_655, 0.239_314_335),
    (0.453_089_923, 0.118_463_443),
];

/// The profile integrated over the pixel at an offset from the centroid: Gauss-Legendre quadrature
/// with 5, 3 or 2 nodes an axis by the distance.
pub fn integrated(profile: &Profile, dx: f64, dy: f64) -> f64 {
    let distance = dx.hypot(dy) / profile.fwhm;
    let nodes: &[(f64, f64)] = match distance {
        d if d < 1.5 => &FIVE,
        d if d < 4.0 => &THREE,
        _ => &TWO,
    };
    let mut sum = 0.0;
    for (v, weight_v) in nodes {
        for (u, weight_u) in nodes {
            sum += weight_u * weight_v * profile.density(dx + u, dy + v);
        }
    }
    sum
}

impl Point {
    fn reach(&self) -> f64 {
        if self.flux == 0.0 {
            return 0.0;
        }
        let wings = self.profile.radius(FAINTEST / self.flux.abs()).clamp(4.0, FARTHEST);
        wings + 0.5 * self.trail.0.hypot(self.trail.1)
    }

    /// Beginning, step and number of the points that a trail is made of.
    fn track(&self) -> (f64, f64, usize) {
        let length = self.trail.0.hypot(self.trail.1);
        let count = if length < 0.05 { 1 } else { (3.0 * length).ceil() as usize + 1 };
        (0.5 / count as f64 - 0.5, 1.0 / count as f64, count)
    }

    fn add(&self, rows: &mut ArrayViewMut2<f32>, y0: usize, reach: f64) {
        let (begin, step, count) = self.track();
        let first = (self.y - reach).ceil().max(y0 as f64) as usize;
        let last = (self.y + reach).floor().min((y0 + rows.nrows()) as f64 - 1.0);
        if last < first as f64 {
            return;
        }
        for y in first..=last as usize {
            let dy = y as f64 - self.y;
            let half = (reach * reach - dy * dy).max(0.0).sqrt();
            let left = (self.x - half).ceil().max(0.0) as usize;
            let right = (self.x + half).floor().min(rows.ncols() as f64 - 1.0);
            if right < left as f64 {
                continue;
            }
            for x in left..=right as usize {
                let dx = x as f64 - self.x;
                let mut value = 0.0;
                for part in 0..count {
                    let along = begin + step * part as f64;
                    value += integrated(&self.profile, dx - along * self.trail.0, dy - along * self.trail.1);
                }
                rows[[y - y0, x]] += (self.flux * step * value) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_keeps_its_flux_and_its_place_at_every_sub_pixel_phase() {
        for (x, y) in [(40.0, 40.0), (40.5, 39.5), (40.31, 40.77)] {
            for fwhm in [1.6, 2.5, 4.0] {
                let profile = Profile::moffat(fwhm, [0.05, -0.03], 3.5);
                let point = Point { x, y, flux: 1e6, profile, trail: (0.0, 0.0) };
                let image = render((81, 81), &[point], &[]);
                let flux: f64 = image.iter().map(|&v| f64::from(v)).sum();
                // Symmetric window about the source, against the heavy wings.
                let (mut sum, mut moment) = (0.0, [0.0; 2]);
                for ((row, column), &value) in image.indexed_iter() {
                    let (dx, dy) = (column as f64 - x, row as f64 - y);
                    let weight = f64::from(value) * (-(dx * dx + dy * dy) / 50.0).exp();
                    sum += weight;
                    moment = [moment[0] + weight * dx, moment[1] + weight * dy];
                }
                assert!((flux / 1e6 - 1.0).abs() < 1e-3, "{fwhm} {x} {y}: {flux}");
                assert!((moment[0] / sum).hypot(moment[1] / sum) < 1e-3, "{fwhm} {x} {y}: {moment:?}");
            }
        }
    }

    #[test]
    fn a_trail_is_as_bright_as_its_source() {
        let profile = Profile::moffat(2.0, [0.0, 0.0], 3.5);
        let point = Point { x: 50.0, y: 50.0, flux: 1e5, profile, trail: (9.0, -4.0) };
        let image = render((101, 101), &[point], &[]);
        assert!((image.sum() / 1e5 - 1.0).abs() < 2e-3);
        assert!(image[[48, 54]] > image[[52, 54]]);
    }
}
