//! Raw frames to calibrated frames: the only place that makes a [`CalibratedFrame`].

pub mod background;

use crate::exposure::Exposure;
use crate::fits::Header;
use crate::image::{Image, Mask};
use crate::units::{Electrons, Electrons2};

pub use background::Background;

/// A calibrated exposure: electrons above the sky, with variance and mask beside them.
///
/// Made only here: by [`calibrate`](self) from a raw frame and masters, or by adopting an image
/// that somebody else has calibrated.
#[derive(Debug, Clone)]
pub struct CalibratedFrame {
    exposure: Exposure,
    header: Header,
    pixels: Image<Electrons>,
    variance: Image<Electrons2>,
    mask: Mask,
    background: Background,
    gain_known: bool,
}

impl CalibratedFrame {
    /// What is known of the exposure.
    pub fn exposure(&self) -> &Exposure {
        &self.exposure
    }
    /// The header: the camera's cards, WCS moved to the trimmed image, provenance.
    pub fn header(&self) -> &Header {
        &self.header
    }
    /// Electrons, background subtracted; masked pixels hold what was read, never NaN.
    pub fn pixels(&self) -> &Image<Electrons> {
        &self.pixels
    }
    /// Variance of each pixel: sky, source, read noise, masters. Always positive and finite.
    pub fn variance(&self) -> &Image<Electrons2> {
        &self.variance
    }
    /// Why pixels are not to be trusted, bits of [`crate::image::mask`].
    pub fn mask(&self) -> &Mask {
        &self.mask
    }
    /// The background that was subtracted, and its noise.
    pub fn background(&self) -> &Background {
        &self.background
    }
    /// Whether the gain was known; otherwise "electrons" are ADU.
    pub fn gain_known(&self) -> bool {
        self.gain_known
    }
}
