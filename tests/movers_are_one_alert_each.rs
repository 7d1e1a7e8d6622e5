//! A source that trails during the exposure is one alert with its length; the track of a charged particle, as long and as
//! bright, is none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod candidates;
    pub mod night;
}

use std::path::{Path, PathBuf};

use ndarray::Array2;
use nightjar::fits::{HduOut, Plane, read_image, write_fits};
use support::candidates::{Found, subtract};
use support::night::{nightjar, succeed};

const SIDE: &str = "768";

fn pair(folder: &Path) -> (PathBuf, PathBuf) {
    let out = folder.join("pair");
    let arguments = ["sky", "--pair", "--seed", "47", "--stars", "250", "--width", SIDE, "--height", SIDE, "--out"];
    succeed(nightjar().args(arguments).arg(&out));
    (out.join("science.fits"), out.join("reference.fits"))
}

/// A line of `flux` electrons, `length` pixels long and `fwhm` broad, about the FITS pixel (x, y).
struct Line {
    x: f64,
    y: f64,
    length: f64,
    angle: f64,
    fwhm: f64,
    flux: f64,
}

impl Line {
    fn draw(&self, image: &mut Array2<f32>) {
        // A Moffat profile of exponent 3 (Moffat 1969).
        let alpha2 = (self.fwhm / 1.0196).powi(2);
        let steps = 200;
        for step in 0..steps {
            let along = self.length * ((f64::from(step) + 0.5) / f64::from(steps) - 0.5);
            let (cx, cy) = (self.x - 1.0 + along * self.angle.cos(), self.y - 1.0 + along * self.angle.sin());
            for py in (cy - 8.0) as usize..=(cy + 8.0) as usize {
                for px in (cx - 8.0) as usize..=(cx + 8.0) as usize {
                    let r2 = (px as f64 - cx).powi(2) + (py as f64 - cy).powi(2);
                    let share = 2.0 / (std::f64::consts::PI * alpha2) * (1.0 + r2 / alpha2).powi(-3);
                    image[[py, px]] += (self.flux / f64::from(steps) * share) as f32;
                }
            }
        }
    }

    /// The alerts on it.
    fn alerts<'a>(&self, found: &'a [Found]) -> Vec<&'a Found> {
        let near = |a: &&Found| (a.x - self.x).hypot(a.y - self.y) < self.length / 2.0 + 4.0;
        found.iter().filter(near).collect()
    }
}

/// Draws the lines on the science image and gives the alerts.
fn alerts_with(lines: &[Line]) -> Vec<Found> {
    let folder = tempfile::tempdir().unwrap();
    let (science, reference) = pair(folder.path());
    let image = read_image(&science).unwrap();
    let mut pixels = image.pixels.clone();
    lines.iter().for_each(|line| line.draw(&mut pixels));
    write_fits(&science, &[HduOut { name: "", header: &image.header, plane: Plane::F32(&pixels) }]).unwrap();
    subtract(&science, &reference).unwrap().alerts()
}

/// Places without a source, a change or a defect within 90 px on this sky.
const EMPTY: [(f64, f64); 4] = [(510.0, 430.0), (260.0, 680.0), (100.0, 290.0), (430.0, 660.0)];

#[test]
fn movers_of_10_to_30_pixels_are_one_alert_each_with_their_length() {
    let lengths = [10.0, 16.0, 24.0, 30.0];
    let lines: Vec<Line> = EMPTY
        .iter()
        .zip(lengths)
        .map(|(&(x, y), length)| Line { x, y, length, angle: 0.3 + length / 9.0, fwhm: 2.5, flux: 450.0 * length })
        .collect();
    let alerts = alerts_with(&lines);
    for line in &lines {
        let on_it = line.alerts(&alerts);
        assert_eq!(on_it.len(), 1, "{} px: {on_it:?}", line.length);
        let alert = on_it[0];
        assert!((alert.trail - line.length).abs() < 1.5, "{} px: {alert:?}", line.length);
        assert!((alert.x - line.x).hypot(alert.y - line.y) < 1.0, "{} px: {alert:?}", line.length);
        assert!((alert.flux / line.flux - 1.0).abs() < 0.15, "{} px: {alert:?}", line.length);
    }
}

#[test]
fn tracks_of_particles_as_long_and_as_bright_are_none() {
    let lines: Vec<Line> = EMPTY
        .iter()
        .zip([6.0, 16.0, 24.0, 30.0])
        .map(|(&(x, y), length)| Line { x, y, length, angle: 0.3 + length / 9.0, fwhm: 0.9, flux: 450.0 * length })
        .collect();
    let alerts = alerts_with(&lines);
    for line in &lines {
        assert!(line.alerts(&alerts).is_empty(), "{} px: {:?}", line.length, line.alerts(&alerts));
    }
}
