//! A local catalogue of stars in one file: who is near a candidate, and how bright the stars of a field are.
//!
//! `nightjar catalogue build` makes it of the tables that surveys publish (Gaia, Pan-STARRS, ATLAS-REFCAT2);
//! the daemon maps it into memory, and a look-up reads the few cells that it touches.
//!
//! # The file, version 1
//!
//! ```text
//! ┌────────┬───────────────────────────────┬──────────────────────────┐
//! │ header │ index                         │ rows                     │
//! │ 64     │ 8 × (cells + 1)               │ 28 × rows                │
//! └────────┴───────────────────────────────┴──────────────────────────┘
//! header  "NJRSTAR1" │ zones u32 │ cells u32 │ rows u64 │ CRC-32C of the index u32 │ 0 … │ CRC-32C of the header u32
//! index   first row of the cell u32 │ CRC-32C of its rows u32; the last entry is the end
//! row     ra u32 │ dec i32 │ id i64 │ g r i z G i16 each │ score u8 │ 0 u8
//! ```
//!
//! Numbers are little-endian. `ra` counts 360°/2³², `dec` 90°/(2³¹−1): 0.3 mas at most. Magnitudes are
//! thousandths from −32 to 32, −32768 where there is none. `score` is the likeness to a star times 250, 255 where
//! the table says nothing. The sky is cut into `zones` of declination of equal height, each into cells about as
//! wide as high ([`cells`]); within a cell rows are sorted by right ascension. The builder chooses the zones so
//! that a cell holds about [`format::ROWS_A_CELL`] rows where there are any.
//!
//! The header and the index are verified when the file is opened, each cell when it is first read: a
//! catalogue that was cut or damaged is refused in one sentence, or costs the fields of the stars in that cell.
//! A new catalogue is put in place by a rename. Do not write into a file that is in use: a mapped file that is cut
//! while it is read ends the process. [`StarCatalogue::is_whole`] looks at its length before each exposure.

pub mod build;
pub mod cells;
mod columns;
mod csv_table;
mod fits_table;
pub mod format;
mod open;

use std::path::PathBuf;

pub use build::{Built, Refused, build};
pub use columns::HELP as COLUMNS_HELP;
pub use open::StarCatalogue;

/// A star of the catalogue. Absent values are not a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CatalogueStar {
    /// Right ascension, degrees, ICRS.
    pub ra: f64,
    /// Declination, degrees, ICRS.
    pub dec: f64,
    /// Number in its survey.
    pub id: i64,
    /// Magnitudes in g, r, i, z (AB, Pan-STARRS' system or close to it).
    pub griz: [f32; 4],
    /// Gaia's G (Vega).
    pub gaia: f32,
    /// Likeness to a star, 0 (galaxy) to 1 (star).
    pub score: f32,
}

impl CatalogueStar {
    /// Whether it is in a survey of g, r, i, z.
    pub fn has_griz(&self) -> bool {
        self.griz.iter().any(|m| m.is_finite())
    }
}

/// Why a catalogue cannot be made or used. Each message ends in what to do.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The system refuses.
    #[error("{path}: {source}; check path, permissions and room", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not one of ours, cut or damaged.
    #[error("{path}: {reason}; build it again with `nightjar catalogue build`", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A table that cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Nothing to build of.
    #[error("the tables hold no star with a place and a magnitude; look at what was refused")]
    Empty,
    /// More than the format numbers.
    #[error("{0} stars are more than a catalogue holds (4,294,967,294); leave out the faintest")]
    TooMany(u64),
}

/// Angle between two places (ra, dec), degrees (haversine).
pub fn separation(a: (f64, f64), b: (f64, f64)) -> f64 {
    let half_ra = (0.5 * (a.0 - b.0)).to_radians().sin();
    let half_dec = (0.5 * (a.1 - b.1)).to_radians().sin();
    let h = half_dec * half_dec + a.1.to_radians().cos() * b.1.to_radians().cos() * half_ra * half_ra;
    2.0 * h.sqrt().min(1.0).asin().to_degrees()
}
