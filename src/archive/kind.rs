//! Avro schemas as the trees by which records are walked without being built.
//!
//! The archive needs a dozen values of each record and the certainty that all of it decodes, sixty
//! megabytes a second of it. So a record is walked field by field along its writer's schema (Avro
//! specification 1.12, "Binary Encoding"), and only the values that are wanted are looked at.

use std::collections::HashMap;

use serde_json::Value;

/// Records in records, arrays in unions: deeper than any packet, shallow enough for the stack.
const DEEPEST: usize = 64;

/// A type of a schema.
#[derive(Debug)]
enum Kind {
    Null,
    Boolean,
    /// `int`, `long` and `enum`: one zig-zag number.
    Whole,
    Float,
    Double,
    /// `bytes` and `string`.
    Text,
    Fixed(usize),
    Array(Box<Kind>),
    Map(Box<Kind>),
    Union(Vec<Kind>),
    /// A record, by its place among the named types.
    Named(usize),
}

#[derive(Debug)]
enum Named {
    Record(Vec<(String, Kind)>),
    Plain(Kind),
}

/// A schema, ready to walk records.
#[derive(Debug)]
pub struct Tree {
    root: Kind,
    named: Vec<Named>,
}

/// A value at the top of a packet or in its candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text, or bytes.
    Text(&'a [u8]),
    /// A truth value.
    Truth(bool),
}

/// Which record a value stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The packet itself.
    Packet,
    /// Its `candidate`.
    Candidate,
    /// Anything deeper: it is passed over.
    Elsewhere,
}

/// Why a schema or a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// The schema is none.
    #[error("its schema is no Avro schema ({0})")]
    Schema(String),
    /// The record ends too early or holds what its schema does not allow.
    #[error("the record is truncated or damaged")]
    Record,
}

impl Tree {
    /// From a schema's JSON.
    pub fn parse(json: &[u8]) -> Result<Self, WalkError> {
        let value: Value = serde_json::from_slice(json).map_err(|error| WalkError::Schema(error.to_string()))?;
        let mut reading = Reading { named: Vec::new(), names: HashMap::new() };
        let root = reading.kind(&value, "", 0)?;
        Ok(Self { root, named: reading.named })
    }

    /// Walks one record to its end and gives every value of the packet and of its candidate to `see`;
    /// nulls are left out.
    pub fn walk<'a>(&self, record: &'a [u8], see: &mut dyn FnMut(Place, &str, Scalar<'a>)) -> Result<(), WalkError> {
        let mut rest = record;
        self.pass(&self.root, &mut rest, Place::Packet, "", true, see, 0)?;
        if rest.is_empty() { Ok(()) } else { Err(WalkError::Record) }
    }

    /// How many bytes the record at the beginning of `bytes` has.
    pub fn length(&self, bytes: &[u8]) -> Result<usize, WalkError> {
        let mut rest = bytes;
        self.pass(&self.root, &mut rest, Place::Elsewhere, "", true, &mut |_, _, _| {}, 0)?;
        Ok(bytes.len() - rest.len())
    }

    #[expect(clippy::too_many_arguments, reason = "one recursive step and its whole state")]
    fn pass<'a>(
        &self,
        kind: &Kind,
        rest: &mut &'a [u8],
        place: Place,
        name: &str,
        outermost: bool,
        see: &mut dyn FnMut(Place, &str, Scalar<'a>),
        depth: usize,
    ) -> Result<(), WalkError> {
        if depth > DEEPEST {
            return Err(WalkError::Record);
        }
        let mut tell = |value: Scalar<'a>| {
            if place != Place::Elsewhere && !outermost {
                see(place, name, value);
            }
        };
        match kind {
            Kind::Null => {}
            Kind::Boolean => tell(Scalar::Truth(take(rest, 1)?[0] != 0)),
            Kind::Whole => tell(Scalar::Whole(long(rest)?)),
            Kind::Float => {
                let bytes: [u8; 4] = take(rest, 4)?.try_into().map_err(|_| WalkError::Record)?;
                tell(Scalar::Real(f64::from(f32::from_le_bytes(bytes))));
            }
            Kind::Double => {
                let bytes: [u8; 8] = take(rest, 8)?.try_into().map_err(|_| WalkError::Record)?;
                tell(Scalar::Real(f64::from_le_bytes(bytes)));
            }
            Kind::Text => tell(Scalar::Text(bytes(rest)?)),
            Kind::Fixed(size) => tell(Scalar::Text(take(rest, *size)?)),
            Kind::Array(items) => {
                self.blocks(rest, |rest| self.pass(items, rest, Place::Elsewhere, "", false, see, depth + 1))?
            }
            Kind::Map(values) => self.blocks(rest, |rest| {
                bytes(rest)?;
                self.pass(values, rest, Place::Elsewhere, "", false, see, depth + 1)
            })?,
            Kind::Union(branches) => {
                let branch = usize::try_from(long(rest)?).ok().and_then(|n| branches.get(n));
                self.pass(branch.ok_or(WalkError::Record)?, rest, place, name, outermost, see, depth + 1)?;
            }
            Kind::Named(index) => match self.named.get(*index).ok_or(WalkError::Record)? {
                Named::Plain(kind) => self.pass(kind, rest, place, name, outermost, see, depth + 1)?,
                Named::Record(fields) => {
                    let inner = match (place, name, outermost) {
                        (Place::Packet, _, true) => Place::Packet,
                        (Place::Packet, "candidate", false) => Place::Candidate,
                        _ => Place::Elsewhere,
                    };
                    for (name, kind) in fields {
                        self.pass(kind, rest, inner, name, false, see, depth + 1)?;
                    }
                }
            },
        }
        Ok(())
    }

    /// The items of an array or map: blocks of a count, negative where a size in bytes follows.
    fn blocks<'a>(
        &self,
        rest: &mut &'a [u8],
        mut item: impl FnMut(&mut &'a [u8]) -> Result<(), WalkError>,
    ) -> Result<(), WalkError> {
        loop {
            let mut count = long(rest)?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                long(rest)?;
                count = count.checked_neg().ok_or(WalkError::Record)?;
            }
            for _ in 0..count {
                let before = rest.len();
                item(rest)?;
                // A block of a billion nulls takes no byte and for ever.
                if rest.len() == before && count > 1_000_000 {
                    return Err(WalkError::Record);
                }
            }
        }
    }
}

/// A schema while it is being read.
struct Reading {
    named: Vec<Named>,
    names: HashMap<String, usize>,
}

impl Reading {
    fn kind(&mut self, value: &Value, namespace: &str, depth: usize) -> Result<Kind, WalkError> {
        if depth > DEEPEST {
            return Err(WalkError::Schema("it is too deep".into()));
        }
        match value {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => branches
                .iter()
                .map(|one| self.kind(one, namespace, depth + 1))
                .collect::<Result<_, _>>()
                .map(Kind::Union),
            Value::Object(map) => {
                let text = |key: &str| map.get(key).and_then(Value::as_str);
                match map.get("type") {
                    Some(Value::String(word)) => match word.as_str() {
                        "record" | "error" => {
                            let (index, space) = self.name(text("name"), text("namespace"), namespace)?;
                            let fields = map.get("fields").and_then(Value::as_array);
                            let mut list = Vec::new();
                            for field in fields.ok_or_else(|| WalkError::Schema("a record without fields".into()))? {
                                let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
                                let kind = field.get("type").unwrap_or(&Value::Null);
                                list.push((name.to_owned(), self.kind(kind, &space, depth + 1)?));
                            }
                            self.named[index] = Named::Record(list);
                            Ok(Kind::Named(index))
                        }
                        "enum" => {
                            let (index, _) = self.name(text("name"), text("namespace"), namespace)?;
                            self.named[index] = Named::Plain(Kind::Whole);
                            Ok(Kind::Whole)
                        }
                        "fixed" => {
                            let size = map.get("size").and_then(Value::as_u64).unwrap_or_default() as usize;
                            let (index, _) = self.name(text("name"), text("namespace"), namespace)?;
                            self.named[index] = Named::Plain(Kind::Fixed(size));
                            Ok(Kind::Fixed(size))
                        }
                        "array" => Ok(Kind::Array(Box::new(self.part(map.get("items"), namespace, depth)?))),
                        "map" => Ok(Kind::Map(Box::new(self.part(map.get("values"), namespace, depth)?))),
                        name => self.by_name(name, namespace),
                    },
                    Some(inner) => self.kind(inner, namespace, depth + 1),
                    None => Err(WalkError::Schema("a type without a name".into())),
                }
            }
            other => Err(WalkError::Schema(format!("{other} is no type"))),
        }
    }

    fn part(&mut self, value: Option<&Value>, namespace: &str, depth: usize) -> Result<Kind, WalkError> {
        self.kind(value.unwrap_or(&Value::Null), namespace, depth + 1)
    }

    /// Enters a name before what it stands for is read; gives its place and the namespace inside.
    fn name(&mut self, name: Option<&str>, space: Option<&str>, outer: &str) -> Result<(usize, String), WalkError> {
        let name = name.ok_or_else(|| WalkError::Schema("a type without a name".into()))?;
        let (space, short) = match name.rsplit_once('.') {
            Some((space, short)) => (space, short),
            None => (space.unwrap_or(outer), name),
        };
        self.named.push(Named::Plain(Kind::Null));
        self.names.insert(full(space, short), self.named.len() - 1);
        Ok((self.named.len() - 1, space.to_owned()))
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Kind, WalkError> {
        Ok(match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" | "long" => Kind::Whole,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" | "string" => Kind::Text,
            _ => {
                let known = self.names.get(&full(namespace, name)).or_else(|| self.names.get(name));
                Kind::Named(*known.ok_or_else(|| WalkError::Schema(format!("no type is named {name}")))?)
            }
        })
    }
}

fn full(namespace: &str, name: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// The next `count` bytes.
pub(super) fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], WalkError> {
    let (head, tail) = rest.split_at_checked(count).ok_or(WalkError::Record)?;
    *rest = tail;
    Ok(head)
}

/// Avro bytes or text.
pub(super) fn bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], WalkError> {
    let length = usize::try_from(long(rest)?).map_err(|_| WalkError::Record)?;
    take(rest, length)
}

/// An Avro `long`.
pub(super) fn long(rest: &mut &[u8]) -> Result<i64, WalkError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(WalkError::Record)
}

/// Writes an Avro `long`.
pub(super) fn put_long(value: i64, out: &mut Vec<u8>) {
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

    const SCHEMA: &str = r#"{"type":"record","name":"packet","namespace":"a","fields":[
        {"name":"candid","type":"long"},
        {"name":"candidate","type":{"type":"record","name":"candidate","fields":[
            {"name":"jd","type":"double"},{"name":"rb","type":["null","float"]}]}},
        {"name":"earlier","type":["null",{"type":"array","items":"candidate"}]}]}"#;

    fn record() -> Vec<u8> {
        let mut out = Vec::new();
        put_long(7, &mut out);
        out.extend_from_slice(&2.5_f64.to_le_bytes());
        put_long(1, &mut out);
        out.extend_from_slice(&0.5_f32.to_le_bytes());
        put_long(1, &mut out);
        put_long(1, &mut out);
        out.extend_from_slice(&9.0_f64.to_le_bytes());
        put_long(0, &mut out);
        put_long(0, &mut out);
        out
    }

    #[test]
    fn what_is_wanted_is_seen_and_what_is_deeper_is_passed_over() {
        let tree = Tree::parse(SCHEMA.as_bytes()).unwrap();
        let mut seen = Vec::new();
        let record = record();
        tree.walk(&record, &mut |place, name, value| seen.push((place, name.to_owned(), value))).unwrap();
        assert_eq!(
            seen,
            [
                (Place::Packet, "candid".to_owned(), Scalar::Whole(7)),
                (Place::Candidate, "jd".to_owned(), Scalar::Real(2.5)),
                (Place::Candidate, "rb".to_owned(), Scalar::Real(0.5)),
            ]
        );
    }

    #[test]
    fn a_record_that_ends_early_or_late_is_refused_at_every_length() {
        let tree = Tree::parse(SCHEMA.as_bytes()).unwrap();
        let record = record();
        for length in 0..record.len() {
            assert_eq!(tree.walk(&record[..length], &mut |_, _, _| {}), Err(WalkError::Record), "{length}");
        }
        assert!(tree.walk(&[record.as_slice(), &[0]].concat(), &mut |_, _, _| {}).is_err());
        assert!(Tree::parse(b"{\"type\":\"record\",\"name\":\"x\"}").is_err());
        assert!(Tree::parse(b"\"unheard-of\"").is_err());
    }
}
