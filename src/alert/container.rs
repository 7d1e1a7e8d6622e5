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

use std::sync::LazyLock;

use super::schema::alert_schema;

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
    let mut header = b"Obj\x01".to_vec();
    long(2, &mut header);
    for (key, value) in [("avro.codec", "null"), ("avro.schema", alert_schema().json.as_str())] {
        long(key.len() as i64, &mut header);
        header.extend_from_slice(key.as_bytes());
        long(value.len() as i64, &mut header);
        header.extend_from_slice(value.as_bytes());
    }
    long(0, &mut header);
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
        }
    }

    #[test]
    fn the_registry_message_is_a_zero_the_number_and_the_record() {
        assert_eq!(framed(Profile::Registry { schema_id: 258 }, b"xy"), [0, 0, 0, 1, 2, b'x', b'y']);
    }
}
