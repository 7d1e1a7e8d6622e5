//! A synthetic night with a truth table, to rehearse and to test with.
//!
//! Written apart from the pipeline: it shares no PSF, resampling, WCS or transform code with it, so
//! that both cannot be wrong in the same way. Only the FITS writer and the calendar are common.
//!
//! ```text
//! catalogue ─► optics, projection ─► render ─► noise, detector ─► frames, truth ─► score
//! ```
//!
//! Everything is drawn from streams that are named by seed, purpose, frame and row
//! ([`random`]), so that a seed gives the same files whatever the number of threads.

pub mod calibrated;
pub mod catalogue;
pub mod defects;
pub mod detector;
pub mod entries;
pub mod fourier;
pub mod galaxy;
pub mod night;
pub mod optics;
pub mod pair;
pub mod projection;
pub mod random;
pub mod render;
pub mod request;
pub mod score;
pub mod truth;
pub mod view;

use std::path::PathBuf;

use crate::fits::FitsError;

/// Why a synthetic night could not be made. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SkyError {
    /// A FITS file could not be written.
    #[error(transparent)]
    Fits(#[from] FitsError),
    /// A folder or table could not be written.
    #[error("{path}: {reason}; check that the folder exists, is writable and has room", path = path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A table could not be read.
    #[error(
        "{path}: {reason}; give the folder that `nightjar sky` wrote, then the one that `simulate` or `difference` wrote",
        path = path.display()
    )]
    Table {
        /// The table.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl SkyError {
    /// An error about a file or folder.
    pub fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }
}
