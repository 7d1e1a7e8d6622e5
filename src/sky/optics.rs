//! The point-spread function of the synthetic camera.
//!
//! Always a sum of elliptical Moffat profiles (Moffat 1969, A&A 3, 455), which can be integrated
//! over pixels to any accuracy. Width and ellipticity vary over the field as smooth functions that
//! are no polynomials, so that no polynomial model of the pipeline can be exactly right.

use rand::Rng;

use super::random::{normal, uniform};

/// What the PSF is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PsfKind {
    /// One elliptical Moffat profile.
    Moffat,
    /// A narrow and a broad Moffat profile: a core in a halo.
    Double,
    /// A core with trefoil everywhere and a coma tail that grows towards the corners.
    Coma,
}

/// One elliptical Moffat profile of unit flux times `weight`, displaced from the centre.
#[derive(Debug, Clone, Copy)]
struct Component {
    offset: [f64; 2],
    /// Symmetric, of determinant 1: circularises the ellipse.
    shape: [[f64; 2]; 2],
    inverse_alpha2: f64,
    beta: f64,
    /// weight (β − 1) / (π α²).
    amplitude: f64,
    weight: f64,
}

/// Most components of a profile.
const MOST: usize = 6;

/// The PSF at one place of the field: unit flux, centroid at the origin, pixels.
#[derive(Debug, Clone)]
pub struct Profile {
    components: [Component; MOST],
    count: usize,
    /// FWHM of the main component, pixels.
    pub fwhm: f64,
}

impl Profile {
    /// A single Moffat profile of this FWHM (geometric mean of the axes), ellipticity
    /// (e1, e2) = (a − b)/(a + b) · (cos 2φ, sin 2φ), and β.
    pub fn moffat(fwhm: f64, ellipticity: [f64; 2], beta: f64) -> Self {
        let component = Component::new(1.0, [0.0, 0.0], fwhm, ellipticity, beta);
        Self { components: [component; MOST], count: 1, fwhm }
    }

    fn sum(parts: &[Component], fwhm: f64) -> Self {
        let mut profile = Self { components: [parts[0]; MOST], count: parts.len().min(MOST), fwhm };
        profile.components[..profile.count].copy_from_slice(&parts[..profile.count]);
        let total: f64 = profile.parts().iter().map(|c| c.weight).sum();
        let mean: [f64; 2] =
            std::array::from_fn(|i| profile.parts().iter().map(|c| c.weight * c.offset[i]).sum::<f64>() / total);
        for component in &mut profile.components[..profile.count] {
            component.offset = [component.offset[0] - mean[0], component.offset[1] - mean[1]];
            component.weight /= total;
            component.amplitude /= total;
        }
        profile
    }

    fn parts(&self) -> &[Component] {
        &self.components[..self.count]
    }

    /// Flux a square pixel at an offset from the centroid, without integration over the pixel.
    pub fn density(&self, dx: f64, dy: f64) -> f64 {
        self.parts().iter().map(|c| c.density(dx, dy)).sum()
    }

    /// Distance beyond which the density stays below `level`, pixels.
    pub fn radius(&self, level: f64) -> f64 {
        let reach = |c: &Component| {
            let stretch = c.shape[0][0].max(c.shape[1][1]) + c.shape[0][1].abs();
            let r2 = ((c.amplitude / level).max(1.0).powf(1.0 / c.beta) - 1.0) / c.inverse_alpha2;
            r2.sqrt() * stretch + c.offset[0].hypot(c.offset[1])
        };
        self.parts().iter().map(reach).fold(0.0, f64::max)
    }

    /// Noise-equivalent area of the main component, 1/ΣP², pixels: π α² (2β − 1)/(β − 1)².
    pub fn noise_area(&self) -> f64 {
        let c = self.components[0];
        std::f64::consts::PI / c.inverse_alpha2 * (2.0 * c.beta - 1.0) / (c.beta - 1.0).powi(2)
    }

    /// The same profile as seen in axes where an offset d reads `matrix · d` (a rotation).
    pub fn seen_through(&self, matrix: [[f64; 2]; 2]) -> impl Fn(f64, f64) -> f64 + '_ {
        move |dx, dy| self.density(matrix[0][0] * dx + matrix[0][1] * dy, matrix[1][0] * dx + matrix[1][1] * dy)
    }
}

impl Component {
    fn new(weight: f64, offset: [f64; 2], fwhm: f64, [e1, e2]: [f64; 2], beta: f64) -> Self {
        let alpha = fwhm / (2.0 * (2f64.powf(1.0 / beta) - 1.0).sqrt());
        let unit = 1.0 / (1.0 - e1 * e1 - e2 * e2).sqrt();
        let shape = [[unit * (1.0 - e1), -unit * e2], [-unit * e2, unit * (1.0 + e1)]];
        let amplitude = weight * (beta - 1.0) / (std::f64::consts::PI * alpha * alpha);
        Self { offset, shape, inverse_alpha2: 1.0 / (alpha * alpha), beta, amplitude, weight }
    }

    fn density(&self, dx: f64, dy: f64) -> f64 {
        let (dx, dy) = (dx - self.offset[0], dy - self.offset[1]);
        let x = self.shape[0][0] * dx + self.shape[0][1] * dy;
        let y = self.shape[1][0] * dx + self.shape[1][1] * dy;
        let base = (1.0 + (x * x + y * y) * self.inverse_alpha2) as f32;
        self.amplitude * f64::from((-self.beta as f32 * base.ln()).exp())
    }
}

/// How the PSF of one frame varies over the field.
#[derive(Debug, Clone)]
pub struct Optics {
    kind: PsfKind,
    fwhm: f64,
    beta: f64,
    shape: (usize, usize),
    /// Tilt (2), curvature, amplitude and phase of a ripple: fractional change of the width.
    width: [f64; 5],
    /// Mean (2), radial astigmatism, amplitude and phase of a ripple.
    ellipticity: [f64; 5],
}

impl Optics {
    /// Draws the PSF of a frame of `shape` (rows, columns) with a median FWHM of `fwhm` pixels.
    pub fn draw(rng: &mut impl Rng, kind: PsfKind, fwhm: f64, shape: (usize, usize)) -> Self {
        let mut spread = |sigma: f64| sigma * f64::from(normal(rng)).clamp(-2.0, 2.0);
        let width = [spread(0.025), spread(0.025), 0.04 + spread(0.015), spread(0.012), spread(1.5)];
        let ellipticity = [spread(0.025), spread(0.025), spread(0.03), spread(0.012), spread(1.5)];
        Self { kind, fwhm, beta: uniform(rng, 2.7, 3.8), shape, width, ellipticity }
    }

    /// FWHM of the main component in the middle of the field, pixels.
    pub fn fwhm(&self) -> f64 {
        self.fwhm
    }

    /// The PSF at a zero-based pixel.
    pub fn at(&self, x: f64, y: f64) -> Profile {
        let (u, v) = (2.0 * x / self.shape.1 as f64 - 1.0, 2.0 * y / self.shape.0 as f64 - 1.0);
        let (u, v) = (u.clamp(-1.3, 1.3), v.clamp(-1.3, 1.3));
        let [tilt_u, tilt_v, bowl, ripple, phase] = self.width;
        let fwhm = self.fwhm
            * (1.0
                + tilt_u * u
                + tilt_v * v
                + bowl * (u * u + v * v - 0.5)
                + ripple * (2.5 * u - 1.8 * v + phase).sin());
        let [mean1, mean2, astigmatism, ripple, phase] = self.ellipticity;
        let e1 = mean1 + astigmatism * (u * u - v * v) + ripple * (2.2 * v + phase).sin();
        let e2 = mean2 + astigmatism * 2.0 * u * v + ripple * (2.2 * u - phase).cos();
        match self.kind {
            PsfKind::Moffat => Profile::moffat(fwhm, [e1, e2], self.beta),
            PsfKind::Double => Profile::sum(
                &[
                    Component::new(0.82, [0.0, 0.0], fwhm, [e1, e2], self.beta),
                    Component::new(0.18, [0.0, 0.0], 2.1 * fwhm, [0.5 * e1, 0.5 * e2], 2.6),
                ],
                fwhm,
            ),
            PsfKind::Coma => self.coma(fwhm, [e1, e2], u, v),
        }
    }

    /// Core, three lobes of a trefoil that turns slowly over the field, and a tail in two steps that
    /// points outwards and grows with the distance from the axis.
    fn coma(&self, fwhm: f64, ellipticity: [f64; 2], u: f64, v: f64) -> Profile {
        let mut parts = vec![Component::new(0.62, [0.0, 0.0], fwhm, ellipticity, self.beta)];
        for lobe in 0..3 {
            let angle = self.width[4] + 0.3 * u + f64::from(lobe) * std::f64::consts::TAU / 3.0;
            let offset = [0.55 * fwhm * angle.cos(), 0.55 * fwhm * angle.sin()];
            parts.push(Component::new(0.07, offset, 0.9 * fwhm, [0.0, 0.0], self.beta));
        }
        for (step, weight) in [(0.35, 0.11), (0.75, 0.06)] {
            let offset = [step * fwhm * u, step * fwhm * v];
            parts.push(Component::new(weight, offset, (1.0 + 0.4 * step) * fwhm, [0.0, 0.0], self.beta));
        }
        Profile::sum(&parts, fwhm)
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::{Purpose, stream};
    use super::*;

    #[test]
    fn every_kind_of_psf_has_unit_flux_and_its_centroid_at_the_origin() {
        for kind in [PsfKind::Moffat, PsfKind::Double, PsfKind::Coma] {
            let mut rng = stream(3, Purpose::Optics, 0, 0);
            let profile = Optics::draw(&mut rng, kind, 2.6, (3080, 3072)).at(2900.0, 200.0);
            let (mut flux, mut first) = (0.0, [0.0; 2]);
            let step = 0.25;
            for j in -320..=320 {
                for i in -320..=320 {
                    let (x, y) = (f64::from(i) * step, f64::from(j) * step);
                    let density = profile.density(x, y) * step * step;
                    flux += density;
                    // The wings are heavy: moments within 20 px.
                    if x.hypot(y) < 20.0 {
                        first = [first[0] + x * density, first[1] + y * density];
                    }
                }
            }
            assert!((flux - 1.0).abs() < 3e-3, "{kind:?}: {flux}");
            assert!(first[0].abs() < 3e-3 && first[1].abs() < 3e-3, "{kind:?}: {first:?}");
        }
    }

    #[test]
    fn a_moffat_profile_falls_to_half_at_half_its_fwhm() {
        let profile = Profile::moffat(3.0, [0.0, 0.0], 3.2);
        assert!((profile.density(1.5, 0.0) / profile.density(0.0, 0.0) - 0.5).abs() < 1e-5);
        assert!((profile.density(profile.radius(1e-6), 0.0) / 1e-6 - 1.0).abs() < 1e-3);
    }
}
