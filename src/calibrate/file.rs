//! How a [`CalibratedFrame`] is laid out as images of a FITS file, and read back without loss.
//!
//! | image | holds |
//! | --- | --- |
//! | primary | electrons above the sky (`BUNIT`), `CALSTAT = 'NIGHTJAR'`, the camera's cards, the WCS |
//! | `VARIANCE` | variance, electrons² |
//! | `MASK` | bits; `MSKBIT00 = 'BAD'` and so on give the meaning of each |
//! | `SKYLEVEL`, `SKYNOISE` | the mesh of the background that was subtracted and of its noise, `BOXSIZE` pixels a box |

use ndarray::Array2;

use super::{Background, CalibrateError, CalibratedFrame};
use crate::exposure::Exposure;
use crate::fits::{FitsImage, HduOut, Header, Plane};
use crate::image::{Image, Mask, mask};

const STAMP: &str = "CALSTAT";
const STAMP_VALUE: &str = "NIGHTJAR";

/// Whether Nightjar wrote the file with this header.
pub(super) fn is_ours(header: &Header) -> bool {
    header.text(&[STAMP]).as_deref() == Some(STAMP_VALUE)
}

/// The images of a frame, ready for [`crate::fits::write_fits`].
#[derive(Debug)]
pub struct FrameImages<'a> {
    frame: &'a CalibratedFrame,
    primary: Header,
    variance: Header,
    mask: Header,
    mesh: Header,
}

impl<'a> FrameImages<'a> {
    /// Those of `frame`.
    pub fn new(frame: &'a CalibratedFrame) -> Self {
        let mut primary = frame.header.clone();
        primary
            .set(STAMP, STAMP_VALUE, "calibrated by Nightjar; MASK and VARIANCE follow")
            .set("BUNIT", if frame.gain_known { "electron" } else { "adu" }, "unit of the pixels, sky subtracted")
            .set("GAINKNWN", frame.gain_known, "whether the gain was known")
            .set("SKYMED", f64::from(frame.background.median_level()), "median sky that was subtracted")
            .set("SKYSIG", f64::from(frame.background.median_noise()), "median noise of the empty sky");
        if frame.gain_known && primary.number(&["GAIN"]).is_some_and(|gain| gain != 1.0) {
            primary.set("GAIN", 1.0, "the pixels are in electrons");
        }
        let mut variance = Header::new();
        variance.set("BUNIT", if frame.gain_known { "electron2" } else { "adu2" }, "unit of the variance");
        let mut mesh = Header::new();
        mesh.set("BOXSIZE", frame.background.box_size as i64, "pixels a box of the background mesh");
        Self { frame, primary, variance, mask: mask_header(), mesh }
    }

    /// The header of the primary image, for cards beyond those of the frame.
    pub fn primary_mut(&mut self) -> &mut Header {
        &mut self.primary
    }

    /// The images in the order of the file.
    pub fn hdus(&self) -> [HduOut<'_>; 5] {
        let frame = self.frame;
        let image = |name, header, pixels| HduOut { name, header, plane: Plane::F32(pixels) };
        [
            image("", &self.primary, &frame.pixels.pixels),
            image("VARIANCE", &self.variance, &frame.variance.pixels),
            HduOut { name: "MASK", header: &self.mask, plane: Plane::U16(&frame.mask) },
            image("SKYLEVEL", &self.mesh, &frame.background.level),
            image("SKYNOISE", &self.mesh, &frame.background.noise),
        ]
    }
}

/// Cards that give the meaning of each bit of a mask.
pub fn mask_header() -> Header {
    let mut header = Header::new();
    for (bit, name, meaning) in mask::MEANINGS {
        header.set(&format!("MSKBIT{:02}", bit.trailing_zeros()), name, meaning);
    }
    header
}

/// The frame of a file that Nightjar wrote.
pub(super) fn from_planes(planes: Vec<FitsImage>, exposure: Exposure) -> Result<CalibratedFrame, CalibrateError> {
    let file = exposure.file.clone();
    let mut planes = planes.into_iter();
    let missing = |name: &'static str| CalibrateError::MissingPlane { file: file.clone(), name };
    let Some(FitsImage { mut header, mut pixels, .. }) = planes.next() else {
        return Err(CalibrateError::NoImage { file });
    };
    let mut rest: Vec<FitsImage> = planes.collect();
    let mut take = |name: &'static str| {
        let at = rest.iter().position(|plane| plane.name == name).ok_or_else(|| missing(name))?;
        Ok(rest.swap_remove(at))
    };
    let (variance, mask_plane) = (take("VARIANCE")?, take("MASK")?);
    let (level, noise) = (take("SKYLEVEL")?, take("SKYNOISE")?);
    if variance.pixels.dim() != pixels.dim() || mask_plane.pixels.dim() != pixels.dim() {
        return Err(CalibrateError::PlaneSize { file });
    }
    let mut bits = mask_bits(&mask_plane);
    for (value, bits) in pixels.iter_mut().zip(bits.iter_mut()).filter(|(value, _)| !value.is_finite()) {
        (*value, *bits) = (0.0, *bits | mask::NO_DATA);
    }
    let gain_known = header.text(&["BUNIT"]).as_deref() == Some("electron");
    let box_size = level.header.number(&["BOXSIZE"]).filter(|n| (1.0..1e6).contains(n)).unwrap_or(64.0) as usize;
    let variance = variance.pixels.mapv(|v| if v > 0.0 && v.is_finite() { v } else { f32::MAX.sqrt() });
    for keyword in [STAMP, "GAINKNWN", "SKYMED", "SKYSIG"] {
        header.remove(keyword);
    }
    if level.pixels.dim() != noise.pixels.dim() || level.pixels.iter().chain(&noise.pixels).any(|v| !v.is_finite()) {
        return Err(CalibrateError::PlaneSize { file });
    }
    Ok(CalibratedFrame {
        exposure,
        header,
        pixels: Image::new(pixels),
        variance: Image::new(variance),
        mask: bits,
        background: Background { box_size, level: level.pixels, noise: noise.pixels },
        gain_known,
    })
}

/// The bits of a mask plane by the names in its header: older files may have numbered them otherwise.
fn mask_bits(plane: &FitsImage) -> Mask {
    let meanings: Vec<(u16, u16)> = (0..16_u16)
        .filter_map(|at| {
            let name = plane.header.text(&[&format!("MSKBIT{at:02}")])?;
            let (bit, ..) = mask::MEANINGS.iter().find(|(_, known, _)| *known == name)?;
            Some((1 << at, *bit))
        })
        .collect();
    let unchanged = meanings.iter().all(|(from, to)| from == to);
    let raw: Array2<u16> = plane.pixels.mapv(|value| value as u16);
    if unchanged {
        return raw;
    }
    raw.mapv(|raw| meanings.iter().filter(|(from, _)| raw & from != 0).fold(0, |bits, (_, to)| bits | to))
}
