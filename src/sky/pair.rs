//! A pair of calibrated images, science and reference, with the truth of what changed.
//!
//! Both are in electrons with the sky left in. The reference is the sum of several exposures in
//! better seeing, so that its flux scale is another one; it has no cosmic rays and no bad columns.

use std::path::Path;

use ndarray::Array2;
use ndarray::parallel::prelude::*;
use rand::Rng;

use super::SkyError;
use super::catalogue::{Depth, FieldRequest, Source, ZERO_POINT, field};
use super::defects::{BadColumn, Defect, DefectKind, bleed, cosmic_rays};
use super::entries::{Taken, add_exposure};
use super::optics::{Optics, Profile, PsfKind};
use super::projection::Gnomonic;
use super::random::{Purpose, normal, poisson, stream, uniform};
use super::truth::Truth;
use super::view::{Scene, View};
use crate::fits::{HduOut, Header, Plane, write_fits};
use crate::time::Mjd;

/// Arcsec a pixel.
pub const SCALE: f64 = 1.01;
/// Electrons a pixel of dark sky in a nominal exposure.
pub const SKY: f64 = 1100.0;
/// Electrons.
pub const READ_NOISE: f64 = 8.0;
/// Electrons a pixel holds.
pub const FULL_WELL: f64 = 340_000.0;
/// Seconds of a nominal exposure.
pub const EXPOSURE_S: f64 = 30.0;
/// The filter.
pub const FILTER: &str = "r";
/// Stars a pixel: 4,600 on 3072×3080.
pub const STAR_DENSITY: f64 = 4600.0 / (3072.0 * 3080.0);
/// Room that is filled with sources around a frame, pixels.
pub const MARGIN: f64 = 90.0;

/// What is to be seen, for pairs and nights alike.
#[derive(Debug, Clone)]
pub struct Request {
    /// Seed of everything.
    pub seed: u64,
    /// Pixels a row of the trimmed image.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Stars on a frame.
    pub stars: f64,
    /// Median FWHM of the science image, pixels.
    pub fwhm: f64,
    /// Median FWHM of the reference, pixels.
    pub reference_fwhm: f64,
    /// Angle of the reference against the science image, degrees; drawn within ±0.3 where not given.
    pub reference_angle: Option<f64>,
    /// Exposures that the reference is the sum of.
    pub reference_depth: f64,
    /// What the PSF is made of.
    pub psf: PsfKind,
    /// Error of the science image's WCS, arcsec.
    pub wcs_error: f64,
    /// Midnight that names the night.
    pub midnight: Mjd,
}

impl Request {
    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The sources of a field around `centre`.
    pub fn sources(&self, number: u64, centre: (f64, f64)) -> Vec<Source> {
        let half_side = 0.5 * self.width.max(self.height) as f64 + MARGIN;
        let noise_area = Profile::moffat(self.fwhm, [0.0, 0.0], 3.2).noise_area() + 1.0;
        let variance = (SKY + READ_NOISE * READ_NOISE) * (1.0 + 1.0 / self.reference_depth);
        field(&FieldRequest {
            seed: self.seed,
            field: number,
            centre,
            half_side,
            stars: self.stars * 4.0 * half_side * half_side / (self.width * self.height) as f64,
            scale: SCALE,
            depth: Depth { noise_area, variance, exposure_s: EXPOSURE_S },
        })
    }

    /// Where the reference of a field looks: near its middle, at its angle.
    pub fn reference_view(&self, number: u64, centre: (f64, f64)) -> View {
        let mut rng = stream(self.seed, Purpose::Conditions, REFERENCE_FRAME + number, 0);
        let angle = uniform(&mut rng, -0.3, 0.3);
        let angle = self.reference_angle.unwrap_or(angle);
        let middle = self.middle();
        let pixel = (middle.0 + uniform(&mut rng, -8.0, 8.0), middle.1 + uniform(&mut rng, -8.0, 8.0));
        let mut rng = stream(self.seed, Purpose::Optics, REFERENCE_FRAME + number, 0);
        View {
            camera: Gnomonic::new(centre, pixel, SCALE, angle),
            optics: Optics::draw(&mut rng, self.psf, self.reference_fwhm, self.shape()),
            shape: self.shape(),
            throughput: self.reference_depth * 1.04,
            hours: None,
            exposure_s: self.reference_depth * EXPOSURE_S,
        }
    }

    /// The middle of the frame, zero-based.
    pub fn middle(&self) -> (f64, f64) {
        (0.5 * (self.width as f64 - 1.0), 0.5 * (self.height as f64 - 1.0))
    }
}

/// Number of the first frame that is a reference; light frames count from 0.
pub const REFERENCE_FRAME: u64 = 1 << 32;

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
fn photons(
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

fn add_read_noise(pixels: &mut Array2<f32>, seed: u64, frame: u64, read_noise: f64) {
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

/// The header of a reference in electrons.
pub fn reference_header(request: &Request, view: &View, date_obs: &str, field: &str) -> Header {
    let mut header = Header::new();
    let depth = request.reference_depth;
    cards(&mut header, view.exposure_s, date_obs, field);
    header.set("IMAGETYP", "reference", "").set("BUNIT", "electron", "").set("GAIN", 1.0, "[e-/unit]");
    header.set("RDNOISE", READ_NOISE * depth.sqrt(), "[e-]").set("SATURATE", 0.97 * FULL_WELL * depth, "[e-]");
    header.set("NCOMBINE", depth.round() as i64, "exposures that are summed");
    header.set("MAGZP", ZERO_POINT + 2.5 * view.throughput.log10(), "[mag] of one electron");
    view.camera.write(&mut header, (0.0, 0.0));
    header
}

/// The middle of a field of a night: apart on the sky, away from the pole.
pub fn field_centre(seed: u64, number: u64) -> (f64, f64) {
    let mut rng = stream(seed, Purpose::Conditions, REFERENCE_FRAME + number, 2);
    let ra: f64 = uniform(&mut rng, 0.0, 360.0);
    ((ra + 17.0 * number as f64).rem_euclid(360.0), uniform(&mut rng, -25.0, 65.0))
}

/// Writes `science.fits`, `reference.fits` and the truth tables into `folder`.
pub fn write_pair(request: &Request, folder: &Path) -> Result<Truth, SkyError> {
    std::fs::create_dir_all(folder).map_err(|error| SkyError::file(folder, error))?;
    let centre = field_centre(request.seed, 0);
    let sources = request.sources(0, centre);
    let reference_view = request.reference_view(0, centre);
    let mut rng = stream(request.seed, Purpose::Conditions, 0, 0);
    let view = View {
        camera: Gnomonic::new(centre, request.middle(), SCALE, uniform(&mut rng, -0.3, 0.3)),
        optics: Optics::draw(
            &mut stream(request.seed, Purpose::Optics, 0, 0),
            request.psf,
            request.fwhm,
            request.shape(),
        ),
        shape: request.shape(),
        throughput: uniform(&mut rng, 0.85, 1.0),
        hours: Some(0.0),
        exposure_s: EXPOSURE_S,
    };
    let level = SKY * uniform(&mut rng, 0.9, 1.3);
    let sky = SkyLevel::draw(&mut rng, level);
    let direction = uniform(&mut rng, 0.0, std::f64::consts::TAU);

    let scene = view.render(&sources);
    let (mut pixels, variance) = photons(request.seed, 0, &view, &scene, sky, READ_NOISE);
    let mut rays = stream(request.seed, Purpose::CosmicRays, 0, 0);
    let mut defects = cosmic_rays(&mut pixels, &mut rays, EXPOSURE_S);
    defects.extend(bleed(&mut pixels, FULL_WELL as f32, DefectKind::Saturated));
    add_read_noise(&mut pixels, request.seed, 0, READ_NOISE);
    for column in BadColumn::draw(&mut stream(request.seed, Purpose::Detector, 0, 0), request.shape()) {
        column.apply(&mut pixels);
        defects.push(column.defect(request.height));
    }

    let reference_scene = reference_view.render(&sources);
    let reference = reference_image(request, 0, &reference_view, &reference_scene);

    let date_obs = request.midnight.plus_seconds(3.0 * 3600.0 + 600.0).to_string();
    let mut header = Header::new();
    cards(&mut header, EXPOSURE_S, &date_obs, "field-0");
    header.set("IMAGETYP", "light", "").set("BUNIT", "electron", "").set("GAIN", 1.0, "[e-/unit]");
    header.set("RDNOISE", READ_NOISE, "[e-]").set("SATURATE", 0.97 * FULL_WELL, "[e-]");
    let error = (request.wcs_error * direction.sin(), request.wcs_error * direction.cos());
    view.camera.write(&mut header, error);
    write_fits(&folder.join("science.fits"), &[HduOut { name: "", header: &header, plane: Plane::F32(&pixels) }])?;
    let earlier = request.midnight.plus_seconds(-90.0 * 86_400.0).to_string();
    let header = reference_header(request, &reference_view, &earlier, "field-0");
    let plane = Plane::F32(&reference.pixels);
    write_fits(&folder.join("reference.fits"), &[HduOut { name: "", header: &header, plane }])?;

    let blank_variance = sky.level + READ_NOISE * READ_NOISE;
    let taken = Taken { view: &view, scene: &scene, variance: &variance, blank_variance, defects: &defects };
    let against = Taken {
        view: &reference_view,
        scene: &reference_scene,
        variance: &reference.variance,
        blank_variance: reference.blank_variance,
        defects: &reference.defects,
    };
    let mut truth = Truth::default();
    add_exposure(&mut truth, "science.fits", &date_obs, &taken, &against);
    truth.write(folder)?;
    Ok(truth)
}
