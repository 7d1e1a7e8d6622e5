//! Master calibration frames: what is taken off every exposure.
//!
//! A master holds the trimmed image (see [`crate::camera::Mosaic`]) after overscan subtraction. Its
//! own noise is a few numbers and not a plane: the noise of a bias is the same everywhere, that of a
//! dark and a flat follow from their own values by Poisson statistics, so that calibration reads one
//! plane a master and no more.

use std::collections::BTreeMap;

use crate::image::Image;
use crate::units::{Adu, ElectronsPerSecond, Ratio};

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
    /// Rows and columns of the masters, where there are any.
    pub fn shape(&self) -> Option<(usize, usize)> {
        let bias = self.bias.as_ref().map(|bias| bias.image.shape());
        let dark = self.dark.as_ref().map(|dark| dark.image.shape());
        bias.or(dark).or_else(|| self.flats.values().next().map(|flat| flat.image.shape()))
    }
}
