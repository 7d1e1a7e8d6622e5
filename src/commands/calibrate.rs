//! `nightjar calibrate`: one raw frame to a calibrated image.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::calibrate::masters::read_folder;
use crate::calibrate::{CalibratedFrame, CalibrationParameters, FrameImages, Masters, calibrate};
use crate::camera::raw_frame;
use crate::exposure::FrameKind;
use crate::fits::{read_image, write_fits};
use crate::night::fallbacks::Fallbacks;
use crate::settings::Settings;

/// Arguments of `nightjar calibrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar calibrate night/light-001.fits --masters masters --out calibrated")]
pub struct Args {
    /// The raw frame
    frame: PathBuf,
    /// Folder of master bias, dark and flats; without it only what needs none is done
    #[arg(long, value_name = "DIR")]
    masters: Option<PathBuf>,
    /// Folder to write the calibrated image into, under the name of the frame
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Detector temperature may differ from that of the master dark by this, kelvin
    #[arg(long, default_value_t = CalibrationParameters::default().temperature_tolerance)]
    temperature_tolerance: f64,
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let mut fallbacks = Fallbacks::of(&settings.detector).map_err(|error| Failure::Settings(error.to_string()))?;
    // Whoever names a frame on the command line means the sky.
    fallbacks.header.kind.get_or_insert(FrameKind::Light);
    let masters = match &args.masters {
        Some(folder) => read_folder(folder, settings.detector.gain).map_err(Failure::input)?,
        None => Masters::default(),
    };
    let image = read_image(&args.frame).map_err(Failure::input)?;
    let longitude = settings.observatory.longitude_deg;
    let raw = raw_frame(image, longitude, &fallbacks.header, &fallbacks.detector).map_err(Failure::input)?;
    let filter = raw.exposure.filter.clone();
    let parameters =
        CalibrationParameters { temperature_tolerance: args.temperature_tolerance, ..CalibrationParameters::default() };
    let frame = calibrate(raw, &masters, &parameters).map_err(Failure::input)?;
    let target = target(&args.frame, &args.out)?;
    write_fits(&target, &FrameImages::new(&frame).hdus()).map_err(Failure::input)?;
    for missing in missing_masters(&masters, &filter) {
        eprintln!("nightjar: {missing}");
    }
    eprintln!("nightjar: {}", summary(&frame));
    println!("{}", target.display());
    Ok(())
}

/// `frame.fits.gz` becomes `frame.fits` in the folder of the results, and never itself.
fn target(frame: &Path, out: &Path) -> Result<PathBuf, Failure> {
    let name = frame.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = [".gz", ".fz", ".fits", ".fit", ".fts"].iter().fold(name.as_str(), |stem, end| {
        let length = stem.len() - end.len().min(stem.len());
        if stem.to_ascii_lowercase().ends_with(end) { &stem[..length] } else { stem }
    });
    std::fs::create_dir_all(out).map_err(|e| Failure::input(format!("{}: {e}; choose a folder you may write to", out.display())))?;
    let target = out.join(format!("{stem}.calibrated.fits"));
    Ok(target)
}

fn missing_masters(masters: &Masters, filter: &str) -> Vec<String> {
    let mut missing = Vec::new();
    if masters.bias.is_none() {
        missing.push("no master bias: the pedestal is left to overscan and sky".to_owned());
    }
    if masters.dark.is_none() {
        missing.push("no master dark: hot pixels stay".to_owned());
    }
    if !masters.flats.contains_key(filter) {
        missing.push(format!("no master flat of filter {filter}: vignetting and dust stay"));
    }
    missing
}

fn summary(frame: &CalibratedFrame) -> String {
    let header = frame.header();
    let number = |keyword: &str| header.number(&[keyword]).unwrap_or(0.0);
    let unit = if frame.gain_known() { "e-" } else { "ADU (gain unknown)" };
    format!(
        "{}: sky {:.1}, noise {:.2} {unit} ({:.2} of what is expected), {} saturated pixels, {} cosmic rays, {} trails",
        frame.exposure().file,
        frame.background().median_level(),
        frame.background().median_noise(),
        number("NOISERAT"),
        number("NSATUR"),
        number("NCOSMIC"),
        number("NTRAILS")
    )
}
