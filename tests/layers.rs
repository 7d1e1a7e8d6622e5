//! Which module may use which, held by reading the sources: every path that leaves a module
//! (`crate::other::…`, `super::super::other::…`) is looked up in one table. Code under `#[cfg(test)]` is free.

mod support {
    pub mod sources;
}

use std::collections::BTreeSet;

use support::sources::{Source, all_sources, strip};

/// What everything else stands on, from the bottom up.
const BASE: [&str; 7] = ["units", "time", "image", "exposure", "fits", "wcs", "psf"];

/// Along the flow a stage names its predecessor's type, and nothing of the stages after it.
/// Beside what is listed, each may use itself and, where `base` is true, all of [`BASE`].
struct Layer {
    module: &'static str,
    base: bool,
    uses: &'static [&'static str],
}

const fn layer(module: &'static str, base: bool, uses: &'static [&'static str]) -> Layer {
    Layer { module, base, uses }
}

const LAYERS: [Layer; 26] = [
    layer("units", false, &[]),
    layer("time", false, &["units"]),
    layer("image", false, &["units"]),
    layer("exposure", false, &["units", "time"]),
    layer("fits", false, &["units", "time", "image", "exposure"]),
    layer("wcs", false, &["units", "time", "image", "exposure", "fits"]),
    layer("psf", false, &["units", "time", "image", "exposure"]),
    layer("camera", true, &[]),
    layer("calibrate", true, &["camera"]),
    layer("register", true, &["calibrate"]),
    layer("subtract", true, &["register", "calibrate"]),
    layer("detect", true, &["subtract", "register", "calibrate"]),
    layer("history", true, &["detect"]),
    layer("catalogue", true, &[]),
    layer("asteroids", false, &["units", "time"]),
    layer("alert", true, &["detect", "history", "catalogue", "asteroids"]),
    layer("spool", false, &["units", "time", "exposure"]),
    // Its thread times transactions and pauses by service::clock, the one source of time.
    layer("uplink", false, &["units", "time", "exposure", "spool", "service"]),
    // Downstream of Kafka: it keeps what was sent, and makes the history again of it.
    layer("archive", false, &["units", "time", "exposure", "history", "alert", "service"]),
    // It keeps numbers in the spool's folder, and pauses by service::clock.
    layer("registry", false, &["spool", "service"]),
    layer("settings", true, &[]),
    layer("service", true, &["settings"]),
    // The synthetic sky judges the pipeline, so it shares none of its PSF, WCS and stages.
    layer("sky", false, &["units", "time", "image", "exposure", "fits"]),
    layer(
        "night",
        true,
        &[
            "camera",
            "calibrate",
            "register",
            "subtract",
            "detect",
            "history",
            "catalogue",
            "asteroids",
            "registry",
            "alert",
            "spool",
            "uplink",
            "service",
            "settings",
        ],
    ),
    layer(
        "commands",
        true,
        &[
            "night",
            "camera",
            "calibrate",
            "register",
            "subtract",
            "detect",
            "history",
            "catalogue",
            "asteroids",
            "registry",
            "alert",
            "spool",
            "uplink",
            "archive",
            "service",
            "settings",
            "sky",
        ],
    ),
    layer("main", false, &["commands", "settings", "service"]),
];

/// The one place for what the table does not allow, each with its reason.
const ALLOWED_ALL_THE_SAME: [(&str, &str, &str); 0] = [];

/// Modules that turn values into values: no file, no clock, no task, no settings.
const PURE: [&str; 11] =
    ["units", "time", "image", "exposure", "wcs", "psf", "calibrate", "register", "subtract", "detect", "alert"];

/// The same of files in modules that are not pure as a whole: protocol machines and what they stand on.
const PURE_PLACES: [&str; 5] =
    ["camera/link/", "camera/sg4/", "camera/readout.rs", "camera/pointing.rs", "camera/fields.rs"];

/// Words that pure code has no use for.
const IMPURE: [&str; 17] = [
    "async fn",
    "async move",
    ".await",
    "tokio::",
    "std::fs",
    "File::open",
    "File::create",
    "fs::",
    "std::net",
    "std::env",
    "SystemTime",
    "Instant",
    "thread::sleep",
    "read_image",
    "read_planes",
    "write_fits",
    "rusqlite",
];

/// Files of pure modules that are there to read or write files, with what they keep on disk.
const FILES_OF_PURE_MODULES: [(&str, &str); 2] = [
    ("register/library.rs", "headers and pixels of references"),
    ("calibrate/masters/masters_file.rs", "master frames"),
];

fn faults_of_layers(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(layer) = LAYERS.iter().find(|layer| layer.module == module) else {
        return vec![format!("{}: the module {module} has no row in the table of tests/layers.rs", source.name)];
    };
    let exception = |used: &str| ALLOWED_ALL_THE_SAME.iter().any(|(file, to, _)| *file == source.name && *to == used);
    source
        .modules_used()
        .into_iter()
        .filter(|used| used != module && !layer.uses.contains(&used.as_str()))
        .filter(|used| !(layer.base && BASE.contains(&used.as_str())))
        .filter(|used| !exception(used))
        .map(|used| format!("{}: {module} may not use {used}", source.name))
        .collect()
}

fn faults_of_purity(source: &Source) -> Vec<String> {
    let pure = PURE.contains(&source.module()) || PURE_PLACES.iter().any(|place| source.name.starts_with(place));
    if !pure || FILES_OF_PURE_MODULES.iter().any(|(file, _)| *file == source.name) {
        return Vec::new();
    }
    let found: BTreeSet<_> = IMPURE.iter().filter(|word| source.has_word(word)).collect();
    found.into_iter().map(|word| format!("{}: pure code has no use for `{word}`", source.name)).collect()
}

#[test]
fn every_module_uses_only_what_stands_below_it() {
    let faults: Vec<_> = all_sources().iter().flat_map(faults_of_layers).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn science_and_alerts_read_no_file_and_no_clock() {
    let faults: Vec<_> = all_sources().iter().flat_map(faults_of_purity).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_file_holds_one_thing() {
    let long: Vec<_> = all_sources()
        .iter()
        .filter(|source| source.lines > 450)
        .map(|source| format!("{}: {} lines; split it along the seams of its subject", source.name, source.lines))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn the_table_names_what_exists_and_every_exception_is_still_needed() {
    let sources = all_sources();
    for layer in &LAYERS {
        assert!(sources.iter().any(|s| s.module() == layer.module), "{} is in the table and not in src", layer.module);
    }
    for (file, to, _) in ALLOWED_ALL_THE_SAME {
        assert!(sources.iter().any(|s| s.name == file && s.modules_used().contains(to)), "{file} no longer uses {to}");
    }
    for (file, _) in FILES_OF_PURE_MODULES {
        let source = sources.iter().find(|s| s.name == file).unwrap_or_else(|| panic!("{file} is gone"));
        assert!(IMPURE.iter().any(|word| source.has_word(word)), "{file} no longer reads or writes");
    }
}

#[test]
fn control_a_forbidden_path_is_found_however_it_is_written() {
    for text in [
        "use crate::psf::Psf;",
        "use crate::{image::Image, psf};",
        "use crate::{\n    image::{Image, Mask},\n    psf::{self, Psf},\n};",
        "fn f() { let _ = crate::psf::Psf::default(); }",
        "use super::super::psf::Psf;",
        "mod inner { use super::super::super::psf::Psf; }",
    ] {
        let source = Source::new("sky/stars.rs", text);
        assert_eq!(faults_of_layers(&source), ["sky/stars.rs: sky may not use psf"], "{text}");
    }
    for text in [
        "use crate::image::Image; // not crate::psf",
        "/* crate::psf */ use super::galaxies::Galaxy;",
        "const HELP: &str = \"crate::psf\";",
        "#[cfg(test)]\nmod tests {\n    use crate::psf::Psf;\n}",
    ] {
        assert_eq!(faults_of_layers(&Source::new("sky/stars.rs", text)), [""; 0], "{text}");
    }
}

#[test]
fn control_reading_a_file_in_the_science_is_found() {
    let source = Source::new("detect/measure.rs", "fn f() { let _ = std::fs::read(\"x\"); }");
    assert!(!faults_of_purity(&source).is_empty());
    assert!(!faults_of_purity(&Source::new("camera/link/host.rs", "use tokio::time;")).is_empty());
    assert!(faults_of_purity(&Source::new("spool/segment.rs", "use std::fs::File;")).is_empty());
    assert!(faults_of_purity(&Source::new("detect/measure.rs", "// std::fs is for others\nfn f() {}")).is_empty());
}

#[test]
fn control_comments_strings_and_lifetimes_are_told_apart() {
    assert_eq!(strip("a // b\nc").trim(), "a \nc");
    assert_eq!(strip("a /* b /* c */ d */ e"), "a   e");
    assert_eq!(strip(r##"f(r#"x " y"#, 'q', "z\"", &'a str)"##), "f(\"\", ' ', \"\", &'a str)");
}
