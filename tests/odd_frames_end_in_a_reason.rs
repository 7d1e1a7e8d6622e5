//! A frame that is not fit for a difference ends in a result without a flood, or in a sentence that says why not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod candidates;
    pub mod night;
}

use std::path::{Path, PathBuf};

use ndarray::Array2;
use nightjar::fits::{HduOut, Plane, read_image, write_fits};
use support::candidates::subtract;
use support::night::{nightjar, succeed};

const SIDE: usize = 768;
/// Alerts of the untouched pair: what changed in it. A frame that adds more than its half again is a flood.
const MOST_ADDED: f64 = 1.5;

fn pair(folder: &Path, name: &str, more: &[&str]) -> (PathBuf, PathBuf) {
    let out = folder.join(name);
    let side = SIDE.to_string();
    succeed(
        nightjar()
            .args(["sky", "--pair", "--width", &side, "--height", &side, "--out"])
            .arg(&out)
            .args(if more.contains(&"--seed") { &[][..] } else { &["--seed", "31"] })
            .args(more),
    );
    (out.join("science.fits"), out.join("reference.fits"))
}

/// Writes a changed copy of the science image.
fn changed(science: &Path, name: &str, change: impl Fn(&Array2<f32>) -> Array2<f32>) -> PathBuf {
    let image = read_image(science).unwrap();
    let pixels = change(&image.pixels);
    let path = science.with_file_name(name);
    write_fits(&path, &[HduOut { name: "", header: &image.header, plane: Plane::F32(&pixels) }]).unwrap();
    path
}

/// Each pixel from its place and value.
fn each(change: fn(usize, usize, f32) -> f32) -> impl Fn(&Array2<f32>) -> Array2<f32> {
    move |pixels| Array2::from_shape_fn(pixels.dim(), |(y, x)| change(y, x, pixels[[y, x]]))
}

/// The mean of the pixels to the right, as a telescope that does not track leaves them.
fn trailed(pixels: &Array2<f32>) -> Array2<f32> {
    const LENGTH: usize = 25;
    let width = pixels.ncols();
    Array2::from_shape_fn(pixels.dim(), |(y, x)| {
        (0..LENGTH).map(|k| pixels[[y, (x + k).min(width - 1)]]).sum::<f32>() / LENGTH as f32
    })
}

/// Alerts, or the sentence that stands in their place.
fn outcome(science: &Path, reference: &Path) -> Result<usize, String> {
    subtract(science, reference).map(|table| table.alerts().len())
}

#[test]
fn spoiled_frames_make_no_flood() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), "pair", &[]);
    let usual = outcome(&science, &reference).unwrap();
    assert!(usual > 20, "{usual} alerts of the untouched pair");
    let frames = [
        ("half.fits", changed(&science, "half.fits", each(|y, _, v| if y < SIDE / 2 { f32::NAN } else { v }))),
        (
            "holes.fits",
            changed(&science, "holes.fits", each(|y, x, v| if (x / 90 + y / 90) % 5 == 0 { 0.0 } else { v })),
        ),
        ("moonlit.fits", changed(&science, "moonlit.fits", each(|y, x, v| v + 0.5 * (x + y) as f32))),
        ("trailed.fits", changed(&science, "trailed.fits", trailed)),
    ];
    for (name, path) in frames {
        match outcome(&path, &reference) {
            Ok(alerts) => {
                assert!(alerts as f64 <= MOST_ADDED * usual as f64, "{name}: {alerts} alerts, usually {usual}")
            }
            Err(sentence) => assert!(sentence.contains(name), "{name}: {sentence}"),
        }
    }
}

#[test]
fn frames_without_stars_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), "pair", &[]);
    let frames = [
        ("blank.fits", changed(&science, "blank.fits", each(|_, _, _| 700.0)), "blank"),
        ("saturated.fits", changed(&science, "saturated.fits", each(|_, _, _| 400_000.0)), "blank"),
        ("nan.fits", changed(&science, "nan.fits", each(|_, _, _| f32::NAN)), "no usable sky"),
        (
            "noise.fits",
            changed(&science, "noise.fits", each(|y, x, _| 700.0 + ((x * 7919 + y * 104_729) % 97) as f32)),
            "stars",
        ),
    ];
    for (name, path, reason) in frames {
        let sentence = outcome(&path, &reference).unwrap_err();
        assert!(sentence.contains(name) && sentence.contains(reason), "{name}: {sentence}");
    }
}

#[test]
fn clouds_and_another_filter_are_refused_because_the_stars_have_other_brightnesses() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), "pair", &["--stars", "900"]);
    // A bank of clouds over a part of the field.
    let cloudy = changed(
        &science,
        "cloudy.fits",
        each(|y, x, v| {
            let cloud = (x as f32 / 90.0).sin() * (y as f32 / 70.0).cos() > 0.0;
            if cloud { 1100.0 + 0.2 * (v - 1100.0) } else { v }
        }),
    );
    let sentence = outcome(&cloudy, &reference).unwrap_err();
    assert!(sentence.contains("keep their brightness") && sentence.contains("clouds"), "{sentence}");
}

#[test]
fn another_field_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (science, _) = pair(folder.path(), "pair", &[]);
    let (_, other) = pair(folder.path(), "other", &["--seed", "32"]);
    let sentence = outcome(&science, &other).unwrap_err();
    assert!(sentence.contains("same field") || sentence.contains("in common"), "{sentence}");
}

#[test]
fn five_stars_end_in_a_result_or_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), "few", &["--stars", "5"]);
    match outcome(&science, &reference) {
        Ok(alerts) => assert!(alerts < 100, "{alerts} alerts"),
        Err(sentence) => assert!(sentence.contains("science.fits"), "{sentence}"),
    }
}

#[test]
fn a_lost_focus_makes_no_flood() {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path(), "soft", &["--fwhm", "12"]);
    match outcome(&science, &reference) {
        Ok(alerts) => assert!(alerts < 60, "{alerts} alerts"),
        Err(sentence) => assert!(sentence.contains("science.fits"), "{sentence}"),
    }
}
