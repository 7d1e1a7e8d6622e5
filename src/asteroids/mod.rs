//! Known asteroids: where the orbits of an MPCORB file put them when an exposure was taken.
//!
//! Each orbit is propagated as two bodies from the epoch of its elements, the light time allowed for, and seen from the
//! observatory: what is compared with a candidate is an astrometric place. Perturbations are left out. For Ceres,
//! Pallas, Juno and Vesta that costs at most 0.8″ within 30 days of the epoch, 9.5″ at 100 and 26″ at 200
//! (`tests/asteroids_are_where_they_should_be.rs` integrates them with the planets beside it): a file whose epoch is
//! some months away is good enough for a search radius of 30″. [`Asteroids::stale`] says when it is not.
//!
//! Most orbits are far from any exposure. Once in half a day all of them are propagated to one moment (`sweep`);
//! an exposure then propagates only those that can have come near it.

mod earth;
mod earth_series;
mod mpcorb;
mod orbit;
mod sweep;

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

pub use earth::Observatory;
pub use mpcorb::{Orbits, OrbitsError, Rubbish};

use crate::time::Mjd;
use orbit::Seen;
use sweep::Sweep;

/// Days from the epoch beyond which places may be off by more than the search radius.
const STALE_DAYS: f64 = 200.0;

/// An asteroid as it should be seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Asteroid {
    /// Number, or provisional designation without blanks.
    pub name: String,
    /// Right ascension, degrees, ICRS, astrometric.
    pub ra: f64,
    /// Declination, degrees.
    pub dec: f64,
    /// V magnitude (H, G system); not a number where the file has no H.
    pub mag: f64,
    /// Distance from the observatory, au.
    pub distance_au: f64,
}

/// The orbits, ready to be asked.
#[derive(Debug)]
pub struct Asteroids {
    orbits: Orbits,
    observatory: Observatory,
    sweep: Mutex<Option<Arc<Sweep>>>,
}

impl Asteroids {
    /// The asteroids of these orbits as seen from an observatory.
    pub fn new(orbits: Orbits, observatory: Observatory) -> Self {
        Self { orbits, observatory, sweep: Mutex::new(None) }
    }

    /// Orbits.
    pub fn len(&self) -> usize {
        self.orbits.orbits.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.orbits.orbits.is_empty()
    }

    /// A sentence where the elements are too old, or too new, for an exposure.
    pub fn stale(&self, time: Mjd) -> Option<String> {
        let days = time.0 - self.orbits.median_epoch;
        (days.abs() > STALE_DAYS).then(|| {
            format!(
                "the orbits' elements are of {}, {days:.0} days from the exposure: asteroids may be missed; get a new MPCORB.DAT",
                &Mjd(self.orbits.median_epoch).to_string()[..10]
            )
        })
    }

    /// All within `radius_deg` of a place at a time (UTC, the middle of the exposure).
    pub fn near(&self, time: Mjd, (ra, dec): (f64, f64), radius_deg: f64) -> Vec<Asteroid> {
        if !(ra.is_finite() && dec.is_finite() && radius_deg.is_finite()) {
            return Vec::new();
        }
        let from = self.observatory.place(time);
        let dynamical = earth::dynamical(time);
        let centre = orbit::unit(ra, dec);
        let reach = radius_deg.to_radians();
        let sweep = self.sweep_for(dynamical);
        let mut found: Vec<Asteroid> = sweep
            .candidates(dynamical, centre, reach)
            .into_par_iter()
            .filter_map(|index| {
                let seen: Seen = self.orbits.orbits[index].seen_from(from, dynamical);
                (orbit::angle(seen.direction, centre) <= reach).then(|| {
                    let (ra, dec) = orbit::sky(seen.direction);
                    Asteroid {
                        name: self.orbits.name(index).to_owned(),
                        ra,
                        dec,
                        mag: seen.mag,
                        distance_au: seen.distance,
                    }
                })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The same without the sweep, orbit by orbit: what tests hold [`Self::near`] against.
    pub fn near_by_all(&self, time: Mjd, (ra, dec): (f64, f64), radius_deg: f64) -> usize {
        let (from, dynamical) = (self.observatory.place(time), earth::dynamical(time));
        let (centre, reach) = (orbit::unit(ra, dec), radius_deg.to_radians());
        let near = |orbit: &&orbit::Orbit| orbit::angle(orbit.seen_from(from, dynamical).direction, centre) <= reach;
        self.orbits.orbits.iter().filter(near).count()
    }

    fn sweep_for(&self, dynamical: f64) -> Arc<Sweep> {
        let mut kept = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(sweep) if sweep.serves(dynamical) => sweep.clone(),
            _ => {
                let sweep = Arc::new(Sweep::at(&self.orbits.orbits, dynamical));
                *kept = Some(sweep.clone());
                sweep
            }
        }
    }
}
