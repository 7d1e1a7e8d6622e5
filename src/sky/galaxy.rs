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
/// Samples a sample and axis in the cusp.
const CUSP: usize = 6;

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
        let place = |index: usize, first: f64, centre: f64| first - 0.5 + (index as f64 + 0.5) * step - centre;
        let [[a, b], [c, d]] = camera.matrix;
        let light = |dx: f64, dy: f64| self.brightness(a * dx + b * dy, c * dx + d * dy);
        let mut image = vec![Complex64::ZERO; side * side];
        for row in 0..side {
            for column in 0..side {
                let (dx, dy) = (place(column, x0, x), place(row, y0, y));
                if dx.hypot(dy) > reach + 1.0 {
                    continue;
                }
                let fine = if dx.hypot(dy) < 1.2 { CUSP } else { 1 };
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
        let mut kernel = wrapped(side, step, |dx, dy| psf.density(dx, dy));
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
