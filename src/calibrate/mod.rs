//! Raw frames to calibrated frames: the only place that makes a [`CalibratedFrame`].

mod adopt;
pub mod background;
mod columns;
mod combined;
mod cosmic_rays;
mod dark_current;
mod file;
mod frame;
pub mod masters;
mod overscan;
mod provenance;
mod saturation;
mod trails;

use crate::exposure::Exposure;
use crate::fits::Header;
use crate::image::{Image, Mask};
use crate::units::{Electrons, Electrons2};

pub use adopt::{AdoptParameters, adopt};
pub use background::Background;
pub use file::{FrameImages, mask_header};
pub use frame::{CalibrationParameters, calibrate};
pub use masters::Masters;

/// Why a frame could not be calibrated. Each message ends in what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrateError {
    /// A file without an image.
    #[error("{file}: holds no image; give a FITS file with a two-dimensional image")]
    NoImage {
        /// Name of the file.
        file: String,
    },
    /// Nothing but masked pixels.
    #[error("{file}: has no usable sky: nearly every pixel is saturated, masked or not a number; look at the frame")]
    NoSky {
        /// Name of the file.
        file: String,
    },
    /// An image of one value.
    #[error("{file}: is blank: every pixel is {level}; check shutter, cable and camera program")]
    Blank {
        /// Name of the file.
        file: String,
        /// The value.
        level: f64,
    },
    /// The sections do not make an image.
    #[error("{file}: the data sections of the amplifiers do not tile a rectangle; correct DATASEC or [detector]")]
    Amplifiers {
        /// Name of the file.
        file: String,
    },
    /// A master of another size.
    #[error(
        "{file}: the trimmed frame has {} x {} pixels, the master {master} {} x {}; make masters from frames of \
         this readout mode", frame.0, frame.1, size.0, size.1
    )]
    MasterSize {
        /// Name of the file.
        file: String,
        /// Which master.
        master: &'static str,
        /// Width and height of the trimmed frame.
        frame: (usize, usize),
        /// Width and height of the master.
        size: (usize, usize),
    },
    /// A dark taken too warm or too cold.
    #[error(
        "{file}: the detector was at {frame_c:.1} C, the master dark at {master_c:.1} C, more than {tolerance} K \
         apart; make a dark at this temperature"
    )]
    MasterTemperature {
        /// Name of the file.
        file: String,
        /// Temperature of the frame, Celsius.
        frame_c: f64,
        /// Temperature of the master, Celsius.
        master_c: f64,
        /// Accepted difference, kelvin.
        tolerance: f64,
    },
    /// A calibrated file that lost a plane.
    #[error("{file}: extension {name} is missing; calibrate the raw frame again")]
    MissingPlane {
        /// Name of the file.
        file: String,
        /// `EXTNAME` of the plane.
        name: &'static str,
    },
    /// Planes of different sizes.
    #[error("{file}: its planes differ in size or hold no numbers; calibrate the raw frame again")]
    PlaneSize {
        /// Name of the file.
        file: String,
    },
}

/// A calibrated exposure: electrons above the sky, with variance and mask beside them.
///
/// Made only here: by [`calibrate`](self) from a raw frame and masters, or by adopting an image
/// that somebody else has calibrated, or by combining calibrated ones.
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
    /// Takes the mask out, where a mask of this and another frame has taken its place; this frame's is empty then.
    pub fn take_mask(&mut self) -> Mask {
        std::mem::take(&mut self.mask)
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
