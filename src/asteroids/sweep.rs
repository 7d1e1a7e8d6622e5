//! Where all orbits are at one moment, and how fast: what rules most of them out for an exposure.

use rayon::prelude::*;

use super::earth::earth;
use super::orbit::{Orbit, length, less};

/// Days on either side of the moment for which it serves.
const DAYS: f64 = 0.5;
/// What the straight line and the Earth's radius may be wrong by, rad.
const MARGIN: f32 = 2e-4;
/// Nearer than this, au, the distance itself changes too much: such an orbit is always propagated.
const NEAR: f64 = 0.03;
/// The angular speed may grow by this within half a day.
const GROWTH: f64 = 1.5;

/// The directions of all orbits from the Earth's centre.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Terrestrial time, MJD.
    moment: f64,
    /// Unit vector, and the largest angular speed, rad/day.
    places: Vec<([f32; 3], f32)>,
}

impl Sweep {
    /// Propagates all orbits to `moment`.
    pub(super) fn at(orbits: &[Orbit], moment: f64) -> Self {
        let centre = earth(moment);
        let (before, after) = (earth(moment - 0.01), earth(moment + 0.01));
        let moves: [f64; 3] = std::array::from_fn(|i| (after[i] - before[i]) / 0.02);
        let place = |orbit: &Orbit| {
            let (place, velocity) = orbit.state(moment);
            let towards = less(place, centre);
            let distance = length(towards);
            let speed = match distance {
                ..NEAR => f64::INFINITY,
                _ => GROWTH * length(less(velocity, moves)) / distance,
            };
            (towards.map(|x| (x / distance) as f32), speed as f32)
        };
        Self { moment, places: orbits.par_iter().map(place).collect() }
    }

    /// Whether it tells of a terrestrial time.
    pub(super) fn serves(&self, dynamical: f64) -> bool {
        (dynamical - self.moment).abs() <= DAYS
    }

    /// Indices of the orbits that may be within `radius` (rad) of `centre`. Light time moves them by less than
    /// their motion in the time that light takes, which counts as time here.
    pub(super) fn candidates(&self, dynamical: f64, centre: [f64; 3], radius: f64) -> Vec<usize> {
        const LIGHT_DAYS_AU: f32 = 0.0058;
        /// Light time of what moves so fast that it counts: within 6 au.
        const LIGHT: f32 = 6.0 * LIGHT_DAYS_AU;
        let days = (dynamical - self.moment).abs() as f32 + LIGHT;
        let centre = centre.map(|x| x as f32);
        let radius = radius as f32 + MARGIN;
        let near = |(direction, speed): &([f32; 3], f32)| {
            // A chord is no longer than its arc.
            let chord2: f32 = (0..3).map(|i| (direction[i] - centre[i]).powi(2)).sum();
            chord2 <= (radius + speed * days).powi(2)
        };
        self.places.par_iter().enumerate().filter(|(_, place)| near(place)).map(|(index, _)| index).collect()
    }
}
