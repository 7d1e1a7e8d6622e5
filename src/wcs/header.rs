//! World coordinates in FITS headers.

use super::distortion::{Sip, SipTerm, Tpv};
use super::{Distortion, Wcs, WcsError};
use crate::fits::{Header, Value};

impl Wcs {
    /// Reads the celestial WCS of a header.
    ///
    /// `CD`, else `PC` with `CDELT`, else `CDELT` with `CROTA2`. SIP keywords count even where
    /// `CTYPE` lacks the suffix (LSST's early pipelines write them so), and `PV` keywords beyond
    /// the projection's own make a TAN a TPV (SCAMP writes them so).
    pub fn from_header(header: &Header) -> Result<Self, WcsError> {
        check_system(header)?;
        // Axis 1 or 2 that holds the longitude; the world axes are put in order here.
        let longitude = longitude_axis(header)?;
        let latitude = 3 - longitude;
        let number = |keyword: String| required(header, &keyword);
        let crpix = [number("CRPIX1".into())? - 1.0, number("CRPIX2".into())? - 1.0];
        let crval = [number(format!("CRVAL{longitude}"))?, number(format!("CRVAL{latitude}"))?];
        for axis in [1, 2] {
            let keyword = format!("CUNIT{axis}");
            if let Some(unit) = header.text(&[&keyword])
                && !["deg", "degree", "degrees"].contains(&unit.to_ascii_lowercase().as_str())
            {
                return Err(invalid(&keyword, unit, "only degrees are read"));
            }
        }
        let rows = linear_map(header)?;
        let cd = if longitude == 1 { rows } else { [rows[1], rows[0]] };
        let default_lonpole = if crval[1] >= 90.0 { 0.0 } else { 180.0 };
        let lonpole_offset = optional(header, "LONPOLE")?.unwrap_or(default_lonpole) - 180.0;
        let distortion = distortion(header, longitude, latitude)?;
        Self { crpix, crval, cd, lonpole_offset, distortion }.checked()
    }

    /// Writes this WCS into a header in place of any that is there.
    pub fn write(&self, header: &mut Header) {
        let stale: Vec<String> =
            header.cards().iter().map(|card| card.keyword.clone()).filter(|keyword| is_wcs_keyword(keyword)).collect();
        for keyword in stale {
            header.remove(&keyword);
        }
        let (suffix, name) = match &self.distortion {
            Distortion::None => ("TAN", "gnomonic"),
            Distortion::Sip(_) => ("TAN-SIP", "gnomonic with SIP distortion"),
            Distortion::Tpv(_) => ("TPV", "gnomonic with polynomial distortion"),
        };
        header
            .set("WCSAXES", 2_i64, "celestial axes")
            .set("CTYPE1", format!("RA---{suffix}"), name)
            .set("CTYPE2", format!("DEC--{suffix}"), name)
            .set("CUNIT1", "deg", "")
            .set("CUNIT2", "deg", "")
            .set("RADESYS", "ICRS", "")
            .set("CRVAL1", self.crval[0], "[deg] right ascension of the reference pixel")
            .set("CRVAL2", self.crval[1], "[deg] declination of the reference pixel")
            .set("CRPIX1", self.crpix[0] + 1.0, "[pix] reference pixel, first pixel is 1")
            .set("CRPIX2", self.crpix[1] + 1.0, "[pix] reference pixel, first pixel is 1");
        for (row, cells) in self.cd.iter().enumerate() {
            for (column, cell) in cells.iter().enumerate() {
                header.set(&format!("CD{}_{}", row + 1, column + 1), *cell, "[deg/pix]");
            }
        }
        header.set("LONPOLE", self.lonpole_offset + 180.0, "[deg] native longitude of the celestial pole");
        match &self.distortion {
            Distortion::None => {}
            Distortion::Sip(sip) => {
                let (order, polynomials) = sip.terms();
                for (name, terms) in ["A", "B"].iter().zip(polynomials) {
                    header.set(&format!("{name}_ORDER"), i64::from(order.max(2)), "SIP polynomial order");
                    for (p, q, coefficient) in terms {
                        header.set(&format!("{name}_{p}_{q}"), coefficient, "");
                    }
                }
            }
            Distortion::Tpv(tpv) => {
                for (axis, coefficients) in tpv.coefficients().iter().enumerate() {
                    for (m, coefficient) in coefficients.iter().enumerate() {
                        // Term 1 is 1 where it is absent, every other one 0.
                        if *coefficient != if m == 1 { 1.0 } else { 0.0 } {
                            header.set(&format!("PV{}_{m}", axis + 1), *coefficient, "");
                        }
                    }
                }
            }
        }
    }
}

fn invalid(keyword: &str, value: impl Into<String>, reason: &str) -> WcsError {
    WcsError::Invalid { keyword: keyword.to_owned(), value: value.into(), reason: reason.to_owned() }
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{text}'"),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => real.to_string(),
        Value::Logical(truth) => if *truth { "T" } else { "F" }.to_owned(),
        Value::Empty => "(empty)".to_owned(),
    }
}

/// The number of a keyword, `None` where it is absent, an error where it holds something else.
fn optional(header: &Header, keyword: &str) -> Result<Option<f64>, WcsError> {
    match (header.get(keyword), header.number(&[keyword])) {
        (None, _) => Ok(None),
        (Some(_), Some(number)) => Ok(Some(number)),
        (Some(value), None) => Err(invalid(keyword, text(value), "it must be a finite number")),
    }
}

fn required(header: &Header, keyword: &str) -> Result<f64, WcsError> {
    optional(header, keyword)?.ok_or_else(|| WcsError::Missing { keyword: keyword.to_owned() })
}

/// Refuses equatorial systems that are not ICRS to 0.03 arcsec.
fn check_system(header: &Header) -> Result<(), WcsError> {
    for keyword in ["RADESYS", "RADECSYS"] {
        if let Some(system) = header.text(&[keyword]) {
            if !["ICRS", "FK5"].contains(&system.to_ascii_uppercase().as_str()) {
                return Err(invalid(keyword, system, "only ICRS and FK5 are read; plate-solve the frame against ICRS"));
            }
            break;
        }
    }
    if let Some(equinox) = optional(header, "EQUINOX")?
        && (equinox - 2000.0).abs() > 0.01
        && !header.text(&["RADESYS", "RADECSYS"]).is_some_and(|system| system.eq_ignore_ascii_case("ICRS"))
    {
        return Err(invalid("EQUINOX", equinox.to_string(), "only J2000 is read; plate-solve the frame against ICRS"));
    }
    Ok(())
}

fn longitude_axis(header: &Header) -> Result<usize, WcsError> {
    let mut axes = [0; 2];
    for (index, axis) in axes.iter_mut().enumerate() {
        let keyword = format!("CTYPE{}", index + 1);
        let ctype = header
            .text(&[&keyword])
            .ok_or_else(|| WcsError::Missing { keyword: keyword.clone() })?
            .to_ascii_uppercase();
        *axis = match ctype.split('-').next() {
            Some("RA") => 1,
            Some("DEC") => 2,
            _ => return Err(invalid(&keyword, ctype, "the axes must be RA and DEC")),
        };
        let projection = ctype.trim_end_matches("-SIP").rsplit('-').next().unwrap_or("");
        if !["TAN", "TPV"].contains(&projection) {
            return Err(invalid(&keyword, ctype, "the projections that are read are TAN, TAN-SIP and TPV"));
        }
    }
    match axes {
        [1, 2] => Ok(1),
        [2, 1] => Ok(2),
        _ => Err(invalid("CTYPE2", header.text(&["CTYPE2"]).unwrap_or_default(), "one axis is RA, the other DEC")),
    }
}

/// Rows of the matrix from pixels to intermediate world coordinates, in the header's order.
fn linear_map(header: &Header) -> Result<[[f64; 2]; 2], WcsError> {
    let matrix = |name: &str, identity: bool| -> Result<Option<[[f64; 2]; 2]>, WcsError> {
        let mut cells = [[0.0; 2]; 2];
        let mut found = false;
        for (row, line) in cells.iter_mut().enumerate() {
            for (column, cell) in line.iter_mut().enumerate() {
                let value = optional(header, &format!("{name}{}_{}", row + 1, column + 1))?;
                found |= value.is_some();
                *cell = value.unwrap_or(if identity && row == column { 1.0 } else { 0.0 });
            }
        }
        Ok(found.then_some(cells))
    };
    if let Some(cd) = matrix("CD", false)? {
        return Ok(cd);
    }
    let delta = [required(header, "CDELT1").map_err(no_scale)?, required(header, "CDELT2")?];
    if let Some(pc) = matrix("PC", true)? {
        return Ok([[delta[0] * pc[0][0], delta[0] * pc[0][1]], [delta[1] * pc[1][0], delta[1] * pc[1][1]]]);
    }
    // The old convention; the rotation stands with the latitude axis, which is axis 2 in practice.
    let rotation = optional(header, "CROTA2")?.or(optional(header, "CROTA1")?).unwrap_or(0.0);
    let (sin, cos) = rotation.to_radians().sin_cos();
    Ok([[delta[0] * cos, -delta[1] * sin], [delta[0] * sin, delta[1] * cos]])
}

fn no_scale(error: WcsError) -> WcsError {
    match error {
        WcsError::Missing { .. } => WcsError::Missing { keyword: "CD1_1 (or CDELT1)".into() },
        other => other,
    }
}

fn distortion(header: &Header, longitude: usize, latitude: usize) -> Result<Distortion, WcsError> {
    let named = header.text(&["CTYPE1"]).is_some_and(|ctype| ctype.to_ascii_uppercase().ends_with("TPV"));
    if !named && let Some(sip) = sip(header)? {
        return Ok(Distortion::Sip(sip));
    }
    let mut pv = [[0.0; Tpv::TERMS]; 2];
    let mut beyond_tan = false;
    for (axis, coefficients) in [longitude, latitude].into_iter().zip(&mut pv) {
        for (m, coefficient) in coefficients.iter_mut().enumerate() {
            let value = optional(header, &format!("PV{axis}_{m}"))?;
            *coefficient = value.unwrap_or(if m == 1 { 1.0 } else { 0.0 });
            // PV1_0 to PV1_4 of a plain TAN are parameters of the pole, not of a polynomial.
            beyond_tan |= value.is_some_and(|v| v != 0.0) && (axis == latitude || m > 4);
        }
    }
    Ok(if named || beyond_tan { Distortion::Tpv(Tpv::new(pv)) } else { Distortion::None })
}

fn sip(header: &Header) -> Result<Option<Sip>, WcsError> {
    let polynomial = |name: &str| -> Result<Option<Vec<SipTerm>>, WcsError> {
        let keyword = format!("{name}_ORDER");
        let Some(order) = optional(header, &keyword)? else { return Ok(None) };
        if order.fract() != 0.0 || !(0.0..=f64::from(Sip::MAX_ORDER)).contains(&order) {
            return Err(invalid(&keyword, order.to_string(), "an order is a whole number from 0 to 9"));
        }
        let order = order as u8;
        let mut terms = Vec::new();
        for p in 0..=order {
            for q in 0..=order - p {
                if let Some(coefficient) = optional(header, &format!("{name}_{p}_{q}"))? {
                    terms.push((p, q, coefficient));
                }
            }
        }
        Ok(Some(terms))
    };
    match (polynomial("A")?, polynomial("B")?) {
        (Some(a), Some(b)) => Ok(Some(Sip::new(&a, &b))),
        (Some(_), None) => Err(WcsError::Missing { keyword: "B_ORDER (A_ORDER is there)".into() }),
        (None, Some(_)) => Err(WcsError::Missing { keyword: "A_ORDER (B_ORDER is there)".into() }),
        (None, None) => Ok(None),
    }
}

/// Whether a keyword is part of a celestial WCS of the two image axes.
fn is_wcs_keyword(keyword: &str) -> bool {
    const PLAIN: [&str; 21] = [
        "WCSAXES", "RADESYS", "RADECSYS", "EQUINOX", "LONPOLE", "LATPOLE", "CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2",
        "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2", "CROTA1", "CROTA2", "A_DMAX", "B_DMAX", "WCSNAME",
    ];
    let numbered = |prefix: &str| {
        keyword.strip_prefix(prefix).and_then(|rest| rest.split_once('_')).is_some_and(|(first, second)| {
            [first, second].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    PLAIN.contains(&keyword)
        || ["CD", "PC", "PV", "A_", "B_", "AP_", "BP_"].into_iter().any(numbered)
        || ["A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER"].contains(&keyword)
}
