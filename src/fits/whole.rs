//! Whether a FITS file is all there, from its structure alone: no pixel is read.
//!
//! Each header-data unit says in its header how long its data is (FITS standard 4.0, section 3.3 and
//! equation 1); a file is whole when it holds them all. Files on their way into a watched folder
//! are looked at with this again and again, so it costs a few blocks of 2880 bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::{Header, gzip};

/// Length of a block, bytes.
const BLOCK: u64 = 2880;
/// Longest header that is followed, blocks: 36,000 cards.
const MAX_HEADER_BLOCKS: usize = 1000;

/// What the structure of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wholeness {
    /// Every header and all of its data is there.
    Whole,
    /// The beginning of a FITS file; the sentence says what is missing.
    Part(String),
    /// Not FITS; the sentence says why not.
    Foreign(String),
}

/// Looks at the structure of the file at `path`; gzipped ones are unpacked in memory for it.
///
/// # Errors
///
/// When the file cannot be read.
pub fn wholeness(path: &Path) -> io::Result<Wholeness> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut magic = [0; 2];
    let read = read_up_to(&mut file, &mut magic)?;
    if !gzip::is_gzip(&magic[..read]) {
        return structure(&mut file, length);
    }
    Ok(match gzip::unpack(&std::fs::read(path)?) {
        Ok(unpacked) => structure(&mut io::Cursor::new(&unpacked), unpacked.len() as u64)?,
        Err(reason) => Wholeness::Part(reason),
    })
}

/// The same of an unpacked file of `length` bytes: goes from unit to unit up to its end.
pub(super) fn structure(file: &mut (impl Read + Seek), length: u64) -> io::Result<Wholeness> {
    let mut magic = [0; 10];
    file.seek(SeekFrom::Start(0))?;
    let read = read_up_to(file, &mut magic)?;
    match &magic[..read] {
        b"SIMPLE  = " => {}
        [] => return Ok(Wholeness::Part("it is empty".into())),
        start if b"SIMPLE  = ".starts_with(start) => return Ok(Wholeness::Part("it has no header yet".into())),
        _ => return Ok(Wholeness::Foreign("it does not begin with SIMPLE, as FITS files do".into())),
    }
    let mut at = 0;
    while at < length {
        file.seek(SeekFrom::Start(at))?;
        let (header, blocks) = match read_header_blocks(file, at > 0)? {
            Unit::Header(header, blocks) => (header, blocks),
            Unit::Cut => return Ok(Wholeness::Part("it ends inside a header".into())),
            Unit::Endless => return Ok(Wholeness::Foreign("a header has no END card".into())),
            // What follows the last unit is nobody's (section 3.5).
            Unit::None => return Ok(Wholeness::Whole),
        };
        let data_at = at + blocks * BLOCK;
        let Some(data) = data_bytes(&header) else {
            let reason = format!("{} describe no possible array", geometry(&header));
            return Ok(Wholeness::Foreign(reason));
        };
        match data_at.checked_add(data) {
            Some(end) if end <= length => at = data_at + data.div_ceil(BLOCK) * BLOCK,
            _ => {
                let there = length.saturating_sub(data_at);
                let reason = format!("{} ask for {data} bytes of data, {there} are there", geometry(&header));
                return Ok(Wholeness::Part(reason));
            }
        }
    }
    Ok(Wholeness::Whole)
}

/// The keywords that say how long the data is, as they stand in the header.
fn geometry(header: &Header) -> String {
    let keywords = ["BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT"];
    let there = keywords.iter().filter_map(|keyword| {
        let text = header.text(&[keyword])?;
        Some(format!("{keyword} = {}", text.chars().take(24).collect::<String>()))
    });
    let there: Vec<String> = there.collect();
    if there.is_empty() { "BITPIX and NAXIS are missing and".into() } else { there.join(", ") }
}

enum Unit {
    Header(Header, u64),
    Cut,
    Endless,
    None,
}

fn read_header_blocks(file: &mut impl Read, extension: bool) -> io::Result<Unit> {
    let mut cards = String::new();
    let mut block = [0; BLOCK as usize];
    for number in 0..MAX_HEADER_BLOCKS {
        let read = read_up_to(file, &mut block)?;
        if number == 0 && extension && !block[..read].starts_with(b"XTENSION") {
            return Ok(Unit::None);
        }
        if read < block.len() {
            return Ok(Unit::Cut);
        }
        cards.extend(block.iter().map(|&byte| char::from(byte & 0x7f)));
        if block.chunks_exact(80).any(|card| card.starts_with(b"END     ")) {
            return Ok(Unit::Header(Header::parse(&cards), number as u64 + 1));
        }
    }
    Ok(Unit::Endless)
}

/// Bytes of data behind `header`, without the padding; `None` where the keywords are impossible.
fn data_bytes(header: &Header) -> Option<u64> {
    let whole = |keyword: &str, default: Option<u64>| match header.number(&[keyword]) {
        Some(number) if (0.0..1e15).contains(&number) => Some(number as u64),
        Some(_) => None,
        None => default,
    };
    let bytes_a_pixel = match header.number(&["BITPIX"])? as i64 {
        8 => 1,
        16 => 2,
        32 | -32 => 4,
        64 | -64 => 8,
        _ => return None,
    };
    let axes = whole("NAXIS", None).filter(|n| *n <= 999)?;
    if axes == 0 {
        return Some(0);
    }
    let pixels = (1..=axes).try_fold(1_u64, |all, n| all.checked_mul(whole(&format!("NAXIS{n}"), None)?))?;
    let (parameters, groups) = (whole("PCOUNT", Some(0))?, whole("GCOUNT", Some(1))?);
    pixels.checked_add(parameters)?.checked_mul(groups)?.checked_mul(bytes_a_pixel)
}

fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::super::{HduOut, Header, Plane, write_fits};
    use super::*;

    fn written(folder: &Path) -> Vec<u8> {
        let path = folder.join("whole.fits");
        let pixels = ndarray::Array2::<f32>::zeros((40, 30));
        let mask = ndarray::Array2::<u16>::zeros((40, 30));
        let header = Header::new();
        let planes = [
            HduOut { name: "", header: &header, plane: Plane::F32(&pixels) },
            HduOut { name: "MASK", header: &header, plane: Plane::U16(&mask) },
        ];
        write_fits(&path, &planes).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_file_cut_anywhere_is_a_part_and_the_rest_makes_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(folder.path());
        let path = folder.path().join("arriving.fits");
        // The first unit is a whole file of its own; between the units nothing can be missed.
        let first_unit = 2 * BLOCK as usize + (40 * 30 * 4_usize).div_ceil(2880) * 2880 - BLOCK as usize;
        for cut in (0..bytes.len()).step_by(487) {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let found = wholeness(&path).unwrap();
            let data_is_there = cut >= BLOCK as usize + 40 * 30 * 4;
            if data_is_there && cut <= first_unit {
                assert_eq!(found, Wholeness::Whole, "{cut}");
            } else if cut < BLOCK as usize + 40 * 30 * 4 {
                assert!(matches!(found, Wholeness::Part(_)), "{cut}: {found:?}");
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(wholeness(&path).unwrap(), Wholeness::Whole);
    }

    #[test]
    fn a_picture_is_foreign_and_an_impossible_array_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.fits");
        std::fs::write(&path, b"\x89PNG not FITS").unwrap();
        assert!(matches!(wholeness(&path).unwrap(), Wholeness::Foreign(_)));
        let mut bytes = written(folder.path());
        let at = bytes.chunks(80).position(|card| card.starts_with(b"NAXIS1")).unwrap() * 80;
        bytes[at..at + 80].copy_from_slice(format!("{:<80}", "NAXIS1  =  -5").as_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(wholeness(&path).unwrap(), Wholeness::Foreign(_)));
        bytes[at..at + 80].copy_from_slice(format!("{:<80}", "NAXIS1  =  999999999999").as_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(wholeness(&path).unwrap(), Wholeness::Part(_)));
    }
}
