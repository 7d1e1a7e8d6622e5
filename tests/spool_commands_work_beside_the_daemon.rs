//! Promise: `nightjar spool` looks into a spool that is in use, finds every damaged byte, takes
//! alerts out, and asks the daemon to send refused ones again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "support/alerts.rs"]
mod alerts;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nightjar::exposure::ExposureId;
use nightjar::spool::{Aside, Spool, SpoolParameters};

fn nightjar(folder: &Path, words: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_nightjar"))
        .arg("spool")
        .args(words)
        .arg("--folder")
        .arg(folder)
        .output()
        .unwrap();
    (status.success(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

fn spool_in_use(folder: &Path) -> Spool {
    let spool = Spool::open(folder, SpoolParameters::default()).unwrap();
    for name in ["e1", "e2"] {
        spool.append(&ExposureId::from_stored(name), &alerts::exposure(name, 5, 300)).unwrap();
    }
    spool.settle(&[(1, 5)], 0).unwrap();
    spool
}

#[test]
fn status_and_list_tell_what_is_unsent() {
    let folder = tempfile::tempdir().unwrap();
    let _spool = spool_in_use(folder.path());
    let (ok, text) = nightjar(folder.path(), &["status"]);
    assert!(ok && text.contains("1 exposures, 5 alerts") && text.contains("oldest e2"), "{text}");
    let (ok, text) = nightjar(folder.path(), &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(ok && json["unsent"]["alerts"] == 5 && json["sent"]["exposures"] == 1, "{text}");
    let (_, text) = nightjar(folder.path(), &["list"]);
    assert!(text.contains("e2") && !text.contains("e1"), "{text}");
    let (_, text) = nightjar(folder.path(), &["list", "--all", "--json"]);
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn verify_names_the_damaged_record() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool_in_use(folder.path());
    spool.bury(Aside { sequence: 2, number: 3 }, &alerts::alert("e2", 3, 300), "too large").unwrap();
    let (ok, text) = nightjar(folder.path(), &["verify"]);
    assert!(ok && text.contains("2 exposures, every byte as it was written"), "{text}");
    let file = folder.path().join("ready/000000000002.seg");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (ok, text) = nightjar(folder.path(), &["verify"]);
    assert!(!ok && text.contains("e2 (unsent): record 2: checksum of the record does not fit"), "{text}");
    for file in ["cursor", "dead/000000000002-00003.seg"] {
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (ok, text) = nightjar(folder.path(), &["verify"]);
        assert!(!ok && text.contains(&format!("{file}: ")), "{text}");
    }
}

#[test]
fn export_writes_one_file_an_alert() {
    let folder = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let spool = spool_in_use(folder.path());
    spool.bury(Aside { sequence: 2, number: 3 }, &alerts::alert("e2", 3, 300), "too large").unwrap();
    let (ok, text) = nightjar(folder.path(), &["export", "--all", "--out", out.path().to_str().unwrap()]);
    assert!(ok && text.contains("10 alerts of 2 exposures and 1 refused ones"), "{text}");
    assert_eq!(
        fs::read(out.path().join("refused/000000000002-00003.avro")).unwrap(),
        alerts::alert("e2", 3, 300).payload
    );
    for name in ["e1", "e2"] {
        let mut files: Vec<_> = fs::read_dir(out.path().join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        let payloads: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).unwrap()).collect();
        let wanted: Vec<Vec<u8>> = alerts::exposure(name, 5, 300).into_iter().map(|m| m.payload).collect();
        assert_eq!(payloads, wanted);
    }
}

#[test]
fn a_refused_alert_is_sent_again_by_the_running_daemon_or_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool_in_use(folder.path());
    let refuse = |sequence, number| {
        let alert = alerts::alert("e2", number, 300);
        spool.bury(Aside { sequence, number }, &alert, "Broker: too large").unwrap();
    };
    refuse(2, 3);
    // Its exposure is still on its way: nothing that could be sent a second time.
    let (ok, text) = nightjar(folder.path(), &["retry"]);
    assert!(ok && text.contains("1 alerts are sent again by the running daemon"), "{text}");
    assert_eq!(spool.retry_what_was_asked_for().unwrap(), 0);
    spool.settle(&[(2, 5)], 0).unwrap();
    assert_eq!(spool.retry_what_was_asked_for().unwrap(), 1);
    spool.append(&ExposureId::from_stored("e3"), &alerts::exposure("e3", 5, 300)).unwrap();
    let e3 = spool.holds(&ExposureId::from_stored("e3")).unwrap();
    refuse(e3, 4);
    spool.settle(&[(e3, 5)], 0).unwrap();
    drop(spool);
    let (ok, text) = nightjar(folder.path(), &["retry"]);
    assert!(ok && text.contains("1 alerts are among the unsent again"), "{text}");
    let (_, text) = nightjar(folder.path(), &["list"]);
    assert!(text.contains("e2+000000000002-00003") && text.contains("e3+000000000004-00004"), "{text}");
    let (_, text) = nightjar(folder.path(), &["retry"]);
    assert!(text.contains("nothing to send again"), "{text}");
}

#[test]
fn a_folder_without_a_spool_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (ok, text) = nightjar(folder.path(), &["status"]);
    assert!(!ok && text.contains("there is no spool in"), "{text}");
}
