//! The index of a night: an SQLite file beside its Avro files.
//!
//! A file's rows are committed before it gets its name. Rows whose file is not there belong to a run
//! that died between the two; they are removed at the next start, and the alerts come again.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::ArchiveError;
use super::container::Reader;
use super::kind::Tree;
use super::packet::{Entry, entry};

/// Name of the index in the folder of a night.
pub const INDEX: &str = "index.sqlite";
/// Version of the tables (`PRAGMA user_version`).
const VERSION: i32 = 1;

/// A row: an alert and where it is.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// What one looks for.
    pub entry: Entry,
    /// Name of the exposure, where the message said it.
    pub exposure: Option<String>,
    /// Where its block begins.
    pub block: u64,
    /// Which record of the block.
    pub record: i64,
    /// CRC-32C of the record.
    pub crc: u32,
    /// Partition and offset in the topic.
    pub place: Option<(i32, i64)>,
    /// Headers of the message, JSON.
    pub headers: Option<String>,
}

/// Where an alert is.
#[derive(Debug, Clone)]
pub struct Located {
    /// Start of its exposure.
    pub jd: f64,
    /// Its file, in the folder of the night.
    pub file: String,
    /// Where its block begins.
    pub block: u64,
    /// Which record of the block.
    pub record: i64,
    /// Name of its exposure, where the message said it.
    pub exposure: Option<String>,
}

/// The index of a night, open.
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    folder: PathBuf,
}

impl Index {
    /// Opens the index of the night in `folder`, makes it when there is none, and makes it agree
    /// with the files that are there. For the process that holds the archive's folder: of another's
    /// it would remove the rows of a file that is about to get its name.
    pub fn open(folder: &Path) -> Result<Self, ArchiveError> {
        let index = Self::at(folder)?;
        index.prepare().map_err(|error| index.failed(&error))?;
        index.agree()?;
        Ok(index)
    }

    /// Opens it for reading: as [`Index::open`] where the folder is `held` by this process, else as it is.
    pub fn look(folder: &Path, held: bool) -> Result<Self, ArchiveError> {
        if held { Self::open(folder) } else { Self::at(folder) }
    }

    fn at(folder: &Path) -> Result<Self, ArchiveError> {
        let path = folder.join(INDEX);
        let connection = Connection::open(&path).map_err(|error| ArchiveError::index(&path, &error))?;
        Ok(Self { connection, folder: folder.to_owned() })
    }

    fn prepare(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(std::time::Duration::from_secs(10))?;
        // One file that may be copied at any time; a row is durable before its file has a name.
        self.connection.execute_batch("PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = FULL;")?;
        let version: i32 = self.connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == 0 {
            self.connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {} PRAGMA user_version = {VERSION}; COMMIT;",
                include_str!("tables.sql")
            ))?;
        }
        Ok(())
    }

    fn failed(&self, error: &rusqlite::Error) -> ArchiveError {
        ArchiveError::index(&self.folder.join(INDEX), error)
    }

    /// Removes rows of files that never got their name, and reads files that no row knows.
    fn agree(&self) -> Result<(), ArchiveError> {
        let there: BTreeSet<String> = super::folder::files_of(&self.folder)?
            .into_iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        let known = self.files().map_err(|error| self.failed(&error))?;
        for name in known.difference(&there) {
            self.forget(name).map_err(|error| self.failed(&error))?;
        }
        for name in there.difference(&known) {
            let path = self.folder.join(name);
            tracing::warn!("{} is not in the index: it is read again", path.display());
            let (topic, rows) = rows_of(&path)?;
            self.add(name, &topic, &rows)?;
        }
        Ok(())
    }

    fn files(&self) -> rusqlite::Result<BTreeSet<String>> {
        let mut rows = self.connection.prepare_cached("SELECT name FROM files")?;
        rows.query_map([], |row| row.get(0))?.collect()
    }

    /// Removes the rows of a file.
    pub fn forget(&self, name: &str) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute("DELETE FROM alerts WHERE file = (SELECT number FROM files WHERE name = ?1)", [name])?;
        transaction.execute("DELETE FROM files WHERE name = ?1", [name])?;
        transaction.commit()
    }

    /// Adds the rows of a file, durably.
    pub fn add(&self, name: &str, topic: &str, rows: &[Row]) -> Result<(), ArchiveError> {
        self.try_add(name, topic, rows).map_err(|error| self.failed(&error))
    }

    fn try_add(&self, name: &str, topic: &str, rows: &[Row]) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let file: i64 = transaction
            .prepare_cached("INSERT INTO files (name, topic, alerts) VALUES (?1, ?2, ?3) RETURNING number")?
            .query_row(params![name, topic, rows.len() as i64], |row| row.get(0))?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO alerts (candid, object, jd, fid, ra, dec, mag, mag_err, positive, snr, score, exposure,
                     file, block, record, crc, \"partition\", \"offset\", headers)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
            )?;
            for row in rows {
                let e = &row.entry;
                insert.execute(params![
                    e.candid,
                    e.object,
                    e.jd,
                    e.fid,
                    e.ra,
                    e.dec,
                    e.mag,
                    e.mag_err,
                    e.positive,
                    e.snr,
                    e.score,
                    row.exposure,
                    file,
                    row.block as i64,
                    row.record,
                    row.crc,
                    row.place.map(|(partition, _)| partition),
                    row.place.map(|(_, offset)| offset),
                    row.headers,
                ])?;
            }
        }
        transaction.commit()
    }

    /// Number and CRC of every alert of a file, in the order in which they lie there.
    pub fn sums(&self, name: &str) -> Result<Vec<(i64, u32)>, ArchiveError> {
        let read = || -> rusqlite::Result<Vec<(i64, u32)>> {
            let mut rows = self.connection.prepare_cached(
                "SELECT candid, crc FROM alerts WHERE file = (SELECT number FROM files WHERE name = ?1)
                 ORDER BY block, record",
            )?;
            rows.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().map_err(|error| self.failed(&error))
    }

    /// When and where each object was first seen: the earliest of what `firsts` has and what is here.
    pub fn first_places(&self, firsts: &mut HashMap<String, (f64, f64, f64)>) -> Result<(), ArchiveError> {
        let mut read = || -> rusqlite::Result<()> {
            let mut rows = self.connection.prepare_cached("SELECT object, jd, ra, dec FROM alerts")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let seen = (row.get(1)?, row.get::<_, Option<f64>>(2)?, row.get::<_, Option<f64>>(3)?);
                let (jd, Some(ra), Some(dec)) = seen else { continue };
                let first = firsts.entry(row.get(0)?).or_insert((jd, ra, dec));
                if jd < first.0 {
                    *first = (jd, ra, dec);
                }
            }
            Ok(())
        };
        read().map_err(|error| self.failed(&error))
    }

    /// Where every alert is, in order of time.
    pub fn by_time(&self) -> Result<Vec<Located>, ArchiveError> {
        let read = || -> rusqlite::Result<Vec<Located>> {
            let mut rows = self.connection.prepare_cached(
                "SELECT a.jd, f.name, a.block, a.record, a.exposure FROM alerts a JOIN files f ON f.number = a.file
                 ORDER BY a.jd, f.name, a.block, a.record",
            )?;
            let located = |row: &rusqlite::Row<'_>| {
                Ok(Located {
                    jd: row.get(0)?,
                    file: row.get(1)?,
                    block: row.get::<_, i64>(2)? as u64,
                    record: row.get(3)?,
                    exposure: row.get(4)?,
                })
            };
            rows.query_map([], located)?.collect()
        };
        read().map_err(|error| self.failed(&error))
    }
}

/// What an index says of a file, from the file alone: topic and rows.
pub fn rows_of(path: &Path) -> Result<(String, Vec<Row>), ArchiveError> {
    let mut rows = Vec::new();
    let topic = for_each_record(path, |block, record, bytes, entry| {
        rows.push(Row { entry, block, record, crc: crc32c::crc32c(bytes), ..Row::default() });
    })?;
    Ok((topic, rows))
}

/// Walks every record of a file: place of its block, number in the block, bytes, what the index says.
/// Returns the topic.
pub fn for_each_record(path: &Path, mut see: impl FnMut(u64, i64, &[u8], Entry)) -> Result<String, ArchiveError> {
    let failed = |error: std::io::Error| ArchiveError::read(path, &error);
    let damaged = || ArchiveError::Damaged(path.to_owned());
    let mut reader = Reader::open(path).map_err(failed)?;
    let tree = Tree::parse(&reader.schema).map_err(|_| damaged())?;
    while let Some((block, count, bytes)) = reader.block().map_err(failed)? {
        let mut rest = bytes.as_slice();
        for record in 0..count {
            let length = tree.length(rest).map_err(|_| damaged())?;
            let (one, tail) = rest.split_at_checked(length).ok_or_else(damaged)?;
            see(block, record, one, entry(&tree, one).map_err(|_| damaged())?);
            rest = tail;
        }
        if !rest.is_empty() {
            return Err(damaged());
        }
    }
    Ok(reader.topic)
}
