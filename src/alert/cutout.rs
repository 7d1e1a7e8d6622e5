//! The three pictures of a packet: 63×63 float32 FITS, gzipped.
//!
//! One 2880-byte header, one 63×63 image of 15,876 bytes padded to a block: 20,160 bytes, as in
//! ZTF's packets. They are written here byte by byte because a general FITS library takes longer
//! for three such files than everything else in a packet together. Readers: BOOM takes a single
//! header and at most 63×63 pixels, all take gzip. Pixels off the frame are NaN.

use ndarray::Array2;

use crate::detect::{CUTOUT_SIDE, Candidate, Conditions};

/// Length of a FITS block, bytes.
const BLOCK: usize = 2880;
/// Compression level: the highest that costs no more than reading the pixels. Higher levels save
/// 1 % for three times the time.
const GZIP_LEVEL: i32 = 1;

/// Linear world coordinates at a candidate: where its cut-out lies on the sky.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalWcs {
    /// Position of the candidate, degrees.
    pub sky: (f64, f64),
    /// Its position inside the cut-out, first pixel 1.
    pub pixel: (f64, f64),
    /// Degrees a pixel on the tangent plane: (ξ east, η north) by (x, y).
    pub cd: [[f64; 2]; 2],
}

impl LocalWcs {
    /// At `candidate`, from the corners of the frame on the sky.
    ///
    /// The corners, projected on the tangent plane at the candidate, give the scale and rotation
    /// there by bilinear interpolation; over 63 pixels that is within a hundredth of a pixel of the
    /// full solution.
    pub fn at(candidate: &Candidate, conditions: &Conditions) -> Self {
        let (width, height) = (conditions.shape.0 as f64, conditions.shape.1 as f64);
        let plane = conditions.corners.map(|corner| gnomonic(corner, (candidate.ra, candidate.dec)));
        let (u, v) = ((candidate.x + 0.5) / width, (candidate.y + 0.5) / height);
        let along_x = |k: usize| {
            let component = |point: (f64, f64)| if k == 0 { point.0 } else { point.1 };
            let bottom = component(plane[1]) - component(plane[0]);
            let top = component(plane[2]) - component(plane[3]);
            let left = component(plane[3]) - component(plane[0]);
            let right = component(plane[2]) - component(plane[1]);
            [(bottom * (1.0 - v) + top * v) / width, (left * (1.0 - u) + right * u) / height]
        };
        let centre = (CUTOUT_SIDE / 2 + 1) as f64;
        Self {
            sky: (candidate.ra, candidate.dec),
            pixel: (centre + candidate.x - candidate.x.round(), centre + candidate.y - candidate.y.round()),
            cd: [along_x(0), along_x(1)],
        }
    }
}

/// Standard coordinates (ξ, η) of `point` about `centre`, degrees in and out
/// (Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3).
fn gnomonic(point: (f64, f64), centre: (f64, f64)) -> (f64, f64) {
    let (sin_d, cos_d) = point.1.to_radians().sin_cos();
    let (sin_0, cos_0) = centre.1.to_radians().sin_cos();
    let (sin_a, cos_a) = (point.0 - centre.0).to_radians().sin_cos();
    let below = sin_d * sin_0 + cos_d * cos_0 * cos_a;
    ((cos_d * sin_a / below).to_degrees(), ((sin_d * cos_0 - cos_d * sin_0 * cos_a) / below).to_degrees())
}

/// One gzipped FITS file of `pixels` in electrons.
pub fn gzipped_fits(pixels: &Array2<f32>, wcs: &LocalWcs, compressor: &mut Gzip) -> Vec<u8> {
    compressor.compress(&fits_bytes(pixels, wcs))
}

/// A gzip compressor with the room it works in; one a thread.
pub struct Gzip(libdeflater::Compressor);

impl Gzip {
    /// A compressor at the level of the packets.
    pub fn new() -> Self {
        let level = libdeflater::CompressionLvl::new(GZIP_LEVEL).unwrap_or_default();
        Self(libdeflater::Compressor::new(level))
    }

    fn compress(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0; self.0.gzip_compress_bound(bytes.len())];
        // The bound holds whatever the bytes are, so the only error (no room) cannot come.
        let length = self.0.gzip_compress(bytes, &mut out).unwrap_or_default();
        out.truncate(length);
        out
    }
}

impl Default for Gzip {
    fn default() -> Self {
        Self::new()
    }
}

fn fits_bytes(pixels: &Array2<f32>, wcs: &LocalWcs) -> Vec<u8> {
    let (height, width) = pixels.dim();
    let mut file = Vec::with_capacity(BLOCK + (width * height * 4).next_multiple_of(BLOCK));
    let mut card = |keyword: &str, value: &str| file.extend_from_slice(format!("{keyword:<8}= {value:<70}").as_bytes());
    card("SIMPLE", &format!("{:>20}", "T"));
    for (keyword, value) in
        [("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", width as i64), ("NAXIS2", height as i64), ("WCSAXES", 2)]
    {
        card(keyword, &format!("{value:>20}"));
    }
    card("CTYPE1", "'RA---TAN'");
    card("CTYPE2", "'DEC--TAN'");
    card("CUNIT1", "'deg     '");
    card("CUNIT2", "'deg     '");
    card("RADESYS", "'ICRS    '");
    for (keyword, value) in [
        ("CRVAL1", wcs.sky.0),
        ("CRVAL2", wcs.sky.1),
        ("CRPIX1", wcs.pixel.0),
        ("CRPIX2", wcs.pixel.1),
        ("CD1_1", wcs.cd[0][0]),
        ("CD1_2", wcs.cd[0][1]),
        ("CD2_1", wcs.cd[1][0]),
        ("CD2_2", wcs.cd[1][1]),
    ] {
        card(keyword, &format!("{:>20}", format!("{value:.11E}")));
    }
    card("BUNIT", "'electron'");
    file.extend_from_slice(b"END");
    file.resize(BLOCK, b' ');
    for value in pixels {
        file.extend_from_slice(&value.to_be_bytes());
    }
    file.resize(file.len().next_multiple_of(BLOCK), 0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cutout_is_one_header_block_and_six_blocks_of_pixels() {
        let wcs = LocalWcs { sky: (10.0, -20.0), pixel: (32.0, 32.0), cd: [[-1e-4, 0.0], [0.0, 1e-4]] };
        let file = fits_bytes(&Array2::from_elem((63, 63), f32::NAN), &wcs);
        assert_eq!(file.len(), 20_160);
        assert!(file[..BLOCK].is_ascii());
        assert_eq!(&file[BLOCK..BLOCK + 4], &f32::NAN.to_be_bytes());
    }
}
