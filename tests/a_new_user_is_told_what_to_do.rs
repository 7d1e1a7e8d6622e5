//! Whatever a new user gets wrong with `simulate`, one sentence says what to do next.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod night;
}

use std::path::Path;

use support::night::{both, frames_of_kind, nightjar, small_night};

/// Runs `simulate` with these arguments, expects it to fail, and gives its last line.
fn refused(night: &Path, arguments: &[&str]) -> String {
    let output = nightjar().arg("simulate").arg(night).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} should have been refused");
    let text = both(&output);
    assert!(!text.contains("panicked"), "{text}");
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn each_wrong_use_ends_in_a_sentence_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let absent = refused(&folder.path().join("absent"), &[]);
    assert!(absent.contains("absent") && absent.contains("check the path"), "{absent}");

    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let said = refused(&empty, &[]);
    assert!(said.contains("no FITS files") && said.contains("nightjar sky"), "{said}");

    let night = small_night(folder.path(), 1);
    let out = folder.path().join("run");
    let out = out.to_str().unwrap();
    let said = refused(&night, &["--out", "/proc/nowhere"]);
    assert!(said.contains("/proc/nowhere") && said.contains("--out"), "{said}");
    let foreign = folder.path().join("home");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "").unwrap();
    let said = refused(&night, &["--out", foreign.to_str().unwrap()]);
    assert!(said.contains("not empty") && foreign.join("thesis.tex").exists(), "{said}");
    let said = refused(&night, &["--out", out, "--broker", "127.0.0.1:1"]);
    assert!(said.contains("127.0.0.1:1") && said.contains("start Kafka"), "{said}");
    let said = refused(&night, &["--out", out, "--speed", "fast"]);
    assert!(!said.is_empty(), "{said}");

    // Light frames alone: nothing to calibrate them with.
    let lights = folder.path().join("lights");
    std::fs::create_dir(&lights).unwrap();
    for file in frames_of_kind(&night, "light") {
        std::fs::copy(&file, lights.join(file.file_name().unwrap())).unwrap();
    }
    let said = refused(&lights, &["--out", out]);
    assert!(said.contains("masters") && said.contains("nightjar master"), "{said}");
}

#[test]
fn a_night_without_references_is_calibrated_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let night = small_night(folder.path(), 1);
    std::fs::remove_dir_all(night.join("references")).unwrap();
    let run = folder.path().join("run");
    let output = nightjar().arg("simulate").arg(&night).arg("--out").arg(&run).output().unwrap();
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("there are no references") && said.contains("nightjar reference"), "{said}");
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["exposures"][0]["alerts"], 0);
    assert!(summary["exposures"][0]["reason"].as_str().unwrap().contains("reference"));
    assert!(summary["exposures"][0]["seconds"]["calibrate"].as_f64().unwrap() > 0.0);
}
