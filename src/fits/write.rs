//! Writing images, atomically and with checksums.

use std::path::Path;

use ndarray::Array2;

use super::cfitsio::{FLOAT_IMG, Fault, Handle, USHORT_IMG};
use super::{Card, FitsError, Header, Value};

/// The pixels of one image to be written.
#[derive(Debug, Clone, Copy)]
pub enum Plane<'a> {
    /// 32-bit floating point.
    F32(&'a Array2<f32>),
    /// Unsigned 16-bit, with `BZERO` 32768.
    U16(&'a Array2<u16>),
}

/// An image of a file to be written: its `EXTNAME` (empty for the primary image), header, pixels.
#[derive(Debug, Clone, Copy)]
pub struct HduOut<'a> {
    /// `EXTNAME`.
    pub name: &'a str,
    /// Cards to be written; those that describe the array itself are left out.
    pub header: &'a Header,
    /// The pixels.
    pub plane: Plane<'a>,
}

/// Keywords that cfitsio writes itself, or that describe another array.
const STRUCTURAL: [&str; 16] = [
    "SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "EXTEND", "XTENSION", "PCOUNT", "GCOUNT", "BZERO",
    "BSCALE", "CHECKSUM", "DATASUM", "EXTNAME", "BLANK",
];

/// Writes the images into one file, the first as the primary array when it has no name. The file
/// appears under its name only when it is whole and on disk.
pub fn write_fits(path: &Path, images: &[HduOut<'_>]) -> Result<(), FitsError> {
    let failed = |reason: String| FitsError::Write { path: path.to_owned(), reason };
    let mut name = path.file_name().ok_or_else(|| failed("it has no file name".into()))?.to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let _ = std::fs::remove_file(&temporary);
    let written = write_temporary(&temporary, images)
        .map_err(|Fault(reason)| reason)
        .and_then(|()| publish(&temporary, path).map_err(|e| e.to_string()));
    written.map_err(|reason| {
        let _ = std::fs::remove_file(&temporary);
        failed(reason)
    })
}

fn write_temporary(path: &Path, images: &[HduOut<'_>]) -> Result<(), Fault> {
    let mut file = Handle::create(path)?;
    if images.first().is_some_and(|image| !image.name.is_empty()) {
        file.append_image(FLOAT_IMG, 0, 0)?;
        file.write_checksum()?;
    }
    for image in images {
        let (kind, (height, width)) = match image.plane {
            Plane::F32(pixels) => (FLOAT_IMG, pixels.dim()),
            Plane::U16(pixels) => (USHORT_IMG, pixels.dim()),
        };
        file.append_image(kind, width, height)?;
        if !image.name.is_empty() {
            file.append_card(&format_card(&Card {
                keyword: "EXTNAME".into(),
                value: Value::Text(image.name.into()),
                comment: String::new(),
            }))?;
        }
        for card in image.header.cards().iter().filter(|c| !STRUCTURAL.contains(&c.keyword.as_str())) {
            file.append_card(&format_card(card))?;
        }
        match image.plane {
            Plane::F32(pixels) => file.write_f32(pixels.as_standard_layout().as_slice().unwrap_or_default())?,
            Plane::U16(pixels) => file.write_u16(pixels.as_standard_layout().as_slice().unwrap_or_default())?,
        }
        file.write_checksum()?;
    }
    file.close()
}

fn publish(temporary: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::File::open(temporary)?.sync_all()?;
    std::fs::rename(temporary, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

/// One card of 80 characters (FITS standard 4.0, section 4).
fn format_card(card: &Card) -> String {
    let value = match &card.value {
        Value::Empty => return cut(format!("{:<8}{}", card.keyword, card.comment)),
        Value::Text(text) => format!("'{:<8}'", text.replace('\'', "''")),
        Value::Integer(integer) => format!("{integer:>20}"),
        Value::Logical(truth) => format!("{:>20}", if *truth { "T" } else { "F" }),
        Value::Real(real) => format!("{:>20}", format_real(*real)),
    };
    let head = if card.keyword.len() > 8 {
        format!("HIERARCH {} = {}", card.keyword, value.trim_start())
    } else {
        format!("{:<8}= {value:<20}", card.keyword)
    };
    let comment = if card.comment.is_empty() { String::new() } else { format!(" / {}", card.comment) };
    cut(head + &comment)
}

/// Shortest digits that read back as the same number, with a point so that it stays a real.
fn format_real(real: f64) -> String {
    let plain = format!("{real:?}").replace('e', "E");
    if plain.contains(['.', 'E']) { plain } else { format!("{plain}.0") }
}

fn cut(line: String) -> String {
    line.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::super::read_planes;
    use super::*;

    #[test]
    fn what_is_written_is_read_back_with_its_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.fits");
        let pixels = Array2::from_shape_fn((5, 7), |(y, x)| (y * 10 + x) as f32 - 0.5);
        let mask = Array2::from_shape_fn((5, 7), |(y, x)| (y * x * 2000) as u16);
        let mut header = Header::new();
        header.set("GAIN", 6.2, "e-/ADU").set("OBJECT", "it's", "").set("N", 3_i64, "").history("made in a test");
        let planes = [
            HduOut { name: "", header: &header, plane: Plane::F32(&pixels) },
            HduOut { name: "MASK", header: &Header::new(), plane: Plane::U16(&mask) },
        ];
        write_fits(&path, &planes).unwrap();
        let read = read_planes(&path).unwrap();
        assert_eq!(read[0].pixels, pixels);
        assert_eq!(read[0].header.number(&["GAIN"]), Some(6.2));
        assert_eq!(read[0].header.text(&["OBJECT"]).as_deref(), Some("it's"));
        assert_eq!(read[1].name, "MASK");
        assert_eq!(read[1].pixels, mask.mapv(f32::from));
        assert!(!folder.path().join("a.fits.tmp").exists());
    }
}
