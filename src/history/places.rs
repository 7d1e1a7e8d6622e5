//! Places on the sky: zones, separations, footprints of frames, and the names that places give.
//!
//! Objects are indexed by zones of declination (Gray, Nieto-Santisteban & Szalay 2006,
//! MSR-TR-2006-52, "The Zones Algorithm"): within a zone a B-tree on right ascension finds the
//! neighbours of a place with one range query. A cell index such as HEALPix would do the same with
//! more code for a search this small.

/// Everything within this of an object's first detection is that object, arcsec.
pub const OBJECT_RADIUS_ARCSEC: f64 = 1.5;
/// Height of a zone, degrees.
const ZONE_DEG: f64 = 0.5 / 60.0;

/// The zone of a declination.
pub(super) fn zone(dec: f64) -> i64 {
    ((dec + 90.0) / ZONE_DEG).floor() as i64
}

/// Ranges of (zone, lowest, highest right ascension) that hold all within `radius` degrees.
pub(super) fn ranges(ra: f64, dec: f64, radius: f64) -> Vec<(i64, f64, f64)> {
    let highest = (dec.abs() + radius).min(90.0);
    // Half width in right ascension of a small circle: sin Δα = sin r / cos δ.
    let ratio = radius.to_radians().sin() / dec.to_radians().cos();
    let half = if highest >= 90.0 || ratio >= 1.0 { 180.0 } else { ratio.asin().to_degrees() + 1e-9 };
    let mut found = Vec::new();
    for zone in zone((dec - radius).max(-90.0))..=zone((dec + radius).min(90.0)) {
        let (low, high) = (ra - half, ra + half);
        if half >= 180.0 {
            found.push((zone, 0.0, 360.0));
        } else if low < 0.0 {
            found.push((zone, 0.0, high));
            found.push((zone, low + 360.0, 360.0));
        } else if high >= 360.0 {
            found.push((zone, low, 360.0));
            found.push((zone, 0.0, high - 360.0));
        } else {
            found.push((zone, low, high));
        }
    }
    found
}

/// Angle between two places, degrees (haversine, exact for small angles).
pub(super) fn separation(a: (f64, f64), b: (f64, f64)) -> f64 {
    let half_ra = (0.5 * (a.0 - b.0)).to_radians().sin();
    let half_dec = (0.5 * (a.1 - b.1)).to_radians().sin();
    let h = half_dec * half_dec + a.1.to_radians().cos() * b.1.to_radians().cos() * half_ra * half_ra;
    2.0 * h.sqrt().min(1.0).asin().to_degrees()
}

/// The four corners of a frame on the sky, in order around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Footprint(pub [(f64, f64); 4]);

impl Footprint {
    /// Centre and the distance of the farthest corner, degrees.
    pub(super) fn circle(&self) -> ((f64, f64), f64) {
        let sum = self.0.iter().map(|c| unit(*c)).fold([0.0; 3], |s, v| [s[0] + v[0], s[1] + v[1], s[2] + v[2]]);
        let centre =
            (sum[1].atan2(sum[0]).to_degrees().rem_euclid(360.0), sum[2].atan2(sum[0].hypot(sum[1])).to_degrees());
        (centre, self.0.iter().map(|c| separation(centre, *c)).fold(0.0, f64::max))
    }

    /// The frame as four half-spaces whose planes hold a side and the centre of the sphere.
    ///
    /// A place is inside when it is on the inner side of each: exact for great-circle sides, and
    /// the same test at the poles and at 0h.
    pub(super) fn sides(&self) -> [[f64; 3]; 4] {
        let corners = self.0.map(unit);
        let centre = unit(self.circle().0);
        std::array::from_fn(|i| {
            let normal = cross(corners[i], corners[(i + 1) % 4]);
            if dot(normal, centre) < 0.0 { normal.map(|x| -x) } else { normal }
        })
    }

    /// As bytes for the database.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        self.0.iter().flat_map(|(ra, dec)| [ra.to_le_bytes(), dec.to_le_bytes()]).flatten().collect()
    }

    /// Back from the database; `None` when the bytes are not four places.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap_or_default()));
        let mut corners = [(0.0, 0.0); 4];
        for corner in &mut corners {
            *corner = (numbers.next()?, numbers.next()?);
        }
        Some(Self(corners))
    }
}

/// Unit vector of a place.
pub(super) fn unit((ra, dec): (f64, f64)) -> [f64; 3] {
    let ((sin_a, cos_a), (sin_d, cos_d)) = (ra.to_radians().sin_cos(), dec.to_radians().sin_cos());
    [cos_d * cos_a, cos_d * sin_a, sin_d]
}

/// Whether `place` is inside of all `sides`.
pub(super) fn inside(sides: &[[f64; 3]; 4], place: [f64; 3]) -> bool {
    sides.iter().all(|side| dot(*side, place) >= 0.0)
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// Rows and columns of the equal-area cells that give names; 8.25″ by 8.1″ at the equator.
const ROWS: u64 = 50_000;
const COLUMNS: u64 = 160_000;
/// Names of seven letters.
const NAMES: u64 = 26u64.pow(7);
/// Odd and not a multiple of 13, so that multiplying by it modulo [`NAMES`] loses nothing; large, so
/// that neighbours do not look alike.
const SCATTER: u64 = 4_967_101_937;
const _: () = assert!(ROWS * COLUMNS <= NAMES && SCATTER % 2 == 1 && !SCATTER.is_multiple_of(13));

/// The `attempt`-th name for a new object at a place: the observatory's `code`, the `year`'s last
/// two digits, seven lowercase letters.
///
/// The letters are made from the place, not counted: an exposure that is run again gives the same
/// names, and so does a history that had to be begun anew. Where two objects share a cell the later
/// one takes the next attempt.
pub(super) fn name(code: &str, year: i32, place: (f64, f64), attempt: u64) -> String {
    let row = ((place.1.to_radians().sin() + 1.0) * 0.5 * ROWS as f64) as u64;
    let column = (place.0.rem_euclid(360.0) / 360.0 * COLUMNS as f64) as u64;
    let cell = row.min(ROWS - 1) * COLUMNS + column.min(COLUMNS - 1);
    let scattered = u128::from(cell) * u128::from(SCATTER) + u128::from(attempt);
    let mut rest = (scattered % u128::from(NAMES)) as u64;
    let mut letters = [b'a'; 7];
    for letter in letters.iter_mut().rev() {
        *letter = b'a' + (rest % 26) as u8;
        rest /= 26;
    }
    format!("{code}{:02}{}", year.rem_euclid(100), String::from_utf8_lossy(&letters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_at_the_pole_or_at_zero_hours_has_neighbours_on_the_other_side() {
        let holds = |place: (f64, f64), other: (f64, f64)| {
            ranges(place.0, place.1, 0.001)
                .iter()
                .any(|(z, low, high)| *z == zone(other.1) && (*low..=*high).contains(&other.0))
        };
        assert!(holds((359.9999, 10.0), (0.0002, 10.0003)));
        assert!(holds((0.0001, 10.0), (359.9998, 9.9997)));
        assert!(holds((10.0, 89.9999), (190.0, 89.9998)));
        assert!(!holds((10.0, 10.0), (10.1, 10.0)));
    }

    #[test]
    fn a_frame_holds_its_centre_and_not_what_lies_beyond_its_sides() {
        for (ra, dec) in [(10.0_f64, 41.0_f64), (0.1, -30.0), (200.0, 89.8)] {
            let half = 0.4;
            let wcs = crate::wcs::Wcs::tan([0.0, 0.0], [ra, dec], [[-1.0, 0.0], [0.0, 1.0]]).unwrap();
            let corners = [(-half, -half), (half, -half), (half, half), (-half, half)];
            let frame = Footprint(corners.map(|(x, y)| wcs.pixel_to_sky(x, y)));
            let sides = frame.sides();
            assert!(inside(&sides, unit((ra, dec))), "{ra} {dec}");
            assert!(!inside(&sides, unit((ra, dec - 1.1 * half))));
            assert!(!inside(&sides, unit((ra + 180.0, -dec))));
            assert_eq!(Footprint::from_bytes(&frame.to_bytes()), Some(frame));
        }
    }

    #[test]
    fn names_are_three_letters_two_digits_and_seven_letters_and_no_cell_shares_one() {
        let first = name("NJR", 2026, (10.0, 41.0), 0);
        assert_eq!(first.len(), 12);
        assert!(first.starts_with("NJR26"));
        assert!(first[5..].bytes().all(|b| b.is_ascii_lowercase()));
        assert_ne!(first, name("NJR", 2026, (10.0, 41.0), 1));
        let mut names: Vec<String> =
            (0..2000).map(|i| name("NJR", 2026, (10.0 + f64::from(i) * 0.003, 0.0), 0)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 2000);
    }
}
