//! What a broker speaks: Kafka's ApiVersions request and its answer, as bytes.
//!
//! It is the one request that every broker answers before a login. Version 3 of it carries the
//! features of the cluster too (KIP-511, KIP-584); brokers before 2.4 answer it with an error in the
//! form of version 0.

use std::collections::BTreeMap;

/// Numbers of requests (Kafka protocol guide).
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;
/// The error that says: ask with an older version.
const UNSUPPORTED_VERSION: i16 = 35;

/// What the answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// Lowest and highest version of each request.
    pub requests: BTreeMap<i16, (i16, i16)>,
    /// Level of each feature that the cluster has agreed upon.
    pub features: BTreeMap<String, i16>,
}

impl Versions {
    /// Whether there are transactions (InitProducerId).
    pub fn transactions(&self) -> bool {
        self.requests.contains_key(&INIT_PRODUCER_ID)
    }

    /// Whether a producer may go on with a new epoch after a failure (KIP-360, Kafka 2.5).
    pub fn new_epochs(&self) -> bool {
        self.requests.get(&INIT_PRODUCER_ID).is_some_and(|(_, highest)| *highest >= 3)
    }

    /// The release, as well as it can be told: `StorageTool version-mapping` of Kafka 4.1.
    pub fn release(&self) -> String {
        let level = self.features.get("metadata.version").copied();
        let named = |level: i16| match level {
            ..7 => "3.0 to 3.3",
            7 => "3.3",
            8 => "3.4",
            9..=11 => "3.5",
            12..=14 => "3.6",
            15..=19 => "3.7",
            20 => "3.8",
            21 => "3.9",
            22..=25 => "4.0",
            26..=27 => "4.1",
            _ => "newer than 4.1",
        };
        match level {
            Some(level) => format!("Kafka {} (metadata.version {level})", named(level)),
            None if self.new_epochs() => "Kafka 2.5 or newer, without KRaft".into(),
            None => "a Kafka older than 2.5".into(),
        }
    }
}

/// The request with its length before it.
pub fn request() -> Vec<u8> {
    let client = b"nightjar";
    let mut body = Vec::new();
    body.extend_from_slice(&API_VERSIONS.to_be_bytes());
    body.extend_from_slice(&3_i16.to_be_bytes());
    body.extend_from_slice(&1_i32.to_be_bytes());
    body.extend_from_slice(&(client.len() as i16).to_be_bytes());
    body.extend_from_slice(client);
    body.push(0); // no tagged fields in the header
    for text in [client.as_slice(), env!("CARGO_PKG_VERSION").as_bytes()] {
        body.push(text.len() as u8 + 1);
        body.extend_from_slice(text);
    }
    body.push(0);
    [(body.len() as i32).to_be_bytes().as_slice(), &body].concat()
}

/// Reads the answer without its length; `None` when it is none.
pub fn parse(answer: &[u8]) -> Option<Versions> {
    let mut rest = Take(answer);
    if rest.i32()? != 1 {
        return None;
    }
    let mut versions = Versions::default();
    if rest.i16()? == UNSUPPORTED_VERSION {
        for _ in 0..rest.i32()?.min(1000) {
            versions.requests.insert(rest.i16()?, (rest.i16()?, rest.i16()?));
        }
        return Some(versions);
    }
    for _ in 1..rest.varint()?.min(1000) {
        versions.requests.insert(rest.i16()?, (rest.i16()?, rest.i16()?));
        rest.tags(|_, _| Some(()))?;
    }
    rest.i32()?; // throttle time
    rest.tags(|tag, mut field| {
        if tag == 2 {
            for _ in 1..field.varint()?.min(1000) {
                let length = field.varint()?.checked_sub(1)?;
                let name = String::from_utf8_lossy(field.bytes(length)?).into_owned();
                versions.features.insert(name, field.i16()?);
                field.i16()?;
                field.tags(|_, _| Some(()))?;
            }
        }
        Some(())
    })?;
    Some(versions)
}

struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (piece, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(piece)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0_usize;
        for shift in (0..35).step_by(7) {
            let byte = self.bytes(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn tags(&mut self, mut field: impl FnMut(usize, Take<'a>) -> Option<()>) -> Option<()> {
        for _ in 0..self.varint()? {
            let (tag, length) = (self.varint()?, self.varint()?);
            field(tag, Take(self.bytes(length)?))?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_broker_says_so_in_the_old_form() {
        let mut answer = vec![0, 0, 0, 1, 0, 35, 0, 0, 0, 1];
        answer.extend_from_slice(&[0, 22, 0, 0, 0, 1]);
        let versions = parse(&answer).unwrap();
        assert!(versions.transactions() && !versions.new_epochs());
        assert_eq!(versions.release(), "a Kafka older than 2.5");
    }

    #[test]
    fn the_features_tell_the_release() {
        let mut answer = vec![0, 0, 0, 1, 0, 0, 2, 0, 22, 0, 0, 0, 5, 0, 0, 0, 0, 0, 1, 2];
        let mut feature = vec![2, 17];
        feature.extend_from_slice(b"metadata.version");
        feature.extend_from_slice(&[0, 27, 0, 1, 0]);
        answer.push(feature.len() as u8);
        answer.extend_from_slice(&feature);
        assert_eq!(parse(&answer).unwrap().release(), "Kafka 4.1 (metadata.version 27)");
        for length in 0..answer.len() {
            assert_eq!(parse(&answer[..length]), None, "cut at {length}");
        }
    }
}
