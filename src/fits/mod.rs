//! FITS in and out: `.fits`, `.fits.gz` and Rice-compressed `.fits.fz`, by cfitsio.
//!
//! Reading gives 32-bit floating-point pixels whatever the file holds (integers below 2²⁴ stay
//! exact) and the whole header. Before cfitsio sees a file its structure is walked through: nothing is
//! allocated before the header's claim about the size has been held against what is there, and gzip is
//! unpacked here, into memory of a bounded size. Writing is atomic: a temporary name, `CHECKSUM` and
//! `DATASUM`, fsync, rename, fsync of the folder.

mod cfitsio;
mod gzip;
mod header;
mod read;
pub mod table;
mod whole;
mod write;

use std::path::PathBuf;

pub use header::{Card, Header, Value};
pub use read::{FitsImage, read_header, read_image, read_planes};
pub use whole::{Wholeness, wholeness};
pub use write::{HduOut, Plane, write_fits};

/// Why a FITS file could not be read or written. Each message ends in what to do.
#[derive(Debug, thiserror::Error)]
pub enum FitsError {
    /// The file cannot be opened.
    #[error("{path}: {reason}; check the path and its permissions", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is something else.
    #[error("{path}: not a FITS file: {reason}; give a .fits, .fits.gz or .fits.fz file", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is not whole.
    #[error("{path}: not a whole FITS file: {reason}; copy it again from the camera", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The header's geometry is impossible or beyond what is accepted.
    #[error("{path}: {keyword} = {value} is not usable: {reason}", path = path.display())]
    Geometry {
        /// The file.
        path: PathBuf,
        /// The keyword at fault.
        keyword: String,
        /// Its value.
        value: String,
        /// Why, and what to do.
        reason: String,
    },
    /// There is no two-dimensional image in the file.
    #[error("{path}: holds no two-dimensional image; give a FITS file with an image", path = path.display())]
    NoImage {
        /// The file.
        path: PathBuf,
    },
    /// A keyword that is needed is missing or holds something else.
    #[error("{path}: keyword {keyword} {reason}", path = path.display())]
    Keyword {
        /// The file.
        path: PathBuf,
        /// The keyword, with its synonyms.
        keyword: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The file could not be written.
    #[error("{path}: could not be written: {reason}; check that the folder exists, is writable and has room", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}
