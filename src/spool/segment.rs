//! Segment files: written whole, read a record at a time.

use std::collections::HashMap;
use std::io;

use uuid::Uuid;

use super::format::{self, Damage, Footer, HEAD, Head, MAX_NAMES, RECORD_HEAD, TAIL};
use super::store::{Reading, Store, Writing};
use super::{Epoch, Message};

/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 20;

/// Why a segment or a record of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system said no; the bytes may be sound.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are not what was written.
    #[error("{0}")]
    Damage(#[from] Damage),
}

/// Name of a segment's file in its folder.
pub fn file_name(sequence: u64) -> String {
    format!("{sequence:012}.seg")
}

/// The sequence number in the name of a segment's file.
pub fn sequence_in(name: &str) -> Option<u64> {
    name.strip_suffix(".seg").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// The head of a segment with these messages, and the topic number of each message.
pub fn head_for(spool: Uuid, epoch: Epoch, sequence: u64, exposure: &str, messages: &[Message]) -> (Head, Vec<u16>) {
    let mut topics: Vec<String> = Vec::new();
    let mut known: HashMap<&str, u16> = HashMap::new();
    let numbers = messages
        .iter()
        .map(|message| {
            *known.entry(&message.topic).or_insert_with(|| {
                topics.push(message.topic.clone());
                (topics.len() - 1) as u16
            })
        })
        .collect();
    let head = Head { spool, epoch, sequence, count: messages.len() as u32, exposure: exposure.to_owned(), topics };
    (head, numbers)
}

/// Bytes of a segment that holds `messages`, to within the names of its topics.
pub fn segment_bytes(exposure: &str, messages: &[Message]) -> u64 {
    let records: usize = messages.iter().map(|m| format::record_length(m) + 8).sum();
    (records + 2 * (HEAD + exposure.len() + 256) + TAIL) as u64
}

/// Writes a whole segment and gives its length. Nothing is synchronised here.
pub fn write(out: &mut dyn Writing, head: &Head, topics: &[u16], messages: &[Message]) -> io::Result<u64> {
    let mut buffer = Vec::with_capacity(CHUNK + (CHUNK >> 3));
    buffer.extend_from_slice(&head.encode());
    let mut written = 0;
    let mut offsets = Vec::with_capacity(messages.len());
    let mut checks = Vec::with_capacity(messages.len());
    for (number, (message, topic)) in messages.iter().zip(topics).enumerate() {
        offsets.push(written + buffer.len() as u64);
        checks.push(format::encode_record(&mut buffer, number as u32, *topic, message));
        if buffer.len() >= CHUNK {
            out.append(&buffer)?;
            written += buffer.len() as u64;
            buffer.clear();
        }
    }
    let end = written + buffer.len() as u64;
    let footer = Footer { offsets, checks: format::check_of_checks(&checks), head: head.clone() };
    buffer.extend_from_slice(&footer.encode(end));
    out.append(&buffer)?;
    Ok(written + buffer.len() as u64)
}

/// The head at the start of a file, and its length in bytes.
pub fn read_head(file: &dyn Reading) -> Result<(Head, u64), ReadError> {
    let mut bytes = vec![0; HEAD];
    read(file, 0, &mut bytes)?;
    let length = Head::length(&bytes)?;
    bytes.resize(length, 0);
    read(file, HEAD as u64, &mut bytes[HEAD..])?;
    Ok((Head::decode(&bytes)?, length as u64))
}

/// The footer at the end of a file.
pub fn read_footer(file: &dyn Reading) -> Result<Footer, ReadError> {
    let total = file.length()?;
    let at = total.checked_sub(TAIL as u64).ok_or(Damage::Short)?;
    let mut tail = [0; TAIL];
    read(file, at, &mut tail)?;
    let length = Footer::length(&tail, total)?;
    let mut bytes = vec![0; length];
    read(file, total - length as u64, &mut bytes)?;
    Ok(Footer::decode(&bytes, total)?)
}

/// Lets damage pass, so that the other end can help; everything else is an error at once.
fn bytes_only<T>(result: Result<T, ReadError>) -> Result<Result<T, Damage>, ReadError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(ReadError::Damage(damage)) if !matches!(damage, Damage::Newer(_)) => Ok(Err(damage)),
        Err(error) => Err(error),
    }
}

/// Reads, and calls a file that is too short damage.
fn read(file: &dyn Reading, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
    file.read_at(offset, bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Damage(Damage::Short),
        _ => ReadError::Io(error),
    })
}

/// A segment that gives one record at a time, whatever its size.
pub struct SegmentReader {
    file: Box<dyn Reading>,
    head: Head,
    /// Start of each record that can be reached, and the end of the last.
    bounds: Vec<u64>,
    checks: Option<u32>,
    flaws: Vec<String>,
}

impl SegmentReader {
    /// Opens a segment: head, else its copy at the end; index, else from record to record.
    pub fn open(store: &dyn Store, name: &str) -> Result<Self, ReadError> {
        let file = store.open(name)?;
        let total = file.length()?;
        let (front, back) = (read_head(&*file), read_footer(&*file));
        let (front, back) = (bytes_only(front)?, bytes_only(back)?);
        let mut flaws = Vec::new();
        match (front, back) {
            (front, Ok(footer)) => {
                if let Err(error) = front {
                    flaws.push(format!("head: {error}"));
                }
                let mut bounds = footer.offsets;
                bounds.push(total - (bounds.len() * 8 + footer.head.encode().len() + TAIL) as u64);
                Ok(Self { file, head: footer.head, bounds, checks: Some(footer.checks), flaws })
            }
            (Ok((head, length)), Err(error)) => {
                flaws.push(format!("footer: {error}"));
                let bounds = Self::walk(&*file, length, head.count)?;
                Ok(Self { file, head, bounds, checks: None, flaws })
            }
            (Err(damage), Err(_)) => Err(damage.into()),
        }
    }

    /// Bounds of the records as their own lengths tell them.
    fn walk(file: &dyn Reading, start: u64, count: u32) -> Result<Vec<u64>, ReadError> {
        let total = file.length()?;
        let mut bounds = vec![start];
        let mut at = start;
        let mut bytes = [0; RECORD_HEAD];
        for _ in 0..count {
            match read(file, at, &mut bytes).and_then(|()| Ok(format::peek_record(&bytes)?)) {
                Ok(length) if at + length as u64 <= total => at += length as u64,
                Err(ReadError::Io(error)) => return Err(error.into()),
                _ => break,
            }
            bounds.push(at);
        }
        Ok(bounds)
    }

    /// What the segment says of itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What is wrong with head and footer, where the other one saved the segment.
    pub fn flaws(&self) -> &[String] {
        &self.flaws
    }

    /// The bytes of record `number` as they are.
    pub fn raw(&self, number: u32) -> Result<Vec<u8>, ReadError> {
        let at = number as usize;
        let (Some(start), Some(end)) = (self.bounds.get(at), self.bounds.get(at + 1)) else {
            return Err(Damage::Short.into());
        };
        let length = (end - start) as usize;
        if length > format::MAX_RECORD {
            return Err(Damage::Length("length of a record").into());
        }
        let mut bytes = vec![0; length];
        read(&*self.file, *start, &mut bytes)?;
        Ok(bytes)
    }

    /// The record `number`, from 0.
    pub fn record(&self, number: u32) -> Result<Message, ReadError> {
        let bytes = self.raw(number)?;
        Ok(format::decode_record(&bytes, number, &self.head.topics)?.0)
    }

    /// Bytes of the records from `number` on, for what is still to be sent.
    pub fn bytes_from(&self, number: u32) -> u64 {
        let end = self.bounds.last().copied().unwrap_or(0);
        end - self.bounds.get(number as usize).copied().unwrap_or(end)
    }

    /// Reads every byte and says what is wrong, place by place.
    pub fn verify(&self) -> io::Result<Vec<String>> {
        let mut faults = self.flaws.clone();
        let mut checks = Vec::new();
        for number in 0..self.head.count {
            let record = self.raw(number).and_then(|b| Ok(format::decode_record(&b, number, &self.head.topics)?.1));
            match record {
                Ok(check) => checks.push(check),
                Err(ReadError::Io(error)) => return Err(error),
                Err(ReadError::Damage(damage)) => faults.push(format!("record {number}: {damage}")),
            }
        }
        if faults.is_empty() && self.checks.is_some_and(|all| all != format::check_of_checks(&checks)) {
            faults.push("footer: checksum of the checksums does not fit".into());
        }
        Ok(faults)
    }
}

/// The longest head that can be, bytes.
pub const MAX_HEAD: u64 = (HEAD + MAX_NAMES) as u64;
