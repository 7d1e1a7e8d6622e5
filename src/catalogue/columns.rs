//! Which column of a table holds what.

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Right ascension, degrees.
    Ra,
    /// Declination, degrees.
    Dec,
    /// Number of the source.
    Id,
    /// Magnitude in g, r, i, z: 0 to 3.
    Griz(usize),
    /// Gaia's G.
    Gaia,
    /// Likeness to a star.
    Score,
}

/// How many quantities there are.
pub const QUANTITIES: usize = 9;

impl Quantity {
    /// Its place among the [`QUANTITIES`].
    pub fn index(self) -> usize {
        match self {
            Self::Ra => 0,
            Self::Dec => 1,
            Self::Id => 2,
            Self::Griz(band) => 3 + band,
            Self::Gaia => 7,
            Self::Score => 8,
        }
    }
}

/// Names in the order of preference. Those of one letter and Gaia's of VizieR are told apart by case.
const NAMES: [(Quantity, &[&str], &[&str]); QUANTITIES] = [
    (Quantity::Ra, &[], &["ra", "ra_icrs", "raj2000", "ramean", "rastack", "ra_deg", "radeg", "_raj2000", "coord_ra"]),
    (
        Quantity::Dec,
        &[],
        &["dec", "de_icrs", "dej2000", "decmean", "decstack", "dec_deg", "decdeg", "_dej2000", "coord_dec"],
    ),
    (Quantity::Id, &["Source", "source"], &["objid", "objectid", "object_id", "source_id", "obj_id", "id"]),
    (Quantity::Griz(0), &["g", "gmag"], &["gmeanpsfmag", "gpsfmag", "g_psf", "gp1mag", "g_ps1"]),
    (Quantity::Griz(1), &["r", "rmag"], &["rmeanpsfmag", "rpsfmag", "r_psf", "rp1mag", "r_ps1"]),
    (Quantity::Griz(2), &["i", "imag"], &["imeanpsfmag", "ipsfmag", "i_psf", "ip1mag", "i_ps1"]),
    (Quantity::Griz(3), &["z", "zmag"], &["zmeanpsfmag", "zpsfmag", "z_psf", "zp1mag", "z_ps1"]),
    (Quantity::Gaia, &["G", "Gmag"], &["phot_g_mean_mag", "gaia", "gaia_g", "gaia_gmag"]),
    (Quantity::Score, &[], &["sgscore", "ps_score", "psscore", "class_star", "star_score"]),
];

/// What the help says about columns.
pub const HELP: &str = "\
Columns are found by name; those that a table lacks stay empty:
  place      ra dec (degrees); RA_ICRS DE_ICRS, RAJ2000 DEJ2000, raMean decMean
  number     objID, object_id, source_id, Source; without one it is made of the place, as Pan-STARRS does
  g r i z    g, gmag, gMeanPSFMag, g_psf, and so on     (Pan-STARRS, ATLAS-REFCAT2, SkyMapper)
  Gaia's G   phot_g_mean_mag, Gmag, G, Gaia             (Gaia DR3, ATLAS-REFCAT2)
  star       sgscore, ps_score, class_star: 0 galaxy to 1 star
One letter and Gmag are told apart by case. Tables may be .csv, .csv.gz, .ecsv, .fits, .fits.gz, and of several surveys
at once. Of Parquet make FITS first: python3 -c \"from astropy.table import Table; Table.read('a.parquet').write('a.fits')\"";

/// The column of each quantity in a table with these names.
pub fn columns(names: &[String]) -> Result<[Option<usize>; QUANTITIES], String> {
    let mut found = [None; QUANTITIES];
    for (quantity, exact, any_case) in NAMES {
        let by_case = exact.iter().find_map(|name| names.iter().position(|n| n.trim() == *name));
        let by_name =
            || any_case.iter().find_map(|name| names.iter().position(|n| n.trim().eq_ignore_ascii_case(name)));
        found[quantity.index()] = by_case.or_else(by_name);
    }
    for (quantity, name) in [(Quantity::Ra, "right ascension (ra)"), (Quantity::Dec, "declination (dec)")] {
        if found[quantity.index()].is_none() {
            let shown: Vec<&str> = names.iter().take(12).map(String::as_str).collect();
            return Err(format!(
                "has no column for the {name}; rename its columns (`nightjar catalogue build --help` lists the names). It has {}{}",
                shown.join(", "),
                if names.len() > 12 { ", ..." } else { "" }
            ));
        }
    }
    if (3..8).all(|i| found[i].is_none()) {
        return Err("has no column with a magnitude; `nightjar catalogue build --help` lists the names".into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Result<[Option<usize>; QUANTITIES], String> {
        columns(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_surveys_columns_are_known_and_gs_told_apart_by_case() {
        let vizier = named(&["RA_ICRS", "DE_ICRS", "Source", "Gmag", "gmag", "rmag"]).unwrap();
        assert_eq!(vizier, [Some(0), Some(1), Some(2), Some(4), Some(5), None, None, Some(3), None]);
        let refcat = named(&["objid", "RA", "Dec", "Gaia", "g", "r", "i", "z"]).unwrap();
        assert_eq!(refcat, [Some(1), Some(2), Some(0), Some(4), Some(5), Some(6), Some(7), Some(3), None]);
        let gaia = named(&["source_id", "ra", "dec", "phot_g_mean_mag"]).unwrap();
        assert_eq!(gaia, [Some(1), Some(2), Some(0), None, None, None, None, Some(3), None]);
    }

    #[test]
    fn a_table_without_place_or_magnitude_is_refused_with_its_columns() {
        assert!(named(&["x", "y", "g"]).unwrap_err().contains("It has x, y, g"));
        assert!(named(&["ra", "dec", "parallax"]).unwrap_err().contains("magnitude"));
    }
}
