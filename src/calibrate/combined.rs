//! Deep images that were combined of calibrated frames.

use ndarray::{Array2, Zip};

use super::adopt::subtract;
use super::background::{BOX_SIZE, measure};
use super::{CalibrateError, CalibratedFrame};
use crate::exposure::Exposure;
use crate::fits::Header;
use crate::image::{Image, Mask, mask};

impl CalibratedFrame {
    /// The frame of an image that was combined of calibrated frames: what is left of their sky is
    /// subtracted, and its noise measured.
    ///
    /// # Errors
    ///
    /// When it has no usable sky, or its planes differ in size.
    pub fn combined(
        exposure: Exposure,
        header: Header,
        mut pixels: Array2<f32>,
        mut variance: Array2<f32>,
        mut bits: Mask,
        gain_known: bool,
    ) -> Result<Self, CalibrateError> {
        if variance.dim() != pixels.dim() || bits.dim() != pixels.dim() {
            return Err(CalibrateError::PlaneSize { file: exposure.file });
        }
        Zip::from(&mut pixels).and(&mut variance).and(&mut bits).par_for_each(|pixel, variance, bits| {
            if !(pixel.is_finite() && variance.is_finite() && *variance > 0.0) {
                (*pixel, *variance) = (0.0, 1.0);
                *bits |= mask::NO_DATA;
            }
        });
        let Some(background) = measure(pixels.view(), &bits, BOX_SIZE) else {
            return Err(CalibrateError::NoSky { file: exposure.file });
        };
        subtract(&mut pixels, &bits, &background);
        Ok(Self {
            exposure,
            header,
            pixels: Image::new(pixels),
            variance: Image::new(variance),
            mask: bits,
            background,
            gain_known,
        })
    }
}
