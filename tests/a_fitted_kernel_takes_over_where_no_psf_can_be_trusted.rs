//! The kernel that is fitted to the images: as good as the proper subtraction on the same sky, in either direction,
//! with white noise; and the rule by which it takes over.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod candidates;
    pub mod drawn_field;
    pub mod night;
}

use std::path::{Path, PathBuf};

use nightjar::fits::{read_header, read_image};
use support::candidates::{Found, Table, subtract_into};
use support::drawn_field::{Star, draw, write};
use support::night::{both, nightjar, succeed};

const SIDE: usize = 768;

fn pair(folder: &Path, name: &str, more: &[&str]) -> (PathBuf, PathBuf) {
    let out = folder.join(name);
    let side = SIDE.to_string();
    succeed(
        nightjar()
            .args(["sky", "--pair", "--seed", "23", "--width", &side, "--height", &side, "--out"])
            .arg(&out)
            .args(more),
    );
    (out.join("science.fits"), out.join("reference.fits"))
}

/// Science image sharper than the reference, and broader.
const DIRECTIONS: [(&str, [&str; 4]); 2] = [
    ("broader", ["--fwhm", "2.7", "--reference-fwhm", "2.1"]),
    ("sharper", ["--fwhm", "2.1", "--reference-fwhm", "2.8"]),
];

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

fn forced(science: &Path, reference: &Path, out: &Path) -> Table {
    let table = subtract_into(science, reference, out, &["--method", "kernel-fit"]).unwrap().0;
    assert_eq!(method(out), "kernel-fit");
    table
}

/// What the header of the difference image says of how it was made.
fn method(out: &Path) -> String {
    read_header(&out.join("difference.fits")).unwrap().text(&["DIFFMETH"]).unwrap().trim().to_owned()
}

#[test]
fn forced_it_finds_bright_changes_with_their_sign_and_flux_whichever_image_is_sharper() {
    let folder = tempfile::tempdir().unwrap();
    for (name, widths) in DIRECTIONS {
        let (science, reference) = pair(folder.path(), name, &widths);
        let alerts = forced(&science, &reference, &folder.path().join("out")).alerts();
        let truth = truth(&science);
        let bright: Vec<&Truth> =
            truth.iter().filter(|t| t.snr >= 10.0 && t.defect.is_none() && t.trail == 0.0).collect();
        let found: Vec<(&Truth, &Found)> = bright
            .iter()
            .filter_map(|t| alerts.iter().find(|a| (a.x - t.x).hypot(a.y - t.y) < 1.5).map(|a| (*t, a)))
            .collect();
        let count = (found.len(), bright.len());
        assert!(count.1 >= 20 && count.0 as f64 >= 0.9 * count.1 as f64, "{name}: {count:?}");
        assert!(found.iter().all(|(t, a)| (t.flux > 0.0) == a.positive && t.flux * a.flux > 0.0), "{name}");
        let mut ratios: Vec<f64> = found.iter().filter(|(t, _)| t.snr >= 20.0).map(|(t, a)| a.flux / t.flux).collect();
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        assert!((median - 1.0).abs() < 0.02, "{name}: fluxes {median} of the truth ({} sources)", ratios.len());
        let is_false = |a: &&Found| !truth.iter().any(|t| (a.x - t.x).hypot(a.y - t.y) < 3.0 + t.trail / 2.0);
        let false_alerts: Vec<&Found> = alerts.iter().filter(is_false).collect();
        assert!(false_alerts.len() <= 3, "{name}: {false_alerts:?}");
    }
}

#[derive(serde::Deserialize)]
struct Place {
    x: f64,
    y: f64,
    flux: f64,
}

/// Pixels far from every star.
fn empty_sky(science: &Path) -> Vec<Vec<bool>> {
    let stars: Vec<Place> = csv::Reader::from_path(science.with_file_name("stars.csv"))
        .unwrap()
        .deserialize()
        .map(Result::unwrap)
        .collect();
    let mut empty = vec![vec![true; SIDE]; SIDE];
    for star in stars {
        let reach = 6.0 + 6.0 * (star.flux / 2000.0).max(1.0).log10();
        for (y, row) in empty.iter_mut().enumerate() {
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel &= (x as f64 + 1.0 - star.x).hypot(y as f64 + 1.0 - star.y) > reach;
            }
        }
    }
    empty
}

#[test]
fn its_difference_has_white_noise_and_its_score_unit_scale_on_empty_sky() {
    let folder = tempfile::tempdir().unwrap();
    for (name, widths) in DIRECTIONS {
        let (science, reference) = pair(folder.path(), name, &widths);
        let out = folder.path().join("out");
        forced(&science, &reference, &out);
        let empty = empty_sky(&science);
        let difference = read_image(&out.join("difference.fits")).unwrap().pixels;
        let score = read_image(&out.join("score.fits")).unwrap().pixels;
        let inside = |x: usize, y: usize| (20..SIDE - 20).contains(&x) && (20..SIDE - 20).contains(&y) && empty[y][x];
        // What remains of changes and cosmic rays is cut off at four standard deviations.
        let sigma = f64::from(spread(&difference, inside));
        let value = |x: usize, y: usize| {
            let value = f64::from(difference[[y, x]]);
            (inside(x, y) && value.abs() < 4.0 * sigma).then_some(value)
        };
        for (dx, dy) in [(1, 0), (0, 1), (1, 1), (2, 0), (0, 2)] {
            let (mut products, mut squares, mut pairs) = (0.0, 0.0, 0);
            for y in 20..SIDE - 24 {
                for x in 20..SIDE - 24 {
                    if let Some((a, b)) = value(x, y).zip(value(x + dx, y + dy)) {
                        products += a * b;
                        squares += 0.5 * (a * a + b * b);
                        pairs += 1;
                    }
                }
            }
            let correlation = products / squares;
            // The resampling correlates the reference's noise, which is all there is at the highest frequencies where
            // the science image is the one that is convolved.
            let most = if name == "sharper" { 0.15 } else { 0.05 };
            assert!(pairs > 50_000 && correlation.abs() < most, "{name} ({dx}, {dy}): {correlation} of {pairs}");
        }
        let scale = spread(&score, inside);
        assert!((scale - 1.0).abs() < 0.05, "{name}: scale of the score {scale}");
    }
}

/// Half the distance between the 16th and the 84th percentile.
fn spread(image: &ndarray::Array2<f32>, inside: impl Fn(usize, usize) -> bool) -> f32 {
    let mut values: Vec<f32> = image.indexed_iter().filter(|((y, x), _)| inside(*x, *y)).map(|(_, v)| *v).collect();
    values.sort_by(f32::total_cmp);
    let at = |q: f32| values[(q * values.len() as f32) as usize];
    0.5 * (at(0.8413) - at(0.1587))
}

/// A round Gaussian of unit flux.
fn gaussian(sigma: f64) -> impl Fn(f64, f64) -> f64 {
    move |u, v| (-0.5 * (u * u + v * v) / (sigma * sigma)).exp() / (2.0 * std::f64::consts::PI * sigma * sigma)
}

#[test]
fn the_same_sky_with_fresh_noise_shows_no_more_than_chance() {
    let folder = tempfile::tempdir().unwrap();
    let stars = Star::many(7, 160, 640);
    let images = [(1.25, 0.0, 1), (1.0, 0.37, 2)].map(|(sigma, shift, seed)| {
        let path = folder.path().join(format!("{seed}.fits"));
        write(&path, &draw(&stars, 640, shift, &gaussian(sigma), seed));
        path
    });
    for (science, reference) in [(&images[0], &images[1]), (&images[1], &images[0])] {
        let table = forced(science, reference, &folder.path().join("out"));
        // Pure noise makes about 0.2 peaks at 5 sigma on this area.
        assert!(table.alerts().len() <= 2, "{:?}", table.alerts());
    }
}

#[test]
fn stars_that_no_model_fits_call_for_it_and_make_no_flood() {
    let folder = tempfile::tempdir().unwrap();
    let stars = Star::many(11, 160, 640);
    // The telescope jumped during the exposure: every star is a pair of unequal ones.
    let (sharp, narrow) = (gaussian(1.2), gaussian(1.0));
    let jumped = |u: f64, v: f64| 0.62 * sharp(u + 1.9, v + 1.0) + 0.38 * sharp(u - 3.1, v - 1.6);
    let (science, reference) = (folder.path().join("science.fits"), folder.path().join("reference.fits"));
    write(&science, &draw(&stars, 640, 0.2, &jumped, 3));
    write(&reference, &draw(&stars, 640, 0.0, &narrow, 4));
    let out = folder.path().join("out");
    let (table, said) = subtract_into(&science, &reference, &out, &[]).unwrap();
    assert_eq!(method(&out), "kernel-fit", "{said}");
    assert!(said.contains("a fitted kernel took over"), "{said}");
    assert!(table.alerts().len() <= 3, "{:?}", table.alerts());
}

#[test]
fn a_handful_of_stars_call_for_it_and_a_rich_field_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let few = [folder.path().join("few-1.fits"), folder.path().join("few-2.fits")];
    let stars = Star::many(5, 4, 512);
    write(&few[0], &draw(&stars, 512, 0.3, &gaussian(1.3), 5));
    write(&few[1], &draw(&stars, 512, 0.0, &gaussian(1.0), 6));
    let (table, said) = subtract_into(&few[0], &few[1], &out, &[]).unwrap();
    assert_eq!(method(&out), "kernel-fit", "{said}");
    assert!(said.contains("stars for a point-spread function"), "{said}");
    assert!(table.alerts().len() <= 2, "{:?}", table.alerts());

    let (science, reference) = pair(folder.path(), "rich", &[]);
    let (_, said) = subtract_into(&science, &reference, &out, &[]).unwrap();
    assert_eq!(method(&out), "zogy", "{said}");
    assert!(!said.contains("took over"), "{said}");
}

#[test]
fn the_setting_forces_it_and_the_option_overrules_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), "rich", &[]);
    let settings = folder.path().join("nightjar.toml");
    std::fs::write(&settings, "[subtract]\nmethod = \"kernel-fit\"\n").unwrap();
    let settings = settings.to_str().unwrap();
    let out = folder.path().join("out");
    subtract_into(&science, &reference, &out, &["--config", settings]).unwrap();
    assert_eq!(method(&out), "kernel-fit");
    subtract_into(&science, &reference, &out, &["--config", settings, "--method", "zogy"]).unwrap();
    assert_eq!(method(&out), "zogy");
    let refused = nightjar().arg("difference").arg(&science).arg(&reference).args(["--method", "hotpants"]).output();
    let refused = refused.unwrap();
    assert!(!refused.status.success() && both(&refused).contains("auto, zogy or kernel-fit"), "{}", both(&refused));
}
