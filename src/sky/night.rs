//! A whole recorded night: raw frames, calibration frames, references, truth.
//!
//! The night is named by its midnight. Calibration frames are taken in the afternoon before it,
//! light frames from four hours before midnight on, one field after the other. Seeing, cloud and sky
//! brightness change slowly from frame to frame; the mount dithers, turns and says where it points
//! with an error; the optics distort a little, which no header tells.

use std::path::Path;

use ndarray::Array2;
use ndarray::parallel::prelude::*;

use super::SkyError;
use super::calibrated::{Calibrated, SkyLevel, cards, reference_header, reference_image};
use super::catalogue::Source;
use super::detector::{Detector, Exposed};
use super::entries::{Taken, add_exposure};
use super::optics::Optics;
use super::projection::{Gnomonic, deproject};
use super::random::{Purpose, normal, stream, uniform};
use super::request::{EXPOSURE_S, FILTER, READ_NOISE, Request, SCALE, SKY, field_centre};
use super::truth::Truth;
use super::view::{Scene, View};
use crate::fits::{HduOut, Header, Plane, write_fits};
use crate::time::Mjd;

/// How a light frame says where it points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pointing {
    /// By a celestial TAN WCS, and RA and DEC.
    Wcs,
    /// By RA and DEC alone.
    Radec,
}

/// What a night is to hold beside what is on the sky.
#[derive(Debug, Clone)]
pub struct NightRequest {
    /// What is to be seen.
    pub sky: Request,
    /// Light frames.
    pub exposures: usize,
    /// Fields that they go round.
    pub fields: usize,
    /// Seconds from one light frame to the next.
    pub cadence_s: f64,
    /// Bias frames; half as many dark frames and flat fields.
    pub calibration_frames: usize,
    /// How light frames say where they point.
    pub pointing: Pointing,
}

impl NightRequest {
    /// Number of FITS files that the night holds.
    pub fn files(&self) -> usize {
        self.exposures + self.fields + self.calibration_frames + 2 * self.calibration_frames.div_ceil(2)
    }
}

/// Number of the first calibration frame; light frames count from 0.
const CALIBRATION_FRAME: u64 = 1 << 24;
/// Hours from midnight to the first light and the first calibration frame.
const FIRST_LIGHT_H: f64 = -4.0;
const FIRST_CALIBRATION_H: f64 = -9.0;
/// Exposure times of dark frames and flat fields, seconds.
const DARK_S: f64 = 120.0;
const FLAT_S: f64 = 4.0;
/// Electrons of a flat field.
const FLAT_LEVEL: f64 = 130_000.0;
/// Radial distortion: 1 pixel at the corner of a frame of 3072 pixels.
const DISTORTION: f64 = 1e-10;

/// A field: its sources and its reference.
struct Field {
    name: String,
    centre: (f64, f64),
    sources: Vec<Source>,
    view: View,
    scene: Scene,
    reference: Calibrated,
}

/// Writes a night into `folder`; `progress` hears of each file.
pub fn write_night(request: &NightRequest, folder: &Path, progress: &dyn Fn(&str)) -> Result<Truth, SkyError> {
    let references = folder.join("references");
    std::fs::create_dir_all(&references).map_err(|error| SkyError::file(&references, error))?;
    let detector = Detector::new(request.sky.seed, request.sky.shape());
    write_calibration_frames(request, &detector, folder, progress)?;
    let mut truth = Truth::default();
    for number in 0..request.fields {
        let field = Field::new(&request.sky, number as u64);
        write_reference(&request.sky, &field, &references, progress)?;
        for index in (number..request.exposures).step_by(request.fields) {
            write_light(request, &detector, &field, index, folder, &mut truth)?;
            progress(&light_name(index));
        }
    }
    truth.changes.sort_by(|a, b| a.exposure.cmp(&b.exposure));
    truth.defects.sort_by(|a, b| a.exposure.cmp(&b.exposure));
    truth.stars.sort_by(|a, b| a.exposure.cmp(&b.exposure));
    truth.write(folder)?;
    Ok(truth)
}

impl Field {
    fn new(request: &Request, number: u64) -> Self {
        let centre = field_centre(request.seed, number);
        let sources = request.sources(number, centre);
        let view = request.reference_view(number, centre);
        let scene = view.render(&sources);
        let reference = reference_image(request, number, &view, &scene);
        Self { name: format!("field-{number}"), centre, sources, view, scene, reference }
    }
}

fn light_name(index: usize) -> String {
    format!("light-{:04}.fits", index + 1)
}

fn write_reference(request: &Request, field: &Field, folder: &Path, progress: &dyn Fn(&str)) -> Result<(), SkyError> {
    let name = format!("{}-{FILTER}.fits", field.name);
    let start = request.midnight.plus_seconds(-90.0 * 86_400.0);
    let header = reference_header(request, &field.view, start, &field.name);
    let plane = Plane::F32(&field.reference.pixels);
    write_fits(&folder.join(&name), &[HduOut { name: "", header: &header, plane }])?;
    progress(&name);
    Ok(())
}

fn write_calibration_frames(
    request: &NightRequest,
    detector: &Detector,
    folder: &Path,
    progress: &dyn Fn(&str),
) -> Result<(), SkyError> {
    let biases = request.calibration_frames;
    let others = biases.div_ceil(2);
    let kinds = [("bias", biases, 0.0), ("dark", others, DARK_S), ("flat", others, FLAT_S)];
    let mut start = request.sky.midnight.plus_seconds(FIRST_CALIBRATION_H * 3600.0);
    let mut frame = CALIBRATION_FRAME;
    for (kind, count, seconds) in kinds {
        for index in 0..count {
            let mut rng = stream(request.sky.seed, Purpose::Conditions, frame, 3);
            let level = FLAT_LEVEL * uniform(&mut rng, 0.85, 1.15);
            let light = (kind == "flat").then(|| Array2::from_elem(request.sky.shape(), level as f32));
            let readout = detector.expose(&Exposed { frame, light: light.as_ref(), seconds });
            let mut header = Header::new();
            cards(&mut header, seconds, &start.to_string(), "");
            header.remove("OBJECT").set("IMAGETYP", format!("{kind} frame"), "");
            if kind != "flat" {
                header.remove("FILTER");
            }
            detector.describe(&mut header);
            let name = format!("{kind}-{:02}.fits", index + 1);
            write_fits(
                &folder.join(&name),
                &[HduOut { name: "", header: &header, plane: Plane::U16(&readout.pixels) }],
            )?;
            progress(&name);
            start = start.plus_seconds(seconds + 20.0);
            frame += 1;
        }
    }
    Ok(())
}

/// What the sky was like during an exposure.
struct Weather {
    /// Seeing against that of the request.
    seeing: f64,
    /// Share of the light that passes the cloud.
    transparency: f64,
    /// Sky brightness against a dark sky.
    brightness: f64,
}

impl Weather {
    /// Slow waves over the night with phases of the seed, and a little flicker.
    fn at(seed: u64, index: usize, seconds: f64) -> Self {
        let mut night = stream(seed, Purpose::Conditions, 0, 4);
        let mut phase = || uniform(&mut night, 0.0, std::f64::consts::TAU);
        let hours = seconds / 3600.0;
        let wave = |period_h: f64, phase: f64| (std::f64::consts::TAU * hours / period_h + phase).sin();
        let mut now = stream(seed, Purpose::Conditions, index as u64, 5);
        let mut flicker = |sigma: f64| 1.0 + sigma * f64::from(normal(&mut now)).clamp(-2.0, 2.0);
        let cloud = 0.12 * (1.0 + wave(0.06, phase())) * 0.5 * (1.0 + wave(1.7, phase()));
        Self {
            seeing: (1.0 + 0.08 * wave(0.9, phase()) + 0.06 * wave(0.11, phase())) * flicker(0.03),
            transparency: (1.0 - cloud) * flicker(0.01),
            brightness: (1.1 + 0.15 * wave(5.0, phase()) + 0.5 * cloud) * flicker(0.01),
        }
    }
}

fn write_light(
    request: &NightRequest,
    detector: &Detector,
    field: &Field,
    index: usize,
    folder: &Path,
    truth: &mut Truth,
) -> Result<(), SkyError> {
    let sky = &request.sky;
    let seconds = index as f64 * request.cadence_s;
    let start = sky.midnight.plus_seconds(FIRST_LIGHT_H * 3600.0 + seconds);
    let weather = Weather::at(sky.seed, index, seconds);
    let (view, mount_error) = light_view(request, field, index, &weather);

    let scene = view.render(&field.sources);
    let mut rng = stream(sky.seed, Purpose::Conditions, index as u64, 1);
    let level = SkyLevel::draw(&mut rng, SKY * weather.brightness);
    let mut light = scene.image.clone();
    ndarray::Zip::indexed(light.rows_mut()).into_par_iter().for_each(|(y, mut row)| {
        row.iter_mut().enumerate().for_each(|(x, value)| *value += level.at(x, y, view.shape));
    });
    let readout = detector.expose(&Exposed { frame: index as u64, light: Some(&light), seconds: EXPOSURE_S });

    let name = light_name(index);
    let date_obs = start.to_string();
    let header = light_header(request, detector, field, &view, start, mount_error);
    write_fits(&folder.join(&name), &[HduOut { name: "", header: &header, plane: Plane::U16(&readout.pixels) }])?;

    let blank_variance = level.level + READ_NOISE * READ_NOISE;
    let science =
        Taken { view: &view, scene: &scene, variance: &readout.variance, blank_variance, defects: &readout.defects };
    let reference = Taken {
        view: &field.view,
        scene: &field.scene,
        variance: &field.reference.variance,
        blank_variance: field.reference.blank_variance,
        defects: &field.reference.defects,
    };
    add_exposure(truth, &name, &date_obs, &science, &reference);
    Ok(())
}

/// Where a light frame looks, dithered and turned by up to a degree, and the error (arcsec, east and
/// north) with which the mount tells it.
fn light_view(request: &NightRequest, field: &Field, index: usize, weather: &Weather) -> (View, (f64, f64)) {
    let sky = &request.sky;
    let mut rng = stream(sky.seed, Purpose::Conditions, index as u64, 6);
    let reach = 15.0 * SCALE;
    let (east, north) = (uniform(&mut rng, -reach, reach), uniform(&mut rng, -reach, reach));
    let mut camera =
        Gnomonic::new(deproject(field.centre, east, north), sky.middle(), SCALE, uniform(&mut rng, -1.0, 1.0));
    camera.distortion = DISTORTION;
    let direction = uniform(&mut rng, 0.0, std::f64::consts::TAU);
    let error = (sky.wcs_error * direction.sin(), sky.wcs_error * direction.cos());
    let mut optics = stream(sky.seed, Purpose::Optics, index as u64, 0);
    let view = View {
        camera,
        optics: Optics::draw(&mut optics, sky.psf, sky.fwhm * weather.seeing, sky.shape()),
        shape: sky.shape(),
        throughput: weather.transparency,
        hours: Some((index as f64 * request.cadence_s + 0.5 * EXPOSURE_S) / 3600.0),
        exposure_s: EXPOSURE_S,
    };
    (view, error)
}

fn light_header(
    request: &NightRequest,
    detector: &Detector,
    field: &Field,
    view: &View,
    start: Mjd,
    mount_error: (f64, f64),
) -> Header {
    let mut header = Header::new();
    cards(&mut header, EXPOSURE_S, &start.to_string(), &field.name);
    header.set("IMAGETYP", "Light Frame", "");
    detector.describe(&mut header);
    let (ra, dec) = deproject(view.camera.centre, mount_error.0, mount_error.1);
    header.set("RA", ra, "[deg] as the mount tells it").set("DEC", dec, "[deg]");
    if request.pointing == Pointing::Wcs {
        // The WCS is that of the whole raw frame.
        let mut camera = view.camera.clone();
        camera.pixel.0 += detector.first_column() as f64;
        camera.write(&mut header, mount_error);
    }
    header
}
