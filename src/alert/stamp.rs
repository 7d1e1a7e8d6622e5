//! A cut-out back from its bytes: FITS, gzipped or not, as packets of any survey hold it.

use ndarray::Array2;

use crate::fits::Header;

/// Length of a FITS block and of a card, bytes.
const BLOCK: usize = 2880;
const CARD: usize = 80;
/// Longest side of a picture that is taken, pixels.
const LONGEST_SIDE: usize = 4_096;
/// Most bytes that a gzipped picture may unpack to.
const LARGEST: usize = 64 << 20;

/// Why a cut-out cannot be shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// The gzip is damaged or too large.
    #[error("its gzip is damaged")]
    Gzip,
    /// No header, or it ends early.
    #[error("it is not a FITS image")]
    NotFits,
    /// A kind of FITS image that cut-outs do not come in.
    #[error("it is an image of {0}, which cut-outs do not come in")]
    Unusual(String),
}

/// The pixels, `[[y, x]]`, first row at the bottom.
pub fn stamp_pixels(bytes: &[u8]) -> Result<Array2<f32>, StampError> {
    let unpacked;
    let file = if bytes.starts_with(&[0x1f, 0x8b]) {
        unpacked = unpack(bytes)?;
        &unpacked
    } else {
        bytes
    };
    let mut rest = file;
    // The image is in the first header-data unit that has one.
    loop {
        let (header, length) = header(rest)?;
        let integer = |keyword: &str| header.number(&[keyword]).map(|n| n as i64);
        let axes = integer("NAXIS").ok_or(StampError::NotFits)?;
        rest = rest.get(length..).ok_or(StampError::NotFits)?;
        if axes == 0 {
            continue;
        }
        let (width, height) = (integer("NAXIS1").unwrap_or(0), integer("NAXIS2").unwrap_or(0));
        let depth = integer("BITPIX").unwrap_or(0);
        let allowed = 1..=LONGEST_SIDE as i64;
        if axes != 2 || !allowed.contains(&width) || !allowed.contains(&height) {
            return Err(StampError::Unusual(format!("{axes} axes, {width} x {height} pixels")));
        }
        let (scale, zero) = (header.number(&["BSCALE"]).unwrap_or(1.0), header.number(&["BZERO"]).unwrap_or(0.0));
        let blank = integer("BLANK").filter(|_| depth > 0);
        let pixels = rest
            .chunks_exact((depth.unsigned_abs() as usize / 8).max(1))
            .take((width * height) as usize)
            .map(|raw| {
                let value = pixel(depth, raw)?;
                let known = blank.is_none_or(|blank| value != blank as f64);
                Some(if known { (value * scale + zero) as f32 } else { f32::NAN })
            })
            .collect::<Option<Vec<f32>>>()
            .ok_or_else(|| StampError::Unusual(format!("{depth} bits")))?;
        return Array2::from_shape_vec((height as usize, width as usize), pixels).map_err(|_| StampError::NotFits);
    }
}

/// One big-endian pixel (FITS standard 4.0, section 5).
fn pixel(depth: i64, raw: &[u8]) -> Option<f64> {
    Some(match depth {
        8 => f64::from(raw[0]),
        16 => f64::from(i16::from_be_bytes(raw.try_into().ok()?)),
        32 => f64::from(i32::from_be_bytes(raw.try_into().ok()?)),
        -32 => f64::from(f32::from_be_bytes(raw.try_into().ok()?)),
        -64 => f64::from_be_bytes(raw.try_into().ok()?),
        _ => return None,
    })
}

/// A header and the length of its blocks.
fn header(bytes: &[u8]) -> Result<(Header, usize), StampError> {
    let end = bytes.chunks_exact(CARD).position(|card| card.starts_with(b"END     ")).ok_or(StampError::NotFits)?;
    let text = String::from_utf8_lossy(&bytes[..end * CARD]).into_owned();
    if !text.starts_with("SIMPLE") && !text.starts_with("XTENSION") {
        return Err(StampError::NotFits);
    }
    Ok((Header::parse(&text), ((end + 1) * CARD).next_multiple_of(BLOCK)))
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, StampError> {
    // The last four bytes of a gzip file are the length of what is inside (RFC 1952).
    let length = bytes.last_chunk::<4>().map(|tail| u32::from_le_bytes(*tail) as usize).ok_or(StampError::Gzip)?;
    if length > LARGEST {
        return Err(StampError::Gzip);
    }
    let mut out = vec![0; length];
    let written = libdeflater::Decompressor::new().gzip_decompress(bytes, &mut out).map_err(|_| StampError::Gzip)?;
    out.truncate(written);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(cards: &[&str], data: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = cards.iter().chain(&["END"]).flat_map(|c| format!("{c:<80}").into_bytes()).collect();
        bytes.resize(BLOCK, b' ');
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn integers_are_scaled_and_blanks_become_nan() {
        let cards = [
            "SIMPLE  = T",
            "BITPIX  = 16",
            "NAXIS   = 2",
            "NAXIS1  = 2",
            "NAXIS2  = 1",
            "BZERO   = 32768",
            "BLANK   = -1",
        ];
        let pixels = stamp_pixels(&file(&cards, &[0x80, 0, 0xff, 0xff])).unwrap();
        assert_eq!(pixels[[0, 0]], 0.0);
        assert!(pixels[[0, 1]].is_nan());
    }

    #[test]
    fn damage_and_size_are_refused() {
        let cards = ["SIMPLE  = T", "BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 1000000000", "NAXIS2  = 1"];
        assert!(matches!(stamp_pixels(&file(&cards, &[0; 4])), Err(StampError::Unusual(_))));
        assert_eq!(stamp_pixels(b"\x1f\x8b\xff\xff\xff\xff"), Err(StampError::Gzip));
        assert_eq!(stamp_pixels(b"hello"), Err(StampError::NotFits));
        let short = file(&["SIMPLE  = T", "BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 2", "NAXIS2  = 2"], &[0; 8]);
        assert_eq!(stamp_pixels(&short), Err(StampError::NotFits));
    }
}
