//! The permanent archive: alerts from Kafka's topics into Avro files, in folders by night.
//!
//! ```text
//! OUT/LOCK                                            one process at a time
//! OUT/20261124/nightjar_20261124_programid1-000001.avro   many records, their schema once (container.rs)
//! OUT/20261124/index.sqlite                            where each alert is, and what one looks for (tables.sql)
//! OUT/20261124/refused/0-4711.bin                       messages that are no alerts, as they came
//! ```
//!
//! Nothing is lost and nothing doubled, because a file says itself which offsets it answers for: its
//! header holds them, and it gets its name only when all of it is durable. What Kafka's consumer
//! group remembers is for those who watch the lag; a start goes on where the files end.
//!
//! The order of a commit: the file is written and synchronised under a name that nobody reads; its
//! rows are committed to the index; a commit of the group's old positions proves that the partitions
//! are still this process's; the file gets its name; the folder is synchronised; the group's
//! positions move. A run that dies in between leaves either no file or all of it.

mod container;
mod corners;
mod end;
mod folder;
mod follow;
mod index;
mod keep;
mod kind;
mod newest;
mod packet;
mod rebuild;
mod remembered;
mod verify;

use std::io;
use std::path::{Path, PathBuf};

pub use container::Codec;
pub use follow::{Done, Plan, follow};
pub use newest::{Read, newest};
pub use rebuild::{Rebuilt, rebuild};
pub use verify::{Compared, NightReport, verify_files, verify_topics};

/// Why the archive cannot go on. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Another process writes there.
    #[error("{}: another nightjar archive writes there; stop it, or name another folder with --out", .0.display())]
    Taken(PathBuf),
    /// No room.
    #[error(
        "{}: the disk is full; make room and start again: nothing is lost, the alerts wait in Kafka as long as its topics keep them",
        .0.display()
    )]
    Full(PathBuf),
    /// A file or folder cannot be written.
    #[error("{}: {cause}; look at the disk and at who owns the folder, then start again", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A file or folder cannot be read.
    #[error("{}: {cause}; look at the path and the disk, or move the file away: `nightjar archive --from-files` fetches its alerts again while Kafka has them", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A file holds what its schema does not allow.
    #[error("{}: its records do not fit its schema; move it away: `nightjar archive --from-files` fetches its alerts again while Kafka has them", .0.display())]
    Damaged(PathBuf),
    /// Kafka.
    #[error("{0}")]
    Kafka(String),
    /// The history database.
    #[error(transparent)]
    History(#[from] crate::history::HistoryError),
    /// What was asked for is not there.
    #[error("{0}")]
    Asked(String),
}

impl ArchiveError {
    fn write(path: &Path, error: &io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::Full(path.to_owned());
        }
        Self::Write { path: path.to_owned(), cause: error.to_string() }
    }

    fn read(path: &Path, error: &io::Error) -> Self {
        Self::Read { path: path.to_owned(), cause: error.to_string() }
    }

    fn index(path: &Path, error: &rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            return Self::Full(path.to_owned());
        }
        Self::Write { path: path.to_owned(), cause: error.to_string() }
    }
}
