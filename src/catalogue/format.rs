//! Bytes of the catalogue file: header, index entries, rows.

use super::CatalogueStar;

/// First bytes of the file.
pub const MAGIC: &[u8; 8] = b"NJRSTAR1";
/// Length of the header, bytes.
pub const HEADER: usize = 64;
/// Length of an index entry, bytes.
pub const ENTRY: usize = 8;
/// Length of a row, bytes.
pub const ROW: usize = 28;
/// Rows that the builder aims at in a cell that holds any.
pub const ROWS_A_CELL: f64 = 16.0;

const RA_UNIT: f64 = 360.0 / 4_294_967_296.0;
const DEC_UNIT: f64 = 90.0 / 2_147_483_647.0;
const NO_MAGNITUDE: i16 = i16::MIN;
const NO_SCORE: u8 = 255;
const SCORES: f32 = 250.0;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Zones of declination.
    pub zones: u32,
    /// Cells in all zones.
    pub cells: u32,
    /// Rows.
    pub rows: u64,
    /// CRC-32C of the index.
    pub index_sum: u32,
}

impl Layout {
    /// Length of the whole file, bytes.
    pub fn file_bytes(&self) -> u64 {
        self.rows_offset() + self.rows * ROW as u64
    }

    /// Where the rows begin, bytes.
    pub fn rows_offset(&self) -> u64 {
        HEADER as u64 + ENTRY as u64 * (u64::from(self.cells) + 1)
    }

    /// As bytes.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.zones.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.cells.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.rows.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.index_sum.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Back from bytes; the reason as text where they are no header.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let header = bytes.get(..HEADER).ok_or("is too short for a star catalogue")?;
        if &header[..8] != MAGIC {
            return Err("is no star catalogue".into());
        }
        if crc32c::crc32c(&header[..HEADER - 4]) != le_u32(header, HEADER - 4) {
            return Err("its header is damaged".into());
        }
        let rows = u64::from(le_u32(header, 16)) | u64::from(le_u32(header, 20)) << 32;
        Ok(Self { zones: le_u32(header, 8), cells: le_u32(header, 12), rows, index_sum: le_u32(header, 24) })
    }
}

/// A number at a place; 0 past the end.
pub fn le_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn le_i16(row: &[u8; ROW], at: usize) -> i16 {
    i16::from_le_bytes([row[at], row[at + 1]])
}

/// A star as a row.
pub fn row_of(star: &CatalogueStar) -> [u8; ROW] {
    let mut row = [0; ROW];
    // 360° is 0 again.
    let ra = (star.ra.rem_euclid(360.0) / RA_UNIT).round() as u64 as u32;
    row[..4].copy_from_slice(&ra.to_le_bytes());
    row[4..8].copy_from_slice(&((star.dec / DEC_UNIT).round() as i32).to_le_bytes());
    row[8..16].copy_from_slice(&star.id.to_le_bytes());
    for (i, magnitude) in star.griz.into_iter().chain([star.gaia]).enumerate() {
        let stored = if magnitude.is_finite() && magnitude.abs() < 32.0 {
            (magnitude * 1000.0).round() as i16
        } else {
            NO_MAGNITUDE
        };
        row[16 + 2 * i..18 + 2 * i].copy_from_slice(&stored.to_le_bytes());
    }
    row[26] = if star.score.is_finite() { (star.score.clamp(0.0, 1.0) * SCORES).round() as u8 } else { NO_SCORE };
    row
}

/// A row as a star.
pub fn star_of(row: &[u8; ROW]) -> CatalogueStar {
    let magnitude = |i: usize| match le_i16(row, 16 + 2 * i) {
        NO_MAGNITUDE => f32::NAN,
        stored => f32::from(stored) / 1000.0,
    };
    let (ra, dec) = place_of(row);
    let id = i64::from_le_bytes([row[8], row[9], row[10], row[11], row[12], row[13], row[14], row[15]]);
    CatalogueStar {
        ra,
        dec,
        id,
        griz: [magnitude(0), magnitude(1), magnitude(2), magnitude(3)],
        gaia: magnitude(4),
        score: if row[26] == NO_SCORE { f32::NAN } else { f32::from(row[26]) / SCORES },
    }
}

/// Right ascension and declination of a row, degrees.
pub fn place_of(row: &[u8; ROW]) -> (f64, f64) {
    let ra = u32::from_le_bytes([row[0], row[1], row[2], row[3]]);
    let dec = i32::from_le_bytes([row[4], row[5], row[6], row[7]]);
    (f64::from(ra) * RA_UNIT, f64::from(dec) * DEC_UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_comes_back_to_a_third_of_a_milliarcsecond_and_a_thousandth_of_a_magnitude() {
        for (ra, dec) in [(0.0, 90.0), (359.999_999_99, -90.0), (187.123_456_789, -0.000_000_1), (10.5, 41.25)] {
            let star =
                CatalogueStar { ra, dec, id: -7, griz: [f32::NAN, 17.123, -1.5, 21.999], gaia: 16.4321, score: 0.5 };
            let back = star_of(&row_of(&star));
            let off = super::super::separation((ra, dec), (back.ra, back.dec)) * 3.6e6;
            assert!(off < 0.33, "{off} mas");
            assert!(back.griz[0].is_nan() && back.id == -7 && back.score == 0.5);
            for (a, b) in star.griz[1..].iter().zip(&back.griz[1..]).chain([(&star.gaia, &back.gaia)]) {
                assert!((a - b).abs() < 0.0006);
            }
        }
    }

    #[test]
    fn the_header_of_version_1_is_these_bytes() {
        let layout = Layout { zones: 18, cells: 400, rows: 3, index_sum: 0x0102_0304 };
        let bytes = layout.to_bytes();
        assert_eq!(&bytes[..28], b"NJRSTAR1\x12\0\0\0\x90\x01\0\0\x03\0\0\0\0\0\0\0\x04\x03\x02\x01");
        assert_eq!(Layout::from_bytes(&bytes), Ok(layout));
        let mut damaged = bytes;
        damaged[9] ^= 1;
        assert!(Layout::from_bytes(&damaged).is_err());
    }
}
