//! Skies drawn by benches/quality, which shares nothing with the crate's own simulator, have the changes that their
//! truth tables say, and Nightjar finds them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod beside;
    pub mod night;
}

use std::path::Path;
use std::process::{Command, Output};

use support::beside::python;
use support::night::{both, nightjar};

/// Runs one of the scripts of benches/quality.
fn script(python: &Path, name: &str, words: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/quality");
    Command::new(python).args(["-B", "-W", "ignore"]).arg(folder.join(name)).args(words).output().unwrap()
}

/// A pair of 1024 x 1024 pixels in a folder of its own.
fn scene(python: &Path, words: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let made = script(python, "scenes.py", &[&[path, "--size", "1024x1024"], words].concat());
    assert!(made.status.success(), "{}", both(&made));
    folder
}

/// The figures of `nightjar difference` on a scene, as score.py gives them.
fn figures(python: &Path, scene: &Path) -> serde_json::Value {
    let run = scene.join("run");
    let [science, reference] = ["science.fits", "reference.fits"].map(|name| scene.join(name));
    let output = nightjar().arg("difference").args([&science, &reference]).arg("--out").arg(&run).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    let json = scene.join("figures.json");
    let words = [scene, &run, Path::new("--json"), &json].map(|path| path.to_str().unwrap());
    let scored = script(python, "score.py", &words);
    assert!(scored.status.success(), "{}", both(&scored));
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

#[test]
fn the_scenes_hold_what_their_truth_says() {
    let Some(python) = python() else { return };
    let words = ["--seed", "611", "--stars", "2500", "--faint", "15", "--galaxies", "0", "--changes", "0"];
    let bare = ["--cosmic-rays", "0", "--hot-pixels", "0", "--columns", "0"];
    let stars = scene(&python, &[&words[..], &bare[..]].concat());
    let checked = script(&python, "oracle.py", &[stars.path().to_str().unwrap()]);
    assert!(checked.status.success(), "{}", both(&checked));

    let changes = scene(&python, &["--seed", "613", "--changes", "3000"]);
    let checked = script(&python, "oracle.py", &["--pulls", changes.path().to_str().unwrap()]);
    assert!(checked.status.success(), "{}", both(&checked));
}

#[test]
fn changes_on_a_sky_of_another_simulator_are_found_and_measured() {
    let Some(python) = python() else { return };
    let sky = scene(&python, &["--seed", "617"]);
    let figures = figures(&python, sky.path());
    let figure = |name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("no {name} in {figures}"));
    // About 75 scored changes: one that is missed counts 1 to 7 %.
    assert!(figure("completeness 7-10") >= 0.9, "{figures:#}");
    assert!(figure("completeness 10-20") >= 0.92, "{figures:#}");
    assert!(figure("completeness 20+") >= 0.95, "{figures:#}");
    assert!(figure("false an image, off defects") <= 2.0, "{figures:#}");
    assert!(figure("flux bias %").abs() <= 1.0, "{figures:#}");
    assert!(figure("position rms px, S/N >= 100") <= 0.015, "{figures:#}");
    assert!(figure("wrong signs") < 0.5, "{figures:#}");
}

#[test]
fn a_sky_on_which_nothing_changed_makes_no_more_alerts_than_chance() {
    let Some(python) = python() else { return };
    let sky = scene(&python, &["--seed", "619", "--null"]);
    let figures = figures(&python, sky.path());
    assert!(figures["false an image, off defects"].as_f64().unwrap() <= 2.0, "{figures:#}");
}
