//! Promise: `rb` tells changes from artefacts on skies that it was not trained on (`packaging/realbogus`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod beside;
    pub mod night;
}

use support::beside::real_data;
use support::night::{nightjar, succeed};

/// Seeds from here on took no part in the training, nor in its figures.
const SEEDS: [u64; 3] = [2001, 2002, 2003];
/// What brokers ask for.
const THRESHOLD: f64 = 0.55;

#[derive(serde::Deserialize)]
struct Truth {
    x: f64,
    y: f64,
    flux: f64,
    snr: f64,
    trail: f64,
}

#[derive(serde::Deserialize)]
struct Candidate {
    x: f64,
    y: f64,
    positive: char,
    rejected: String,
    rb: f64,
}

fn table<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Vec<T> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

/// Scores of what is real and became an alert, and of particles and whatever else is nothing.
fn scores() -> (Vec<f64>, Vec<f64>) {
    let (mut real, mut bogus) = (Vec::new(), Vec::new());
    for seed in SEEDS {
        let folder = tempfile::tempdir().unwrap();
        let (pair, result) = (folder.path().join("pair"), folder.path().join("result"));
        // Sharp and crowded, where particles look most like stars.
        let request = ["--pair", "--width", "768", "--height", "768", "--stars", "1500", "--fwhm", "1.9"];
        let seed = seed.to_string();
        let reference = ["--reference-fwhm", "1.7", "--seed", seed.as_str()];
        succeed(nightjar().arg("sky").args(request).args(reference).arg("--out").arg(&pair));
        let (science, before) = (pair.join("science.fits"), pair.join("reference.fits"));
        succeed(nightjar().arg("difference").args([science, before]).arg("--out").arg(&result));
        let truth: Vec<Truth> = table(&pair.join("truth.csv"));
        for candidate in table::<Candidate>(&result.join("candidates.csv")) {
            let distance = |t: &Truth| (t.x - candidate.x).hypot(t.y - candidate.y) - 0.5 * t.trail;
            let same = |t: &&Truth| (t.flux > 0.0) == (candidate.positive == 't') && t.snr > 3.0;
            let is_real = truth.iter().filter(same).any(|t| distance(t) < 1.5);
            let alone = truth.iter().all(|t| distance(t) > 8.0);
            match candidate.rejected.as_str() {
                "" if is_real => real.push(candidate.rb),
                "" | "cosmic_ray" | "shape" | "dipole" if alone => bogus.push(candidate.rb),
                _ => {}
            }
        }
    }
    (real, bogus)
}

/// How often the first of two has the higher score.
fn area(real: &[f64], bogus: &[f64]) -> f64 {
    let wins: f64 = real
        .iter()
        .flat_map(|r| bogus.iter().map(move |b| if r > b { 1.0 } else { 0.5 * f64::from(u8::from(r == b)) }))
        .sum();
    wins / (real.len() * bogus.len()) as f64
}

#[test]
fn changes_score_high_and_artefacts_low() {
    let (real, bogus) = scores();
    assert!(real.len() > 300 && bogus.len() > 30, "{} {}", real.len(), bogus.len());
    let kept = real.iter().filter(|rb| **rb >= THRESHOLD).count() as f64 / real.len() as f64;
    let left = bogus.iter().filter(|rb| **rb >= THRESHOLD).count() as f64 / bogus.len() as f64;
    let area_of_all = area(&real, &bogus);
    println!(
        "{} real, {} bogus: area {area_of_all:.4}, {kept:.4} kept, {left:.4} of the bogus left",
        real.len(),
        bogus.len()
    );
    assert!(area_of_all > 0.97 && kept > 0.97 && left < 0.15, "{area_of_all} {kept} {left}");
    // Control: scores that were dealt out anew tell nothing.
    let mut all: Vec<f64> = real.iter().chain(&bogus).copied().collect();
    let step = (1..).map(|k| 7919 + 2 * k).find(|step| gcd(*step, all.len()) == 1).unwrap();
    all = (0..all.len()).map(|i| all[i * step % all.len()]).collect();
    let (a, b) = all.split_at(real.len());
    assert!((0.35..0.65).contains(&area(a, b)), "{}", area(a, b));
}

#[test]
fn on_real_frames_a_brightening_scores_high_and_particles_low() {
    let Some(data) = real_data() else { return };
    let candidates = |science: &str, reference: &str| {
        let folder = tempfile::tempdir().unwrap();
        let frames = [science, reference].map(|name| data.join(name));
        succeed(nightjar().arg("difference").args(frames).arg("--out").arg(folder.path()));
        table::<Candidate>(&folder.path().join("candidates.csv"))
    };
    // A nucleus that became brighter (DECam).
    let stack = |n: &str| format!("thomasvrussell+sfft/4check/Stack-DEC-OBS{n}.fits.gz");
    let real = candidates(&stack("04"), &stack("18"));
    let nucleus = real.iter().find(|c| (c.x - 130.0).hypot(c.y - 129.0) < 2.0).unwrap();
    println!("the nucleus: {:.3}", nucleus.rb);
    assert!(nucleus.rb > THRESHOLD, "{}", nucleus.rb);
    // Two frames 74 s apart (Bosque Alegre): what is there are particles and hot pixels.
    let frame = |n: &str| format!("quatrope+ProperImage/aligned_eso085-030-{n}.fit.gz");
    let bogus: Vec<f64> = candidates(&frame("005"), &frame("004"))
        .iter()
        .filter(|c| matches!(c.rejected.as_str(), "" | "cosmic_ray" | "shape" | "dipole"))
        .map(|c| c.rb)
        .collect();
    println!("particles and hot pixels: {bogus:.3?}");
    assert!(bogus.len() >= 5 && bogus.iter().filter(|rb| **rb < THRESHOLD).count() * 5 >= bogus.len() * 4, "{bogus:?}");
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
