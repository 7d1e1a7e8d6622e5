//! Building a catalogue: tables in any order and of any length become one sorted file in bounded memory.
//!
//! Rows go first into one file for each band of declination; then band after band is sorted and written. The largest
//! band is what memory must hold: three degrees.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::cells::{CUTS, Cells, FINEST, finest_zone};
use super::format::{ENTRY, HEADER, Layout, ROW, ROWS_A_CELL, place_of, row_of};
use super::{CatalogueError, CatalogueStar, csv_table, fits_table};

/// Bands of declination, one file each while building: whole zones of every cut.
const BANDS: u32 = CUTS[0];
/// Zones of the map that tells which part of the sky the tables cover.
const COVERAGE: u32 = 360;

/// Lines that are no star.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The table.
    pub path: PathBuf,
    /// How many.
    pub count: u64,
    /// Line or row of the first, and why.
    pub first: (u64, &'static str),
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Stars in the catalogue.
    pub stars: u64,
    /// Those with g, r, i or z.
    pub with_griz: u64,
    /// Those of Gaia.
    pub with_gaia: u64,
    /// Length of the file, bytes.
    pub bytes: u64,
    /// Lines left out, a table each.
    pub refused: Vec<Refused>,
}

/// A star of these numbers, or why they are none. Magnitudes beyond −5 to 31 (surveys write −999) are absent.
pub(super) fn checked(
    (ra, dec): (f64, f64),
    id: Option<i64>,
    griz: [f64; 4],
    gaia: f64,
    score: f64,
) -> Result<CatalogueStar, &'static str> {
    if !(-0.001..=360.001).contains(&ra) {
        return Err("no right ascension from 0 to 360 degrees");
    }
    if !(-90.0..=90.0).contains(&dec) {
        return Err("no declination from -90 to 90 degrees");
    }
    let magnitude = |m: f64| if (-5.0..31.0).contains(&m) { m as f32 } else { f32::NAN };
    let star = CatalogueStar {
        ra: ra.rem_euclid(360.0),
        dec,
        id: id.unwrap_or_else(|| id_of(ra.rem_euclid(360.0), dec)),
        griz: griz.map(magnitude),
        gaia: magnitude(gaia),
        score: if (0.0..=1.0).contains(&score) { score as f32 } else { f32::NAN },
    };
    if star.has_griz() || star.gaia.is_finite() { Ok(star) } else { Err("no magnitude") }
}

/// A number made of the place, as Pan-STARRS makes its objID (Flewelling et al. 2020, ApJS 251, 7, §4.1): the zone of
/// half an arcminute, right ascension in millionths of a degree, four digits that stay 0 here.
fn id_of(ra: f64, dec: f64) -> i64 {
    let zone = ((dec + 90.0) * 120.0).floor() as i64;
    zone * 10_000_000_000_000 + (ra * 1e6).floor() as i64 * 10_000
}

/// Builds the catalogue `output` of `tables`; `say` hears of each table.
///
/// # Errors
///
/// When a table cannot be read or the file cannot be written. What was at `output` before stays then.
pub fn build(tables: &[PathBuf], output: &Path, say: &dyn Fn(&str)) -> Result<Built, CatalogueError> {
    let parts = beside(output, "parts");
    let io = |source| CatalogueError::Io { path: parts.clone(), source };
    let _ = fs::remove_dir_all(&parts);
    fs::create_dir(&parts).map_err(io)?;
    let result = sorted_in(&parts, tables, output, say);
    let _ = fs::remove_dir_all(&parts);
    result
}

fn sorted_in(parts: &Path, tables: &[PathBuf], output: &Path, say: &dyn Fn(&str)) -> Result<Built, CatalogueError> {
    let mut bands = Bands::create(parts)?;
    let mut refused = Vec::new();
    for path in tables {
        let before = bands.built.stars;
        let mut left_out: Option<Refused> = None;
        let mut take = |line: u64, star: Result<CatalogueStar, &'static str>| match star {
            Ok(star) => bands.add(&star),
            Err(reason) => {
                let all = left_out.get_or_insert(Refused { path: path.clone(), count: 0, first: (line, reason) });
                all.count += 1;
                Ok(())
            }
        };
        let name = path.to_string_lossy().to_ascii_lowercase();
        let is_fits = [".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.fz"].iter().any(|end| name.ends_with(end));
        if name.ends_with(".parquet") {
            let reason = "is Parquet; make FITS of it first (`nightjar catalogue build --help` shows how)".into();
            return Err(CatalogueError::Table { path: path.clone(), reason });
        }
        if is_fits {
            fits_table::read(path, &mut take)?
        } else {
            csv_table::read(path, &mut take)?
        }
        say(&format!("{}: {} stars", path.display(), bands.built.stars - before));
        refused.extend(left_out);
    }
    let mut built = bands.write(output)?;
    built.refused = refused;
    Ok(built)
}

/// `output` with another ending, in the same folder.
fn beside(output: &Path, ending: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    output.with_file_name(name)
}

struct Bands {
    folder: PathBuf,
    files: Vec<BufWriter<File>>,
    /// A flag for each cell of a coarse sky.
    coverage: (Cells, Vec<bool>),
    built: Built,
}

impl Bands {
    fn create(folder: &Path) -> Result<Self, CatalogueError> {
        let open = |band: u32| {
            let path = folder.join(band.to_string());
            File::create(&path)
                .map(|file| BufWriter::with_capacity(1 << 16, file))
                .map_err(|source| CatalogueError::Io { path, source })
        };
        let files = (0..BANDS).map(open).collect::<Result<_, _>>()?;
        let cells = Cells::new(COVERAGE).ok_or(CatalogueError::Empty)?;
        let covered = vec![false; cells.count() as usize];
        let built = Built { stars: 0, with_griz: 0, with_gaia: 0, bytes: 0, refused: Vec::new() };
        Ok(Self { folder: folder.to_owned(), files, coverage: (cells, covered), built })
    }

    fn add(&mut self, star: &CatalogueStar) -> Result<(), CatalogueError> {
        let row = row_of(star);
        let (ra, dec) = place_of(&row);
        let band = (finest_zone(dec) / (FINEST / BANDS)) as usize;
        let path = || self.folder.join(band.to_string());
        self.files[band].write_all(&row).map_err(|source| CatalogueError::Io { path: path(), source })?;
        let cell = self.coverage.0.of(ra, dec);
        self.coverage.1[cell as usize] = true;
        self.built.stars += 1;
        self.built.with_griz += u64::from(star.has_griz());
        self.built.with_gaia += u64::from(star.gaia.is_finite());
        Ok(())
    }

    /// Zones for which a cell of the covered sky holds about [`ROWS_A_CELL`] rows.
    fn zones(&self) -> u32 {
        let covered = self.coverage.1.iter().filter(|c| **c).count().max(1) as f64 / self.coverage.1.len() as f64;
        let cells = self.built.stars as f64 / ROWS_A_CELL / covered;
        // z zones hold 4 z²/π cells.
        let wanted = (cells * std::f64::consts::PI / 4.0).sqrt();
        CUTS.into_iter()
            .min_by(|a, b| (f64::from(*a) / wanted).ln().abs().total_cmp(&(f64::from(*b) / wanted).ln().abs()))
            .unwrap_or(FINEST)
    }

    fn write(self, output: &Path) -> Result<Built, CatalogueError> {
        if self.built.stars == 0 {
            return Err(CatalogueError::Empty);
        }
        if self.built.stars >= u64::from(u32::MAX) {
            return Err(CatalogueError::TooMany(self.built.stars));
        }
        let zones = self.zones();
        let fresh = beside(output, "new");
        let io = |source| CatalogueError::Io { path: fresh.clone(), source };
        let Self { folder, files, built, .. } = self;
        for file in files {
            file.into_inner().map_err(|error| io(error.into_error()))?;
        }
        let cells = Cells::new(zones).ok_or(CatalogueError::Empty)?;
        let mut layout = Layout { zones, cells: cells.count(), rows: built.stars, index_sum: 0 };
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&fresh).map_err(io)?);
        let mut index = Index::new(cells.count());
        out.write_all(&vec![0; layout.rows_offset() as usize]).map_err(io)?;
        for band in 0..BANDS {
            let mut bytes = Vec::new();
            File::open(folder.join(band.to_string())).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io)?;
            let mut rows: Vec<(u32, [u8; ROW])> = bytes
                .as_chunks::<ROW>()
                .0
                .iter()
                .map(|row| {
                    let (ra, dec) = place_of(row);
                    (cells.of(ra, dec), *row)
                })
                .collect();
            // All of the row decides, so that the order of the tables does not matter.
            rows.sort_unstable_by_key(|(cell, row)| {
                (*cell, u32::from_le_bytes([row[0], row[1], row[2], row[3]]), *row)
            });
            for (cell, row) in &rows {
                index.add(*cell, row);
                out.write_all(row).map_err(io)?;
            }
        }
        let index = index.finish();
        layout.index_sum = crc32c::crc32c(&index);
        out.flush().map_err(io)?;
        let file = out.into_inner().map_err(|error| io(error.into_error()))?;
        use std::os::unix::fs::FileExt;
        file.write_all_at(&layout.to_bytes(), 0).and_then(|()| file.write_all_at(&index, HEADER as u64)).map_err(io)?;
        file.sync_all().and_then(|()| fs::rename(&fresh, output)).map_err(io)?;
        let parent = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(Built { bytes: layout.file_bytes(), ..built })
    }
}

/// The index as it grows.
struct Index {
    /// First row and sum of the cells so far.
    entries: Vec<(u32, u32)>,
    cells: u32,
    rows: u32,
}

impl Index {
    fn new(cells: u32) -> Self {
        Self { entries: Vec::with_capacity(cells as usize + 1), cells, rows: 0 }
    }

    /// Adds the next row; cells come in order.
    fn add(&mut self, cell: u32, row: &[u8; ROW]) {
        while self.entries.len() <= cell as usize {
            self.entries.push((self.rows, 0));
        }
        if let Some(last) = self.entries.last_mut() {
            last.1 = crc32c::crc32c_append(last.1, row);
        }
        self.rows += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        while self.entries.len() <= self.cells as usize {
            self.entries.push((self.rows, 0));
        }
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY);
        for (start, sum) in self.entries {
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_number_made_of_the_place_begins_like_pan_starrs_own() {
        // ZTF packet of 16.7719228 +27.680249: objectidps1 141210167646814916, 23.7 arcsec away.
        assert_eq!(super::id_of(16.764_681_4, 27.679) / 10_000, 141_210_167_646_814_916 / 10_000);
    }
}
