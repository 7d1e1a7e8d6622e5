//! Tables as text: comma-separated, with a header line, gzipped or not; ECSV's comment lines are passed over.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::columns::{QUANTITIES, Quantity, columns};
use super::{CatalogueError, CatalogueStar};

/// Calls `take` with every line's number and star, or the reason why it is none.
pub fn read(
    path: &Path,
    take: &mut dyn FnMut(u64, Result<CatalogueStar, &'static str>) -> Result<(), CatalogueError>,
) -> Result<(), CatalogueError> {
    let io = |source| CatalogueError::Io { path: path.to_owned(), source };
    let table = |reason: String| CatalogueError::Table { path: path.to_owned(), reason };
    let mut plain = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
    let gzipped = plain.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
    let bytes: Box<dyn Read> =
        if gzipped { Box::new(flate2::bufread::MultiGzDecoder::new(plain)) } else { Box::new(plain) };
    let mut reader =
        csv::ReaderBuilder::new().comment(Some(b'#')).flexible(true).trim(csv::Trim::All).from_reader(bytes);
    let broken = |error: csv::Error| table(format!("cannot be read as comma-separated text ({error}); copy it again"));
    let names: Vec<String> = reader.headers().map_err(broken)?.iter().map(str::to_owned).collect();
    let at = columns(&names).map_err(table)?;
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(broken)? {
        let line = record.position().map_or(0, csv::Position::line);
        take(line, star(&record, &at))?;
    }
    Ok(())
}

fn star(record: &csv::ByteRecord, at: &[Option<usize>; QUANTITIES]) -> Result<CatalogueStar, &'static str> {
    let text = |quantity: Quantity| {
        let field = record.get(at[quantity.index()]?)?;
        std::str::from_utf8(field).ok().filter(|text| !text.is_empty())
    };
    let number = |quantity: Quantity| text(quantity).and_then(|t| t.parse::<f64>().ok()).unwrap_or(f64::NAN);
    let id = text(Quantity::Id).and_then(|t| {
        let digits = t.trim_start_matches("Gaia DR3 ");
        // Numbers that went through a table of floating-point numbers end in ".0".
        digits.parse().ok().or_else(|| digits.parse::<f64>().ok().filter(|x| x.fract() == 0.0).map(|x| x as i64))
    });
    super::build::checked(
        (number(Quantity::Ra), number(Quantity::Dec)),
        id,
        [0, 1, 2, 3].map(|band| number(Quantity::Griz(band))),
        number(Quantity::Gaia),
        number(Quantity::Score),
    )
}
