//! `nightjar difference`: one calibrated image minus another.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::calibrate::{AdoptParameters, CalibratedFrame, adopt};
use crate::camera::{HeaderFallbacks, exposure_from_header};
use crate::detect::context::ReferenceContext;
use crate::exposure::{Exposure, ExposureId, FrameKind};
use crate::fits::{HduOut, Header, Plane, read_planes, write_fits};
use crate::night::candidates::CandidateTable;
use crate::night::compare::{Compared, compare};
use crate::night::values::subtraction;
use crate::register::stars::find;
use crate::settings::{Settings, SubtractMethod};
use crate::time::{Mjd, NightName};
use crate::wcs::Wcs;

/// Keywords that hold the magnitude of one unit of flux.
const ZERO_POINT: [&str; 4] = ["MAGZP", "MAGZERO", "MAGZPT", "ZP"];
/// Zero point of a reference that names none: magnitudes are then relative.
const RELATIVE_ZERO_POINT: f64 = 25.0;

/// Arguments of `nightjar difference`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar difference tonight.fits reference.fits --out m31\n\n\
    Leaves difference.fits, score.fits (signal to noise) and candidates.csv in the folder.")]
pub struct Args {
    /// Calibrated science image (FITS)
    science: PathBuf,
    /// Calibrated reference image of the same field and filter (FITS)
    reference: PathBuf,
    /// Folder for the results
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Detection threshold in sigma [default: the settings' detect.threshold]
    #[arg(long, value_name = "SIGMA")]
    threshold: Option<f64>,
    /// How to subtract [default: the settings' subtract.method]
    #[arg(long, value_name = "METHOD", value_parser = method, hide_possible_values = true)]
    method: Option<SubtractMethod>,
}

fn method(text: &str) -> Result<SubtractMethod, String> {
    serde_json::from_value(text.into()).map_err(|_| "write auto, zogy or kernel-fit".to_owned())
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out)
        .map_err(|e| Failure::Input(format!("{}: cannot be made ({e}); name another folder with --out", args.out.display())))?;
    let threshold = args.threshold.unwrap_or(settings.detect.threshold);
    if !(3.0..=100.0).contains(&threshold) {
        return Err(Failure::Input(format!("--threshold {threshold} is not usable: 3 to 100 sigma are allowed")));
    }
    let science = open(&args.science, settings)?;
    let reference = open(&args.reference, settings)?;
    let stars = find(&reference);
    let wcs = Wcs::from_header(reference.header()).or_else(|_| Wcs::from_header(science.header())).ok();
    if wcs.is_none() {
        eprintln!("nightjar: neither image has a celestial WCS: candidates get pixel positions alone");
    }
    let start = reference.exposure().start.jd();
    let context = ReferenceContext {
        standards: &[],
        stars: &stars,
        wcs: wcs.as_ref(),
        zero_point: (reference.header().number(&ZERO_POINT).unwrap_or(RELATIVE_ZERO_POINT), 0.0),
        id: 0,
        jd: (start, start),
        frames: 1,
    };
    let method = subtraction(args.method.unwrap_or(settings.subtract.method));
    let compared = compare(science, &reference, &context, threshold, method)
        .map_err(|e| Failure::Input(format!("{} was not subtracted: {e}", args.science.display())))?;
    write(&compared, &args.out)?;
    report(&compared, &args.out);
    Ok(())
}

fn open(path: &Path, settings: &Settings) -> Result<CalibratedFrame, Failure> {
    let planes = read_planes(path).map_err(Failure::input)?;
    let header = planes.first().map(|p| p.header.clone()).unwrap_or_default();
    let parameters = AdoptParameters {
        gain: settings.detector.gain,
        read_noise: settings.detector.read_noise,
        saturation: settings.detector.saturation,
    };
    adopt(planes, exposure_of(&header, path, settings), &parameters).map_err(Failure::input)
}

/// The exposure as far as the header tells; images without dates can be subtracted too.
fn exposure_of(header: &Header, path: &Path, settings: &Settings) -> Exposure {
    let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let fallbacks = HeaderFallbacks {
        kind: Some(FrameKind::Light),
        exposure_s: Some(settings.detector.exposure_s.unwrap_or(1.0)),
        filter: Some(settings.detector.filter.clone().unwrap_or_else(|| "unknown".into())),
        start: Some(Mjd(0.0)),
    };
    exposure_from_header(header, &file, settings.observatory.longitude_deg, &fallbacks).unwrap_or_else(|_| {
        let start = Mjd(0.0);
        Exposure {
            id: ExposureId::from_stored(path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()),
            night: NightName::of(start, 0.0),
            kind: FrameKind::Light,
            start,
            exposure_s: 1.0,
            filter: "unknown".into(),
            field: String::new(),
            pointing: None,
            temperature_c: None,
            file,
        }
    })
}

fn write(compared: &Compared, folder: &Path) -> Result<(), Failure> {
    let images = &compared.images;
    let planes = [("difference.fits", &images.difference.pixels), ("score.fits", &images.score.pixels)];
    for (name, pixels) in planes {
        write_fits(&folder.join(name), &[HduOut { name: "", header: &images.header, plane: Plane::F32(pixels) }])
            .map_err(Failure::input)?;
    }
    let mut table = CandidateTable::create(&folder.join("candidates.csv")).map_err(Failure::input)?;
    table.add(&compared.detections).map_err(Failure::input)
}

fn report(compared: &Compared, folder: &Path) {
    let detections = &compared.detections;
    let conditions = &detections.conditions;
    let kept = detections.candidates.iter().filter(|c| c.rejected.is_none()).count();
    let [register, subtract, detect] = compared.seconds;
    for warning in &conditions.warnings {
        eprintln!("nightjar: {warning}");
    }
    eprintln!(
        "{} candidates, {kept} kept by {}; FWHM {:.2} px, limit {:.2} mag, registration {:.3} px rms of {} stars, flux ratio {:.4}; \
         register {register:.2} s, subtract {subtract:.2} s, detect {detect:.2} s; results in {}",
        detections.candidates.len(),
        conditions.method,
        conditions.fwhm_px,
        conditions.limit_mag,
        conditions.registration_rms_px,
        conditions.registration_stars,
        conditions.flux_ratio,
        folder.display()
    );
}
