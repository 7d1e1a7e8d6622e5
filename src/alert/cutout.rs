//! The three pictures of a packet: 63×63 float32 FITS, gzipped.
//!
//! One 2880-byte header, one 63×63 image of 15,876 bytes padded to a block: 20,160 bytes, as in
//! ZTF's packets. They are written here byte by byte because a general FITS library takes longer
//! for three such files than everything else in a packet together, and compressed by
//! [`super::deflate`]. Readers: BOOM takes a single
//! header and at most 63×63 pixels, all take gzip. Pixels off the frame are NaN.

use std::io::Write;

use ndarray::Array2;

use super::deflate::{Beginning, Deflate};
use crate::detect::{CUTOUT_SIDE, Candidate, Conditions};

/// Length of a FITS block, bytes.
const BLOCK: usize = 2880;
/// Length of a line of a FITS header, bytes.
const CARD: usize = 80;

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

/// Makes the pictures of packets; one a thread, so that the room it works in is made once.
pub struct Stamps {
    deflate: Deflate,
    header: Vec<u8>,
    pixels: Vec<[u8; 4]>,
}

impl Stamps {
    /// With no picture made.
    pub fn new() -> Self {
        Self { deflate: Deflate::new(), header: Vec::with_capacity(BLOCK), pixels: Vec::new() }
    }

    /// Gzipped FITS files of pictures in electrons; the header of pictures of one shape is made and
    /// compressed once.
    pub fn gzipped<const N: usize>(&mut self, pictures: [&Array2<f32>; N], wcs: &LocalWcs) -> [Vec<u8>; N] {
        let mut beginning: Option<((usize, usize), Beginning)> = None;
        pictures.map(|picture| {
            let shape = picture.dim();
            let (_, beginning) = match beginning.take() {
                Some(made) if made.0 == shape => beginning.insert(made),
                _ => {
                    header(shape, wcs, &mut self.header);
                    beginning.insert((shape, self.deflate.beginning(&self.header)))
                }
            };
            self.pixels.clear();
            match picture.as_slice() {
                Some(values) => self.pixels.extend(values.iter().map(|value| value.to_be_bytes())),
                None => self.pixels.extend(picture.iter().map(|value| value.to_be_bytes())),
            }
            self.pixels.resize(picture.len().next_multiple_of(BLOCK / 4), [0; 4]);
            self.deflate.file(beginning, &self.pixels)
        })
    }
}

impl Default for Stamps {
    fn default() -> Self {
        Self::new()
    }
}

/// The header block of a picture of `shape` (rows, columns), into `file`.
fn header((height, width): (usize, usize), wcs: &LocalWcs, file: &mut Vec<u8>) {
    file.clear();
    let mut card = |keyword: &str, value: std::fmt::Arguments<'_>| {
        let end = file.len() + CARD;
        // A `Vec` takes all that is written to it.
        let _ = write!(file, "{keyword:<8}= {value}");
        file.resize(end, b' ');
    };
    card("SIMPLE", format_args!("{:>20}", "T"));
    for (keyword, value) in
        [("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", width as i64), ("NAXIS2", height as i64), ("WCSAXES", 2)]
    {
        card(keyword, format_args!("{value:>20}"));
    }
    for (keyword, value) in [
        ("CTYPE1", "'RA---TAN'"),
        ("CTYPE2", "'DEC--TAN'"),
        ("CUNIT1", "'deg     '"),
        ("CUNIT2", "'deg     '"),
        ("RADESYS", "'ICRS    '"),
    ] {
        card(keyword, format_args!("{value}"));
    }
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
        card(keyword, format_args!("{value:>20.11E}"));
    }
    card("BUNIT", format_args!("'electron'"));
    file.extend_from_slice(b"END");
    file.resize(BLOCK, b' ');
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_cutout_is_one_header_block_and_six_blocks_of_pixels() {
        let wcs = LocalWcs { sky: (10.0, -20.0), pixel: (32.0, 32.0), cd: [[-1e-4, 0.0], [0.0, 1e-4]] };
        let [one, other] = Stamps::new()
            .gzipped([&Array2::from_elem((63, 63), f32::NAN), &Array2::from_elem((40, 63), 1.5)], &wcs)
            .map(|file| {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&file[..]).read_to_end(&mut plain).unwrap();
                plain
            });
        assert_eq!(one.len(), 20_160);
        assert!(one[..BLOCK].is_ascii());
        assert_eq!(&one[BLOCK..BLOCK + 4], &f32::NAN.to_be_bytes());
        assert_eq!(other.len(), 5 * BLOCK);
        let naxis2 = &other[4 * CARD..5 * CARD];
        assert!(naxis2.starts_with(b"NAXIS2  =                   40 "), "{}", String::from_utf8_lossy(naxis2));
    }
}
