//! Promise: a schema that grows by a field with a default breaks no reader: the next schema's packets are read
//! by today's readers and the other way round, in fastavro and in apache-avro, in both profiles.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/beside.rs"]
mod beside;
mod packets;

use std::process::Command;

use apache_avro::types::Value;
use apache_avro::{Reader, Schema, Writer, from_avro_datum, to_avro_datum};
use nightjar::alert::{Alert, AlertParameters, Profile, alert_schema, read_packets};
use nightjar::history::History;
use packets::{night, parameters, three_visits};
use serde_json::{Value as Json, json};

fn alerts(parameters: &AlertParameters) -> Vec<Alert> {
    let mut history = History::in_memory().unwrap();
    three_visits().iter().flat_map(|visit| night(&mut history, visit, parameters).1).collect()
}

fn registry() -> AlertParameters {
    AlertParameters { profile: Profile::Registry { schema_id: 1 }, ..parameters() }
}

/// Today's schema with two fields more: one of the packet, one of the candidate.
fn next_schema(with_default: bool) -> Json {
    let mut schema: Json = serde_json::from_str(&alert_schema().json).unwrap();
    let mut telescope = json!({ "name": "telescope", "type": "string", "doc": "Which telescope" });
    if with_default {
        telescope["default"] = json!("");
    }
    let fields = schema["fields"].as_array_mut().unwrap();
    let candidate = fields.iter_mut().find(|field| field["name"] == "candidate").unwrap();
    let parallax = json!({ "name": "parallax", "type": ["null", "float"], "default": null });
    candidate["type"]["fields"].as_array_mut().unwrap().push(parallax);
    fields.push(telescope);
    schema
}

fn field<'a>(record: &'a Value, name: &str) -> &'a Value {
    let Value::Record(fields) = record else { panic!("{record:?} is no record") };
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value).unwrap()
}

#[test]
fn apache_avro_reads_either_schema_with_either() {
    let today = Schema::parse_str(&alert_schema().json).unwrap();
    let next = Schema::parse(&next_schema(true)).unwrap();
    let careless = Schema::parse(&next_schema(false)).unwrap();
    for (contained, framed) in alerts(&parameters()).iter().zip(alerts(&registry())) {
        let old = Reader::new(&contained.payload[..]).unwrap().next().unwrap().unwrap();
        // Today's packet, the next reader.
        let read = Reader::with_schema(&next, &contained.payload[..]).unwrap().next().unwrap().unwrap();
        assert_eq!(field(&read, "telescope"), &Value::String(String::new()));
        let bare = from_avro_datum(&today, &mut &framed.payload[5..], Some(&next)).unwrap();
        assert_eq!(field(&bare, "candid"), &Value::Long(contained.candid));
        assert!(matches!(field(field(&bare, "candidate"), "parallax"), Value::Union(_, null) if **null == Value::Null));
        // The next packet, today's reader.
        let mut writer = Writer::new(&next, Vec::new());
        writer.append(read.clone()).unwrap();
        let file = writer.into_inner().unwrap();
        let back = Reader::with_schema(&today, &file[..]).unwrap().next().unwrap().unwrap();
        assert_eq!(back, old);
        let datum = to_avro_datum(&next, read).unwrap();
        assert_eq!(from_avro_datum(&next, &mut &datum[..], Some(&today)).unwrap(), old);
        // Nightjar's own reader.
        assert_eq!(read_packets(&file).unwrap()[0].candid, contained.candid.to_string());
        // Without a default there is nothing to put in its place.
        let refused = Reader::with_schema(&careless, &contained.payload[..]).unwrap().next().unwrap();
        assert!(refused.is_err());
    }
}

#[test]
fn fastavro_and_the_filters_read_either_schema_with_either() {
    let Some(python) = beside::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let put = |name: String, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    put("today.json".into(), alert_schema().json.as_bytes());
    put("next.json".into(), next_schema(true).to_string().as_bytes());
    for (contained, framed) in alerts(&parameters()).iter().zip(alerts(&registry())) {
        put(format!("{}.avro", contained.candid), &contained.payload);
        put(format!("{}.bin", contained.candid), &framed.payload);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packets/evolution.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("6 packets"), "{text}");
}
