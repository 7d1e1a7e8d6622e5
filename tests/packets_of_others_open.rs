//! `nightjar alert` opens every packet that other surveys made.
#![allow(clippy::unwrap_used)]

mod packets;
mod support {
    pub mod beside;
}

use std::path::{Path, PathBuf};
use std::process::Command;

use nightjar::alert::{Packet, candidate_id, filter_number, processing_id, read_packets, sheet, stamp_pixels};
use nightjar::exposure::{Exposure, ExposureId};
use nightjar::time::{Mjd, NightName};
use packets::exposure;
use support::beside::real_data;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "avro") {
            found.push(path);
        }
    }
}

fn real_packets() -> Option<Vec<Packet>> {
    let mut found = Vec::new();
    files(&real_data()?, &mut found);
    found.sort();
    assert!(found.len() >= 140);
    Some(
        found
            .iter()
            .flat_map(|path| {
                let bytes = std::fs::read(path).unwrap();
                read_packets(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            })
            .collect(),
    )
}

#[test]
fn every_real_packet_opens_with_its_three_pictures() {
    let Some(packets) = real_packets() else { return };
    for packet in &packets {
        assert!(!packet.candid.is_empty() && !packet.object.is_empty(), "{packet:?}");
        assert!(packet.ra.is_some() && packet.dec.is_some() && packet.time.is_some(), "{}", packet.candid);
        assert!(packet.mag.is_some_and(|mag| (5.0..30.0).contains(&mag)), "{}", packet.candid);
        for cutout in &packet.cutouts {
            let pixels = stamp_pixels(cutout.as_deref().unwrap()).unwrap();
            assert!(pixels.iter().any(|x| x.is_finite()), "{}", packet.candid);
        }
    }
    let all: Vec<&Packet> = packets.iter().collect();
    assert!(sheet(&all).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn identifiers_are_made_as_ztf_makes_them() {
    let Some(packets) = real_packets() else { return };
    // Fink's copies have other times than ZTF's; the numbers belong to ZTF's.
    let native = packets.iter().filter(|packet| packet.json["publisher"] == "ZTF (www.ztf.caltech.edu)");
    let mut checked = 0;
    for packet in native {
        let candidate = &packet.json["candidate"];
        let start = Mjd::from_jd(candidate["jd"].as_f64().unwrap());
        let night = NightName::of(start, -116.86);
        let exposure = Exposure { id: ExposureId::new(night, start), night, start, ..exposure("2026-11-24") };
        let pid = processing_id(&exposure, candidate["rcid"].as_u64().unwrap() as u8);
        assert_eq!(Some(pid), candidate["pid"].as_i64());
        assert_eq!(Some(i64::from(night.nid())), candidate["nid"].as_i64());
        let number = candidate["tblid"].as_u64().unwrap() as usize;
        let positive = candidate["isdiffpos"] == "t";
        assert_eq!(candidate_id(pid, positive, number).to_string(), packet.candid);
        assert_eq!(i64::from(filter_number(&packet.filter)), candidate["fid"].as_i64().unwrap());
        checked += 1;
    }
    assert_eq!(checked, 73);
}

#[test]
fn what_is_no_packet_is_named_and_the_others_are_shown() {
    let Some(data) = real_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let whole = data.join("boom-astro+boom/alerts/2695378462115010012.avro");
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(folder.path().join("half.avro"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(folder.path().join("text.avro"), "not a packet").unwrap();
    std::fs::copy(&whole, folder.path().join("whole.avro")).unwrap();
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_nightjar")).args(arguments).output().unwrap();
    let output = run(&["alert", folder.path().to_str().unwrap()]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains("ZTF18abudxnw") && out.lines().count() == 2, "{out}");
    assert!(err.contains("half.avro") && err.contains("text.avro") && err.contains("2 of 3"), "{err}");
    let empty = run(&["alert", "/nonexistent.avro"]);
    assert!(String::from_utf8_lossy(&empty.stderr).contains("/nonexistent.avro"));
}
