//! What was seen before: the ledger of exposures, objects and their names, detections, coverage.
//!
//! An embedded SQLite database in write-ahead mode with full sync; its tables are in `tables.sql`.
//! An exposure asks once ([`History::look_up`]) and writes once ([`History::record`], one
//! transaction), after its spool file is durable. Between the two nothing is kept in memory: a run
//! that dies leaves no trace, and the next one gives the same names, because they are made from
//! places and not counted.
//!
//! Three rules keep a second run equal to the first: the past of an exposure is what *began* before
//! it, its own rows never count, and writing it again replaces what it wrote.
//!
//! Names of objects live only here, so the database is primary data: it is checked when it is
//! opened, backed up every night, and moved aside and restored when it is damaged ([`Opened`]).

mod epoch;
mod keep;
mod look_up;
mod measured;
mod places;
mod record;

use std::path::{Path, PathBuf};

pub use epoch::{Past, PriorEpoch, Sighting};
pub use keep::{Opened, backup_path};
pub use look_up::{MOST_EPOCHS, Question};
pub use places::{Footprint, OBJECT_RADIUS_ARCSEC};
pub use record::{LedgerEntry, Outcome, Searched};

/// The history database, open.
#[derive(Debug)]
pub struct History {
    connection: rusqlite::Connection,
}

/// Why the history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The database refused; nothing was written.
    #[error("the history database: {0}; look at the disk, then start again")]
    Database(#[from] rusqlite::Error),
    /// The database cannot be opened.
    #[error("cannot open the history {}: {source}; look at its folder's owner and free space ([history] file)", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A file of the database cannot be written.
    #[error("{}: {source}; look at the folder's owner and free space ([history] file)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database is damaged and could not be moved aside.
    #[error("the history is damaged: {0}")]
    Damaged(String),
    /// A later version wrote it.
    #[error(
        "the history is of version {found} and this nightjar reads up to {known}: install the newer nightjar again"
    )]
    Newer {
        /// Version of the file.
        found: i32,
        /// Highest version that is read.
        known: i32,
    },
    /// Another program's database.
    #[error("[history] file is a database of another program: name another file")]
    Foreign,
    /// A name is kept for another place.
    #[error("the name {name} belongs to another object than the one at {ra:.6}, {dec:.6}: look the exposure up again")]
    Elsewhere {
        /// The name.
        name: String,
        /// Right ascension, degrees.
        ra: f64,
        /// Declination, degrees.
        dec: f64,
    },
    /// Every name of a cell is taken.
    #[error("no name is left for an object at {ra:.6}, {dec:.6}: report this as a defect of nightjar")]
    NoName {
        /// Right ascension, degrees.
        ra: f64,
        /// Declination, degrees.
        dec: f64,
    },
}

impl HistoryError {
    fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
