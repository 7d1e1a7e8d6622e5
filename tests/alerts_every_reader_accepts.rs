//! Every community reader of ZTF packets takes Nightjar's.

#![allow(clippy::unwrap_used)]

mod packets;
mod support {
    pub mod beside;
}

use std::process::Command;

use nightjar::alert::{Alert, AlertParameters, Profile, alert_schema, read_packets};
use nightjar::history::History;
use packets::{night, parameters, three_visits};
use support::beside::{python, real_data};

/// The alerts of three visits: both signs, earlier detections, upper limits.
fn alerts(parameters: &AlertParameters) -> Vec<Alert> {
    let mut history = History::in_memory().unwrap();
    three_visits().iter().flat_map(|visit| night(&mut history, visit, parameters).1).collect()
}

#[test]
fn the_same_exposure_gives_the_same_bytes() {
    let (first, second) = (alerts(&parameters()), alerts(&parameters()));
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(a.payload, b.payload);
    }
}

/// Runs `readers.py` and returns what it printed, or fails with what it says.
fn readers(arguments: &[&std::ffi::OsStr]) -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packets/readers.py");
    let output = Command::new(python()?).arg(script).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    Some(out.into_owned())
}

/// The alerts as files.
fn folder_of_packets(parameters: &AlertParameters) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for alert in alerts(parameters) {
        std::fs::write(folder.path().join(format!("{}.avro", alert.candid)), &alert.payload).unwrap();
    }
    folder
}

#[test]
fn every_reader_takes_our_packets() {
    let folder = folder_of_packets(&parameters());
    let Some(out) = readers(&["accept".as_ref(), folder.path().as_ref()]) else { return };
    assert!(out.contains("6 packets, 6 readers"), "{out}");
}

#[test]
fn every_rule_of_every_reader_rejects_a_packet_made_to_break_it() {
    let folder = folder_of_packets(&parameters());
    let Some(out) = readers(&["controls".as_ref(), folder.path().as_ref()]) else { return };
    assert!(out.contains("every rule rejects its control"), "{out}");
}

#[test]
fn confluents_deserializer_reads_the_registry_profile_with_nulls_for_what_is_absent() {
    let parameters = parameters_of_registry();
    let folder = folder_of_packets(&parameters);
    std::fs::write(folder.path().join("schema.json"), &alert_schema().json).unwrap();
    let Some(out) = readers(&["registry".as_ref(), folder.path().as_ref()]) else { return };
    assert!(out.contains("6 messages"), "{out}");
    let ours: Vec<_> = alerts(&parameters).iter().flat_map(|alert| read_packets(&alert.payload).unwrap()).collect();
    assert_eq!(ours.len(), 6);
    let size = |parameters: &AlertParameters| alerts(parameters)[0].payload.len();
    let (whole, bare) = (size(&packets::parameters()), size(&parameters));
    assert!(bare * 3 < whole * 2, "{bare} of {whole} bytes");
}

fn parameters_of_registry() -> AlertParameters {
    AlertParameters { profile: Profile::Registry { schema_id: 1 }, ..parameters() }
}

#[test]
fn the_schema_is_that_of_a_real_packet_field_by_field() {
    let Some(data) = real_data() else { return };
    let folder = folder_of_packets(&parameters());
    let ours = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let theirs = data.join("boom-astro+boom/alerts/2695378462115010012.avro");
    let Some(out) = readers(&["same_schema".as_ref(), ours.as_ref(), theirs.as_ref()]) else { return };
    assert!(out.contains("the same schema"), "{out}");
}
