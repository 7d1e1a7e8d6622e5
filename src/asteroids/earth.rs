//! Where the observatory is, heliocentric, au, ICRS.

use super::earth_series::{Term, X0, X1, Y0, Y1, Z0, Z1};
use crate::time::Mjd;

/// MJD of J2000.0 (TT).
const J2000: f64 = 51_544.5;
/// Kilometres in an astronomical unit (IAU 2012, resolution B2).
const AU_KM: f64 = 149_597_870.7;
/// Equatorial radius of the Earth, km, and its flattening (GRS80).
const RADIUS_KM: f64 = 6_378.137;
const FLATTENING: f64 = 1.0 / 298.257_222_101;
/// From the series' ecliptic to the ICRS (ERFA, `eraEpv00`).
const TO_ICRS: [[f64; 3]; 3] = [
    [1.0, 0.000_000_211_284, -0.000_000_091_603],
    [-0.000_000_230_286, 0.917_482_137_087, -0.397_776_982_902],
    [0.0, 0.397_776_982_902, 0.917_482_137_087],
];
/// TAI − UTC from these days (MJD) on, seconds (IERS Bulletin C); before the first, its value.
const LEAP_SECONDS: [(f64, f64); 6] =
    [(51_179.0, 32.0), (53_736.0, 33.0), (54_832.0, 34.0), (56_109.0, 35.0), (57_204.0, 36.0), (57_754.0, 37.0)];

/// Terrestrial time of a UTC, MJD.
pub(super) fn dynamical(utc: Mjd) -> f64 {
    let leap = LEAP_SECONDS.iter().rev().find(|(from, _)| utc.0 >= *from).map_or(LEAP_SECONDS[0].1, |(_, s)| *s);
    utc.0 + (leap + 32.184) / 86_400.0
}

/// The Earth's centre from the Sun at a terrestrial time (MJD), au, ICRS.
pub(super) fn earth(dynamical: f64) -> [f64; 3] {
    let t = (dynamical - J2000) / 365.25;
    let sum = |terms: &[Term]| terms.iter().map(|[a, phase, rate]| a * (phase + rate * t).cos()).sum::<f64>();
    let ecliptic = [sum(&X0) + t * sum(&X1), sum(&Y0) + t * sum(&Y1), sum(&Z0) + t * sum(&Z1)];
    TO_ICRS.map(|row| row[0] * ecliptic[0] + row[1] * ecliptic[1] + row[2] * ecliptic[2])
}

/// A place on the Earth.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Observatory {
    /// Degrees, east positive.
    pub longitude_deg: f64,
    /// Degrees, geodetic.
    pub latitude_deg: f64,
    /// Metres above the ellipsoid.
    pub elevation_m: f64,
}

impl Observatory {
    /// Its place from the Sun at a UTC, au, ICRS.
    pub(super) fn place(&self, utc: Mjd) -> [f64; 3] {
        let earth = earth(dynamical(utc));
        // The Earth's rotation angle (IERS Conventions 2010, equation 5.15), UT1 taken for UTC. The pole's
        // precession since 2000 (0.15°) turns the parallax by 0.02″ and is left out.
        let turns = 0.779_057_273_264 + 1.002_737_811_911_354_5 * (utc.0 - J2000);
        let angle = std::f64::consts::TAU * turns.rem_euclid(1.0) + self.longitude_deg.to_radians();
        let (sin, cos) = self.latitude_deg.to_radians().sin_cos();
        let polar = (1.0 - FLATTENING).powi(2);
        let normal = RADIUS_KM / (cos * cos + polar * sin * sin).sqrt();
        let height = self.elevation_m / 1000.0;
        let (across, up) = ((normal + height) * cos / AU_KM, (normal * polar + height) * sin / AU_KM);
        [earth[0] + across * angle.cos(), earth[1] + across * angle.sin(), earth[2] + up]
    }
}
