//! Messages into files: what is open, when it is complete, what is remembered of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::ArchiveError;
use super::container::{Codec, Positions, Writer, sync_folder};
use super::folder::{Folder, UNFINISHED, file_name, night_of};
use super::index::{Index, Row};
use super::packet::{Schema, Unpacker};
use crate::service::clock::Stopwatch;

/// Files that are open at a time; a further one ends the oldest.
const MOST_OPEN: usize = 8;
/// Rows of the index that wait for their file's end: what they hold stays below some 100 MB.
const MOST_ROWS: usize = 100_000;

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The packet.
    pub payload: &'a [u8],
}

/// A file that is being written.
struct Open {
    writer: Writer,
    name: PathBuf,
    topic: String,
    positions: Positions,
    rows: Vec<Row>,
    age: Stopwatch,
}

/// Topic and schema; a file holds one of both.
type Key = (String, *const Schema);

/// The files that are open, and what was kept.
pub struct Keeper {
    folder: Folder,
    codec: Codec,
    most_bytes: u64,
    most_seconds: f64,
    unpacker: Unpacker,
    open: HashMap<Key, (Rc<Schema>, Open)>,
    indices: BTreeMap<String, Index>,
    numbers: BTreeMap<String, u64>,
    /// Alerts in files that have their name.
    pub kept: u64,
    /// Bytes of messages that these came in.
    pub bytes: u64,
    /// Messages that are no alerts.
    pub refused: u64,
    waiting_bytes: u64,
}

impl Keeper {
    /// Nothing is open; `numbers` are those of the files that are there.
    pub fn new(
        folder: Folder,
        codec: Codec,
        most_bytes: u64,
        most_seconds: f64,
        numbers: BTreeMap<String, u64>,
    ) -> Self {
        Self {
            folder,
            codec,
            most_bytes,
            most_seconds,
            unpacker: Unpacker::default(),
            open: HashMap::new(),
            indices: BTreeMap::new(),
            numbers,
            kept: 0,
            bytes: 0,
            refused: 0,
            waiting_bytes: 0,
        }
    }

    /// Takes a message into the file of its topic and schema. `headers` gives its headers where they are wanted.
    pub fn take(&mut self, message: &Message<'_>, headers: &[(String, String)]) -> Result<(), ArchiveError> {
        let unpacked = match self.unpacker.unpack(message.payload) {
            Ok(unpacked) => unpacked,
            Err(why) => return self.refuse(message, &why.to_string()),
        };
        let key: Key = (message.topic.to_owned(), Rc::as_ptr(&unpacked.schema));
        if !self.open.contains_key(&key) {
            let schema = unpacked.schema.clone();
            let open = Self::begin(&self.folder, &mut self.numbers, self.codec, message.topic, &schema)?;
            self.open.insert(key.clone(), (schema, open));
        }
        let Some((_, open)) = self.open.get_mut(&key) else { return Ok(()) };
        let (block, record) =
            open.writer.push(unpacked.record).map_err(|error| ArchiveError::write(&open.name, &error))?;
        let exposure = headers.iter().find(|(name, _)| name == "exposure").map(|(_, value)| value.clone());
        let text: serde_json::Map<String, serde_json::Value> =
            headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        open.rows.push(Row {
            entry: unpacked.entry,
            exposure,
            block,
            record,
            crc: crc32c::crc32c(unpacked.record),
            place: Some((message.partition, message.offset)),
            headers: (!text.is_empty()).then(|| serde_json::Value::Object(text).to_string()),
        });
        let following = message.offset + 1;
        open.positions.entry(message.partition).or_insert((message.offset, following)).1 = following;
        self.waiting_bytes += message.payload.len() as u64;
        Ok(())
    }

    fn begin(
        folder: &Folder,
        numbers: &mut BTreeMap<String, u64>,
        codec: Codec,
        topic: &str,
        schema: &Schema,
    ) -> Result<Open, ArchiveError> {
        let number = numbers.entry(topic.to_owned()).or_insert(0);
        *number += 1;
        let name = folder.night(night_of(topic))?.join(file_name(topic, *number));
        let mut unfinished = name.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let writer = Writer::create(&unfinished, codec, &schema.json, topic)
            .map_err(|error| ArchiveError::write(&unfinished, &error))?;
        let topic = topic.to_owned();
        Ok(Open { writer, name, topic, positions: Positions::new(), rows: Vec::new(), age: Stopwatch::start() })
    }

    /// Puts a message that is no alert aside, durably, under its place in the topic.
    fn refuse(&mut self, message: &Message<'_>, why: &str) -> Result<(), ArchiveError> {
        let folder = self.folder.night(night_of(message.topic))?.join("refused");
        let path = folder.join(format!("{}-{}-{}.bin", message.topic, message.partition, message.offset));
        write_durably(&folder, &path, message.payload).map_err(|error| ArchiveError::write(&path, &error))?;
        self.refused += 1;
        tracing::warn!("a message is no alert ({why}) and is kept as {}", path.display());
        Ok(())
    }

    /// Whether an open file has alerts of this topic and partition.
    pub fn answers_for(&self, place: &(String, i32)) -> bool {
        self.open.values().any(|(_, open)| open.topic == place.0 && open.positions.contains_key(&place.1))
    }

    /// The files that are large or old enough; all of them where `all`. Each topic and partition, with
    /// the first offset and the one after the last.
    pub fn due(&self, all: bool) -> Vec<Due> {
        let crowded = self.open.len() > MOST_OPEN;
        let mut due = Vec::new();
        for (key, (_, open)) in &self.open {
            let full = open.writer.bytes() >= self.most_bytes || open.rows.len() >= MOST_ROWS;
            if all || full || crowded || open.age.seconds() >= self.most_seconds {
                due.push(Due { key: key.clone(), topic: open.topic.clone(), positions: open.positions.clone() });
            }
        }
        due
    }

    /// Completes a file but for its name: what may fail for want of room fails here.
    pub fn prepare(&mut self, due: &Due) -> Result<(), ArchiveError> {
        let Some((_, open)) = self.open.get_mut(&due.key) else { return Ok(()) };
        open.writer.complete(&open.positions).map_err(|error| ArchiveError::write(&open.name, &error))?;
        let (folder, file) = (open.name.parent().unwrap_or(Path::new(".")), file_of(&open.name));
        let night = folder.to_string_lossy().into_owned();
        let index = match self.indices.entry(night) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Index::open(folder)?),
        };
        index.add(&file, &open.topic, &open.rows)
    }

    /// Gives a prepared file its name.
    pub fn publish(&mut self, due: &Due) -> Result<(), ArchiveError> {
        let Some((_, open)) = self.open.remove(&due.key) else { return Ok(()) };
        self.kept += open.rows.len() as u64;
        self.bytes += std::mem::take(&mut self.waiting_bytes);
        let name = open.name;
        open.writer.publish(&name).map_err(|error| ArchiveError::write(&name, &error))
    }

    /// Forgets everything that has no name yet: it comes again.
    pub fn discard(&mut self) {
        for (_, (_, open)) in self.open.drain() {
            let night = open.name.parent().unwrap_or(Path::new(".")).to_string_lossy().into_owned();
            if let Some(index) = self.indices.get(&night) {
                // Where this fails, the next start removes the rows.
                let _ = index.forget(&file_of(&open.name));
            }
            open.writer.discard();
        }
        self.waiting_bytes = 0;
    }
}

/// A file whose time has come.
#[derive(Debug, Clone)]
pub struct Due {
    key: Key,
    /// Its topic.
    pub topic: String,
    /// The offsets that it answers for.
    pub positions: Positions,
}

fn file_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write_durably(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let unfinished = path.with_extension("bin.tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder(path)
}
