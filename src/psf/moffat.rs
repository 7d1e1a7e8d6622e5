//! The elliptical Moffat profile, integrated over the pixel.
//!
//! Moffat 1969 (A&A 3, 455): `I(r) ∝ (1 + r²/α²)^(−β)`. The ellipse is a shear that keeps the area:
//! `r = A d`, `A = [[1 − e1, −e2], [−e2, 1 + e1]] / √(1 − e1² − e2²)`. The pixel is integrated by 2×2
//! Gauss–Legendre nodes in the core, where the profile curves within a pixel, and by its centre outside (the sum
//! over all pixels is 0.2 % low at a FWHM of 2.5 px, 0.4 % at 1.7 px; rendered stars are normalised).

/// Half the distance of the two Gauss–Legendre nodes of a pixel.
const NODE: f64 = 0.288_675_134_594_812_9;
/// Beyond this many FWHM from the centre a pixel is sampled at its centre.
const CORE_FWHM: f64 = 1.75;
/// Ellipticities are kept below this modulus.
const MAX_ELLIPTICITY: f64 = 0.6;

/// Parameters of one profile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moffat {
    /// ln of the scale α in pixels.
    pub ln_alpha: f64,
    /// Shear along the axes.
    pub e1: f64,
    /// Shear along the diagonals.
    pub e2: f64,
    /// Exponent β.
    pub beta: f64,
}

/// Value and derivatives of the pixel-integrated profile of unit total flux.
#[derive(Debug, Clone, Copy, Default)]
pub struct Derivatives {
    /// The profile.
    pub value: f64,
    /// With respect to ln α, e1, e2, β.
    pub shape: [f64; 4],
    /// With respect to the centre (x, y).
    pub centre: [f64; 2],
}

impl Moffat {
    /// Full width at half maximum of the equivalent round profile, pixels.
    pub fn fwhm(&self) -> f64 {
        2.0 * self.ln_alpha.exp() * (2f64.powf(1.0 / self.beta) - 1.0).sqrt()
    }

    /// ln α of a profile with this FWHM.
    pub fn ln_alpha_of(fwhm: f64, beta: f64) -> f64 {
        (fwhm / (2.0 * (2f64.powf(1.0 / beta) - 1.0).sqrt())).ln()
    }

    /// Ratio of the axes, at least 1.
    pub fn elongation(&self) -> f64 {
        let e = self.e1.hypot(self.e2).min(MAX_ELLIPTICITY);
        (1.0 + e) / (1.0 - e)
    }

    /// The same profile with its parameters inside the ranges where it is defined.
    pub fn bounded(self) -> Self {
        let e = self.e1.hypot(self.e2);
        let shrink = if e > MAX_ELLIPTICITY { MAX_ELLIPTICITY / e } else { 1.0 };
        Self {
            ln_alpha: self.ln_alpha.clamp(-1.5, 3.5),
            e1: self.e1 * shrink,
            e2: self.e2 * shrink,
            beta: self.beta.clamp(1.3, 12.0),
        }
    }

    /// The profile of unit total flux in the pixel at (dx, dy) from its centre.
    pub fn value(&self, dx: f64, dy: f64) -> f64 {
        let form = Form::of(self);
        if form.is_core(dx, dy) {
            let sum: f64 = nodes().iter().map(|(nx, ny)| form.value(dx + nx, dy + ny)).sum();
            sum / 4.0
        } else {
            form.value(dx, dy)
        }
    }

    /// Fills `row` with the profile of pixels at `x0, x0 + 1, …` from its centre, all at `dy`.
    pub fn fill_row(&self, x0: f64, dy: f64, row: &mut [f64]) {
        let form = Form::of(self);
        for (i, pixel) in row.iter_mut().enumerate() {
            let dx = x0 + i as f64;
            *pixel = if form.is_core(dx, dy) {
                nodes().iter().map(|(nx, ny)| form.value(dx + nx, dy + ny)).sum::<f64>() / 4.0
            } else {
                form.value(dx, dy)
            };
        }
    }

    /// Value and derivatives in the pixel at (dx, dy) from the centre.
    pub fn derivatives(&self, dx: f64, dy: f64) -> Derivatives {
        let form = Form::of(self);
        if !form.is_core(dx, dy) {
            return form.derivatives(dx, dy);
        }
        let mut mean = Derivatives::default();
        for (nx, ny) in nodes() {
            let node = form.derivatives(dx + nx, dy + ny);
            mean.value += node.value / 4.0;
            for (sum, part) in mean.shape.iter_mut().zip(node.shape) {
                *sum += part / 4.0;
            }
            for (sum, part) in mean.centre.iter_mut().zip(node.centre) {
                *sum += part / 4.0;
            }
        }
        mean
    }
}

fn nodes() -> [(f64, f64); 4] {
    [(-NODE, -NODE), (NODE, -NODE), (-NODE, NODE), (NODE, NODE)]
}

/// The quadratic form of a profile, worked out once for many pixels.
struct Form {
    moffat: Moffat,
    inverse_alpha2: f64,
    /// 1 / (1 − e1² − e2²).
    area: f64,
    norm: f64,
    core2: f64,
}

impl Form {
    fn of(moffat: &Moffat) -> Self {
        let alpha2 = (2.0 * moffat.ln_alpha).exp();
        let core = CORE_FWHM * moffat.fwhm();
        Self {
            moffat: *moffat,
            inverse_alpha2: 1.0 / alpha2,
            area: 1.0 / (1.0 - moffat.e1 * moffat.e1 - moffat.e2 * moffat.e2),
            norm: (moffat.beta - 1.0) / (std::f64::consts::PI * alpha2),
            core2: core * core,
        }
    }

    fn is_core(&self, dx: f64, dy: f64) -> bool {
        dx * dx + dy * dy < self.core2
    }

    fn sheared(&self, dx: f64, dy: f64) -> (f64, f64) {
        let Moffat { e1, e2, .. } = self.moffat;
        ((1.0 - e1) * dx - e2 * dy, -e2 * dx + (1.0 + e1) * dy)
    }

    fn value(&self, dx: f64, dy: f64) -> f64 {
        let (u, v) = self.sheared(dx, dy);
        let q = (u * u + v * v) * self.area * self.inverse_alpha2;
        self.norm * (-self.moffat.beta * q.ln_1p()).exp()
    }

    fn derivatives(&self, dx: f64, dy: f64) -> Derivatives {
        let Moffat { e1, e2, beta, .. } = self.moffat;
        let (u, v) = self.sheared(dx, dy);
        let scale = self.area * self.inverse_alpha2;
        let q = (u * u + v * v) * scale;
        let log = q.ln_1p();
        let value = self.norm * (-beta * log).exp();
        // dI/dq, and q by each parameter.
        let by_q = -beta * value / (1.0 + q);
        let q_e1 = 2.0 * scale * (-u * dx + v * dy) + 2.0 * e1 * self.area * q;
        let q_e2 = 2.0 * scale * (-u * dy - v * dx) + 2.0 * e2 * self.area * q;
        let q_x = 2.0 * scale * (u * (1.0 - e1) - v * e2);
        let q_y = 2.0 * scale * (-u * e2 + v * (1.0 + e1));
        Derivatives {
            value,
            shape: [by_q * (-2.0 * q) - 2.0 * value, by_q * q_e1, by_q * q_e2, value * (1.0 / (beta - 1.0) - log)],
            centre: [-by_q * q_x, -by_q * q_y],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: Moffat = Moffat { ln_alpha: 0.5, e1: 0.08, e2: -0.05, beta: 3.1 };

    #[test]
    fn the_profile_has_unit_flux() {
        let profile = Moffat { ln_alpha: 0.9, ..PROFILE };
        let mut sum = 0.0;
        for y in -150..=150 {
            for x in -150..=150 {
                sum += profile.value(f64::from(x) + 0.3, f64::from(y) - 0.2);
            }
        }
        assert!((sum - 1.0).abs() < 2e-3, "{sum}");
    }

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let step = 1e-6;
        for (dx, dy) in [(0.3, -0.4), (1.7, 2.2), (6.0, -5.0)] {
            let analytic = PROFILE.derivatives(dx, dy);
            let shifted = |change: fn(&mut Moffat, f64)| {
                let (mut up, mut down) = (PROFILE, PROFILE);
                change(&mut up, step);
                change(&mut down, -step);
                (up.value(dx, dy) - down.value(dx, dy)) / (2.0 * step)
            };
            let numeric = [
                shifted(|m, h| m.ln_alpha += h),
                shifted(|m, h| m.e1 += h),
                shifted(|m, h| m.e2 += h),
                shifted(|m, h| m.beta += h),
            ];
            for (a, n) in analytic.shape.iter().zip(numeric) {
                assert!((a - n).abs() < 1e-7, "{a} {n}");
            }
            let by_x = (PROFILE.value(dx - step, dy) - PROFILE.value(dx + step, dy)) / (2.0 * step);
            assert!((analytic.centre[0] - by_x).abs() < 1e-7);
        }
    }
}
