//! Where frames come from. Every source yields the same [`RawFrame`].

pub mod faults;
pub mod fields;
pub mod folder;
mod header;
pub mod journal;
pub mod link;
pub mod played;
pub mod pointing;
pub mod port;
mod raw;
pub mod readout;
pub mod replay;
mod sections;
pub mod sg4;

use crate::exposure::Exposure;
use crate::fits::Header;
use crate::image::{Image, Mask};
use crate::units::Adu;

pub use header::{HeaderError, HeaderFallbacks, exposure_from_header};
pub use raw::{Mosaic, raw_frame};
pub use sections::DetectorFallbacks;

/// A rectangle of pixels, zero-based and half-open: columns `x0..x1`, rows `y0..y1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// First column.
    pub x0: usize,
    /// Column after the last.
    pub x1: usize,
    /// First row.
    pub y0: usize,
    /// Row after the last.
    pub y1: usize,
}

/// One readout amplifier: its part of the raw frame and its electronics.
#[derive(Debug, Clone, PartialEq)]
pub struct Amplifier {
    /// Where its light-sensitive pixels lie in the raw frame.
    pub data: Section,
    /// Where its overscan lies in the raw frame.
    pub overscan: Option<Section>,
    /// Electrons per ADU; `None` where nobody knows it (then the frame stays in ADU, gain 1).
    pub gain: Option<f64>,
    /// Read noise, electrons.
    pub read_noise: Option<f64>,
    /// Saturation level, ADU of the raw frame.
    pub saturation: Option<f64>,
}

/// A frame as it came from the camera.
#[derive(Debug, Clone)]
pub struct RawFrame {
    /// What is known of the exposure.
    pub exposure: Exposure,
    /// The whole readout, overscan included.
    pub pixels: Image<Adu>,
    /// Pixels that never arrived (mask bits), when there are any.
    pub missing: Option<Mask>,
    /// The amplifiers, at least one; their data sections tile the trimmed image.
    pub amplifiers: Vec<Amplifier>,
    /// The camera's header.
    pub header: Header,
}
