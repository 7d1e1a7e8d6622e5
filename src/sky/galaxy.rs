//! Galaxies: exponential and de Vaucouleurs profiles convolved with the PSF.

use ndarray::Array2;
use rustfft::num_complex::Complex64;

use super::fourier::{Transforms, fast_length, wrapped};
use super::optics::Profile;
use super::projection::Gnomonic;
use super::render::Stamp;

/// The light profile of a galaxy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Galaxy {
    /// Half-light radius along the major axis, arcsec.
    pub radius: f64,
    /// Minor over major axis.
    pub axis_ratio: f64,
    /// Angle of the major axis from north through east, degrees.
    pub angle: f64,
    /// Whether the profile is de Vaucouleurs' rather than exponential.
    pub elliptical: bool,
}

/// Samples a pixel and axis.
const OVERSAMPLING: usize = 3;
/// Points a sample and axis within these distances (pixels) of the middle, where the profile is steep.
const CUSP: [(f64, usize); 2] = [(0.4, 30), (1.2, 6)];

impl Galaxy {
    /// Where the profile ends, in half-light radii; it falls smoothly to zero over the last quarter.
    fn end(&self) -> f64 {
        if self.elliptical { 6.0 } else { 4.0 }
    }

    /// Surface brightness, not normalised, at a tangent-plane offset (arcsec).
    fn brightness(&self, xi: f64, eta: f64) -> f64 {
        let (sin, cos) = self.angle.to_radians().sin_cos();
        let along = xi * sin + eta * cos;
        let across = (xi * cos - eta * sin) / self.axis_ratio;
        let r = along.hypot(across) / self.radius;
        // Sérsic 1963 with n = 1 and n = 4: b = 1.678 and 7.669 (Graham & Driver 2005, PASA 22, 118).
        let profile = if self.elliptical { (-7.669 * r.sqrt().sqrt()).exp() } else { (-1.678 * r).exp() };
        let end = self.end();
        let fade = ((end - r) / (0.25 * end)).clamp(0.0, 1.0);
        profile * fade * fade * (3.0 - 2.0 * fade)
    }

    /// The galaxy of total `flux` (electrons) at the pixel (x, y), convolved with the PSF there.
    ///
    /// Sampled three times a pixel and axis, convolved by Fourier transform, summed over pixels, and
    /// normalised to the flux that it is to have.
    pub fn stamp(
        &self,
        transforms: &mut Transforms,
        camera: &Gnomonic,
        psf: &Profile,
        (x, y): (f64, f64),
        flux: f64,
    ) -> Stamp {
        let scale = camera.matrix[0][0].hypot(camera.matrix[1][0]);
        let reach = self.end() * self.radius / scale;
        let half = (reach + psf.radius(1e-5).min(8.0 * psf.fwhm)).ceil().clamp(6.0, 120.0);
        let side = fast_length(2 * half as usize * OVERSAMPLING);
        let pixels = side / OVERSAMPLING;
        let (x0, y0) = (x.round() - (pixels / 2) as f64, y.round() - (pixels / 2) as f64);
        let step = 1.0 / OVERSAMPLING as f64;
        // The galaxy is sampled about the middle of the sample that holds its centre, whatever its
        // sub-pixel phase, and the PSF about the rest: the PSF is smooth, a galaxy has a cusp.
        let sample = |value: f64, first: f64| ((value - first + 0.5) / step - 0.5).round();
        let (middle_x, middle_y) = (sample(x, x0), sample(y, y0));
        let rest = |value: f64, first: f64, middle: f64| value - (first - 0.5 + (middle + 0.5) * step);
        let (rest_x, rest_y) = (rest(x, x0, middle_x), rest(y, y0, middle_y));
        let [[a, b], [c, d]] = camera.matrix;
        let light = |dx: f64, dy: f64| self.brightness(a * dx + b * dy, c * dx + d * dy);
        let mut image = vec![Complex64::ZERO; side * side];
        for row in 0..side {
            for column in 0..side {
                let (dx, dy) = ((column as f64 - middle_x) * step, (row as f64 - middle_y) * step);
                if dx.hypot(dy) > reach + 1.0 {
                    continue;
                }
                let fine = CUSP.iter().find(|(within, _)| dx.hypot(dy) < *within).map_or(1, |(_, points)| *points);
                let mut sum = 0.0;
                for j in 0..fine {
                    for i in 0..fine {
                        let inside = |k: usize| ((k as f64 + 0.5) / fine as f64 - 0.5) * step;
                        sum += light(dx + inside(i), dy + inside(j));
                    }
                }
                image[row * side + column] = Complex64::new(sum / (fine * fine) as f64, 0.0);
            }
        }
        let mut kernel = wrapped(side, step, |dx, dy| psf.density(dx - rest_x, dy - rest_y));
        transforms.forward(side, &mut image);
        transforms.forward(side, &mut kernel);
        image.iter_mut().zip(&kernel).for_each(|(value, factor)| *value *= factor);
        transforms.inverse(side, &mut image);
        let total: f64 = image.iter().map(|value| value.re).sum();
        let mut stamp = Array2::<f64>::zeros((pixels, pixels));
        for row in 0..pixels * OVERSAMPLING {
            for column in 0..pixels * OVERSAMPLING {
                stamp[[row / OVERSAMPLING, column / OVERSAMPLING]] += image[row * side + column].re * flux / total;
            }
        }
        Stamp { x0: x0 as i64, y0: y0 as i64, pixels: stamp.mapv(|value| value as f32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sky::render::integrated;

    fn galaxy(radius: f64, elliptical: bool) -> Galaxy {
        Galaxy { radius, axis_ratio: 0.7, angle: 30.0, elliptical }
    }

    fn stamp(galaxy: Galaxy, fwhm: f64, place: (f64, f64)) -> Stamp {
        let camera = Gnomonic::new((10.0, 0.0), (100.0, 100.0), 1.0, 0.0);
        galaxy.stamp(&mut Transforms::default(), &camera, &Profile::moffat(fwhm, [0.0, 0.0], 3.5), place, 1e5)
    }

    #[test]
    fn a_galaxy_without_extent_looks_like_a_star() {
        let (x, y) = (50.3, 49.6);
        let stamp = stamp(galaxy(0.1, false), 3.0, (x, y));
        let psf = Profile::moffat(3.0, [0.0, 0.0], 3.5);
        for ((row, column), &value) in stamp.pixels.indexed_iter() {
            let (dx, dy) = ((stamp.x0 + column as i64) as f64 - x, (stamp.y0 + row as i64) as f64 - y);
            let star = 1e5 * integrated(&psf, dx, dy);
            assert!((f64::from(value) - star).abs() < 0.01 * star + 5.0, "{dx} {dy}: {value} {star}");
        }
    }

    #[test]
    fn a_galaxy_keeps_its_flux_place_and_half_light_radius() {
        for (elliptical, tolerance) in [(false, 0.06), (true, 0.12)] {
            let (x, y) = (80.37, 79.81);
            let stamp = stamp(galaxy(8.0, elliptical), 1.2, (x, y));
            let (mut total, mut inside, mut moment) = (0.0, 0.0, [0.0; 2]);
            for ((row, column), &value) in stamp.pixels.indexed_iter() {
                let value = f64::from(value);
                let (dx, dy) = ((stamp.x0 + column as i64) as f64 - x, (stamp.y0 + row as i64) as f64 - y);
                let (sin, cos) = 30f64.to_radians().sin_cos();
                // East is to the left.
                let along = -dx * sin + dy * cos;
                let across = (-dx * cos - dy * sin) / 0.7;
                total += value;
                inside += if along.hypot(across) < 8.0 { value } else { 0.0 };
                moment = [moment[0] + value * dx, moment[1] + value * dy];
            }
            assert!((total / 1e5 - 1.0).abs() < 1e-3, "{total}");
            assert!((inside / total - 0.5).abs() < tolerance, "{elliptical}: {}", inside / total);
            assert!((moment[0] / total).hypot(moment[1] / total) < 0.03, "{moment:?}");
        }
    }
}
