//! `nightjar sky`: a synthetic night, or a calibrated pair of images, with its truth; and the score
//! of a run against that truth.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::settings::Settings;
use crate::sky::SkyError;
use crate::sky::night::{NightRequest, Pointing, write_night};
use crate::sky::optics::PsfKind;
use crate::sky::pair::write_pair;
use crate::sky::request::{Request, STAR_DENSITY};
use crate::sky::score::score;
use crate::sky::truth::Truth;
use crate::time::Mjd;

/// Arguments of `nightjar sky`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  \
        nightjar sky --out night --seed 3           a night of six raw exposures, with its truth\n  \
        nightjar sky --pair --out pair --seed 3     a calibrated science image and its reference\n  \
        nightjar simulate night --out run && nightjar sky score night run"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    make: Box<Make>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Hold the candidates of `simulate` or `difference` against the truth of a synthetic night
    Score(ScoreArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar sky score night run")]
struct ScoreArgs {
    /// Folder that `nightjar sky` wrote
    night: PathBuf,
    /// Folder that `simulate` or `difference` wrote; `score.json` is left there
    run: PathBuf,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Make {
    /// Folder to write into
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    /// Make one calibrated pair (science.fits, reference.fits) instead of a night of raw frames
    #[arg(long)]
    pair: bool,
    /// Seed: the same seed gives the same pixels
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Light frames of the night
    #[arg(long, default_value_t = 6, conflicts_with = "pair")]
    exposures: usize,
    /// Fields that the light frames go round
    #[arg(long, default_value_t = 2, conflicts_with = "pair")]
    fields: usize,
    /// Seconds from one light frame to the next
    #[arg(long, default_value_t = 45.0, conflicts_with = "pair")]
    cadence: f64,
    /// Bias frames; half as many dark frames and flat fields
    #[arg(long, default_value_t = 10, conflicts_with = "pair")]
    calibration_frames: usize,
    /// How light frames say where they point
    #[arg(long, value_enum, default_value_t = Pointing::Wcs, conflicts_with = "pair")]
    pointing: Pointing,
    /// Pixels a row, without overscan
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
    /// FWHM of the references, pixels
    #[arg(long, default_value_t = 2.1)]
    reference_fwhm: f64,
    /// Angle of the references, degrees [default: drawn within 0.3]
    #[arg(long, allow_negative_numbers = true)]
    reference_angle: Option<f64>,
    /// Exposures that a reference is the sum of
    #[arg(long, default_value_t = 15.0)]
    reference_depth: f64,
    /// What the point-spread function is made of
    #[arg(long, value_enum, default_value_t = PsfKind::Moffat)]
    psf: PsfKind,
    /// Error with which light frames say where they point, arcsec [default: 5; 0 for a pair]
    #[arg(long)]
    wcs_error: Option<f64>,
    /// Name of the night: the date of the midnight inside it, UTC
    #[arg(long, default_value = "2026-11-24")]
    date: String,
}

/// Runs the command.
pub fn run(args: &Args, _settings: &Settings) -> Result<(), Failure> {
    match (&args.action, &args.make.out) {
        (Some(Action::Score(arguments)), _) => print_score(arguments),
        (None, Some(out)) => args.make.write(out),
        (None, None) => Err(Failure::Input("--out DIR is missing: say where to write".into())),
    }
}

fn print_score(arguments: &ScoreArgs) -> Result<(), Failure> {
    let score = score(&arguments.night, &arguments.run).map_err(Failure::input)?;
    let json = serde_json::to_string_pretty(&score).map_err(|error| Failure::Defect(error.to_string()))?;
    let path = arguments.run.join("score.json");
    std::fs::write(&path, &json).map_err(|error| Failure::input(SkyError::file(path, error)))?;
    if arguments.json {
        println!("{json}");
    } else {
        println!("{score}");
    }
    Ok(())
}

impl Make {
    fn write(&self, out: &Path) -> Result<(), Failure> {
        let sky = self.request()?;
        let truth = if self.pair {
            write_pair(&sky, out).map_err(Failure::input)?
        } else {
            self.write_night(sky, out)?
        };
        let counted = truth.changes.iter().filter(|change| change.defect.is_empty() && change.snr >= 5.0).count();
        let (folder, changes) = (out.display(), truth.changes.len());
        eprintln!("{folder}: {changes} changes in truth.csv, {counted} of them at S/N 5 or more and off defects");
        Ok(())
    }

    fn write_night(&self, sky: Request, out: &Path) -> Result<Truth, Failure> {
        refuse(self.exposures == 0 || self.fields == 0, "--exposures and --fields must be at least 1")?;
        refuse(self.exposures > 9999, "--exposures must be at most 9999")?;
        refuse(!(1.0..=86_400.0).contains(&self.cadence), "--cadence must lie between 1 and 86400 seconds")?;
        let request = NightRequest {
            sky,
            exposures: self.exposures,
            fields: self.fields.min(self.exposures),
            cadence_s: self.cadence,
            calibration_frames: self.calibration_frames,
            pointing: self.pointing,
        };
        let files = request.files() as u64;
        let bar = indicatif::ProgressBar::new(files);
        let terminal = std::io::stderr().is_terminal();
        let progress = |name: &str| {
            bar.set_message(name.to_owned());
            bar.inc(1);
            if !terminal {
                eprintln!("{} of {files}: {name}", bar.position());
            }
        };
        let truth = write_night(&request, out, &progress).map_err(Failure::input);
        bar.finish_and_clear();
        truth
    }

    fn request(&self) -> Result<Request, Failure> {
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
        let wcs_error = self.wcs_error.unwrap_or(if self.pair { 0.0 } else { 5.0 });
        refuse(outside(wcs_error, 0.0, 3600.0), "--wcs-error must lie between 0 and 3600 arcsec")?;
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
            wcs_error,
            midnight,
        })
    }
}

fn refuse(condition: bool, sentence: &str) -> Result<(), Failure> {
    if condition { Err(Failure::Input(sentence.to_owned())) } else { Ok(()) }
}
