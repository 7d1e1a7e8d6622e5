//! Messages to records: what of a message goes into a file, and what of it into the index.

use std::collections::HashMap;
use std::rc::Rc;

use super::kind::{self, Place, Scalar, Tree, WalkError};
use crate::alert::alert_schema;

/// First bytes of an object container file.
pub(super) const MAGIC: &[u8] = b"Obj\x01";
/// Schemas remembered at a time.
const MOST_SCHEMAS: usize = 64;
/// ZTF's values for "absent".
const SENTINELS: [f64; 2] = [-999.0, -99_999.0];

/// A writer's schema.
#[derive(Debug)]
pub struct Schema {
    /// Its JSON, as it was sent.
    pub json: Vec<u8>,
    /// The tree by which its records are walked.
    pub tree: Tree,
}

/// A message taken apart.
#[derive(Debug)]
pub struct Unpacked<'a> {
    /// How its record is written.
    pub schema: Rc<Schema>,
    /// The record, as it was sent.
    pub record: &'a [u8],
    /// What the index says of it.
    pub entry: Entry,
}

/// What the index says of an alert.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// Number of the alert.
    pub candid: i64,
    /// Name of the object.
    pub object: String,
    /// Start of the exposure, JD.
    pub jd: f64,
    /// Filter.
    pub fid: Option<i64>,
    /// Right ascension, degrees.
    pub ra: Option<f64>,
    /// Declination, degrees.
    pub dec: Option<f64>,
    /// Magnitude of the change.
    pub mag: Option<f64>,
    /// Its error.
    pub mag_err: Option<f64>,
    /// Whether it became brighter.
    pub positive: Option<bool>,
    /// Signal to noise.
    pub snr: Option<f64>,
    /// Real-bogus score.
    pub score: Option<f64>,
}

/// Why a message is no alert.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Neither framing.
    #[error("it begins with neither 'Obj' nor a zero byte")]
    Unknown,
    /// The container ends too early, or its parts do not fit together.
    #[error("the packet is truncated or damaged")]
    Container,
    /// A container that is compressed or holds another number of records than one.
    #[error("the packet is compressed, or does not hold exactly one record")]
    Unusual,
    /// Schema or record.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Without them there is nothing to find it by.
    #[error("the record has no candid or no jd")]
    Anonymous,
}

/// Takes messages apart; remembers the schemas that it met.
#[derive(Debug, Default)]
pub struct Unpacker {
    heads: HashMap<Vec<u8>, Rc<Schema>>,
    last: Option<(Vec<u8>, Rc<Schema>)>,
    registered: Option<Rc<Schema>>,
}

impl Unpacker {
    /// Takes a message apart and walks its record to the end, so that what is kept can be read.
    pub fn unpack<'a>(&mut self, payload: &'a [u8]) -> Result<Unpacked<'a>, UnpackError> {
        let (schema, record) = match payload {
            [0, _, _, _, _, record @ ..] => (self.registered()?, record),
            _ if payload.starts_with(MAGIC) => self.contained(payload)?,
            _ => return Err(UnpackError::Unknown),
        };
        let entry = entry(&schema.tree, record)?;
        Ok(Unpacked { schema, record, entry })
    }

    /// The schema of registry framing: Nightjar's own.
    fn registered(&mut self) -> Result<Rc<Schema>, UnpackError> {
        if let Some(schema) = &self.registered {
            return Ok(schema.clone());
        }
        let json = alert_schema().json.as_bytes().to_vec();
        let schema = Rc::new(Schema { tree: Tree::parse(&json)?, json });
        self.registered = Some(schema.clone());
        Ok(schema)
    }

    /// `'Obj' 01 │ metadata │ sync │ 1 │ size │ record │ sync`.
    fn contained<'a>(&mut self, payload: &'a [u8]) -> Result<(Rc<Schema>, &'a [u8]), UnpackError> {
        let broken = |_| UnpackError::Container;
        let known = self.last.as_ref().filter(|(head, _)| payload.starts_with(head));
        let (length, schema) = match known {
            Some((head, schema)) => (head.len(), schema.clone()),
            None => self.introduce(payload)?,
        };
        let mut rest = &payload[length..];
        let sync = kind::take(&mut rest, 16).map_err(broken)?;
        if kind::long(&mut rest).map_err(broken)? != 1 {
            return Err(UnpackError::Unusual);
        }
        let record = kind::bytes(&mut rest).map_err(broken)?;
        match rest.strip_prefix(sync) {
            Some([]) => Ok((schema, record)),
            Some(_) => Err(UnpackError::Unusual),
            None => Err(UnpackError::Container),
        }
    }

    /// The schema of a container and the length of what comes before its sync marker.
    fn introduce(&mut self, payload: &[u8]) -> Result<(usize, Rc<Schema>), UnpackError> {
        let (pairs, length) = metadata(payload).ok_or(UnpackError::Container)?;
        let value = |name: &[u8]| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        if value(b"avro.codec").is_some_and(|codec| codec != b"null") {
            return Err(UnpackError::Unusual);
        }
        let head = payload[..length].to_vec();
        let schema = match self.heads.get(&head) {
            Some(schema) => schema.clone(),
            None => {
                let json = value(b"avro.schema").ok_or(UnpackError::Container)?.to_vec();
                // Two heads of one schema share it, so that their records share a file.
                let same = self.heads.values().find(|schema| schema.json == json).cloned();
                let schema = match same {
                    Some(schema) => schema,
                    None => Rc::new(Schema { tree: Tree::parse(&json)?, json }),
                };
                if self.heads.len() >= MOST_SCHEMAS {
                    self.heads.clear();
                }
                self.heads.insert(head.clone(), schema.clone());
                schema
            }
        };
        self.last = Some((head, schema.clone()));
        Ok((length, schema))
    }
}

/// A key of a container's metadata and its value.
pub(super) type Pair<'a> = (&'a [u8], &'a [u8]);

/// The metadata of a container file, and where its sync marker begins.
pub(super) fn metadata(file: &[u8]) -> Option<(Vec<Pair<'_>>, usize)> {
    let mut rest = file.strip_prefix(MAGIC)?;
    let mut pairs = Vec::new();
    loop {
        let mut count = kind::long(&mut rest).ok()?;
        if count == 0 {
            return Some((pairs, file.len() - rest.len()));
        }
        if count < 0 {
            kind::long(&mut rest).ok()?;
            count = count.checked_neg()?;
        }
        for _ in 0..count {
            pairs.push((kind::bytes(&mut rest).ok()?, kind::bytes(&mut rest).ok()?));
        }
    }
}

/// What the index says of a record, which is walked to its end.
pub fn entry(tree: &Tree, record: &[u8]) -> Result<Entry, UnpackError> {
    let mut entry = Entry::default();
    let (mut candid, mut jd, mut rb, mut drb) = (None, None, None, None);
    tree.walk(record, &mut |place, name, value| match (place, name, value) {
        (Place::Packet, "candid", Scalar::Whole(n)) => candid = Some(n),
        (Place::Packet, "objectId", Scalar::Text(text)) => entry.object = String::from_utf8_lossy(text).into_owned(),
        (Place::Candidate, "candid", Scalar::Whole(n)) => candid = candid.or(Some(n)),
        (Place::Candidate, "jd", Scalar::Real(x)) => jd = Some(x),
        (Place::Candidate, "fid", Scalar::Whole(n)) => entry.fid = Some(n),
        (Place::Candidate, "ra", Scalar::Real(x)) => entry.ra = present(x),
        (Place::Candidate, "dec", Scalar::Real(x)) => entry.dec = present(x),
        (Place::Candidate, "magpsf", Scalar::Real(x)) => entry.mag = present(x),
        (Place::Candidate, "sigmapsf", Scalar::Real(x)) => entry.mag_err = present(x),
        (Place::Candidate, "isdiffpos", Scalar::Text(text)) => entry.positive = Some(matches!(text, b"t" | b"1")),
        (Place::Candidate, "scorr", Scalar::Real(x)) => entry.snr = present(x).map(f64::abs),
        (Place::Candidate, "rb", Scalar::Real(x)) => rb = present(x),
        (Place::Candidate, "drb", Scalar::Real(x)) => drb = present(x),
        _ => {}
    })?;
    entry.candid = candid.ok_or(UnpackError::Anonymous)?;
    entry.jd = jd.ok_or(UnpackError::Anonymous)?;
    entry.score = drb.or(rb);
    Ok(entry)
}

/// A number that is one.
pub fn present(value: f64) -> Option<f64> {
    Some(value).filter(|x| x.is_finite() && !SENTINELS.contains(x))
}
