//! What the manual, the examples and the units say is what the program does: every setting that they name
//! exists, every file that they name is in the package, times and exit codes are those of the unit, and
//! the two units differ in names alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use nightjar::settings::Settings;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Every page and example by name.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["packaging/manual", "packaging/examples", "systemd"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap()).map(|e| e.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The words that follow `[section] ` anywhere in the text.
fn settings_named(text: &str) -> Vec<(String, String)> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut named = Vec::new();
    for (at, _) in text.match_indices('[') {
        let Some((section, rest)) = text[at + 1..].split_once("] ") else { continue };
        let key: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        if section.bytes().all(|b| b.is_ascii_lowercase()) && !key.is_empty() {
            named.push((section.to_owned(), key));
        }
    }
    named
}

#[test]
fn every_setting_that_is_named_exists() {
    let tree = serde_json::to_value(Settings::default()).unwrap();
    let mut count = 0;
    for (file, text) in texts() {
        for (section, key) in settings_named(&text) {
            assert!(tree[&section].get(&key).is_some(), "{file}: there is no [{section}] {key}");
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} were found: the search is broken");
}

#[test]
fn every_file_that_is_named_is_in_the_package() {
    let assets = read("Cargo.toml");
    let examples: Vec<String> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .chain(["mirror-maker-2.properties".to_owned()])
        .collect();
    let mut count = 0;
    for (file, text) in texts() {
        for word in text.split(|c: char| c.is_whitespace() || "`'\",;:()".contains(c)) {
            let Some(path) = word.strip_prefix('/').filter(|path| path.starts_with("usr/")) else { continue };
            let path = path.trim_end_matches('.');
            let name = path.rsplit('/').next().unwrap();
            let known = match path.strip_prefix("usr/share/doc/nightjar/examples/") {
                Some(example) => examples.iter().any(|e| e == example),
                None => assets.contains(path) || (path == "usr/bin/nightjar" && assets.contains("\"usr/bin/\"")),
            };
            assert!(known, "{file}: {path} ({name}) is not in the package");
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} were found: the search is broken");
}

#[test]
fn both_units_differ_in_names_alone() {
    let plain = read("systemd/nightjar.service");
    let instance = read("systemd/nightjar@.service");
    let (heading, instance) = instance.split_at(instance.find("[Unit]").unwrap());
    assert!(heading.lines().all(|line| line.starts_with('#')));
    let renamed = instance
        .replace(" --config /etc/nightjar/%i.toml", "")
        .replace("Directory=nightjar-%i\n", "Directory=nightjar\n")
        .replace("exposures of the detector %i to alerts", "telescope exposures to alerts");
    assert_eq!(renamed, plain);
}

#[test]
fn times_and_exit_codes_are_those_of_the_unit() {
    let (unit, page) = (read("systemd/nightjar.service"), read("packaging/manual/nightjar-admin.md"));
    let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap().to_owned();
    assert!(page.contains(&format!("`WatchdogSec={}`", value("WatchdogSec"))));
    assert_eq!(value("RestartPreventExitStatus"), "78");
    for code in [78, 75, 70] {
        assert!(page.contains(&format!("| {code} |")), "{code}");
    }
    assert_eq!((value("Restart").as_str(), value("RestartSec").as_str()), ("on-failure", "2"));
    assert!(page.contains("started again every two seconds"));
}

/// The fields that the table of nightjar-alerts(7) explains, each as often as it is named there.
fn fields_explained(page: &str) -> Vec<String> {
    let section = page.split("# How the fields are computed").nth(1).unwrap().split("\n# ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| row.split(" |").next().unwrap().split('`').map(str::trim).filter(|name| !name.is_empty()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_field_of_a_candidate_is_explained_once() {
    let schema: serde_json::Value = serde_json::from_str(&read("src/alert/schema/candidate.avsc")).unwrap();
    let names = schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap().to_owned());
    let mut wanted: Vec<String> = names.collect();
    assert_eq!(wanted.len(), 103);
    let page = read("packaging/manual/nightjar-alerts.md");
    let mut explained = fields_explained(&page);
    wanted.sort();
    explained.sort();
    assert_eq!(explained, wanted);
    // Control: a field that is forgotten, and one that is named twice, are found.
    for (from, to) in [("`scorr`", ""), ("`scorr`", "`scorr` `sky`")] {
        let mut other = fields_explained(&page.replace(from, to));
        other.sort();
        assert_ne!(other, wanted);
    }
}
