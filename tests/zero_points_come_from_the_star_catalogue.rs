//! With a star catalogue installed a night's zero points and their colour term are the catalogue's; with a damaged one,
//! with orbits of rubbish and with a network of wrong shapes, there is one line each, and the night makes the same alerts
//! without them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod beside;
    pub mod night;
}

use std::path::{Path, PathBuf};

use nightjar::alert::read_packets;
use support::beside::real_data;
use support::night::{both, nightjar, small_night, succeed};

/// The colour term that the catalogue is written with.
const COLOUR_TERM: f64 = 0.12;

#[derive(serde::Deserialize)]
struct TrueStar {
    ra: f64,
    dec: f64,
    flux: f64,
    mag: f64,
}

/// Files with this ending below a folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry, ending)),
            false if entry.to_string_lossy().ends_with(ending) => found.push(entry),
            false => {}
        }
    }
    found.sort();
    found
}

/// `candidate` of every alert of a run.
fn candidates(run: &Path) -> Vec<serde_json::Value> {
    let packet = |path: &PathBuf| read_packets(&std::fs::read(path).unwrap()).unwrap().remove(0).json;
    files(&run.join("alerts"), ".avro").iter().map(|path| packet(path)["candidate"].clone()).collect()
}

#[test]
fn zero_point_and_colour_term_are_the_catalogues_and_a_damaged_one_costs_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let night = small_night(folder.path(), 1);
    let stars: Vec<TrueStar> =
        csv::Reader::from_path(night.join("stars.csv")).unwrap().deserialize().map(Result::unwrap).collect();
    // Each star's colour follows from its number; the r magnitude deviates with it, and everything by half a magnitude.
    let mut table = String::from("ra,dec,g,r,Gaia\n");
    for (i, star) in stars.iter().enumerate() {
        let colour = 0.2 + (i * 37 % 100) as f64 / 80.0;
        let r = star.mag + 0.5 + COLOUR_TERM * colour;
        table += &format!("{},{},{:.4},{r:.4},{:.4}\n", star.ra, star.dec, r + colour, r + 0.1);
    }
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("stars.csv"), table).unwrap();
    succeed(nightjar().args(["catalogue", "build"]).arg(path("stars.csv")).arg("-o").arg(path("stars")));
    let rehearse = |catalogue: &Path, orbits: Option<&Path>, network: Option<&Path>, out: &str| {
        let mut command = nightjar();
        command.env("NIGHTJAR__CATALOGUES__STARS", catalogue);
        for (name, path) in [("CATALOGUES__ORBITS", orbits), ("ALERTS__REAL_BOGUS_MODEL", network)] {
            if let Some(path) = path {
                command.env(format!("NIGHTJAR__{name}"), path);
            }
        }
        both(&succeed(command.arg("simulate").arg(&night).arg("--out").arg(path(out))))
    };
    rehearse(&path("stars"), None, None, "run");
    let told = candidates(&path("run"));
    assert!(told.len() >= 3, "{}", told.len());
    let number = |key: &str| told[0][key].as_f64().unwrap();
    // What an electron is worth, from the truth.
    let mut truth: Vec<f64> =
        stars.iter().filter(|s| s.flux > 0.0).map(|s| s.mag + 0.5 + 2.5 * s.flux.log10()).collect();
    truth.sort_by(f64::total_cmp);
    let truth = truth[truth.len() / 2];
    println!(
        "zero point {:.4} +- {:.4}, true {truth:.4}; colour term {:.4} +- {:.4}, true {COLOUR_TERM}; rms {:.4}, {} stars",
        number("magzpsci"),
        number("magzpsciunc"),
        number("clrcoeff"),
        number("clrcounc"),
        number("magzpscirms"),
        number("nmatches")
    );
    assert!((number("magzpsci") - truth).abs() < 0.02, "{} is not {truth}", number("magzpsci"));
    assert!((number("clrcoeff") - COLOUR_TERM).abs() < 0.02, "{}", number("clrcoeff"));
    assert!(number("nmatches") >= 12.0 && number("magzpscirms") < 0.05 && number("clrcounc") < 0.02);
    assert!((number("zpmed") - number("magzpsci") - COLOUR_TERM * number("clrmed")).abs() < 0.03);
    assert!(told.iter().any(|c| c["neargaia"].as_f64().unwrap() > 0.0));

    let bytes = std::fs::read(path("stars")).unwrap();
    std::fs::write(path("half"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(path("orbits"), "rubbish\nmore rubbish\n").unwrap();
    // Weights of braai with an architecture that they are not of; without real data, weights that are none.
    let braai = real_data().map(|data| data.join("dmitryduev+braai"));
    let file = |end: &str| braai.as_ref().map(|folder| std::fs::read(folder.join(format!("d6_m7.{end}"))).unwrap());
    let architecture = String::from_utf8(file("architecture.json").unwrap_or_default()).unwrap();
    let wrong = architecture.replace("\"kernel_size\": [3, 3]", "\"kernel_size\": [5, 5]");
    std::fs::write(path("d6_m7.architecture.json"), wrong).unwrap();
    std::fs::write(path("d6_m7.weights.h5"), file("weights.h5").unwrap_or_default()).unwrap();
    let said = rehearse(&path("half"), Some(&path("orbits")), Some(&path("d6_m7.weights.h5")), "without");
    let of_network: Vec<&str> = said.lines().filter(|line| line.contains("the real-bogus model")).collect();
    assert!(of_network.len() == 1 && of_network[0].contains("is not used"), "{said}");
    assert!(braai.is_none() || of_network[0].contains("of another shape"), "{said}");
    assert_eq!(said.matches("the star catalogue is not used").count(), 1, "{said}");
    assert_eq!(said.matches("the orbits are not used").count(), 1, "{said}");
    let without = candidates(&path("without"));
    assert_eq!(without.len(), told.len());
    assert_eq!(without[0]["clrcoeff"], -999.0);
    assert_eq!(without[0]["nmtchps"], 0);
    assert!(without.iter().all(|c| c["drb"] == -999.0 && c["drbversion"] == "none"));
    // The catalogue is half a magnitude away from the reference's zero point.
    assert!((without[0]["magzpsci"].as_f64().unwrap() - number("magzpsci")).abs() > 0.3);
}
