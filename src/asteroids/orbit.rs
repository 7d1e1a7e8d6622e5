//! One orbit: two bodies, and how bright it is.

/// Gaussian gravitational constant, rad/day at 1 au.
pub(super) const GAUSS: f64 = 0.017_202_098_95;
/// Obliquity of the ecliptic of J2000 to which the Minor Planet Center's elements refer (IAU 1976), rad.
const OBLIQUITY: f64 = 84_381.448 / 3600.0 * std::f64::consts::PI / 180.0;
/// Days that light takes for 1 au.
const LIGHT_DAYS: f64 = 499.004_784 / 86_400.0;

/// An elliptic orbit; angles and vectors as precise as 30″ asks for, and no more: there are 1.4 million.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Orbit {
    /// Mean anomaly at the epoch, rad.
    mean_anomaly: f64,
    /// Mean motion, rad/day.
    motion: f64,
    /// Eccentricity.
    eccentricity: f64,
    /// Epoch of the elements, MJD (TT).
    pub epoch: f32,
    /// Semi-major axis times the unit vector to the perihelion, au, ICRS.
    p: [f32; 3],
    /// Semi-minor axis times the unit vector 90° ahead of it, au, ICRS.
    q: [f32; 3],
    /// Absolute magnitude; not a number where unknown.
    h: f32,
    /// Slope.
    g: f32,
}

/// Elements as the Minor Planet Center writes them: degrees, au, ecliptic of J2000.
#[derive(Debug, Clone, Copy)]
pub struct Elements {
    /// Epoch, MJD (TT).
    pub epoch: f64,
    /// Mean anomaly.
    pub mean_anomaly: f64,
    /// Argument of perihelion.
    pub perihelion: f64,
    /// Longitude of the ascending node.
    pub node: f64,
    /// Inclination.
    pub inclination: f64,
    /// Eccentricity, below 1.
    pub eccentricity: f64,
    /// Semi-major axis.
    pub axis: f64,
    /// Absolute magnitude.
    pub h: f64,
    /// Slope.
    pub g: f64,
}

/// An orbit's body as it is seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Unit vector to it, ICRS.
    pub direction: [f64; 3],
    /// Distance from the observer, au.
    pub distance: f64,
    /// V magnitude.
    pub mag: f64,
}

impl Orbit {
    /// From elements (Murray & Dermott 1999, Solar System Dynamics, §2.8).
    pub fn of(elements: &Elements) -> Self {
        let radians = |degrees: f64| degrees.to_radians().sin_cos();
        let ((sw, cw), (so, co), (si, ci)) =
            (radians(elements.perihelion), radians(elements.node), radians(elements.inclination));
        let p = [cw * co - sw * so * ci, cw * so + sw * co * ci, sw * si];
        let q = [-sw * co - cw * so * ci, -sw * so + cw * co * ci, cw * si];
        let (se, ce) = OBLIQUITY.sin_cos();
        let equatorial = |v: [f64; 3], length: f64| {
            [length * v[0], length * (ce * v[1] - se * v[2]), length * (se * v[1] + ce * v[2])].map(|x| x as f32)
        };
        let e = elements.eccentricity;
        Self {
            mean_anomaly: elements.mean_anomaly.to_radians(),
            motion: GAUSS / elements.axis.powf(1.5),
            eccentricity: e,
            epoch: elements.epoch as f32,
            p: equatorial(p, elements.axis),
            q: equatorial(q, elements.axis * (1.0 - e * e).sqrt()),
            h: elements.h as f32,
            g: elements.g as f32,
        }
    }

    /// Place and velocity from the Sun at a terrestrial time (MJD): au, au/day.
    pub(super) fn state(&self, dynamical: f64) -> ([f64; 3], [f64; 3]) {
        let e = self.eccentricity;
        let anomaly = self.mean_anomaly + self.motion * (dynamical - f64::from(self.epoch));
        let eccentric = kepler(anomaly.rem_euclid(std::f64::consts::TAU), e);
        let (sin, cos) = eccentric.sin_cos();
        let rate = self.motion / (1.0 - e * cos);
        let along = |a: f64, b: f64| std::array::from_fn(|i| a * f64::from(self.p[i]) + b * f64::from(self.q[i]));
        (along(cos - e, sin), along(-sin * rate, cos * rate))
    }

    /// As seen from `observer` (from the Sun, au): the light left it before.
    pub(super) fn seen_from(&self, observer: [f64; 3], dynamical: f64) -> Seen {
        let (place, velocity) = self.state(dynamical);
        let mut towards = less(place, observer);
        let mut from_sun = place;
        // Along a straight line for the minutes that light needs: better than 0.01″ for what is 0.01 au away.
        for _ in 0..2 {
            let before = length(towards) * LIGHT_DAYS;
            from_sun = std::array::from_fn(|i| place[i] - velocity[i] * before);
            towards = less(from_sun, observer);
        }
        let distance = length(towards);
        let mag = self.magnitude(length(from_sun), distance, length(observer));
        Seen { direction: towards.map(|x| x / distance), distance, mag }
    }

    /// Apparent V of the H, G system (Bowell et al. 1989, Asteroids II, equations A1 to A4).
    fn magnitude(&self, from_sun: f64, distance: f64, observer: f64) -> f64 {
        let cos = (from_sun.powi(2) + distance.powi(2) - observer.powi(2)) / (2.0 * from_sun * distance);
        let half = (0.5 * cos.clamp(-1.0, 1.0).acos()).tan();
        let phi1 = (-3.33 * half.powf(0.63)).exp();
        let phi2 = (-1.87 * half.powf(1.22)).exp();
        let g = f64::from(self.g);
        f64::from(self.h) + 5.0 * (from_sun * distance).log10() - 2.5 * ((1.0 - g) * phi1 + g * phi2).log10()
    }
}

/// The eccentric anomaly E of M = E − e sin E, M from 0 to 2π: Newton's method from Danby's start (Danby 1988,
/// Fundamentals of Celestial Mechanics, §6.6).
fn kepler(mean: f64, e: f64) -> f64 {
    let mut eccentric = mean + 0.85 * e * mean.sin().signum();
    for _ in 0..30 {
        let (sin, cos) = eccentric.sin_cos();
        let step = (eccentric - e * sin - mean) / (1.0 - e * cos);
        eccentric -= step;
        if step.abs() < 1e-9 {
            break;
        }
    }
    eccentric
}

pub(super) fn less(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn length(a: [f64; 3]) -> f64 {
    (a[0] * a[0] + a[1] * a[1] + a[2] * a[2]).sqrt()
}

/// Unit vector of a place, degrees.
pub(super) fn unit(ra: f64, dec: f64) -> [f64; 3] {
    let ((sin_a, cos_a), (sin_d, cos_d)) = (ra.to_radians().sin_cos(), dec.to_radians().sin_cos());
    [cos_d * cos_a, cos_d * sin_a, sin_d]
}

/// Right ascension and declination of a direction, degrees.
pub(super) fn sky(v: [f64; 3]) -> (f64, f64) {
    (v[1].atan2(v[0]).to_degrees().rem_euclid(360.0), v[2].atan2(v[0].hypot(v[1])).to_degrees())
}

/// Angle between unit vectors, rad.
pub(super) fn angle(a: [f64; 3], b: [f64; 3]) -> f64 {
    2.0 * (0.5 * length(less(a, b))).min(1.0).asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keplers_equation_is_solved_for_every_eccentricity() {
        for e in [0.0, 0.1, 0.5, 0.9, 0.97, 0.999] {
            for i in 0..=100 {
                let mean = f64::from(i) / 100.0 * std::f64::consts::TAU;
                let found = kepler(mean, e);
                assert!((found - e * found.sin() - mean).abs() < 1e-8, "{e} {mean} {found}");
            }
        }
    }
}
