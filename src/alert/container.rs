//! How the bytes of one record travel.
//!
//! **`ztf`** — an Avro object container file (Avro specification 1.12, "Object Container Files")
//! that carries its schema:
//!
//! ```text
//! 'Obj' 01 │ map {avro.codec: null, avro.schema: …} │ sync (16) │ count 1 │ size │ record │ sync (16)
//! ```
//!
//! **`registry`** — the wire format of Confluent's schema registry: `00`, the schema's number
//! (big-endian, 4 bytes), the record.
//!
//! The crate's own `Writer` draws the sync marker at random; here it is made from the schema, so
//! that the same exposure gives the same bytes on every run.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::schema::alert_schema;

/// First bytes of an object container file.
const MAGIC: &[u8] = b"Obj\x01";

/// Which message the daemon writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// One object container file a message, sentinels for absent values: what ZTF sends.
    Ztf,
    /// Confluent framing with the number under which the registry knows the schema; nulls for
    /// absent values.
    Registry {
        /// Number of the schema in the registry.
        schema_id: u32,
    },
}

/// Everything before the record count of a container file; the same for every packet.
static HEADER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let schema = alert_schema().json.as_bytes();
    let metadata: [Pair<'_>; 2] = [(b"avro.codec", Cow::Borrowed(b"null")), (b"avro.schema", Cow::Borrowed(schema))];
    let mut header = with_metadata(&metadata, &[]);
    header.extend_from_slice(&sync_marker());
    header
});

/// Sixteen bytes that do not occur in records by chance: four checksums of the schema's parts.
fn sync_marker() -> [u8; 16] {
    let schema = alert_schema().json.as_bytes();
    let mut marker = [0; 16];
    for (i, word) in marker.chunks_exact_mut(4).enumerate() {
        let part = &schema[schema.len() * i / 4..schema.len() * (i + 1) / 4];
        word.copy_from_slice(&crc32c::crc32c(part).to_be_bytes());
    }
    marker
}

/// The message around one encoded `record`.
pub fn framed(profile: Profile, record: &[u8]) -> Vec<u8> {
    match profile {
        Profile::Ztf => {
            let mut message = Vec::with_capacity(HEADER.len() + record.len() + 32);
            message.extend_from_slice(&HEADER);
            long(1, &mut message);
            long(record.len() as i64, &mut message);
            message.extend_from_slice(record);
            message.extend_from_slice(&sync_marker());
            message
        }
        Profile::Registry { schema_id } => {
            let mut message = Vec::with_capacity(record.len() + 5);
            message.push(0);
            message.extend_from_slice(&schema_id.to_be_bytes());
            message.extend_from_slice(record);
            message
        }
    }
}

/// A key of a container file's header and its value.
type Pair<'a> = (&'a [u8], Cow<'a, [u8]>);

/// A container file of this metadata; `rest` begins with the sync marker.
pub(super) fn with_metadata(metadata: &[Pair<'_>], rest: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    long(metadata.len() as i64, &mut file);
    for part in metadata.iter().flat_map(|(key, value)| [*key, value]) {
        long(part.len() as i64, &mut file);
        file.extend_from_slice(part);
    }
    long(0, &mut file);
    file.extend_from_slice(rest);
    file
}

/// The metadata of a container file, and what follows it.
pub(super) fn metadata(file: &[u8]) -> Option<(Vec<Pair<'_>>, &[u8])> {
    let mut rest = file.strip_prefix(MAGIC)?;
    let mut pairs = Vec::new();
    loop {
        let mut count = take_long(&mut rest)?;
        if count == 0 {
            return Some((pairs, rest));
        }
        if count < 0 {
            // A block may say its size in bytes.
            take_long(&mut rest)?;
            count = -count;
        }
        for _ in 0..count {
            pairs.push((take_bytes(&mut rest)?, Cow::Borrowed(take_bytes(&mut rest)?)));
        }
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_long(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn take_long(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// An Avro `long`: zig-zag, seven bits a byte, the lowest first.
fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_are_written_as_the_specification_shows() {
        for (value, bytes) in [(0, vec![0]), (-1, vec![1]), (1, vec![2]), (-64, vec![0x7f]), (64, vec![0x80, 1])] {
            let mut out = Vec::new();
            long(value, &mut out);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(take_long(&mut &out[..]), Some(value));
        }
    }

    #[test]
    fn the_registry_message_is_a_zero_the_number_and_the_record() {
        assert_eq!(framed(Profile::Registry { schema_id: 258 }, b"xy"), [0, 0, 0, 1, 2, b'x', b'y']);
    }
}
