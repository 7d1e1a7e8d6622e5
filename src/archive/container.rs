//! The files of the archive: Avro object container files with many records and their schema once.
//!
//! ```text
//! 'Obj' 01 │ metadata: avro.codec, avro.schema, nightjar.topic, nightjar.positions │ sync (16)
//!          │ block: count │ size │ compressed records │ sync (16)   … repeated
//! ```
//!
//! `nightjar.positions` is JSON, `{"PARTITION": [first, following], …}`: the offsets of the topic
//! that this file answers for. It is known only when the file is complete, so its room is kept
//! ([`POSITIONS_BYTES`], filled up with blanks, which JSON allows) and written before the file gets
//! its name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use libdeflater::{CompressionLvl, Compressor, Decompressor};

use super::kind::{long, put_long};
use super::packet::{MAGIC, metadata};

/// Room for the positions; a hundred partitions and more.
pub const POSITIONS_BYTES: usize = 8192;
/// Records are compressed when this many bytes of them are there.
const BLOCK_BYTES: usize = 1 << 20;
/// A block that claims to be larger is damaged.
const MOST_BLOCK_BYTES: usize = 64 << 20;
/// A header that is longer is damaged.
const MOST_HEADER_BYTES: u64 = 4 << 20;

/// First offset and the one after the last, by partition.
pub type Positions = BTreeMap<i32, (i64, i64)>;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Codec {
    /// Not at all.
    Null,
    /// As every Avro reader takes it.
    Deflate,
}

impl Codec {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Null => b"null",
            Self::Deflate => b"deflate",
        }
    }

    fn of(name: &[u8]) -> Option<Self> {
        [Self::Null, Self::Deflate].into_iter().find(|codec| codec.name() == name)
    }

    fn compress(self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Null => out.extend_from_slice(data),
            Self::Deflate => {
                // The pictures are compressed already: the fastest level gets what there is to get.
                let mut compressor = Compressor::new(CompressionLvl::fastest());
                out.resize(compressor.deflate_compress_bound(data.len()), 0);
                let length = compressor.deflate_compress(data, out).map_err(io::Error::other)?;
                out.truncate(length);
            }
        }
        Ok(())
    }

    fn decompress(self, data: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a block does not unpack");
        match self {
            Self::Null => Ok(data.to_vec()),
            Self::Deflate => {
                let mut room = (data.len() * 4).clamp(BLOCK_BYTES * 2, MOST_BLOCK_BYTES);
                loop {
                    let mut out = vec![0; room];
                    match Decompressor::new().deflate_decompress(data, &mut out) {
                        Ok(length) => {
                            out.truncate(length);
                            return Ok(out);
                        }
                        Err(libdeflater::DecompressionError::InsufficientSpace) if room < MOST_BLOCK_BYTES => {
                            room = (room * 4).min(MOST_BLOCK_BYTES);
                        }
                        Err(_) => return Err(damaged()),
                    }
                }
            }
        }
    }
}

/// A file that is being written, under a name that nobody reads.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    codec: Codec,
    sync: [u8; 16],
    positions_at: u64,
    block: Vec<u8>,
    packed: Vec<u8>,
    count: i64,
    written: u64,
}

impl Writer {
    /// Begins a file at `path`.
    pub fn create(path: &Path, codec: Codec, schema: &[u8], topic: &str) -> io::Result<Self> {
        let mut head = MAGIC.to_vec();
        put_long(4, &mut head);
        let mut put = |key: &[u8], value: &[u8]| {
            put_long(key.len() as i64, &mut head);
            head.extend_from_slice(key);
            put_long(value.len() as i64, &mut head);
            let at = head.len() as u64;
            head.extend_from_slice(value);
            at
        };
        put(b"avro.codec", codec.name());
        put(b"avro.schema", schema);
        put(b"nightjar.topic", topic.as_bytes());
        let positions_at = put(b"nightjar.positions", &[b' '; POSITIONS_BYTES]);
        put_long(0, &mut head);
        let sync = *uuid::Uuid::new_v4().as_bytes();
        head.extend_from_slice(&sync);
        let mut file = File::options().write(true).create_new(true).open(path)?;
        file.write_all(&head)?;
        let written = head.len() as u64;
        let path = path.to_owned();
        Ok(Self { path, file, codec, sync, positions_at, block: Vec::new(), packed: Vec::new(), count: 0, written })
    }

    /// Adds a record; says in which block (by its place in the file) and as which of it.
    pub fn push(&mut self, record: &[u8]) -> io::Result<(u64, i64)> {
        if self.block.len() + record.len() > BLOCK_BYTES {
            self.end_block()?;
        }
        self.block.extend_from_slice(record);
        self.count += 1;
        Ok((self.written, self.count - 1))
    }

    /// Bytes in the file, and bytes that wait to be compressed.
    pub fn bytes(&self) -> u64 {
        self.written + self.block.len() as u64
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        self.packed.clear();
        self.codec.compress(&self.block, &mut self.packed)?;
        let mut head = Vec::new();
        put_long(self.count, &mut head);
        put_long(self.packed.len() as i64, &mut head);
        for part in [head.as_slice(), &self.packed, &self.sync] {
            self.file.write_all(part)?;
            self.written += part.len() as u64;
        }
        self.block.clear();
        self.count = 0;
        Ok(())
    }

    /// Writes what waits and the positions, durably. Returns the size of the file.
    pub fn complete(&mut self, positions: &Positions) -> io::Result<u64> {
        self.end_block()?;
        let text = positions_json(positions);
        if text.len() > POSITIONS_BYTES {
            return Err(io::Error::other("more partitions than a file has room for"));
        }
        self.file.seek(SeekFrom::Start(self.positions_at))?;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        Ok(self.written)
    }

    /// Gives the file its name, durably.
    pub fn publish(self, name: &Path) -> io::Result<()> {
        fs::rename(&self.path, name)?;
        sync_folder(name)
    }

    /// Removes it.
    pub fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the names in the folder of `path` durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The positions as the file holds them, without the blanks.
pub fn positions_json(positions: &Positions) -> String {
    let list: serde_json::Map<String, serde_json::Value> = positions
        .iter()
        .map(|(partition, (first, following))| (partition.to_string(), serde_json::json!([first, following])))
        .collect();
    serde_json::Value::Object(list).to_string()
}

/// A file of the archive, open for reading.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    codec: Codec,
    sync: [u8; 16],
    at: u64,
    /// The writer's schema, JSON.
    pub schema: Vec<u8>,
    /// The topic that its records came from.
    pub topic: String,
    /// The offsets that it answers for.
    pub positions: Positions,
}

impl Reader {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> io::Result<Self> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its header is damaged");
        let mut file = File::open(path)?;
        let mut head = Vec::new();
        let mut wanted = 64 << 10;
        let (pairs, length) = loop {
            (&mut file).take(wanted).read_to_end(&mut head)?;
            match metadata(&head) {
                Some(found) => break found,
                None if (head.len() as u64) < wanted || wanted > MOST_HEADER_BYTES => return Err(damaged()),
                None => {
                    wanted *= 4;
                    head.clear();
                    file.seek(SeekFrom::Start(0))?;
                }
            }
        };
        let value = |name: &[u8]| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let codec = Codec::of(value(b"avro.codec").unwrap_or(b"null")).ok_or_else(damaged)?;
        let schema = value(b"avro.schema").ok_or_else(damaged)?.to_vec();
        let topic = String::from_utf8_lossy(value(b"nightjar.topic").ok_or_else(damaged)?).into_owned();
        let positions = read_positions(value(b"nightjar.positions").ok_or_else(damaged)?).ok_or_else(damaged)?;
        let mut sync = [0; 16];
        let at = length as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut sync)?;
        Ok(Self { file: BufReader::with_capacity(1 << 20, file), codec, sync, at: at + 16, schema, topic, positions })
    }

    /// The next block: its place in the file, how many records it holds, and their bytes one after the other.
    pub fn block(&mut self) -> io::Result<Option<(u64, i64, Vec<u8>)>> {
        let at = self.at;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("it is damaged from byte {at}"));
        let Some(count) = self.long()? else { return Ok(None) };
        let size = self.long()?.and_then(|size| usize::try_from(size).ok());
        let size = size.filter(|size| *size <= MOST_BLOCK_BYTES).ok_or_else(damaged)?;
        let mut packed = vec![0; size];
        let mut sync = [0; 16];
        let read = self.file.read_exact(&mut packed).and_then(|()| self.file.read_exact(&mut sync));
        if read.is_err() || sync != self.sync {
            return Err(damaged());
        }
        self.at += size as u64 + 16;
        Ok(Some((at, count, self.codec.decompress(&packed)?)))
    }

    /// The block that begins at byte `at`: how many records it holds, and their bytes.
    pub fn block_at(&mut self, at: u64) -> io::Result<(i64, Vec<u8>)> {
        self.file.seek(SeekFrom::Start(at))?;
        self.at = at;
        let ended = || io::Error::new(io::ErrorKind::InvalidData, "it is shorter than its index says");
        self.block()?.map(|(_, count, bytes)| (count, bytes)).ok_or_else(ended)
    }

    /// An Avro `long`; `None` at the end of the file.
    fn long(&mut self) -> io::Result<Option<i64>> {
        let mut bytes = Vec::new();
        loop {
            let mut byte = [0];
            match self.file.read(&mut byte)? {
                0 if bytes.is_empty() => return Ok(None),
                0 => return Err(io::Error::new(io::ErrorKind::InvalidData, "it is truncated")),
                _ => bytes.push(byte[0]),
            }
            self.at += 1;
            if byte[0] & 0x80 == 0 || bytes.len() > 10 {
                let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
                return long(&mut bytes.as_slice()).map(Some).map_err(damaged);
            }
        }
    }
}

fn read_positions(text: &[u8]) -> Option<Positions> {
    let value: BTreeMap<String, (i64, i64)> = serde_json::from_slice(text).ok()?;
    value.into_iter().map(|(partition, range)| Some((partition.parse().ok()?, range))).collect()
}
