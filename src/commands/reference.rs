//! `nightjar reference`: a deep reference of calibrated frames.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::calibrate::{CalibratedFrame, FrameImages, adopt};
use crate::camera::{HeaderFallbacks, exposure_from_header};
use crate::exposure::FrameKind;
use crate::fits::{read_planes, write_fits};
use crate::night::fallbacks::Fallbacks;
use crate::night::reference_builder::{Built, build};
use crate::settings::Settings;
use crate::time::Mjd;

/// Arguments of `nightjar reference`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar reference calibrated/m31-r-*.fits -o references/m31-r.fits\n\n\
    The first good frame with a celestial WCS gives grid and flux scale. Frames that would spoil the \
    reference are left out by name, and what one frame alone shows does not survive.")]
pub struct Args {
    /// Calibrated frames of one field and filter, at least three (FITS)
    #[arg(required = true)]
    frames: Vec<PathBuf>,
    /// The reference to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let fallbacks = Fallbacks::of(&settings.detector).map_err(|error| Failure::Settings(error.to_string()))?;
    let folder = args.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .map_err(|e| Failure::input(format!("{}: {e}; choose a folder you may write to", folder.display())))?;
    let load = |path: &Path| load(path, settings, &fallbacks);
    let bar = indicatif::ProgressBar::new_spinner();
    let say = |step: &str| {
        bar.tick();
        if bar.is_hidden() {
            eprintln!("nightjar: {step}");
        } else {
            bar.set_message(step.to_owned());
        }
    };
    let built = build(&args.frames, &load, folder, &say);
    bar.finish_and_clear();
    let built = built.map_err(Failure::input)?;
    write_fits(&args.output, &FrameImages::new(&built.frame).hdus()).map_err(Failure::input)?;
    report(&built, args.frames.len());
    println!("{}", args.output.display());
    Ok(())
}

/// A calibrated frame. What only a night's frames have to say (a date, a filter) may be missing.
fn load(path: &Path, settings: &Settings, fallbacks: &Fallbacks) -> Result<CalibratedFrame, String> {
    let planes = read_planes(path).map_err(|error| error.to_string())?;
    let header = planes.first().map(|plane| plane.header.clone()).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let assumed = HeaderFallbacks {
        kind: Some(FrameKind::Light),
        exposure_s: fallbacks.header.exposure_s.or(Some(1.0)),
        filter: fallbacks.header.filter.clone(),
        start: Some(Mjd(0.0)),
    };
    let exposure = exposure_from_header(&header, &name, settings.observatory.longitude_deg, &assumed)
        .map_err(|error| error.to_string())?;
    if matches!(exposure.kind, FrameKind::Bias | FrameKind::Dark | FrameKind::Flat) {
        return Err(format!("is a {:?} frame", exposure.kind).to_lowercase());
    }
    adopt(planes, exposure, &fallbacks.adopt).map_err(|error| error.to_string())
}

fn report(built: &Built, given: usize) {
    for (file, reason) in &built.refused {
        eprintln!("nightjar: left out {file}: {reason}");
    }
    for frame in &built.used {
        eprintln!(
            "nightjar: {}: weight {:.3}, FWHM {:.2} px, flux {:.3}, {} pixels left out",
            frame.file, frame.weight, frame.fwhm_px, frame.flux_ratio, frame.outliers
        );
    }
    let depth = match built.limit_mag {
        Some(limit) => format!("{limit:.2} mag"),
        None => format!("{:.1} units of flux (no MAGZP in the first frame)", built.limit_flux),
    };
    eprintln!(
        "nightjar: made from {} of {given} frames, FWHM {:.2} px, 5 sigma depth {depth}",
        built.used.len(),
        built.fwhm_px
    );
}
