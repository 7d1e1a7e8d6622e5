//! `nightjar sky`: a synthetic night, or a calibrated pair of images, with its truth.

use std::path::PathBuf;

use super::Failure;
use crate::settings::Settings;
use crate::sky::optics::PsfKind;
use crate::sky::pair::{Request, STAR_DENSITY, write_pair};
use crate::time::Mjd;

/// Arguments of `nightjar sky`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar sky --pair --out /tmp/pair --seed 3")]
pub struct Args {
    /// Folder to write into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Make one calibrated pair (science.fits, reference.fits) instead of a night of raw frames
    #[arg(long)]
    pair: bool,
    /// Seed: the same seed gives the same files
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pixels a row
    #[arg(long, default_value_t = 3072)]
    width: usize,
    /// Rows
    #[arg(long, default_value_t = 3080)]
    height: usize,
    /// Stars on a frame [default: 4600 on 3072x3080, in proportion to the area]
    #[arg(long)]
    stars: Option<f64>,
    /// FWHM of the science images, pixels
    #[arg(long, default_value_t = 2.6)]
    fwhm: f64,
    /// FWHM of the reference, pixels
    #[arg(long, default_value_t = 2.1)]
    reference_fwhm: f64,
    /// Angle of the reference, degrees [default: drawn within 0.3]
    #[arg(long, allow_negative_numbers = true)]
    reference_angle: Option<f64>,
    /// Exposures that the reference is the sum of
    #[arg(long, default_value_t = 15.0)]
    reference_depth: f64,
    /// What the point-spread function is made of
    #[arg(long, value_enum, default_value_t = PsfKind::Moffat)]
    psf: PsfKind,
    /// Error of the science images' WCS, arcsec [default: 0 for a pair]
    #[arg(long)]
    wcs_error: Option<f64>,
    /// Name of the night: the date of the midnight inside it, UTC
    #[arg(long, default_value = "2026-11-24")]
    date: String,
}

/// Runs the command.
pub fn run(args: &Args, _settings: &Settings) -> Result<(), Failure> {
    let request = args.request()?;
    let truth = write_pair(&request, &args.out).map_err(Failure::input)?;
    let counted = truth.changes.iter().filter(|change| change.defect.is_empty() && change.snr >= 5.0).count();
    eprintln!(
        "{}: {} sources that changed, {counted} of them at S/N 5 or more and free of defects",
        args.out.display(),
        truth.changes.len()
    );
    Ok(())
}

impl Args {
    fn request(&self) -> Result<Request, Failure> {
        let refuse = |condition: bool, sentence: &str| {
            if condition { Err(Failure::Input(sentence.to_owned())) } else { Ok(()) }
        };
        let outside = |value: f64, low: f64, high: f64| !(low..=high).contains(&value);
        refuse(
            self.width.min(self.height) < 64 || self.width.max(self.height) > 16_384,
            "--width and --height must lie between 64 and 16384 pixels",
        )?;
        refuse(outside(self.fwhm, 1.0, 20.0), "--fwhm must lie between 1 and 20 pixels")?;
        refuse(outside(self.reference_fwhm, 1.0, 20.0), "--reference-fwhm must lie between 1 and 20 pixels")?;
        refuse(outside(self.reference_depth, 1.0, 1000.0), "--reference-depth must lie between 1 and 1000")?;
        let stars = self.stars.unwrap_or(STAR_DENSITY * (self.width * self.height) as f64);
        refuse(outside(stars, 1.0, 1e6), "--stars must lie between 1 and 1000000")?;
        let midnight: Mjd = self.date.parse().map_err(Failure::input)?;
        Ok(Request {
            seed: self.seed,
            width: self.width,
            height: self.height,
            stars,
            fwhm: self.fwhm,
            reference_fwhm: self.reference_fwhm,
            reference_angle: self.reference_angle,
            reference_depth: self.reference_depth,
            psf: self.psf,
            wcs_error: self.wcs_error.unwrap_or(0.0),
            midnight,
        })
    }
}
