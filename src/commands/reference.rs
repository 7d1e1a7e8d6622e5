//! `nightjar reference`: a deep reference of calibrated frames; `nightjar reference list`: those there are.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::calibrate::{CalibratedFrame, FrameImages, adopt};
use crate::camera::replay::fits_files;
use crate::camera::{HeaderFallbacks, exposure_from_header};
use crate::exposure::FrameKind;
use crate::fits::{read_planes, write_fits};
use crate::night::bootstrap::Bootstrap;
use crate::night::fallbacks::Fallbacks;
use crate::night::reference_builder::{Built, build};
use crate::night::science::{library, reader};
use crate::settings::Settings;
use crate::time::Mjd;

/// Arguments of `nightjar reference`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  nightjar reference calibrated/m31-r-*.fits -o references/m31-r.fits\n  \
                  nightjar reference list\n\n\
                  The first good frame with a celestial WCS gives grid and flux scale. Frames that would spoil \
                  the reference are left out by name, and what one frame alone shows does not survive."
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Calibrated frames of one field and filter, at least three (FITS)
    #[arg(required = true)]
    frames: Vec<PathBuf>,
    /// The reference to write
    #[arg(short, long, value_name = "FILE", required = true)]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the references that there are, and the fields on their way to one
    List {
        /// Folder of the references [default: the settings' references.folder]
        folder: Option<PathBuf>,
    },
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    match (&args.action, &args.output) {
        (Some(Action::List { folder }), _) => {
            list(folder.as_deref().unwrap_or(&settings.references.folder), settings)
        }
        (None, Some(output)) => make(&args.frames, output, settings),
        (None, None) => Err(Failure::input("give the reference to write with -o FILE")),
    }
}

/// One line a reference on stdout; files that cannot serve, and fields in the making, on stderr.
fn list(folder: &Path, settings: &Settings) -> Result<(), Failure> {
    let files = fits_files(folder).map_err(Failure::input)?;
    let library = library(settings, &files);
    println!(
        "{:<28} {:<16} {:<8} {:>9} {:>9} {:>11} {:>6} {:<10} {:<10} {:>7}",
        "file", "field", "filter", "ra", "dec", "size", "frames", "from", "to", "limit"
    );
    for entry in library.entries() {
        let day = |jd: f64| Mjd::from_jd(jd).to_string().chars().take(10).collect::<String>();
        let scale = entry.wcs.scale_arcsec() / 60.0;
        let size = format!("{:.1}'x{:.1}'", entry.shape.1 as f64 * scale, entry.shape.0 as f64 * scale);
        println!(
            "{:<28} {:<16} {:<8} {:>9.4} {:>+9.4} {size:>11} {:>6} {:<10} {:<10} {:>7}",
            entry.path.file_name().unwrap_or_default().to_string_lossy(),
            entry.exposure.field,
            entry.exposure.filter,
            entry.centre.0,
            entry.centre.1,
            entry.frames,
            day(entry.jd.0),
            day(entry.jd.1),
            entry.limit_mag.map_or_else(|| "-".to_owned(), |limit| format!("{limit:.2}")),
        );
    }
    for error in library.refused() {
        eprintln!("nightjar: {error}");
    }
    let needed = settings.references.frames_needed as usize;
    let growing = Bootstrap::open(folder, needed, Box::new(reader(settings))).map_err(Failure::input)?;
    for growth in growing.growths() {
        eprintln!("nightjar: {growth}");
    }
    Ok(())
}

fn make(frames: &[PathBuf], output: &Path, settings: &Settings) -> Result<(), Failure> {
    let fallbacks = Fallbacks::of(&settings.detector).map_err(|error| Failure::Settings(error.to_string()))?;
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
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
    let built = build(frames, &load, folder, &say);
    bar.finish_and_clear();
    let built = built.map_err(Failure::input)?;
    write_fits(output, &FrameImages::new(&built.frame).hdus()).map_err(Failure::input)?;
    report(&built, frames.len());
    println!("{}", output.display());
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
