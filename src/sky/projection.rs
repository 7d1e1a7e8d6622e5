//! The gnomonic projection, for the synthetic sky alone.
//!
//! Calabretta & Greisen 2002 (A&A 395, 1077), section 5.1.3, written with unit vectors rather than
//! with angles. The pipeline has its own.

use crate::fits::Header;

/// A gnomonic (TAN) mapping between zero-based pixels and the sky.
#[derive(Debug, Clone, PartialEq)]
pub struct Gnomonic {
    /// Right ascension and declination of the tangent point, degrees.
    pub centre: (f64, f64),
    /// Pixel of the tangent point, zero-based.
    pub pixel: (f64, f64),
    /// Tangent-plane arcsec a pixel: `[ξ, η] = matrix · [dx, dy]`, ξ to the east, η to the north.
    pub matrix: [[f64; 2]; 2],
    /// Radial distortion of the optics: a point at distance r (pixels) from the tangent point falls
    /// at r (1 + distortion r²). The FITS header does not know of it.
    pub distortion: f64,
}

impl Gnomonic {
    /// A camera of `scale` arcsec a pixel, `angle_deg` from north-up, east-left.
    pub fn new(centre: (f64, f64), pixel: (f64, f64), scale: f64, angle_deg: f64) -> Self {
        let (sin, cos) = angle_deg.to_radians().sin_cos();
        let matrix = [[-scale * cos, scale * sin], [scale * sin, scale * cos]];
        Self { centre, pixel, matrix, distortion: 0.0 }
    }

    /// Right ascension and declination (degrees) of a pixel.
    pub fn sky(&self, x: f64, y: f64) -> (f64, f64) {
        let (dx, dy) = self.undistorted(x - self.pixel.0, y - self.pixel.1);
        let [[a, b], [c, d]] = self.matrix;
        deproject(self.centre, a * dx + b * dy, c * dx + d * dy)
    }

    /// The pixel of a place on the sky (degrees); `None` on the far side.
    pub fn pixel(&self, ra: f64, dec: f64) -> Option<(f64, f64)> {
        let (xi, eta) = project(self.centre, ra, dec)?;
        let (dx, dy) = self.pixel_offset(xi, eta);
        let stretch = 1.0 + self.distortion * (dx * dx + dy * dy);
        Some((self.pixel.0 + stretch * dx, self.pixel.1 + stretch * dy))
    }

    /// The pixel offset of a small tangent-plane offset (arcsec), distortion left out.
    pub fn pixel_offset(&self, xi: f64, eta: f64) -> (f64, f64) {
        let [[a, b], [c, d]] = self.matrix;
        let determinant = a * d - b * c;
        ((d * xi - b * eta) / determinant, (a * eta - c * xi) / determinant)
    }

    fn undistorted(&self, dx: f64, dy: f64) -> (f64, f64) {
        // Fixed point of u = d / (1 + k u²): k u² is below 1e-3, so that eight rounds are exact.
        let mut factor = 1.0;
        for _ in 0..8 {
            factor = 1.0 / (1.0 + self.distortion * factor * factor * (dx * dx + dy * dy));
        }
        (dx * factor, dy * factor)
    }

    /// Writes the celestial TAN WCS, its tangent point shifted on the sky by `error` arcsec
    /// (east, north), as a mount that does not point quite where it says.
    pub fn write(&self, header: &mut Header, error: (f64, f64)) {
        let (ra, dec) = deproject(self.centre, error.0, error.1);
        header.set("CTYPE1", "RA---TAN", "gnomonic").set("CTYPE2", "DEC--TAN", "gnomonic");
        header.set("CUNIT1", "deg", "").set("CUNIT2", "deg", "");
        header.set("CRVAL1", ra, "[deg] right ascension of the tangent point").set("CRVAL2", dec, "[deg] declination");
        header.set("CRPIX1", self.pixel.0 + 1.0, "tangent point").set("CRPIX2", self.pixel.1 + 1.0, "");
        for (row, keywords) in self.matrix.iter().zip([["CD1_1", "CD1_2"], ["CD2_1", "CD2_2"]]) {
            for (element, keyword) in row.iter().zip(keywords) {
                header.set(keyword, element / 3600.0, "[deg/pixel]");
            }
        }
        header.set("RADESYS", "ICRS", "").set("EQUINOX", 2000.0, "");
    }
}

type Vector = [f64; 3];

/// Unit vectors to a place and to the east and north there.
fn frame(ra: f64, dec: f64) -> [Vector; 3] {
    let (sin_a, cos_a) = ra.to_radians().sin_cos();
    let (sin_d, cos_d) = dec.to_radians().sin_cos();
    [[cos_d * cos_a, cos_d * sin_a, sin_d], [-sin_a, cos_a, 0.0], [-sin_d * cos_a, -sin_d * sin_a, cos_d]]
}

fn dot(a: Vector, b: Vector) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Tangent-plane coordinates (arcsec, east and north) of a place on the sky.
pub fn project(centre: (f64, f64), ra: f64, dec: f64) -> Option<(f64, f64)> {
    let [to, east, north] = frame(centre.0, centre.1);
    let [place, ..] = frame(ra, dec);
    let depth = dot(place, to);
    let arcsec = 1f64.to_degrees() * 3600.0;
    (depth > 1e-6).then(|| (dot(place, east) / depth * arcsec, dot(place, north) / depth * arcsec))
}

/// The place on the sky (degrees) of tangent-plane coordinates (arcsec, east and north).
pub fn deproject(centre: (f64, f64), xi: f64, eta: f64) -> (f64, f64) {
    let [to, east, north] = frame(centre.0, centre.1);
    let (x, y) = ((xi / 3600.0).to_radians(), (eta / 3600.0).to_radians());
    let v: Vector = std::array::from_fn(|i| to[i] + x * east[i] + y * north[i]);
    let ra = v[1].atan2(v[0]).to_degrees().rem_euclid(360.0);
    (ra, v[2].atan2(v[0].hypot(v[1])).to_degrees())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back_from_the_sky_at_every_place_and_with_distortion() {
        for centre in [(0.001, 0.0), (150.0, 89.5), (359.999, -45.0)] {
            let mut camera = Gnomonic::new(centre, (1535.5, 1539.5), 1.01, 33.0);
            camera.distortion = 1e-10;
            for (x, y) in [(0.0, 0.0), (3071.0, 5.0), (1535.5, 1539.5), (17.25, 3000.125)] {
                let (ra, dec) = camera.sky(x, y);
                let back = camera.pixel(ra, dec).unwrap();
                assert!((back.0 - x).abs() < 1e-6 && (back.1 - y).abs() < 1e-6, "{centre:?} {x} {y} {back:?}");
            }
        }
    }

    #[test]
    fn without_rotation_north_is_up_and_east_is_left() {
        let camera = Gnomonic::new((180.0, 20.0), (100.0, 100.0), 1.0, 0.0);
        assert!(camera.sky(100.0, 110.0).1 > 20.0);
        assert!(camera.sky(90.0, 100.0).0 > 180.0);
    }
}
