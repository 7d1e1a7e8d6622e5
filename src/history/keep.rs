//! Opening, checking, backing up and restoring the database.
//!
//! The names of objects live only here, so damage is never repaired by beginning anew in silence:
//! the damaged files are moved aside (they may still be read by hand), the last backup takes their
//! place, and one line says what happened.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{History, HistoryError};

/// Marks a file as this program's (`PRAGMA application_id`): "NJHI".
const APPLICATION: i32 = 0x4E4A_4849;
/// Version of the tables (`PRAGMA user_version`).
const VERSION: i32 = 1;
/// Pages copied at a time by a backup, so that a commit waits for at most a few milliseconds.
const BACKUP_PAGES: i32 = 1_024;

/// An open history and what the operator should know of how it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The history.
    pub history: History,
    /// One line when the database was damaged: what happened and what is lost.
    pub notice: Option<String>,
}

impl History {
    /// Opens the database at `path`, makes it when there is none, checks it, and restores it from
    /// its backup when it is damaged.
    pub fn open(path: &Path) -> Result<Opened, HistoryError> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|error| HistoryError::file(folder, error))?;
        }
        let damage = match sound(path) {
            Ok(connection) => return Ok(Opened { history: Self { connection }, notice: None }),
            Err(HistoryError::Damaged(damage)) => damage,
            Err(other) => return Err(other),
        };
        let aside = move_aside(path)?;
        let backup = backup_path(path);
        let restored = backup.exists() && sound(&backup).is_ok();
        if restored {
            copy_durably(&backup, path)?;
        }
        let history = Self { connection: sound(path)? };
        let (aside, last) = (aside.display(), history.last_exposure()?);
        let lost = match (restored, last) {
            (true, Some(last)) => {
                format!("restored from the backup, which ends with exposure {last}; what came after is lost to it")
            }
            _ => format!(
                "there is no sound backup ({}), so it begins anew: objects seen before get names as if they were new",
                backup.display()
            ),
        };
        let notice = format!("the history was damaged ({damage}) and is kept as {aside}; {lost}");
        Ok(Opened { history, notice: Some(notice) })
    }

    /// A history that lives in memory alone: rehearsals and tests.
    pub fn in_memory() -> Result<Self, HistoryError> {
        let connection = Connection::open_in_memory()?;
        prepare(&connection)?;
        Ok(Self { connection })
    }

    /// Copies the database beside itself while it is in use, durably, in place of the last backup.
    /// Returns where the copy is.
    pub fn back_up(&self) -> Result<PathBuf, HistoryError> {
        let path = PathBuf::from(self.connection.path().unwrap_or_default());
        let (backup, unfinished) = (backup_path(&path), with_suffix(&path, ".backup.tmp"));
        remove_if_there(&unfinished)?;
        {
            let mut copy = Connection::open(&unfinished)?;
            Backup::new(&self.connection, &mut copy)?.run_to_completion(BACKUP_PAGES, Duration::ZERO, None)?;
            // Write-ahead mode is copied with the pages; a backup is one file.
            copy.pragma_update(None, "journal_mode", "DELETE")?;
        }
        File::open(&unfinished)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&unfinished, &backup))
            .and_then(|()| sync_folder(&backup))
            .map_err(|error| HistoryError::file(&backup, error))?;
        Ok(backup)
    }

    /// Closes the database with everything in its one file, durably.
    pub fn close(self) -> Result<(), HistoryError> {
        self.connection.pragma_update(None, "journal_mode", "DELETE")?;
        self.connection.close().map_err(|(_, error)| error.into())
    }

    /// The exposure that began last.
    fn last_exposure(&self) -> Result<Option<String>, HistoryError> {
        let mut last = self.connection.prepare("SELECT id FROM exposures ORDER BY jd DESC LIMIT 1")?;
        Ok(last.query_map([], |row| row.get(0))?.next().transpose()?)
    }
}

/// Opens and checks the database; damage is [`HistoryError::Damaged`].
fn sound(path: &Path) -> Result<Connection, HistoryError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection)?;
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict == "ok" { Ok(connection) } else { Err(HistoryError::Damaged(verdict)) }
    };
    open().map_err(|error| match error {
        HistoryError::Database(inner)
            if matches!(inner.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) =>
        {
            HistoryError::Damaged(inner.to_string())
        }
        HistoryError::Database(inner) => HistoryError::Open { path: path.to_owned(), source: inner },
        other => other,
    })
}

/// Settings of the connection, and the tables when there are none.
fn prepare(connection: &Connection) -> Result<(), HistoryError> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY;",
    )?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    match (application, version) {
        (0, 0) => {
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;",
                include_str!("tables.sql")
            ))?;
            Ok(())
        }
        (APPLICATION, VERSION) => Ok(()),
        (APPLICATION, newer) => Err(HistoryError::Newer { found: newer, known: VERSION }),
        _ => Err(HistoryError::Foreign),
    }
}

/// Renames the database and its journals so that nothing writes to them again.
fn move_aside(path: &Path) -> Result<PathBuf, HistoryError> {
    let aside = (1..)
        .map(|n| with_suffix(path, &format!(".damaged-{n}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| with_suffix(path, ".damaged"));
    for journal in ["", "-wal", "-shm"] {
        let (from, to) = (with_suffix(path, journal), with_suffix(&aside, journal));
        if from.exists() {
            fs::rename(&from, &to).map_err(|error| HistoryError::file(&from, error))?;
        }
    }
    Ok(aside)
}

fn copy_durably(from: &Path, to: &Path) -> Result<(), HistoryError> {
    let unfinished = with_suffix(to, ".restored.tmp");
    fs::copy(from, &unfinished)
        .and_then(|_| File::open(&unfinished)?.sync_all())
        .and_then(|()| fs::rename(&unfinished, to))
        .and_then(|()| sync_folder(to))
        .map_err(|error| HistoryError::file(to, error))
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
}

fn remove_if_there(path: &Path) -> Result<(), HistoryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(HistoryError::file(path, error)),
        _ => Ok(()),
    }
}

/// Where the backup of a database is.
pub fn backup_path(path: &Path) -> PathBuf {
    with_suffix(path, ".backup")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
