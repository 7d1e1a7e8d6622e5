//! A settings file with several faults is answered with every one of them, a line each, and exit 78.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nightjar::settings::Settings;

fn written(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("nightjar.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn nightjar(settings: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightjar"));
    command.args(arguments).arg("--config").arg(settings).env_remove("JOURNAL_STREAM").output().unwrap()
}

fn none() -> [(String, String); 0] {
    []
}

#[test]
fn five_faults_are_five_lines_and_exit_78() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(
        folder.path(),
        "[observatory]\ncode = \"njr\"\n\
         [detect]\nthreshold = \"high\"\n\
         [uplink]\nbrokers = [\"somewhere\"]\ndelivery = \"at-most-once\"\n\
         [spool]\nfoldr = \"/tmp\"\n",
    );
    let output = nightjar(&path, &["run"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    for (line, (key, value, allowed)) in lines.iter().zip([
        ("detect.threshold", "\"high\"", "from 3 to 100"),
        ("observatory.code", "\"njr\"", "three capital letters"),
        ("spool.foldr", "", "[spool] has folder, keep_sent_hours"),
        ("uplink.brokers", "[\"somewhere\"]", "host:port"),
        ("uplink.delivery", "\"at-most-once\"", "\"exactly-once\" or \"idempotent\""),
    ]) {
        assert!(line.contains(key) && line.contains(value) && line.contains(allowed), "{line}");
        assert!(line.contains(path.to_str().unwrap()), "the line names the file: {line}");
    }
}

#[test]
fn what_the_daemon_alone_needs_is_said_by_run_all_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "[observatory]\ncode = \"ZTF\"\n");
    let output = nightjar(&path, &["run"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("camera.folder") && text.contains("observatory.code") && text.contains("uplink.brokers"));
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let absent = nightjar(&folder.path().join("absent.toml"), &["run"]);
    assert_eq!(absent.status.code(), Some(78));
    assert!(String::from_utf8(absent.stderr).unwrap().contains("absent.toml"));
    let broken = nightjar(&written(folder.path(), "[detect\nthreshold = 5\n"), &["run"]);
    assert_eq!(broken.status.code(), Some(78));
    let text = String::from_utf8(broken.stderr).unwrap();
    assert!(text.contains("not valid TOML") && text.lines().count() == 1, "{text}");
}

#[test]
fn the_environment_overrides_any_key_whatever_its_type() {
    let variables = [
        ("NIGHTJAR__UPLINK__BROKERS", "one:9092,two:9092"),
        ("NIGHTJAR__UPLINK__PUBLISH", "false"),
        ("NIGHTJAR__DETECT__THRESHOLD", "6.5"),
        ("NIGHTJAR__OBSERVATORY__NAME", "42"),
        ("NIGHTJAR__FILTERS__V", "11"),
    ];
    let settings = Settings::load_with(None, variables.map(|(k, v)| (k.into(), v.into()))).unwrap();
    assert_eq!(settings.uplink.brokers, ["one:9092", "two:9092"]);
    assert!(!settings.uplink.publish);
    assert_eq!(settings.detect.threshold, 6.5);
    assert_eq!(settings.observatory.name, "42");
    assert_eq!((settings.filters["v"], settings.filters["g"]), (11, 1));
}

#[test]
fn an_environment_variable_that_names_no_setting_is_refused() {
    let error = Settings::load_with(None, [("NIGHTJAR__UPLINK__BROKER".into(), "one:9092".into())]).unwrap_err();
    assert_eq!(error.faults.len(), 1);
    assert_eq!(error.faults[0].origin, "the environment");
}

/// The shipped file with each default switched on.
fn shipped() -> (String, String) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/nightjar.toml")).unwrap();
    let is_key = |line: &str| {
        let name = line.split('=').next().unwrap_or("").trim();
        line.contains(" = ") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.is_empty()
    };
    let switched_on = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if is_key(rest) => rest.to_owned(),
        _ => line.to_owned(),
    });
    (text.clone(), switched_on.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_shipped_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::load_with(Some(&written(folder.path(), &shipped().0)), none()).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn the_shipped_file_shows_every_key_with_its_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), &shipped().1);
    let shown = serde_json::to_value(Settings::load_with(Some(&path), none()).unwrap()).unwrap();
    let defaults = serde_json::to_value(Settings::default()).unwrap();
    for (section, keys) in defaults.as_object().unwrap() {
        for (key, default) in keys.as_object().unwrap() {
            let shown = &shown[section][key];
            assert!(!shown.is_null(), "[{section}] {key} is not in the file");
            assert!(default.is_null() || default == shown, "[{section}] {key}: the file shows {shown}, not {default}");
            let line = format!("#{key} = ");
            assert!(shipped().0.lines().any(|l| l.starts_with(&line)), "no line '{line}'");
        }
    }
}
