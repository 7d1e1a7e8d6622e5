//! Every community reader of ZTF packets takes Nightjar's.

#![allow(clippy::unwrap_used)]

mod packets;
mod support {
    pub mod beside;
}

use std::process::Command;

use nightjar::alert::{Alert, packets as make};
use packets::{candidate, detections, nothing_before, parameters};
use support::beside::{python, real_data};

/// Two candidates, one of each sign.
fn two_alerts() -> Vec<Alert> {
    let detections =
        detections("2026-11-24T03:15:22.12", vec![candidate(1500.3, 1200.8, 9000.0), candidate(40.2, 2990.1, -3000.0)]);
    let jd = detections.exposure.start.jd();
    let pasts = ["NJR26aaaaaaa", "NJR26aaaaaab"].map(|name| nothing_before(name, jd));
    make(&detections, &pasts, &parameters()).unwrap()
}

#[test]
fn the_same_exposure_gives_the_same_bytes() {
    let (first, second) = (two_alerts(), two_alerts());
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

/// The two alerts as files.
fn folder_of_packets() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for alert in two_alerts() {
        std::fs::write(folder.path().join(format!("{}.avro", alert.candid)), &alert.payload).unwrap();
    }
    folder
}

#[test]
fn every_reader_takes_our_packets() {
    let folder = folder_of_packets();
    let Some(out) = readers(&["accept".as_ref(), folder.path().as_ref()]) else { return };
    assert!(out.contains("2 packets, 6 readers"), "{out}");
}

#[test]
fn the_schema_is_that_of_a_real_packet_field_by_field() {
    let Some(data) = real_data() else { return };
    let folder = folder_of_packets();
    let ours = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let theirs = data.join("boom-astro+boom/alerts/2695378462115010012.avro");
    let Some(out) = readers(&["same_schema".as_ref(), ours.as_ref(), theirs.as_ref()]) else { return };
    assert!(out.contains("the same schema"), "{out}");
}
