//! Two-dimensional images with their unit, and the mask that travels beside them.
//!
//! Arrays are indexed `[[y, x]]`, rows first, as FITS stores them; pixel `[[0, 0]]` is FITS pixel
//! (1, 1). Its centre has the coordinates (0, 0) inside the program and (1, 1) outside it.

use std::marker::PhantomData;

use ndarray::Array2;

/// An image in unit `U` (see [`crate::units`]), 32-bit floating point.
#[derive(Debug, Clone)]
pub struct Image<U> {
    /// The pixels, `[[y, x]]`.
    pub pixels: Array2<f32>,
    unit: PhantomData<U>,
}

impl<U> Image<U> {
    /// An image of these pixels.
    pub fn new(pixels: Array2<f32>) -> Self {
        Self { pixels, unit: PhantomData }
    }

    /// An image of `value` everywhere, `height` rows of `width` pixels.
    pub fn filled(height: usize, width: usize, value: f32) -> Self {
        Self::new(Array2::from_elem((height, width), value))
    }

    /// Pixels a row.
    pub fn width(&self) -> usize {
        self.pixels.ncols()
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.pixels.nrows()
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        self.pixels.dim()
    }
}

/// Why a pixel is not to be trusted: one bit a reason. The meanings are written into FITS headers.
pub mod mask {
    /// Known bad pixel or column of the detector.
    pub const BAD: u16 = 1 << 0;
    /// At or above saturation in the raw frame.
    pub const SATURATED: u16 = 1 << 1;
    /// In the bleed trail of a saturated star.
    pub const BLEED: u16 = 1 << 2;
    /// Hit by a cosmic ray.
    pub const COSMIC_RAY: u16 = 1 << 3;
    /// Under a satellite or aircraft trail.
    pub const TRAIL: u16 = 1 << 4;
    /// No data: outside the frame, cut off, not transmitted, or not a number.
    pub const NO_DATA: u16 = 1 << 5;
    /// The flat field is too low or too high to be divided by.
    pub const LOW_FLAT: u16 = 1 << 6;
    /// Hot pixel of the master dark.
    pub const HOT: u16 = 1 << 7;
    /// The value was filled in from its surroundings or a model.
    pub const FILLED: u16 = 1 << 8;
    /// Masked in the reference image, after resampling.
    pub const REFERENCE: u16 = 1 << 9;

    /// Bits with which a pixel holds no usable flux.
    pub const UNUSABLE: u16 = BAD | SATURATED | BLEED | COSMIC_RAY | TRAIL | NO_DATA | LOW_FLAT | HOT;

    /// Bit, name and meaning of every reason, in the order of the bits.
    pub const MEANINGS: [(u16, &str, &str); 10] = [
        (BAD, "BAD", "known bad pixel or column"),
        (SATURATED, "SATURATED", "saturated in the raw frame"),
        (BLEED, "BLEED", "bleed trail of a saturated star"),
        (COSMIC_RAY, "COSMIC", "cosmic ray"),
        (TRAIL, "TRAIL", "satellite or aircraft trail"),
        (NO_DATA, "NODATA", "no data"),
        (LOW_FLAT, "LOWFLAT", "flat field unusable"),
        (HOT, "HOT", "hot pixel of the dark"),
        (FILLED, "FILLED", "value filled in"),
        (REFERENCE, "REFMASK", "masked in the reference"),
    ];
}

/// One mask value a pixel, bits of [`mask`].
pub type Mask = Array2<u16>;

/// Values that stand in place of some pixels of an image, which itself stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// Row, column, value; in the order of the rows.
    pixels: Vec<(u32, u32, f32)>,
}

impl Overlay {
    /// Of pixels (column, row) and their values, each pixel once.
    pub fn new(pixels: impl IntoIterator<Item = ((usize, usize), f32)>) -> Self {
        let mut pixels: Vec<_> = pixels.into_iter().map(|((x, y), value)| (y as u32, x as u32, value)).collect();
        pixels.sort_unstable_by_key(|(y, x, _)| (*y, *x));
        Self { pixels }
    }

    /// Columns and values of a row.
    pub fn row(&self, y: usize) -> impl Iterator<Item = (usize, f32)> {
        let start = self.pixels.partition_point(|(row, ..)| (*row as usize) < y);
        self.pixels[start..].iter().take_while(move |(row, ..)| *row as usize == y).map(|(_, x, v)| (*x as usize, *v))
    }
}
