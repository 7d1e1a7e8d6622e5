//! Calibrated images in electrons with the sky left in: photons, read noise, headers.

use ndarray::Array2;
use ndarray::parallel::prelude::*;
use rand::Rng;

use super::catalogue::ZERO_POINT;
use super::defects::{Defect, DefectKind, bleed};
use super::random::{Purpose, normal, poisson, stream, uniform};
use super::request::{FILTER, FULL_WELL, READ_NOISE, REFERENCE_FRAME, Request, SKY};
use super::view::{Scene, View};
use crate::fits::Header;
use crate::time::Mjd;

/// Sky of an image: electrons a pixel in the middle and its relative slopes and bowl.
#[derive(Debug, Clone, Copy)]
pub struct SkyLevel {
    /// Electrons a pixel in the middle.
    pub level: f64,
    /// Relative change from the middle to the right and upper edge, and of a quadratic term.
    pub slopes: [f64; 3],
}

impl SkyLevel {
    /// Draws slopes of a few per cent.
    pub fn draw(rng: &mut impl Rng, level: f64) -> Self {
        let slopes = [uniform(rng, -0.05, 0.05), uniform(rng, -0.05, 0.05), uniform(rng, -0.02, 0.02)];
        Self { level, slopes }
    }

    /// Electrons at a pixel of an image of `shape`.
    pub fn at(&self, x: usize, y: usize, (height, width): (usize, usize)) -> f32 {
        let (u, v) = (2.0 * x as f64 / width as f64 - 1.0, 2.0 * y as f64 / height as f64 - 1.0);
        let [right, up, bowl] = self.slopes;
        (self.level * (1.0 + right * u + up * v + bowl * u * v)) as f32
    }
}

/// A calibrated image with its noise, and the variance that it was drawn with.
pub struct Calibrated {
    /// Electrons.
    pub pixels: Array2<f32>,
    /// Electrons².
    pub variance: Array2<f32>,
    /// Variance of blank sky in the middle.
    pub blank_variance: f64,
    /// Spoilt pixels.
    pub defects: Vec<Defect>,
}

/// The reference of a field: a sum of exposures with its photon noise.
pub fn reference_image(request: &Request, number: u64, view: &View, scene: &Scene) -> Calibrated {
    let frame = REFERENCE_FRAME + number;
    let depth = request.reference_depth;
    let mut rng = stream(request.seed, Purpose::Conditions, frame, 1);
    let sky = SkyLevel::draw(&mut rng, 0.9 * SKY * depth);
    let read_noise = READ_NOISE * depth.sqrt();
    let (mut pixels, variance) = photons(request.seed, frame, view, scene, sky, read_noise);
    let defects = bleed(&mut pixels, (FULL_WELL * depth) as f32, DefectKind::ReferenceSaturated);
    add_read_noise(&mut pixels, request.seed, frame, read_noise);
    Calibrated { pixels, variance, blank_variance: sky.level + read_noise * read_noise, defects }
}

/// Draws the photons of sky and sources. Also gives the variance of each pixel.
pub fn photons(
    seed: u64,
    frame: u64,
    view: &View,
    scene: &Scene,
    sky: SkyLevel,
    read_noise: f64,
) -> (Array2<f32>, Array2<f32>) {
    let mut variance = scene.image.clone();
    let mut pixels = Array2::zeros(view.shape);
    ndarray::Zip::indexed(pixels.rows_mut()).and(variance.rows_mut()).into_par_iter().for_each(
        |(y, mut drawn, mut mean)| {
            let mut rng = stream(seed, Purpose::Photons, frame, y as u64);
            for (x, (pixel, mean)) in drawn.iter_mut().zip(mean.iter_mut()).enumerate() {
                let expected = *mean + sky.at(x, y, view.shape);
                *pixel = poisson(&mut rng, expected);
                *mean = expected + (read_noise * read_noise) as f32;
            }
        },
    );
    (pixels, variance)
}

/// Adds the read noise (electrons).
pub fn add_read_noise(pixels: &mut Array2<f32>, seed: u64, frame: u64, read_noise: f64) {
    ndarray::Zip::indexed(pixels.rows_mut()).into_par_iter().for_each(|(y, mut row)| {
        let mut rng = stream(seed, Purpose::Readout, frame, y as u64);
        row.iter_mut().for_each(|pixel| *pixel += read_noise as f32 * normal(&mut rng));
    });
}

/// Cards that every image of the synthetic sky has; electrons for `gain` 1.
pub fn cards(header: &mut Header, exposure_s: f64, date_obs: &str, field: &str) {
    header.set("EXPTIME", exposure_s, "[s]").set("DATE-OBS", date_obs, "begin of the exposure, UTC");
    header.set("FILTER", FILTER, "").set("OBJECT", field, "").set("INSTRUME", "nightjar sky", "synthetic");
}

/// The header of a reference in electrons, whose exposures were taken over a month from `start` on.
pub fn reference_header(request: &Request, view: &View, start: Mjd, field: &str) -> Header {
    let mut header = Header::new();
    let depth = request.reference_depth;
    cards(&mut header, view.exposure_s, &start.to_string(), field);
    header.set("IMAGETYP", "reference", "").set("BUNIT", "electron", "").set("GAIN", 1.0, "[e-/unit]");
    header.set("RDNOISE", READ_NOISE * depth.sqrt(), "[e-]").set("SATURATE", 0.97 * FULL_WELL * depth, "[e-]");
    header.set("NCOMBINE", depth.round() as i64, "exposures that are summed");
    header.set("JDSTART", start.jd(), "first exposure").set("JDEND", start.plus_seconds(30.0 * 86_400.0).jd(), "last");
    header.set("MAGZP", ZERO_POINT + 2.5 * view.throughput.log10(), "[mag] of one electron");
    view.camera.write(&mut header, (0.0, 0.0));
    header
}
