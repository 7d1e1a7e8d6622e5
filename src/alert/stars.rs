//! The fields of the star catalogue: the three nearest stars, and Gaia's.

use super::record::CandidateRecord;
use crate::catalogue::{CatalogueStar, StarCatalogue};

/// Radius of the nearest three and of `nmtchps`, arcsec.
const NEAR: f64 = 30.0;
/// Radius of Gaia's sources, arcsec.
const GAIA: f64 = 90.0;
/// Gaia's G from which a source counts as bright.
const BRIGHT: f32 = 14.0;
/// What ZTF writes where a star has no score.
const NO_SCORE: f32 = 0.5;

/// Fills the fields that tell of the catalogue's stars around the candidate.
pub(super) fn fill(record: &mut CandidateRecord, catalogue: &StarCatalogue) {
    let mut stars = catalogue.within(record.ra, record.dec, GAIA / 3600.0);
    stars.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.id.cmp(&b.1.id)));
    let distance = |degrees: f64| Some((degrees * 3600.0) as f32);
    let gaia = stars.iter().find(|(_, star)| star.gaia.is_finite());
    record.neargaia = gaia.and_then(|(degrees, _)| distance(*degrees));
    record.maggaia = gaia.map(|(_, star)| star.gaia);
    let bright = stars.iter().find(|(_, star)| star.gaia < BRIGHT);
    record.neargaiabright = bright.and_then(|(degrees, _)| distance(*degrees));
    record.maggaiabright = bright.map(|(_, star)| star.gaia);
    let near: Vec<&(f64, CatalogueStar)> =
        stars.iter().filter(|(degrees, star)| *degrees <= NEAR / 3600.0 && star.has_griz()).collect();
    record.nmtchps = near.len() as i32;
    macro_rules! nth {
        ($n:expr, $id:ident, $g:ident, $r:ident, $i:ident, $z:ident, $score:ident, $distance:ident) => {
            if let Some((degrees, star)) = near.get($n) {
                record.$id = Some(star.id);
                [record.$g, record.$r, record.$i, record.$z] = star.griz.map(Some);
                record.$score = Some(if star.score.is_finite() { star.score } else { NO_SCORE });
                record.$distance = distance(*degrees);
            }
        };
    }
    nth!(0, objectidps1, sgmag1, srmag1, simag1, szmag1, sgscore1, distpsnr1);
    nth!(1, objectidps2, sgmag2, srmag2, simag2, szmag2, sgscore2, distpsnr2);
    nth!(2, objectidps3, sgmag3, srmag3, simag3, szmag3, sgscore3, distpsnr3);
}
