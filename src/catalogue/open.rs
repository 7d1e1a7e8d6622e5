//! A catalogue in use.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;

use super::cells::Cells;
use super::format::{ENTRY, HEADER, Layout, ROW, le_u32, place_of, star_of};
use super::{CatalogueError, CatalogueStar, separation};

/// An open star catalogue.
#[derive(Debug)]
pub struct StarCatalogue {
    path: PathBuf,
    file: File,
    map: Mmap,
    layout: Layout,
    cells: Cells,
    /// A bit a cell: its rows have been verified.
    verified: Vec<AtomicU64>,
    /// What was found wrong after it was opened.
    damage: OnceLock<String>,
}

impl StarCatalogue {
    /// Opens a catalogue and verifies header, length and index.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is cut or damaged.
    pub fn open(path: &Path) -> Result<Self, CatalogueError> {
        let io = |source| CatalogueError::Io { path: path.to_owned(), source };
        let damaged = |reason: String| CatalogueError::Damaged { path: path.to_owned(), reason };
        let file = File::open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(damaged("is no file".into()));
        }
        // SAFETY: the map is read only. A catalogue is replaced by a rename and never written in place; a file that
        // is cut all the same is found by `is_whole` before each exposure.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let layout = Layout::from_bytes(&map).map_err(damaged)?;
        if map.len() as u64 != layout.file_bytes() {
            let reason = format!("is {} bytes long and should be {}", map.len(), layout.file_bytes());
            return Err(damaged(reason));
        }
        let index = &map[HEADER..layout.rows_offset() as usize];
        if crc32c::crc32c(index) != layout.index_sum {
            return Err(damaged("its index is damaged".into()));
        }
        let cells = Cells::new(layout.zones).ok_or_else(|| damaged("its zones are none of this version's".into()))?;
        let starts = index.chunks_exact(ENTRY).map(|entry| le_u32(entry, 0));
        let rises = starts.clone().zip(starts.skip(1)).all(|(a, b)| a <= b);
        let end = le_u32(index, index.len() - ENTRY);
        if cells.count() != layout.cells || !rises || u64::from(end) != layout.rows {
            return Err(damaged("its index does not fit its rows".into()));
        }
        let verified = (0..layout.cells.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { path: path.to_owned(), file, map, layout, cells, verified, damage: OnceLock::new() })
    }

    /// Stars in it.
    pub fn len(&self) -> u64 {
        self.layout.rows
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.layout.rows == 0
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is still as long as when it was opened. One that was cut must not be read.
    pub fn is_whole(&self) -> bool {
        let whole = self.file.metadata().is_ok_and(|m| m.len() == self.layout.file_bytes());
        if !whole {
            self.remember("was cut while it was in use".into());
        }
        whole && self.damage.get().is_none()
    }

    /// What was found wrong with it since it was opened, a sentence.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    fn remember(&self, reason: String) {
        let _ = self.damage.set(CatalogueError::Damaged { path: self.path.clone(), reason }.to_string());
    }

    /// The stars within `radius_deg` of a place and their distances in degrees, in no order. Rows that are damaged
    /// are left out, and [`Self::damage`] says so.
    pub fn within(&self, ra: f64, dec: f64, radius_deg: f64) -> Vec<(f64, CatalogueStar)> {
        let mut found = Vec::new();
        if !(ra.is_finite() && dec.is_finite()) {
            return found;
        }
        let radius_deg = radius_deg.max(0.0);
        let band = (dec - radius_deg - 1e-6, dec + radius_deg + 1e-6);
        for run in self.cells.around(ra, dec, radius_deg) {
            for cell in run.from..=run.to {
                let rows = self.rows(cell);
                let from = rows.partition_point(|row| place_of(row).0 < run.low);
                let to = rows.partition_point(|row| place_of(row).0 <= run.high);
                for row in &rows[from..to.max(from)] {
                    let place = place_of(row);
                    if place.1 < band.0 || place.1 > band.1 {
                        continue;
                    }
                    let distance = separation((ra, dec), place);
                    if distance <= radius_deg {
                        found.push((distance, star_of(row)));
                    }
                }
            }
        }
        found
    }

    /// The rows of a cell; none where they are damaged.
    fn rows(&self, cell: u32) -> &[[u8; ROW]] {
        let entry = HEADER + ENTRY * cell as usize;
        let (start, end) = (le_u32(&self.map, entry), le_u32(&self.map, entry + ENTRY));
        let offset = |row: u32| self.layout.rows_offset() as usize + ROW * row as usize;
        let bytes = self.map.get(offset(start)..offset(end)).unwrap_or_default();
        let (word, bit) = (&self.verified[cell as usize / 64], 1u64 << (cell % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            if crc32c::crc32c(bytes) != le_u32(&self.map, entry + 4) {
                self.remember(format!("the rows {start} to {end} are damaged"));
                return &[];
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        bytes.as_chunks().0
    }
}
