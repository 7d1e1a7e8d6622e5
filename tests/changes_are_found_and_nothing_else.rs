//! On synthetic pairs with a truth table the subtraction finds what changed, with the right sign, and little
//! else; degenerate input ends in a reason.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod candidates;
    pub mod night;
}

use std::path::{Path, PathBuf};

use support::candidates::{Found, subtract};
use support::night::{nightjar, succeed};

const SIDE: &str = "768";

fn pair(folder: &Path, more: &[&str]) -> (PathBuf, PathBuf) {
    let out = folder.join("pair");
    succeed(
        nightjar()
            .args(["sky", "--pair", "--seed", "21", "--width", SIDE, "--height", SIDE, "--out"])
            .arg(&out)
            .args(more),
    );
    (out.join("science.fits"), out.join("reference.fits"))
}

#[derive(serde::Deserialize)]
struct Truth {
    x: f64,
    y: f64,
    flux: f64,
    snr: f64,
    trail: f64,
    defect: Option<String>,
}

fn truth(science: &Path) -> Vec<Truth> {
    let table = science.with_file_name("truth.csv");
    csv::Reader::from_path(table).unwrap().deserialize().map(Result::unwrap).collect()
}

fn nearest<'a>(alerts: &'a [Found], truth: &Truth) -> Option<&'a Found> {
    alerts.iter().find(|a| (a.x - truth.x).hypot(a.y - truth.y) < 1.5)
}

#[test]
fn bright_changes_are_found_with_their_sign_and_few_others() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), &[]);
    let alerts = subtract(&science, &reference).unwrap().alerts();
    let truth = truth(&science);
    let bright: Vec<&Truth> = truth.iter().filter(|t| t.snr >= 10.0 && t.defect.is_none() && t.trail == 0.0).collect();
    let found: Vec<(&Truth, &Found)> = bright.iter().filter_map(|t| nearest(&alerts, t).map(|a| (*t, a))).collect();
    assert!(
        bright.len() >= 20 && found.len() as f64 >= 0.9 * bright.len() as f64,
        "{} of {}",
        found.len(),
        bright.len()
    );
    assert!(found.iter().all(|(t, a)| (t.flux > 0.0) == a.positive && t.flux * a.flux > 0.0));
    let false_alerts: Vec<&Found> =
        alerts.iter().filter(|a| !truth.iter().any(|t| (a.x - t.x).hypot(a.y - t.y) < 3.0 + t.trail / 2.0)).collect();
    assert!(false_alerts.len() <= 3, "{false_alerts:?}");
}

#[test]
fn images_that_change_places_show_the_same_changes_with_the_other_sign() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), &[]);
    let forward = subtract(&science, &reference).unwrap().alerts();
    let backward = subtract(&reference, &science).unwrap().alerts();
    let bright: Vec<&Found> = forward.iter().filter(|a| a.snr > 12.0).collect();
    let map = |a: &Found| {
        // Both images have a WCS: the same sky position in the other.
        let wcs = |path: &Path| nightjar::wcs::Wcs::from_header(&nightjar::fits::read_header(path).unwrap()).unwrap();
        let (ra, dec) = wcs(&science).pixel_to_sky(a.x - 1.0, a.y - 1.0);
        let (x, y) = wcs(&reference).sky_to_pixel(ra, dec).unwrap();
        (x + 1.0, y + 1.0)
    };
    let twins = bright
        .iter()
        .filter(|a| {
            let (x, y) = map(a);
            backward.iter().any(|b| (b.x - x).hypot(b.y - y) < 2.0 && b.positive != a.positive)
        })
        .count();
    assert!(bright.len() >= 15 && twins as f64 >= 0.9 * bright.len() as f64, "{twins} of {}", bright.len());
}

#[test]
fn a_reference_turned_by_half_a_circle_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), &["--reference-angle", "180"]);
    let alerts = subtract(&science, &reference).unwrap().alerts();
    let truth = truth(&science);
    let bright: Vec<&Truth> = truth.iter().filter(|t| t.snr >= 10.0 && t.defect.is_none() && t.trail == 0.0).collect();
    let found = bright.iter().filter(|t| nearest(&alerts, t).is_some()).count();
    assert!(found as f64 >= 0.85 * bright.len() as f64, "{found} of {}", bright.len());
}
