//! The stars of the catalogue that lie on a reference, with their magnitudes in the exposure's filter.

use crate::catalogue::{CatalogueStar, StarCatalogue, separation};
use crate::detect::photometry::Standard;
use crate::wcs::Wcs;

/// Names of filters that let all light through: Gaia's G comes closest.
const CLEAR: [&str; 8] = ["clear", "c", "l", "lum", "luminance", "open", "none", "w"];
/// Sources less like a star than this are galaxies.
const LEAST_SCORE: f32 = 0.5;

/// Which magnitude of the catalogue stands for a filter, and which colour goes with it: that of ZTF's colour terms,
/// g − r for g and r, r − i for i; i − z for z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Band {
    /// One of g, r, i, z (0 to 3) and the two whose difference is the colour.
    Griz(usize, [usize; 2]),
    /// Gaia's G, with g − r.
    Gaia,
}

impl Band {
    /// The band of a filter by its `fid` (1 g, 2 r, 3 i) and name; none for other filters (B, V, narrow ones).
    pub fn of(fid: i32, name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        match (fid, name.as_str()) {
            (1, _) => Some(Self::Griz(0, [0, 1])),
            (2, _) => Some(Self::Griz(1, [0, 1])),
            (3, _) => Some(Self::Griz(2, [1, 2])),
            (_, "z") => Some(Self::Griz(3, [2, 3])),
            (_, name) if CLEAR.contains(&name) => Some(Self::Gaia),
            _ => None,
        }
    }

    fn magnitude_and_colour(self, star: &CatalogueStar) -> (f64, f64) {
        let colour = |[blue, red]: [usize; 2]| f64::from(star.griz[blue]) - f64::from(star.griz[red]);
        match self {
            Self::Griz(band, pair) => (f64::from(star.griz[band]), colour(pair)),
            Self::Gaia => (f64::from(star.gaia), colour([0, 1])),
        }
    }
}

/// The stars of `catalogue` on a reference of `shape` (rows, columns).
pub fn on_reference(
    catalogue: &StarCatalogue,
    band: Band,
    wcs: &Wcs,
    (rows, columns): (usize, usize),
) -> Vec<Standard> {
    if !catalogue.is_whole() {
        return Vec::new();
    }
    let (right, top) = (columns as f64 - 1.0, rows as f64 - 1.0);
    let centre = wcs.pixel_to_sky(0.5 * right, 0.5 * top);
    let corners = [(0.0, 0.0), (right, 0.0), (right, top), (0.0, top)].map(|(x, y)| wcs.pixel_to_sky(x, y));
    let radius = corners.into_iter().map(|corner| separation(centre, corner)).fold(0.0, f64::max);
    let standard = |star: &CatalogueStar| {
        let (mag, colour) = band.magnitude_and_colour(star);
        let (x, y) = wcs.sky_to_pixel(star.ra, star.dec).filter(|_| mag.is_finite())?;
        let inside = (0.0..=right).contains(&x) && (0.0..=top).contains(&y);
        let galaxy = star.score < LEAST_SCORE;
        (inside && !galaxy).then_some(Standard { x, y, mag, colour })
    };
    catalogue.within(centre.0, centre.1, radius).iter().filter_map(|(_, star)| standard(star)).collect()
}
