//! Images that others calibrated: sky-subtracted or not, with or without a gain, with NaN for what
//! they masked.
//!
//! Nothing in such a file says which of these it is, so it is measured. The sky part of the variance
//! is the square of the noise of the empty sky in each box, whatever the frame's history (a
//! sky-subtracted frame has background 0, and an averaged one less noise than its gain says); the
//! source part is flux over the effective gain. Of masks only our own are believed: the bits of
//! others mean something else (an LSST mask marks every detected star).

use ndarray::{Array2, Zip};
use rayon::prelude::*;

use super::background::{BOX_SIZE, Background, measure};
use super::{CalibrateError, CalibratedFrame, columns, cosmic_rays, file, saturation};
use crate::exposure::Exposure;
use crate::fits::{FitsImage, Header};
use crate::image::{Image, Mask, mask};

/// What to assume where the header does not say (`[detector]` in the settings).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AdoptParameters {
    /// Electrons per unit of the image.
    pub gain: Option<f64>,
    /// Read noise, electrons.
    pub read_noise: Option<f64>,
    /// Saturation level in units of the image, sky included.
    pub saturation: Option<f64>,
}

/// A variance of less than this (electrons²) is not believed: quantisation alone gives 1/12 at a gain of 1.
const MIN_VARIANCE: f32 = 1e-3;
/// Nothing on the sky is darker than the sky: below it by this many standard deviations a pixel is bad.
const DARK_SIGMAS: f32 = 8.0;
/// A sky of less than this part of what its noise asks for has been subtracted.
const SUBTRACTED_SKY: f64 = 0.3;
/// A sky that is this much quieter than a single exposure's belongs to an average of several.
const AVERAGED: f64 = 2.0;

/// Makes a [`CalibratedFrame`] of the images of one file: the first is the sky, extensions `VARIANCE`
/// and `MASK` are used when Nightjar wrote them.
///
/// # Errors
///
/// When there is no image, no usable sky in it, or a plane of another size.
pub fn adopt(
    planes: Vec<FitsImage>,
    exposure: Exposure,
    parameters: &AdoptParameters,
) -> Result<CalibratedFrame, CalibrateError> {
    let ours = planes.first().is_some_and(|plane| file::is_ours(&plane.header));
    if ours {
        return file::from_planes(planes, exposure);
    }
    let Some(FitsImage { header, pixels, .. }) = planes.into_iter().next() else {
        return Err(CalibrateError::NoImage { file: exposure.file });
    };
    foreign(header, pixels, exposure, parameters)
}

fn foreign(
    header: Header,
    mut pixels: Array2<f32>,
    exposure: Exposure,
    parameters: &AdoptParameters,
) -> Result<CalibratedFrame, CalibrateError> {
    let mut bits = missing_pixels(&mut pixels);
    let (unit_gain, gain_known) = gain(&header, parameters);
    let level = saturation::level_of(&header).or(parameters.saturation);

    let no_sky = || CalibrateError::NoSky { file: exposure.file.clone() };
    let first = measure(pixels.view(), &bits, BOX_SIZE).ok_or_else(no_sky)?;
    let (sky, noise) = (f64::from(first.median_level()), f64::from(first.median_noise()));
    if noise <= 0.0 || !noise.is_finite() {
        return Err(CalibrateError::Blank { file: exposure.file, level: sky });
    }
    // Units of the image from here to the end of this block. Photon noise alone makes this much sky:
    let read_noise = header.number(&["RDNOISE", "READNOIS"]).or(parameters.read_noise).unwrap_or(0.0);
    let sky_of_noise = (noise * noise * unit_gain - read_noise * read_noise / unit_gain).max(0.0);
    let subtracted = sky < SUBTRACTED_SKY * sky_of_noise;
    let effective_gain =
        if gain_known && sky > AVERAGED * sky_of_noise { unit_gain * sky / sky_of_noise.max(1e-9) } else { unit_gain };
    let effective_gain = effective_gain.clamp(unit_gain, unit_gain * 1000.0);
    let lost_sky = if subtracted && gain_known { sky_of_noise } else { 0.0 };
    let plateau = saturation::plateau(pixels.view(), sky as f32, noise as f32);
    let written =
        level.map(|level| (saturation::MARGIN * level - lost_sky) as f32).filter(|x| *x > (sky + 10.0 * noise) as f32);
    if let Some(limit) = written.into_iter().chain(plateau).reduce(f32::min) {
        saturation::flag(pixels.view(), &mut bits, limit);
    }

    let factor = unit_gain as f32;
    pixels.par_mapv_inplace(|value| value * factor);
    let background = measure(pixels.view(), &bits, BOX_SIZE).ok_or_else(no_sky)?;
    subtract(&mut pixels, &bits, &background);
    let variance = variance(&pixels, &bits, &background, (unit_gain / effective_gain) as f32);
    flag_dark(&pixels, &mut bits, &background);
    columns::flag(pixels.view(), &mut bits, background.median_noise());
    if effective_gain < AVERAGED * unit_gain {
        cosmic_rays::flag(pixels.view(), variance.view(), &mut bits, cosmic_rays::BROAD_FWHM);
    }
    Ok(CalibratedFrame {
        exposure,
        header,
        pixels: Image::new(pixels),
        variance: Image::new(variance),
        mask: bits,
        background,
        gain_known,
    })
}

/// Electrons per unit of the image, and whether anybody said so.
fn gain(header: &Header, parameters: &AdoptParameters) -> (f64, bool) {
    let unit = header.text(&["BUNIT"]).unwrap_or_default().to_ascii_lowercase();
    if matches!(unit.as_str(), "electron" | "electrons" | "e-" | "e" | "elec") {
        return (1.0, true);
    }
    let positive = |gain: &f64| *gain > 0.0 && *gain < 1e6;
    match header.number(&["GAIN", "EGAIN"]).filter(positive).or(parameters.gain.filter(positive)) {
        Some(gain) => (gain, true),
        None => (1.0, false),
    }
}

/// Marks what is not a number, and areas that are exactly zero in an image that is not (the border of
/// a resampled one), as without data; they hold 0 afterwards.
fn missing_pixels(pixels: &mut Array2<f32>) -> Mask {
    let (height, width) = pixels.dim();
    let mut bits = Mask::zeros((height, width));
    Zip::from(&mut *pixels).and(&mut bits).par_for_each(|value, bits| {
        if !value.is_finite() {
            *value = 0.0;
            *bits = mask::NO_DATA;
        }
    });
    let zeros_of = |(pixels, bits): (ndarray::ArrayView1<'_, f32>, ndarray::ArrayView1<'_, u16>)| {
        pixels.iter().zip(bits).filter(|(value, bits)| **value == 0.0 && **bits == 0).count()
    };
    let zeros: usize = pixels.outer_iter().into_par_iter().zip(bits.outer_iter()).map(zeros_of).sum();
    if zeros < 9 || zeros * 10 > height * width * 9 {
        return bits;
    }
    // A zero in the middle of nothing but zeros and NaN takes its neighbours with it.
    let empty = |y: usize, x: usize| pixels[[y, x]] == 0.0;
    let mut areas = Vec::new();
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            if empty(y, x) && (y - 1..=y + 1).all(|v| (x - 1..=x + 1).all(|u| empty(v, u))) {
                areas.push((y, x));
            }
        }
    }
    for (y, x) in areas {
        bits.slice_mut(ndarray::s![y - 1..=y + 1, x - 1..=x + 1]).fill(mask::NO_DATA);
    }
    bits
}

/// Takes the background off, row by row; pixels without data stay 0.
pub(super) fn subtract(pixels: &mut Array2<f32>, bits: &Mask, background: &Background) {
    let surface = background.level_surface();
    let width = pixels.ncols();
    let rows = pixels.outer_iter_mut().into_par_iter().zip(bits.outer_iter().into_par_iter()).enumerate();
    rows.for_each_init(
        || vec![0.0_f32; width],
        |level, (y, (mut row, bits))| {
            surface.fill_row(y, level);
            for ((pixel, level), bits) in row.iter_mut().zip(level.iter()).zip(bits) {
                *pixel = if bits & mask::NO_DATA == 0 { *pixel - level } else { 0.0 };
            }
        },
    );
}

/// Noise of the sky squared, and the flux above it times `per_electron` (1 for a single exposure).
///
/// The flux is the pixel's own where it stands far above the noise and the mean of its 3×3
/// surroundings elsewhere, so that noise peaks of the sky get no more variance than its valleys.
fn variance(pixels: &Array2<f32>, bits: &Mask, background: &Background, per_electron: f32) -> Array2<f32> {
    let (height, width) = pixels.dim();
    let surface = background.noise_surface();
    let floor = MIN_VARIANCE.max((0.1 * background.median_noise()).powi(2));
    let mut variance = Array2::zeros((height, width));
    variance.outer_iter_mut().into_par_iter().enumerate().for_each_init(
        || (vec![0.0_f32; width], vec![0.0_f32; width]),
        |(noise, sums), (y, mut row)| {
            surface.fill_row(y, noise);
            sums.fill(0.0);
            let near = y.saturating_sub(1)..(y + 2).min(height);
            let lines = near.len() as f32;
            for v in near {
                let data = pixels.row(v).into_iter().zip(bits.row(v));
                for (sum, (value, bits)) in sums.iter_mut().zip(data) {
                    *sum += if bits & mask::NO_DATA == 0 { *value } else { 0.0 };
                }
            }
            for (x, out) in row.iter_mut().enumerate() {
                let (from, to) = (x.saturating_sub(1), (x + 2).min(width));
                let mean = sums[from..to].iter().sum::<f32>() / (lines * (to - from) as f32);
                let own = pixels[[y, x]];
                let flux = if own > 5.0 * noise[x] { own } else { mean };
                *out = (noise[x] * noise[x] + flux.max(0.0) * per_electron).max(floor);
            }
        },
    );
    variance
}

/// Marks dead pixels and columns.
fn flag_dark(pixels: &Array2<f32>, bits: &mut Mask, background: &Background) {
    let surface = background.noise_surface();
    let width = pixels.ncols();
    bits.outer_iter_mut().into_par_iter().zip(pixels.outer_iter().into_par_iter()).enumerate().for_each_init(
        || vec![0.0_f32; width],
        |noise, (y, (mut bits, row))| {
            surface.fill_row(y, noise);
            for ((bits, value), noise) in bits.iter_mut().zip(row).zip(noise.iter()) {
                if *value < -DARK_SIGMAS * noise {
                    *bits |= mask::BAD;
                }
            }
        },
    );
}
