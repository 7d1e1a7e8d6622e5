//! The sky cut into cells: zones of declination (Gray, Nieto-Santisteban & Szalay 2006, MSR-TR-2006-52), each cut
//! along right ascension into cells about as wide as high.

/// Zones of the finest cut; every other cut joins neighbours of it, so that a row's zone of one is part of its zone of
/// any coarser one, whatever the rounding.
pub const FINEST: u32 = 1_800;
/// The cuts that there are.
pub const CUTS: [u32; 8] = [60, 120, 180, 300, 360, 600, 900, FINEST];

/// The cells of a number of zones.
#[derive(Debug, Clone)]
pub struct Cells {
    /// Zones of the finest cut in one of this.
    joined: u32,
    /// First cell of each zone, and the end.
    first: Vec<u32>,
}

/// A run of neighbouring cells and the right ascensions wanted of it, degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// First cell.
    pub from: u32,
    /// Last cell.
    pub to: u32,
    /// Lowest right ascension.
    pub low: f64,
    /// Highest right ascension.
    pub high: f64,
}

impl Cells {
    /// Cuts the sky into `zones` of equal height; `None` where that is none of [`CUTS`].
    pub fn new(zones: u32) -> Option<Self> {
        CUTS.contains(&zones).then(|| Self::of_cut(zones))
    }

    fn of_cut(zones: u32) -> Self {
        let height = 180.0 / f64::from(zones);
        let mut first = Vec::with_capacity(zones as usize + 1);
        let mut next = 0u32;
        for zone in 0..zones {
            first.push(next);
            let middle = -90.0 + (f64::from(zone) + 0.5) * height;
            next += ((360.0 * middle.to_radians().cos() / height) as u32).max(1);
        }
        first.push(next);
        Self { joined: FINEST / zones, first }
    }

    /// Cells in all.
    pub fn count(&self) -> u32 {
        self.first.last().copied().unwrap_or(0)
    }

    fn zone(&self, dec: f64) -> u32 {
        finest_zone(dec) / self.joined
    }

    fn column(&self, zone: u32, ra: f64) -> u32 {
        let columns = self.first[zone as usize + 1] - self.first[zone as usize];
        ((ra / 360.0 * f64::from(columns)) as u32).min(columns - 1)
    }

    /// The cell of a place; `ra` from 0 to 360.
    pub fn of(&self, ra: f64, dec: f64) -> u32 {
        let zone = self.zone(dec);
        self.first[zone as usize] + self.column(zone, ra)
    }

    /// Runs of cells that hold all within `radius` degrees of a place.
    pub fn around(&self, ra: f64, dec: f64, radius: f64) -> Vec<Run> {
        let highest = (dec.abs() + radius).min(90.0);
        // Half width in right ascension of a small circle: sin Δα = sin r / cos δ. Rows are rounded to a grid.
        let radius = radius + 1e-6;
        let ratio = radius.to_radians().sin() / dec.to_radians().cos();
        let half = if highest >= 90.0 || ratio >= 1.0 { 180.0 } else { ratio.asin().to_degrees() + 1e-6 };
        let (low, high) = (ra.rem_euclid(360.0) - half, ra.rem_euclid(360.0) + half);
        let pieces: Vec<(f64, f64)> = if half >= 180.0 {
            vec![(0.0, 360.0)]
        } else if low < 0.0 {
            vec![(0.0, high), (low + 360.0, 360.0)]
        } else if high >= 360.0 {
            vec![(low, 360.0), (0.0, high - 360.0)]
        } else {
            vec![(low, high)]
        };
        let zones = self.zone(dec - radius)..=self.zone(dec + radius);
        let run = |zone: u32, (low, high): (f64, f64)| {
            let first = self.first[zone as usize];
            Run { from: first + self.column(zone, low), to: first + self.column(zone, high), low, high }
        };
        zones.flat_map(|zone| pieces.iter().map(move |piece| run(zone, *piece))).collect()
    }
}

/// The zone of the finest cut that holds a declination.
pub fn finest_zone(dec: f64) -> u32 {
    (((dec + 90.0) / 180.0 * f64::from(FINEST)).max(0.0) as u32).min(FINEST - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_within_the_radius_is_in_one_of_the_runs() {
        let cells = Cells::new(600).unwrap();
        let mut places = 0;
        for (ra, dec) in [(0.001, 0.0), (359.999, 45.0), (10.0, 89.99), (200.0, -89.999), (123.4, -30.1)] {
            let runs = cells.around(ra, dec, 0.025);
            for i in 0..360 {
                // A point at 0.0249 degrees in direction i: the forward geodesic.
                let (r, t) = (0.0249_f64.to_radians(), f64::from(i).to_radians());
                let (sin_d, cos_d) = dec.to_radians().sin_cos();
                let other = (sin_d * r.cos() + cos_d * r.sin() * t.cos()).asin();
                let turn = (t.sin() * r.sin() * cos_d).atan2(r.cos() - sin_d * other.sin());
                let a = (ra + turn.to_degrees()).rem_euclid(360.0);
                let cell = cells.of(a, other.to_degrees());
                let holds = |run: &Run| (run.from..=run.to).contains(&cell) && run.low <= a && a <= run.high;
                assert!(runs.iter().any(holds), "{ra} {dec} direction {i}");
                places += 1;
            }
        }
        assert_eq!(places, 1800);
    }
}
