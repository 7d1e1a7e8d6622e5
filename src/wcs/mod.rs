//! World coordinates: gnomonic projections with or without distortion (TAN, TAN-SIP, TPV).
//!
//! From pixel to sky: the pixel, less `CRPIX`, is distorted (SIP), turned and scaled by `CD` into
//! intermediate coordinates in degrees, distorted (TPV), and projected from the tangent plane at
//! `CRVAL`. Sources: Greisen & Calabretta 2002 (A&A 395, 1061), Calabretta & Greisen 2002 (A&A 395,
//! 1077), Shupe et al. 2005 (SIP), the FITS registry's TPV convention.
//!
//! The way back is Newton's method on the way there. The inverse polynomials `AP` and `BP` that
//! some headers hold are good to a hundredth of a pixel at best and are not used.
//!
//! Pixels are zero-based inside the program (the first pixel's centre is at 0, 0); headers count
//! from one. Angles are degrees, ICRS; FK5 at J2000 is taken as ICRS (they agree to 0.03″).

mod distortion;
mod header;

use distortion::{Sip, Tpv};

/// Why a header's world coordinates cannot be used. Each message names the keyword.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WcsError {
    /// The keyword is missing.
    #[error("no celestial WCS: {keyword} is missing; plate-solve the frame, or give one that is solved")]
    Missing {
        /// The keyword.
        keyword: String,
    },
    /// The keyword holds what cannot be used.
    #[error("the WCS is not usable: {keyword} = {value}: {reason}")]
    Invalid {
        /// The keyword.
        keyword: String,
        /// Its value.
        value: String,
        /// Why, and what is accepted.
        reason: String,
    },
}

/// How pixels and tangent plane deviate from a linear map.
#[derive(Debug, Clone, PartialEq)]
enum Distortion {
    None,
    Sip(Sip),
    Tpv(Tpv),
}

/// The celestial coordinates of an image's pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Wcs {
    /// Reference pixel, zero-based.
    crpix: [f64; 2],
    /// Sky position of the tangent point: right ascension, declination, degrees.
    crval: [f64; 2],
    /// Degrees of (ξ, η) a pixel of (x, y).
    cd: [[f64; 2]; 2],
    /// Longitude of the celestial pole in native coordinates less 180°, degrees.
    lonpole_offset: f64,
    distortion: Distortion,
}

/// Newton's steps before a position counts as one that cannot be inverted.
const MAX_STEPS: usize = 40;
/// A step of the inversion below this, pixels, ends it.
const CONVERGED_PX: f64 = 1e-8;

impl Wcs {
    /// A gnomonic projection without distortion: `reference_pixel` (zero-based) at `reference_sky`
    /// (right ascension, declination, degrees), `cd` in degrees a pixel.
    pub fn tan(reference_pixel: [f64; 2], reference_sky: [f64; 2], cd: [[f64; 2]; 2]) -> Result<Self, WcsError> {
        Self { crpix: reference_pixel, crval: reference_sky, cd, lonpole_offset: 0.0, distortion: Distortion::None }
            .checked()
    }

    /// This projection with the SIP polynomials `a` and `b` in place of any distortion: terms (p, q, coefficient)
    /// of uᵖ vᵠ, where (u, v) are pixels from the reference pixel and p + q is at least 2.
    pub fn with_sip(mut self, a: &[(u8, u8, f64)], b: &[(u8, u8, f64)]) -> Self {
        self.distortion = Distortion::Sip(Sip::new(a, b));
        self
    }

    /// The reference pixel, zero-based.
    pub fn reference_pixel(&self) -> [f64; 2] {
        self.crpix
    }

    /// The tangent point: right ascension and declination, degrees.
    pub fn reference_sky(&self) -> [f64; 2] {
        self.crval
    }

    /// The linear part: degrees of (ξ, η) a pixel of (x, y).
    pub fn cd(&self) -> [[f64; 2]; 2] {
        self.cd
    }

    /// These coordinates for an image whose first pixel was pixel (`x0`, `y0`), as after trimming.
    pub fn cropped(mut self, x0: f64, y0: f64) -> Self {
        self.crpix[0] -= x0;
        self.crpix[1] -= y0;
        self
    }

    /// Right ascension (0 to 360) and declination, degrees, of the zero-based pixel (`x`, `y`).
    pub fn pixel_to_sky(&self, x: f64, y: f64) -> (f64, f64) {
        let [xi, eta] = self.plane(x, y).map(f64::to_radians);
        let (sin0, cos0) = self.crval[1].to_radians().sin_cos();
        let across = cos0 - eta * sin0;
        let ra = self.crval[0] + xi.atan2(across).to_degrees();
        let dec = (sin0 + eta * cos0).atan2(xi.hypot(across)).to_degrees();
        (ra.rem_euclid(360.0), dec)
    }

    /// The zero-based pixel of a sky position in degrees; `None` where it lies on the far side of
    /// the sky, or so far outside the image that its distortion polynomial cannot be inverted.
    pub fn sky_to_pixel(&self, ra: f64, dec: f64) -> Option<(f64, f64)> {
        let [xi, eta] = self.project(ra, dec)?;
        let linear = inverse(self.cd)?;
        let sign = determinant(self.cd).signum();
        let apply = |m: [[f64; 2]; 2], u: f64, v: f64| (m[0][0] * u + m[0][1] * v, m[1][0] * u + m[1][1] * v);
        let (u, v) = apply(linear, xi, eta);
        let (mut x, mut y) = (self.crpix[0] + u, self.crpix[1] + v);
        if self.distortion == Distortion::None && self.lonpole_offset == 0.0 {
            return Some((x, y));
        }
        for _ in 0..MAX_STEPS {
            let [at_xi, at_eta] = self.plane(x, y);
            let jacobian = self.plane_jacobian(x, y);
            if determinant(jacobian).signum() != sign {
                return None;
            }
            let (dx, dy) = apply(inverse(jacobian)?, xi - at_xi, eta - at_eta);
            x += dx;
            y += dy;
            if !(x.is_finite() && y.is_finite()) {
                return None;
            }
            if dx.hypot(dy) < CONVERGED_PX {
                return Some((x, y));
            }
        }
        None
    }

    /// Side of a pixel at the reference pixel, arcsec (the square root of its area).
    pub fn scale_arcsec(&self) -> f64 {
        self.scale_arcsec_at(self.crpix[0], self.crpix[1])
    }

    /// Side of the pixel at (`x`, `y`), arcsec (the square root of its area on the tangent plane).
    pub fn scale_arcsec_at(&self, x: f64, y: f64) -> f64 {
        determinant(self.plane_jacobian(x, y)).abs().sqrt() * 3600.0
    }

    /// Tangent-plane coordinates (ξ, η), degrees, of a zero-based pixel.
    fn plane(&self, x: f64, y: f64) -> [f64; 2] {
        let (mut u, mut v) = (x - self.crpix[0], y - self.crpix[1]);
        if let Distortion::Sip(sip) = &self.distortion {
            (u, v) = sip.apply(u, v);
        }
        let mut xi = self.cd[0][0] * u + self.cd[0][1] * v;
        let mut eta = self.cd[1][0] * u + self.cd[1][1] * v;
        if let Distortion::Tpv(tpv) = &self.distortion {
            (xi, eta) = tpv.apply(xi, eta);
        }
        if self.lonpole_offset == 0.0 {
            return [xi, eta];
        }
        let (sin, cos) = self.lonpole_offset.to_radians().sin_cos();
        [xi * cos + eta * sin, eta * cos - xi * sin]
    }

    /// Derivatives of (ξ, η) by (x, y), degrees a pixel, by central differences over one pixel.
    fn plane_jacobian(&self, x: f64, y: f64) -> [[f64; 2]; 2] {
        let (right, left) = (self.plane(x + 0.5, y), self.plane(x - 0.5, y));
        let (up, down) = (self.plane(x, y + 0.5), self.plane(x, y - 0.5));
        [[right[0] - left[0], up[0] - down[0]], [right[1] - left[1], up[1] - down[1]]]
    }

    /// Tangent-plane coordinates (ξ, η), degrees, of a sky position on this side of the sky.
    fn project(&self, ra: f64, dec: f64) -> Option<[f64; 2]> {
        let (sin0, cos0) = self.crval[1].to_radians().sin_cos();
        let (sin, cos) = dec.to_radians().sin_cos();
        let (sin_ra, cos_ra) = (ra - self.crval[0]).to_radians().sin_cos();
        let towards = sin0 * sin + cos0 * cos * cos_ra;
        if towards.is_nan() || towards < 1e-6 {
            return None;
        }
        let xi = cos * sin_ra / towards;
        let eta = (cos0 * sin - sin0 * cos * cos_ra) / towards;
        Some([xi.to_degrees(), eta.to_degrees()])
    }

    fn checked(self) -> Result<Self, WcsError> {
        let invalid = |keyword: &str, value: f64, reason: &str| {
            Err(WcsError::Invalid { keyword: keyword.into(), value: value.to_string(), reason: reason.into() })
        };
        for (keyword, value) in [("CRPIX1", self.crpix[0]), ("CRPIX2", self.crpix[1]), ("CRVAL1", self.crval[0])] {
            if !value.is_finite() {
                return invalid(keyword, value, "it must be a finite number");
            }
        }
        if !(-90.0..=90.0).contains(&self.crval[1]) {
            return invalid("CRVAL2", self.crval[1], "a declination lies between -90 and 90 degrees");
        }
        let determinant = determinant(self.cd);
        let pixel_deg = determinant.abs().sqrt();
        if !(1e-8..=10.0).contains(&pixel_deg) {
            return invalid(
                "CD1_1 CD1_2 CD2_1 CD2_2 (or CDELT1 CDELT2)",
                determinant,
                "the determinant of the pixel scale is zero or absurd; give degrees a pixel",
            );
        }
        Ok(self)
    }
}

fn determinant(m: [[f64; 2]; 2]) -> f64 {
    m[0][0] * m[1][1] - m[0][1] * m[1][0]
}

fn inverse(m: [[f64; 2]; 2]) -> Option<[[f64; 2]; 2]> {
    let d = determinant(m);
    let usable = d.is_finite() && d != 0.0;
    usable.then(|| [[m[1][1] / d, -m[0][1] / d], [-m[1][0] / d, m[0][0] / d]])
}

/// Great-circle distance between two sky positions (right ascension, declination), degrees
/// (Vincenty's form, which is exact for small and large angles).
pub fn separation(a: (f64, f64), b: (f64, f64)) -> f64 {
    let (sin_a, cos_a) = a.1.to_radians().sin_cos();
    let (sin_b, cos_b) = b.1.to_radians().sin_cos();
    let (sin_ra, cos_ra) = (b.0 - a.0).to_radians().sin_cos();
    let across = (cos_b * sin_ra).hypot(cos_a * sin_b - sin_a * cos_b * cos_ra);
    across.atan2(sin_a * sin_b + cos_a * cos_b * cos_ra).to_degrees()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::{Header, Value};

    fn header(cards: &[(&str, Value)]) -> Header {
        let mut header = Header::new();
        header.set("CTYPE1", "RA---TAN", "").set("CTYPE2", "DEC--TAN", "");
        header.set("CRPIX1", 100.5, "").set("CRPIX2", 200.25, "").set("CRVAL1", 359.9, "").set("CRVAL2", -35.5, "");
        for (keyword, value) in cards {
            header.set(keyword, value.clone(), "");
        }
        header
    }

    fn numbers(cards: &[(&str, f64)]) -> Header {
        header(&cards.iter().map(|(keyword, value)| (*keyword, Value::Real(*value))).collect::<Vec<_>>())
    }

    /// Headers in each of the accepted forms, with the sky position that astropy 7 (wcslib) gives
    /// for the zero-based pixel (1000, -300).
    fn every_form() -> Vec<(Header, f64, f64)> {
        let scale = [("CDELT1", -3e-4), ("CDELT2", 3.1e-4)];
        let with = |more: &[(&'static str, f64)]| numbers(&[&scale, more].concat());
        let rotated = [("PC1_1", 0.8), ("PC1_2", -0.6), ("PC2_1", 0.6), ("PC2_2", 0.8)];
        let distorted = [("PV1_0", 0.001), ("PV1_1", 1.01), ("PV1_4", 0.02), ("PV2_0", -0.002), ("PV2_1", 0.99)];
        let mut swapped = numbers(&[("CRVAL1", -35.5), ("CRVAL2", 359.9)]);
        swapped.set("CTYPE1", "DEC--TAN", "").set("CTYPE2", "RA---TAN", "");
        for (keyword, value) in [("CD1_1", 3e-4), ("CD1_2", 1e-5), ("CD2_1", 2e-5), ("CD2_2", -3e-4)] {
            swapped.set(keyword, value, "");
        }
        let mut scamp = numbers(&distorted);
        scamp.set("PV2_5", 0.03, "").set("CD1_1", -3e-4, "").set("CD2_2", 3e-4, "");
        vec![
            (with(&[("CROTA2", 33.0)]), 359.7246364437, -35.7768037374),
            (with(&rotated), 359.5243600382, -35.4557391678),
            (numbers(&[("CDELT1", -3e-4), ("CDELT2", 3e-4), ("LONPOLE", 150.0)]), 359.7039655023, -35.7646230270),
            (with(&[("CRVAL2", 90.0)]), 119.7081661136, 89.6886608065),
            (swapped, 0.1054158641, -35.2346708724),
            (scamp, 359.5672566275, -35.6486054695),
        ]
    }

    #[test]
    fn every_form_of_header_gives_the_position_that_wcslib_gives() {
        for (index, (header, ra, dec)) in every_form().into_iter().enumerate() {
            let wcs = Wcs::from_header(&header).unwrap();
            let at = wcs.pixel_to_sky(1000.0, -300.0);
            assert!(separation(at, (ra, dec)) < 1e-9, "form {index}: {at:?} instead of ({ra}, {dec})");
            let (x, y) = wcs.sky_to_pixel(ra, dec).unwrap();
            assert!((x - 1000.0).hypot(y + 300.0) < 1e-4, "form {index}: back at ({x}, {y})");
        }
    }

    #[test]
    fn what_is_written_is_read_back_as_the_same_map_and_nothing_stale_remains() {
        for (mut header, ..) in every_form() {
            let wcs = Wcs::from_header(&header).unwrap();
            header.set("AP_ORDER", 2_i64, "").set("OBJECT", "M31", "");
            wcs.write(&mut header);
            for stale in ["CDELT1", "PC1_1", "CROTA2", "AP_ORDER"] {
                assert_eq!(header.get(stale), None, "{stale}");
            }
            assert_eq!(header.text(&["OBJECT"]).as_deref(), Some("M31"));
            let again = Wcs::from_header(&header).unwrap();
            for (x, y) in [(0.0, 0.0), (3000.0, 10.0), (-50.0, 2500.0)] {
                assert!(separation(wcs.pixel_to_sky(x, y), again.pixel_to_sky(x, y)) < 1e-11);
            }
        }
    }

    #[test]
    fn sip_counts_without_its_suffix_and_inverts_to_a_millionth_of_a_pixel() {
        let mut header = numbers(&[("CD1_1", -2.9e-3), ("CD2_2", 2.9e-3), ("A_2_0", 1.5e-5), ("B_1_1", -9e-6)]);
        let plain = Wcs::from_header(&header).unwrap();
        header.set("A_ORDER", 2_i64, "").set("B_ORDER", 2_i64, "");
        let wcs = Wcs::from_header(&header).unwrap();
        assert!(separation(wcs.pixel_to_sky(700.0, 700.0), plain.pixel_to_sky(700.0, 700.0)) * 3600.0 > 10.0);
        let (ra, dec) = wcs.pixel_to_sky(700.0, 700.0);
        let (x, y) = wcs.sky_to_pixel(ra, dec).unwrap();
        assert!((x - 700.0).hypot(y - 700.0) < 1e-6);
    }

    #[test]
    fn a_position_that_the_image_cannot_hold_has_no_pixel() {
        let mut header = numbers(&[("CD1_1", -3e-4), ("CD2_2", 3e-4)]);
        assert_eq!(Wcs::from_header(&header).unwrap().sky_to_pixel(179.9, 35.5), None);
        // Quadratic in u: nothing on the sky to one side of the fold has a pixel.
        header.set("A_ORDER", 2_i64, "").set("B_ORDER", 2_i64, "").set("A_2_0", 1e-3, "");
        let folded = Wcs::from_header(&header).unwrap();
        assert_eq!(folded.sky_to_pixel(359.9 + 1.0, -35.5), None);
    }

    #[test]
    fn each_fault_of_a_header_is_named_by_its_keyword() {
        let cd = [("CD1_1", Value::Real(-3e-4)), ("CD2_2", Value::Real(3e-4))];
        let cases: [(&str, Value, &str); 9] = [
            ("CTYPE1", Value::Text("RA---ZPN".into()), "CTYPE1"),
            ("CTYPE2", Value::Text("GLAT-TAN".into()), "CTYPE2"),
            ("CRVAL2", Value::Real(-95.0), "CRVAL2"),
            ("CRVAL1", Value::Text("12:30:00".into()), "CRVAL1"),
            ("CUNIT2", Value::Text("arcsec".into()), "CUNIT2"),
            ("RADESYS", Value::Text("FK4".into()), "RADESYS"),
            ("EQUINOX", Value::Real(1950.0), "EQUINOX"),
            ("A_ORDER", Value::Integer(3), "B_ORDER"),
            ("CD2_2", Value::Real(0.0), "CD1_1"),
        ];
        for (keyword, value, named) in cases {
            let mut bad = header(&cd);
            bad.set(keyword, value, "");
            let message = Wcs::from_header(&bad).unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
        for missing in ["CTYPE1", "CRPIX2", "CRVAL1"] {
            let mut bad = header(&cd);
            bad.remove(missing);
            let message = Wcs::from_header(&bad).unwrap_err().to_string();
            assert!(message.contains(missing), "{message}");
        }
        assert!(Wcs::from_header(&header(&[])).unwrap_err().to_string().contains("CDELT1"));
    }
}
