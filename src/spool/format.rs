//! The bytes of a segment file: pure encoding and decoding, no input or output.
//!
//! The diagram in [`super`] is the format's home; the constants here are its numbers, and the
//! golden bytes in `testdata/spool` pin each of them.

use uuid::Uuid;

use super::{Epoch, Message};

/// First bytes of a segment.
pub const MAGIC: [u8; 8] = *b"NIGHTJAR";
/// Last bytes of a segment.
pub const END_MAGIC: [u8; 8] = *b"RAJTHGIN";
/// The format this program writes.
pub const VERSION: u16 = 1;
/// Bytes of the head before the names.
pub const HEAD: usize = 64;
/// Bytes of a record before its key.
pub const RECORD_HEAD: usize = 20;
/// Bytes at the very end of a segment.
pub const TAIL: usize = 32;
/// No record is larger than this, bytes; a length above it is damage and is never allocated.
pub const MAX_RECORD: usize = 64 << 20;
/// The names (exposure and topics) of a segment are never longer than this, bytes.
pub const MAX_NAMES: usize = 1 << 20;
/// No segment holds more records than this.
pub const MAX_COUNT: u32 = 1 << 22;

/// What is wrong with bytes that should be a segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Too few bytes.
    #[error("cut short")]
    Short,
    /// Not our magic.
    #[error("not a segment")]
    Magic,
    /// Written by a newer program.
    #[error("written in format {0} by a newer version of nightjar; install that version to read it")]
    Newer(u16),
    /// A length that no writer makes.
    #[error("impossible {0}")]
    Length(&'static str),
    /// A checksum that does not fit.
    #[error("checksum of the {0} does not fit")]
    Checksum(&'static str),
    /// All zeros: nothing was written here.
    #[error("nothing was written here")]
    Empty,
    /// Text that is not UTF-8.
    #[error("{0} is not text")]
    Text(&'static str),
}

/// What a segment says of itself: the head and the names behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The spool it belongs to.
    pub spool: Uuid,
    /// The opening of the spool in which it was written.
    pub epoch: Epoch,
    /// Its sequence number.
    pub sequence: u64,
    /// Number of records.
    pub count: u32,
    /// Name of the exposure.
    pub exposure: String,
    /// Topics that the records name by number.
    pub topics: Vec<String>,
}

impl Head {
    /// Head and names as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut names = Vec::new();
        names.extend_from_slice(self.exposure.as_bytes());
        for topic in &self.topics {
            names.extend_from_slice(&(topic.len() as u16).to_le_bytes());
            names.extend_from_slice(topic.as_bytes());
        }
        let mut bytes = Vec::with_capacity(HEAD + names.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.exposure.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(names.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.spool.as_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&(self.topics.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&names).to_le_bytes());
        let check = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes.extend_from_slice(&names);
        bytes
    }

    /// Bytes of head and names together, from the first [`HEAD`] bytes.
    pub fn length(bytes: &[u8]) -> Result<usize, Damage> {
        let fixed = bytes.get(..HEAD).ok_or(Damage::Short)?;
        if fixed.iter().all(|b| *b == 0) {
            return Err(Damage::Empty);
        }
        if fixed[..8] != MAGIC {
            return Err(Damage::Magic);
        }
        if u32_at(fixed, 60) != crc32c::crc32c(&fixed[..60]) {
            return Err(Damage::Checksum("head"));
        }
        let version = u16_at(fixed, 8);
        if version > VERSION {
            return Err(Damage::Newer(version));
        }
        let names = u32_at(fixed, 12) as usize;
        if names > MAX_NAMES {
            return Err(Damage::Length("length of the names"));
        }
        if u32_at(fixed, 48) > MAX_COUNT {
            return Err(Damage::Length("number of records"));
        }
        Ok(HEAD + names)
    }

    /// Reads head and names.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let length = Self::length(bytes)?;
        let names = bytes.get(HEAD..length).ok_or(Damage::Short)?;
        if u32_at(bytes, 56) != crc32c::crc32c(names) {
            return Err(Damage::Checksum("names"));
        }
        let mut rest = Take(names);
        let exposure = rest.text(usize::from(u16_at(bytes, 10)), "the name of the exposure")?;
        let mut topics = Vec::new();
        for _ in 0..u32_at(bytes, 52) {
            let length = rest.u16()?;
            topics.push(rest.text(usize::from(length), "a topic")?);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        Ok(Self {
            spool: Uuid::from_bytes(uuid),
            epoch: Epoch(u64_at(bytes, 32)),
            sequence: u64_at(bytes, 40),
            count: u32_at(bytes, 48),
            exposure,
            topics,
        })
    }
}

/// Bytes that `message` takes as a record.
pub fn record_length(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| 6 + name.len() + value.len()).sum();
    RECORD_HEAD + message.key.len() + headers + message.payload.len()
}

/// Appends `message` as record `number` and returns its checksum. The caller has checked the
/// lengths with [`check_message`].
pub fn encode_record(out: &mut Vec<u8>, number: u32, topic: u16, message: &Message) -> u32 {
    let start = out.len();
    let length = record_length(message);
    let headers = length - RECORD_HEAD - message.key.len() - message.payload.len();
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&topic.to_le_bytes());
    out.extend_from_slice(&(message.key.len() as u16).to_le_bytes());
    out.extend_from_slice(&(headers as u32).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&message.key);
    for (name, value) in &message.headers {
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    }
    out.extend_from_slice(&message.payload);
    let check = record_check(&out[start..]);
    out[start + 16..start + 20].copy_from_slice(&check.to_le_bytes());
    check
}

/// CRC-32C over a whole record but its own checksum.
fn record_check(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..16]), &record[RECORD_HEAD..])
}

/// Length of the record that begins with these [`RECORD_HEAD`] bytes.
pub fn peek_record(head: &[u8]) -> Result<usize, Damage> {
    let head = head.get(..RECORD_HEAD).ok_or(Damage::Short)?;
    if head.iter().all(|b| *b == 0) {
        return Err(Damage::Empty);
    }
    let length = u32_at(head, 0) as usize;
    if !(RECORD_HEAD..=MAX_RECORD).contains(&length) {
        return Err(Damage::Length("length of a record"));
    }
    Ok(length)
}

/// Reads the record `number` from exactly its bytes; gives the message and the record's checksum.
pub fn decode_record(bytes: &[u8], number: u32, topics: &[String]) -> Result<(Message, u32), Damage> {
    if peek_record(bytes)? != bytes.len() {
        return Err(Damage::Length("length of a record"));
    }
    let check = u32_at(bytes, 16);
    if check != record_check(bytes) {
        return Err(Damage::Checksum("record"));
    }
    if u32_at(bytes, 12) != number {
        return Err(Damage::Length("number of a record"));
    }
    let topic = topics.get(usize::from(u16_at(bytes, 4))).ok_or(Damage::Length("number of a topic"))?;
    let mut rest = Take(&bytes[RECORD_HEAD..]);
    let key = rest.bytes(usize::from(u16_at(bytes, 6)))?.to_vec();
    let mut block = Take(rest.bytes(u32_at(bytes, 8) as usize)?);
    let mut headers = Vec::new();
    while !block.0.is_empty() {
        let (name, value) = (usize::from(block.u16()?), block.u32()? as usize);
        headers.push((block.text(name, "the name of a header")?, block.bytes(value)?.to_vec()));
    }
    Ok((Message { topic: topic.clone(), key, headers, payload: rest.0.to_vec() }, check))
}

/// What stands at the end of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Where each record begins, bytes from the start of the file.
    pub offsets: Vec<u64>,
    /// CRC-32C over the little-endian checksums of the records.
    pub checks: u32,
    /// The head once more.
    pub head: Head,
}

impl Footer {
    /// The footer of a segment whose records end at `end`.
    pub fn encode(&self, end: u64) -> Vec<u8> {
        let head = self.head.encode();
        let mut bytes = Vec::with_capacity(self.offsets.len() * 8 + head.len() + TAIL);
        for offset in &self.offsets {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes.extend_from_slice(&head);
        let total = end + bytes.len() as u64 + TAIL as u64;
        bytes.extend_from_slice(&(self.offsets.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.checks.to_le_bytes());
        bytes.extend_from_slice(&total.to_le_bytes());
        bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
        let check = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes.extend_from_slice(&END_MAGIC);
        bytes
    }

    /// Length of the whole footer, from the last [`TAIL`] bytes of a file of `file` bytes.
    pub fn length(tail: &[u8], file: u64) -> Result<usize, Damage> {
        let tail = tail.get(..TAIL).ok_or(Damage::Short)?;
        if tail[24..32] != END_MAGIC {
            return Err(if tail.iter().all(|b| *b == 0) { Damage::Empty } else { Damage::Short });
        }
        let (count, head) = (u32_at(tail, 0), u32_at(tail, 16) as usize);
        if count > MAX_COUNT || !(HEAD..=HEAD + MAX_NAMES).contains(&head) {
            return Err(Damage::Length("footer"));
        }
        let length = count as usize * 8 + head + TAIL;
        if u64_at(tail, 8) != file || (head + length) as u64 > file {
            return Err(Damage::Length("length of the file"));
        }
        Ok(length)
    }

    /// Reads the whole footer of a file of `file` bytes.
    pub fn decode(bytes: &[u8], file: u64) -> Result<Self, Damage> {
        let tail = bytes.len().checked_sub(TAIL).ok_or(Damage::Short)?;
        if Self::length(&bytes[tail..], file)? != bytes.len() {
            return Err(Damage::Length("footer"));
        }
        if u32_at(bytes, tail + 20) != crc32c::crc32c(&bytes[..tail + 20]) {
            return Err(Damage::Checksum("footer"));
        }
        let index = u32_at(bytes, tail) as usize * 8;
        let head = Head::decode(&bytes[index..tail])?;
        let offsets: Vec<u64> = bytes[..index].chunks_exact(8).map(|b| u64_at(b, 0)).collect();
        let first = u64::from(u32_at(bytes, tail + 16));
        let end = file - bytes.len() as u64;
        let rising = offsets.windows(2).all(|w| w[0].saturating_add(RECORD_HEAD as u64) <= w[1]);
        let inside = offsets.first().is_none_or(|o| *o == first) && offsets.last().is_none_or(|o| *o < end);
        if head.count as usize != offsets.len() || !rising || !inside {
            return Err(Damage::Length("footer"));
        }
        Ok(Self { offsets, checks: u32_at(bytes, tail + 4), head })
    }
}

/// CRC-32C over the checksums of the records.
pub fn check_of_checks(checks: &[u32]) -> u32 {
    checks.iter().fold(0, |sum, check| crc32c::crc32c_append(sum, &check.to_le_bytes()))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Takes pieces from the front of a slice, never more than there is.
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Damage> {
        let (piece, rest) = self.0.split_at_checked(length).ok_or(Damage::Length("length inside a record"))?;
        self.0 = rest;
        Ok(piece)
    }

    fn u16(&mut self) -> Result<u16, Damage> {
        self.bytes(2).map(|b| u16_at(b, 0))
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.bytes(4).map(|b| u32_at(b, 0))
    }

    fn text(&mut self, length: usize, what: &'static str) -> Result<String, Damage> {
        let bytes = self.bytes(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Damage::Text(what))
    }
}

/// Says why a message cannot be a record, if it cannot.
pub fn check_message(message: &Message) -> Result<(), &'static str> {
    if message.key.len() > usize::from(u16::MAX) {
        return Err("its key is longer than 65,535 bytes");
    }
    if message.topic.is_empty() || message.topic.len() > 249 {
        return Err("a topic has 1 to 249 characters");
    }
    if message.headers.iter().any(|(name, _)| name.len() > usize::from(u16::MAX)) {
        return Err("the name of a header is longer than 65,535 bytes");
    }
    if record_length(message) > MAX_RECORD {
        return Err("it is larger than 64 MiB");
    }
    Ok(())
}
