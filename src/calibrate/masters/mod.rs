//! Master calibration frames: what is taken off every exposure.
//!
//! A master holds the trimmed image (see [`crate::camera::Mosaic`]) after overscan subtraction. Its
//! own noise is a few numbers and not a plane: the noise of a bias is the same everywhere, that of a
//! dark and a flat follow from their own values by Poisson statistics, so that calibration reads one
//! plane a master and no more.

mod build;
pub mod clip;
mod masters_file;
mod night;
mod stack;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::fits::FitsError;
use crate::image::Image;
use crate::units::{Adu, ElectronsPerSecond, Ratio};

pub use build::{Combined, MIN_FRAMES, combine_bias, combine_dark, combine_flat};
pub use masters_file::{Master, read_folder};
pub use night::{NightMasters, of_night};
pub use stack::Load;

/// A frame that was left out of a master, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the file; empty where the reason names it.
    pub file: String,
    /// Why, with numbers.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.file, self.reason) }
    }
}

/// Frames that were left out, as one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals(pub Vec<Refusal>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, refusal) in self.0.iter().enumerate() {
            write!(f, "{}{refusal}", if number == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Why there is no master. Each message ends in what to do.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// Nothing to combine.
    #[error("none of the frames can be read; give raw frames as FITS files")]
    NoFrames,
    /// Not enough good frames.
    #[error("{good} good {kind} frames, at least {needed} are needed{}{refused}", if refused.0.is_empty() { "; take more" } else { ": " })]
    TooFew {
        /// Bias, dark or flat.
        kind: &'static str,
        /// Frames that could be used.
        good: usize,
        /// Frames that are needed.
        needed: usize,
        /// The others.
        refused: Refusals,
    },
    /// Pedestal and signal cannot be told apart.
    #[error("a {kind} needs a master bias or frames with an overscan; make the master bias first")]
    NoBias {
        /// Dark or flat.
        kind: &'static str,
    },
    /// The bias is of another size.
    #[error(
        "the {kind} frames have {} x {} pixels after trimming, the master bias {} x {}; make a bias in the same \
         readout mode", frames.0, frames.1, bias.0, bias.1
    )]
    BiasSize {
        /// Dark or flat.
        kind: &'static str,
        /// Width and height of the frames.
        frames: (usize, usize),
        /// Width and height of the bias.
        bias: (usize, usize),
    },
    /// A frame could not be read a second time.
    #[error("{0}")]
    Unreadable(String),
    /// A file that lacks a keyword.
    #[error("{path}: keyword {keyword} is missing; make the master with nightjar master", path = path.display())]
    Keyword {
        /// The file.
        path: PathBuf,
        /// The keyword.
        keyword: &'static str,
    },
    /// A flat without light.
    #[error("{path}: its median is {level}, so it is no flat; make it with nightjar master flat", path = path.display())]
    Featureless {
        /// The file.
        path: PathBuf,
        /// Median.
        level: f64,
    },
    /// The folder cannot be read.
    #[error("{path}: {reason}; check that the folder is there and readable", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    Fits(#[from] FitsError),
}

/// What a master was made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provenance {
    /// Names of the frames that were combined.
    pub files: Vec<String>,
    /// Median temperature of the detector, Celsius.
    pub temperature_c: Option<f64>,
    /// Gain that the frames' headers gave, e-/ADU.
    pub gain: Option<f64>,
    /// First and last start of exposure, MJD.
    pub mjd: Option<(f64, f64)>,
}

/// Zero-exposure level above the overscan.
#[derive(Debug, Clone)]
pub struct MasterBias {
    /// The level, ADU.
    pub image: Image<Adu>,
    /// Standard error of a pixel of it, ADU.
    pub noise: f64,
    /// Noise of a pixel of a single bias frame: the read noise, ADU.
    pub read_noise: f64,
    /// What it was made from.
    pub provenance: Provenance,
}

/// Dark current.
#[derive(Debug, Clone)]
pub struct MasterDark {
    /// Electrons (ADU where the gain is unknown) a second.
    pub image: Image<ElectronsPerSecond>,
    /// Standard error of a pixel without dark current, electrons a second.
    pub noise: f64,
    /// Exposure of the frames that were combined, seconds.
    pub exposure_s: f64,
    /// From this rate on a pixel is hot, electrons a second.
    pub hot_limit: f64,
    /// What it was made from.
    pub provenance: Provenance,
}

/// Response to uniform light, 1 for a median pixel.
#[derive(Debug, Clone)]
pub struct MasterFlat {
    /// The response.
    pub image: Image<Ratio>,
    /// Standard error of a pixel of response 1.
    pub noise: f64,
    /// The filter it was taken through.
    pub filter: String,
    /// What it was made from.
    pub provenance: Provenance,
}

/// All the masters that are in force.
#[derive(Debug, Clone, Default)]
pub struct Masters {
    /// Bias.
    pub bias: Option<MasterBias>,
    /// Dark.
    pub dark: Option<MasterDark>,
    /// Flats by filter.
    pub flats: BTreeMap<String, MasterFlat>,
}

impl Masters {
    /// Puts a master in force.
    pub fn put(&mut self, master: Master) {
        match master {
            Master::Bias(bias) => self.bias = Some(bias),
            Master::Dark(dark) => self.dark = Some(dark),
            Master::Flat(flat) => {
                self.flats.insert(flat.filter.clone(), flat);
            }
        }
    }

    /// Rows and columns of the masters, where there are any.
    pub fn shape(&self) -> Option<(usize, usize)> {
        let bias = self.bias.as_ref().map(|bias| bias.image.shape());
        let dark = self.dark.as_ref().map(|dark| dark.image.shape());
        bias.or(dark).or_else(|| self.flats.values().next().map(|flat| flat.image.shape()))
    }
}
