//! Reading packets back, Nightjar's and others'.
//!
//! A packet of another survey has other names for the same things (`diaSourceId` for `candid`,
//! `objectid` for `objectId`, magnitudes or fluxes); [`Packet`] holds what a person wants to see of
//! any of them, found by the names that ZTF, Rubin, PGIR, WINTER and DECam use, and the whole record
//! as JSON.

use std::borrow::Cow;
use std::collections::HashSet;

use apache_avro::types::Value;
use apache_avro::{Reader, Schema};
use serde_json::{Map, Value as Json};

use super::container::{self, Profile};
use super::record::ABSENT;
use crate::time::Mjd;

/// JD of MJD 0.
const MJD_ZERO: f64 = 2_400_000.5;
/// Another sentinel that ZTF used.
const OTHER_ABSENT: f64 = -99_999.0;
/// AB magnitude of 1 nJy, the unit of Rubin's fluxes.
const NANOJANSKY_ZERO_POINT: f64 = 31.4;

/// Why bytes are not a packet.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// Neither an object container file nor a registry message.
    #[error("not an alert packet: it begins with neither 'Obj' nor a zero byte")]
    Unknown,
    /// The Avro does not decode.
    #[error("the packet does not decode: {0}")]
    Avro(#[from] Box<apache_avro::Error>),
}

/// What a person wants to see of a packet. Absent is what it does not have, or holds a sentinel for.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Name and version of its schema.
    pub schema: String,
    /// Number of the alert.
    pub candid: String,
    /// Name of the object.
    pub object: String,
    /// When the exposure began (or its middle, for Rubin).
    pub time: Option<Mjd>,
    /// Filter: `g`, `r`, `i` for ZTF's numbers, else what the packet says.
    pub filter: String,
    /// Right ascension, degrees.
    pub ra: Option<f64>,
    /// Declination, degrees.
    pub dec: Option<f64>,
    /// Whether it became brighter.
    pub positive: Option<bool>,
    /// Magnitude of the change.
    pub mag: Option<f64>,
    /// Its error.
    pub mag_err: Option<f64>,
    /// Signal to noise.
    pub snr: Option<f64>,
    /// Real-bogus score: of the network where there is one, else of the built-in model.
    pub score: Option<f64>,
    /// Detections so far.
    pub detections: Option<i64>,
    /// Earlier epochs in the packet: detections and upper limits.
    pub earlier: (usize, usize),
    /// Science, template and difference picture: FITS, mostly gzipped.
    pub cutouts: [Option<Vec<u8>>; 3],
    /// The whole record, pictures replaced by their size.
    pub json: Json,
}

impl Packet {
    /// "faded " in front of a magnitude, where the source became fainter.
    pub fn sign(&self) -> &'static str {
        if self.positive == Some(false) { "faded " } else { "" }
    }
}

/// Every packet in `bytes`: an object container file, or one message in registry framing with
/// Nightjar's schema.
pub fn read_packets(bytes: &[u8]) -> Result<Vec<Packet>, PacketError> {
    match bytes.first() {
        Some(b'O') => {
            let repaired;
            let reader = match Reader::new(bytes) {
                Ok(reader) => reader,
                Err(error) => {
                    repaired = with_distinct_fields(bytes).ok_or_else(|| Box::new(error))?;
                    Reader::new(&repaired[..]).map_err(Box::new)?
                }
            };
            let schema = schema_name(reader.writer_schema());
            reader.map(|record| Ok(packet(&schema, record.map_err(Box::new)?))).collect()
        }
        Some(0) if bytes.len() > 5 => read_packets(&container::framed(Profile::Ztf, &bytes[5..])),
        _ => Err(PacketError::Unknown),
    }
}

/// The same container file with a schema in which no record has two fields of one name.
///
/// WINTER's packets have such fields, which the specification forbids and Python's readers let
/// pass. The second of a name gets a number; what is encoded stays as it is.
fn with_distinct_fields(file: &[u8]) -> Option<Vec<u8>> {
    let (metadata, rest) = container::metadata(file)?;
    let mut repaired = Vec::new();
    for (key, value) in metadata {
        let value = if key == b"avro.schema" {
            let mut schema = serde_json::from_slice(&value).ok()?;
            number_twins(&mut schema);
            Cow::Owned(schema.to_string().into_bytes())
        } else {
            value
        };
        repaired.push((key, value));
    }
    Some(container::with_metadata(&repaired, rest))
}

/// Appends a number to the name of every field that an earlier field of its record has.
fn number_twins(schema: &mut Json) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(number_twins),
        Json::Object(map) => {
            let mut names = HashSet::new();
            for (i, field) in map.get_mut("fields").and_then(Json::as_array_mut).into_iter().flatten().enumerate() {
                let Some(Json::String(name)) = field.get_mut("name") else { continue };
                if !names.insert(name.clone()) {
                    *name = format!("{name}_{i}");
                }
            }
            map.values_mut().for_each(number_twins);
        }
        _ => {}
    }
}

fn schema_name(schema: &Schema) -> String {
    schema.name().map_or_else(|| "?".to_owned(), |name| name.fullname(None))
}

fn packet(schema: &str, record: Value) -> Packet {
    let inner = field(&record, &["candidate", "diaSource"]).unwrap_or(&Value::Null);
    let either = |names: &[&str]| field(inner, names).or_else(|| field(&record, names));
    let number = |names: &[&str]| either(names).and_then(number);
    let version = field(&record, &["schemavsn", "lsst_schema_version"]).and_then(text);
    let flux = number(&["psfFlux"]);
    let flux_err = number(&["psfFluxErr"]);
    let jd = number(&["jd"]).or_else(|| number(&["mjd", "midpointMjdTai"]).map(|mjd| mjd + MJD_ZERO));
    let mag = number(&["magpsf", "forcediffimmag"])
        .or_else(|| flux.map(|flux| NANOJANSKY_ZERO_POINT - 2.5 * flux.abs().log10()));
    let mag_err = number(&["sigmapsf", "forcediffimmagunc"])
        .or_else(|| Some(2.5 / std::f64::consts::LN_10 * flux_err? / flux?.abs()));
    let earlier = match field(&record, &["prv_candidates", "prvDiaSources"]) {
        Some(Value::Array(items)) => {
            let limits = items.iter().filter(|item| has_no_candidate(item)).count();
            (items.len() - limits, limits)
        }
        _ => (0, 0),
    };
    let cutout = |names: &[&str]| match field(&record, names)? {
        Value::Bytes(bytes) => Some(bytes.clone()),
        other => match field(other, &["stampData"])? {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        },
    };
    Packet {
        schema: version.map_or_else(|| schema.to_owned(), |version| format!("{schema} {version}")),
        candid: either(&["candid", "diaSourceId"]).and_then(text).unwrap_or_default(),
        object: field(&record, &["objectId", "objectid"])
            .or_else(|| either(&["diaObjectId"]))
            .and_then(text)
            .unwrap_or_default(),
        time: jd.map(Mjd::from_jd),
        filter: either(&["band", "fid"]).and_then(text).map(filter_name).unwrap_or_default(),
        ra: number(&["ra"]),
        dec: number(&["dec"]),
        positive: either(&["isdiffpos"]).and_then(sign).or_else(|| Some(!sign(either(&["isNegative"])?)?)),
        mag,
        mag_err,
        snr: number(&["scorr", "snr"]).map(f64::abs).or_else(|| Some((flux? / flux_err?).abs())),
        score: number(&["drb"]).or_else(|| number(&["rb", "reliability"])),
        detections: number(&["ndethist"])
            .or_else(|| field(&record, &["diaObject"]).and_then(|o| field(o, &["nDiaSources"])).and_then(self::number))
            .map(|n| n as i64),
        earlier,
        cutouts: [
            cutout(&["cutoutScience", "cutout_science"]),
            cutout(&["cutoutTemplate", "cutout_template"]),
            cutout(&["cutoutDifference", "cutout_difference"]),
        ],
        json: json(&record),
    }
}

/// The first of `names` that a record holds, out of its union, when it is not null.
fn field<'a>(record: &'a Value, names: &[&str]) -> Option<&'a Value> {
    let Value::Record(fields) = record else { return None };
    names.iter().find_map(|name| {
        let (_, value) = fields.iter().find(|(field, _)| field == name)?;
        let bare = match value {
            Value::Union(_, inner) => inner,
            other => other,
        };
        (!matches!(bare, Value::Null)).then_some(bare)
    })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(i) => Some(f64::from(*i)),
        Value::Long(i) => Some(*i as f64),
        Value::Float(x) => Some(f64::from(*x)),
        Value::Double(x) => Some(*x),
        _ => None,
    }
    .filter(|x| x.is_finite() && *x != ABSENT && *x != OTHER_ABSENT)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Int(i) => Some(i.to_string()),
        Value::Long(i) => Some(i.to_string()),
        _ => None,
    }
}

fn sign(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(truth) => Some(*truth),
        Value::String(text) => Some(matches!(text.as_str(), "t" | "1" | "true")),
        _ => None,
    }
}

fn filter_name(fid: String) -> String {
    match fid.as_str() {
        "1" => "g".to_owned(),
        "2" => "r".to_owned(),
        "3" => "i".to_owned(),
        _ => fid,
    }
}

fn has_no_candidate(item: &Value) -> bool {
    matches!(item, Value::Record(fields) if fields.iter().any(|(name, _)| name == "candid"))
        && field(item, &["candid"]).is_none()
}

/// The record as JSON; numbers that JSON has no word for become null.
fn json(value: &Value) -> Json {
    match value {
        Value::Union(_, inner) => json(inner),
        Value::Record(fields) => {
            Json::Object(fields.iter().map(|(name, value)| (name.clone(), json(value))).collect::<Map<_, _>>())
        }
        Value::Map(map) => Json::Object(map.iter().map(|(name, value)| (name.clone(), json(value))).collect()),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Boolean(truth) => Json::from(*truth),
        Value::Int(i) => Json::from(*i),
        Value::Long(i) => Json::from(*i),
        Value::Float(x) => Json::from(*x),
        Value::Double(x) => Json::from(*x),
        Value::String(text) | Value::Enum(_, text) => Json::from(text.as_str()),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Json::from(format!("{} bytes", bytes.len())),
        _ => Json::Null,
    }
}
