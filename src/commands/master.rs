//! `nightjar master`: combines frames into a master bias, dark or flat.

use std::path::PathBuf;

use super::Failure;
use crate::calibrate::masters::{
    Combined, Master, MasterError, Masters, Refusal, combine_bias, combine_dark, combine_flat, read_folder,
};
use crate::camera::{RawFrame, raw_frame};
use crate::exposure::FrameKind;
use crate::fits::read_image;
use crate::night::fallbacks::Fallbacks;
use crate::settings::Settings;

/// Arguments of `nightjar master`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nightjar master bias night/bias-*.fits -o masters/bias.fits\n  \
                  nightjar master dark night/dark-*.fits --masters masters -o masters/dark.fits\n  \
                  nightjar master flat night/flat-r-*.fits --masters masters -o masters/flat-r.fits"
)]
pub struct Args {
    /// What to make
    #[arg(value_enum)]
    kind: Kind,
    /// The raw frames, at least three
    #[arg(required = true)]
    frames: Vec<PathBuf>,
    /// The master to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Folder of the masters that are taken off first: the bias from darks, bias and dark from flats
    #[arg(long, value_name = "DIR")]
    masters: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Frames without exposure
    Bias,
    /// Frames with the shutter closed
    Dark,
    /// Frames of uniform light through one filter
    Flat,
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let mut fallbacks = Fallbacks::of(&settings.detector).map_err(|error| Failure::Settings(error.to_string()))?;
    fallbacks.header.kind.get_or_insert(match args.kind {
        Kind::Bias => FrameKind::Bias,
        Kind::Dark => FrameKind::Dark,
        Kind::Flat => FrameKind::Flat,
    });
    let masters = match &args.masters {
        Some(folder) => read_folder(folder, settings.detector.gain).map_err(Failure::input)?,
        None => Masters::default(),
    };
    let load = |number: usize| -> Result<RawFrame, String> {
        let image = read_image(&args.frames[number]).map_err(|error| error.to_string())?;
        let longitude = settings.observatory.longitude_deg;
        raw_frame(image, longitude, &fallbacks.header, &fallbacks.detector).map_err(|error| error.to_string())
    };
    let count = args.frames.len();
    let made = match args.kind {
        Kind::Bias => combine_bias(count, &load).map(|made| boxed(made, Master::Bias)),
        Kind::Dark => combine_dark(count, &load, &masters).map(|made| boxed(made, Master::Dark)),
        Kind::Flat => combine_flat(count, &load, &masters).map(|made| boxed(made, Master::Flat)),
    };
    let (master, refused) = made.map_err(|error: MasterError| Failure::input(error))?;
    for refusal in &refused {
        eprintln!("nightjar: left out {refusal}");
    }
    master.write(&args.output).map_err(Failure::input)?;
    eprintln!("nightjar: made from {} of {count} frames", master.provenance().files.len());
    println!("{}", args.output.display());
    Ok(())
}

fn boxed<M>(made: Combined<M>, kind: impl FnOnce(M) -> Master) -> (Master, Vec<Refusal>) {
    (kind(made.master), made.refused)
}
