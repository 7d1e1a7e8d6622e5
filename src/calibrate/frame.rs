//! A raw frame and the masters to a [`CalibratedFrame`].
//!
//! The steps follow the order in which the signal was spoilt, last first: saturation is flagged on
//! raw values, then overscan, linearity, bias, gain, dark and flat, all row by row while the row is in
//! the processor's cache. Then the background is measured and taken off together with the variance,
//! and on what is left cosmic rays and trails are found.

use ndarray::{Array2, ArrayViewMut1};
use rayon::prelude::*;

use super::background::{BOX_SIZE, measure};
use super::masters::{MasterDark, MasterFlat, Masters};
use super::overscan::{self, Overscan};
use super::{Background, CalibrateError, CalibratedFrame, cosmic_rays, dark_current, provenance, saturation, trails};
use crate::camera::{Amplifier, Mosaic, RawFrame};
use crate::image::{Image, Mask, mask};

/// How to calibrate.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationParameters {
    /// Correction of the response in ADU above bias: true = x (1 + c₀ x + c₁ x² + …), from the
    /// detector's linearity measurement; empty for a linear detector.
    pub linearity: Vec<f64>,
    /// Largest difference of temperature between frame and master dark, kelvin.
    pub temperature_tolerance: f64,
    /// Whether cosmic rays are looked for.
    pub cosmic_rays: bool,
    /// Whether satellite and aircraft trails are looked for.
    pub trails: bool,
}

impl Default for CalibrationParameters {
    fn default() -> Self {
        Self { linearity: Vec::new(), temperature_tolerance: 5.0, cosmic_rays: true, trails: true }
    }
}

/// A response outside of this is no response of the sky.
const FLAT_RANGE: std::ops::Range<f32> = 0.2..5.0;
/// A variance of less than this (electrons²) is not believed.
const MIN_VARIANCE: f32 = 1e-3;
/// From 2 standard deviations of the sky on, a pixel's flux adds to its variance.
const FLUX_SIGMAS_2: f32 = 4.0;

/// Calibrates a raw frame.
///
/// A master that is missing is left out, and the header says so; one that does not fit is an error.
///
/// # Errors
///
/// When the geometry cannot be, a master does not fit the frame, or there is no sky in it.
pub fn calibrate(
    mut raw: RawFrame,
    masters: &Masters,
    parameters: &CalibrationParameters,
) -> Result<CalibratedFrame, CalibrateError> {
    let file = raw.exposure.file.clone();
    let mosaic = Mosaic::of(&raw.amplifiers).ok_or_else(|| CalibrateError::Amplifiers { file: file.clone() })?;
    let chosen = Chosen::new(&raw, &mosaic, masters, parameters)?;
    let readouts: Vec<Readout> =
        raw.amplifiers.iter().map(|amplifier| Readout::new(&raw, amplifier, masters)).collect();

    let (mut pixels, mut bits) = reduce(&raw, &mosaic, &readouts, &chosen, parameters);
    if let Some(missing) = &raw.missing {
        copy_missing(missing, &raw.amplifiers, &mosaic, &mut pixels, &mut bits);
    }
    // The raw pixels have served.
    raw.pixels = Image::filled(0, 0, 0.0);
    raw.missing = None;
    let saturated = saturation::grow(&mut bits, pixels.view());

    let no_sky = || CalibrateError::NoSky { file: file.clone() };
    let background = measure(pixels.view(), &bits, BOX_SIZE).ok_or_else(no_sky)?;
    if background.median_noise() <= 0.0 {
        return Err(CalibrateError::Blank { file, level: f64::from(background.median_level()) });
    }
    let gain_known = raw.amplifiers.iter().all(|amplifier| amplifier.gain.is_some());
    let noise_model = NoiseModel::new(&readouts, &mosaic, &chosen, &background, gain_known);
    let variance = subtract(&mut pixels, &bits, &background, &noise_model, &chosen);
    super::columns::flag(pixels.view(), &mut bits, background.median_noise());
    let cosmic_rays = if parameters.cosmic_rays {
        cosmic_rays::flag(pixels.view(), variance.view(), &mut bits, cosmic_rays::MIN_FWHM)
    } else {
        cosmic_rays::Found::default()
    };
    let trails = if parameters.trails { trails::flag(pixels.view(), &background, &mut bits) } else { 0 };

    let found =
        provenance::Found { saturated, cosmic_rays, trails, noise_ratio: noise_model.sky_scale.sqrt(), gain_known };
    let header = provenance::header(&raw, &mosaic, &chosen, &readouts, &found);
    Ok(CalibratedFrame {
        exposure: raw.exposure,
        header,
        pixels: Image::new(pixels),
        variance: Image::new(variance),
        mask: bits,
        background,
        gain_known,
    })
}

/// The masters that apply to one frame.
pub(super) struct Chosen<'a> {
    pub bias: Option<&'a super::masters::MasterBias>,
    pub dark: Option<&'a MasterDark>,
    /// Electrons of dark current in the frame for one electron a second in the master.
    pub dark_scale: f32,
    pub flat: Option<&'a MasterFlat>,
}

impl<'a> Chosen<'a> {
    fn new(
        raw: &RawFrame,
        mosaic: &Mosaic,
        masters: &'a Masters,
        parameters: &CalibrationParameters,
    ) -> Result<Self, CalibrateError> {
        let exposure = &raw.exposure;
        let fits = |master: &'static str, (height, width): (usize, usize)| {
            if (height, width) == (mosaic.height, mosaic.width) {
                return Ok(());
            }
            Err(CalibrateError::MasterSize {
                file: exposure.file.clone(),
                master,
                frame: (mosaic.width, mosaic.height),
                size: (width, height),
            })
        };
        let bias = masters.bias.as_ref();
        let dark = masters.dark.as_ref();
        let flat = masters.flats.get(&exposure.filter);
        bias.map_or(Ok(()), |bias| fits("bias", bias.image.shape()))?;
        dark.map_or(Ok(()), |dark| fits("dark", dark.image.shape()))?;
        flat.map_or(Ok(()), |flat| fits("flat", flat.image.shape()))?;
        let mut dark_scale = exposure.exposure_s as f32;
        if let (Some(now), Some(then)) = (exposure.temperature_c, dark.and_then(|dark| dark.provenance.temperature_c)) {
            if (now - then).abs() > parameters.temperature_tolerance {
                return Err(CalibrateError::MasterTemperature {
                    file: exposure.file.clone(),
                    frame_c: now,
                    master_c: then,
                    tolerance: parameters.temperature_tolerance,
                });
            }
            dark_scale *= dark_current::ratio(now, then) as f32;
        }
        Ok(Self { bias, dark, dark_scale, flat })
    }
}

/// One amplifier's numbers for this frame.
pub(super) struct Readout {
    /// Electrons per ADU; 1 where nobody knows it.
    pub gain: f32,
    /// Read noise, electrons.
    pub read_noise: f32,
    /// From this raw value on a pixel is saturated, ADU.
    pub saturation: f32,
    pub overscan: Option<Overscan>,
}

impl Readout {
    fn new(raw: &RawFrame, amplifier: &Amplifier, masters: &Masters) -> Self {
        let overscan = overscan::measure(raw.pixels.pixels.view(), amplifier);
        let gain = amplifier.gain.unwrap_or(1.0);
        let measured = || {
            let overscan = overscan.as_ref().map(|overscan| overscan.noise);
            gain * masters.bias.as_ref().map(|bias| bias.read_noise).or(overscan).unwrap_or(0.0)
        };
        let read_noise = amplifier.read_noise.unwrap_or_else(measured);
        let saturation = saturation::raw_limit(raw, amplifier);
        Self { gain: gain as f32, read_noise: read_noise as f32, saturation, overscan }
    }
}

/// Overscan, linearity, bias, gain, dark and flat, row by row; electrons, sky included, and the mask.
fn reduce(
    raw: &RawFrame,
    mosaic: &Mosaic,
    readouts: &[Readout],
    chosen: &Chosen<'_>,
    parameters: &CalibrationParameters,
) -> (Array2<f32>, Mask) {
    let mut pixels = Array2::<f32>::zeros((mosaic.height, mosaic.width));
    let mut bits = Mask::zeros((mosaic.height, mosaic.width));
    let rows = pixels.outer_iter_mut().into_par_iter().zip(bits.outer_iter_mut()).enumerate();
    rows.for_each(|(y, (mut row, mut row_bits))| {
        let (Some(row), Some(row_bits)) = (row.as_slice_mut(), row_bits.as_slice_mut()) else { return };
        for ((place, amplifier), readout) in mosaic.places.iter().zip(&raw.amplifiers).zip(readouts) {
            if !(place.y0..place.y1).contains(&y) {
                continue;
            }
            let (inside, data) = (y - place.y0, amplifier.data);
            let from = raw.pixels.pixels.slice(ndarray::s![data.y0 + inside, data.x0..data.x1]);
            let Some(from) = from.as_slice() else { return };
            let (out, out_bits) = (&mut row[place.x0..place.x1], &mut row_bits[place.x0..place.x1]);
            let level = readout.overscan.as_ref().map_or(0.0, |overscan| overscan.levels[inside]);
            steps::digitised(from, readout.saturation, level, out, out_bits);
            steps::linearise(&parameters.linearity, out);
            let columns = place.x0..place.x1;
            if let Some(bias) = chosen.bias.and_then(|bias| row_of(&bias.image.pixels, y, &columns)) {
                steps::bias(bias, out);
            }
            steps::gain(readout.gain, out);
            if let Some((master, dark)) =
                chosen.dark.and_then(|dark| Some((dark, row_of(&dark.image.pixels, y, &columns)?)))
            {
                steps::dark(dark, chosen.dark_scale, master.hot_limit as f32, out, out_bits);
            }
            if let Some(flat) = chosen.flat.and_then(|flat| row_of(&flat.image.pixels, y, &columns)) {
                steps::flat(flat, out, out_bits);
            }
        }
    });
    (pixels, bits)
}

fn row_of<'a>(plane: &'a Array2<f32>, y: usize, columns: &std::ops::Range<usize>) -> Option<&'a [f32]> {
    plane.as_slice().map(|all| &all[y * plane.ncols()..(y + 1) * plane.ncols()][columns.clone()])
}

/// The steps on one row, each a pure function of its arguments. Short loops without branches, which
/// the compiler turns into vector instructions.
mod steps {
    use super::{FLAT_RANGE, mask};

    /// Flags saturation on raw values and takes the overscan level off.
    pub(super) fn digitised(raw: &[f32], saturation: f32, overscan: f32, out: &mut [f32], bits: &mut [u16]) {
        for ((out, bits), raw) in out.iter_mut().zip(bits).zip(raw) {
            *bits = if *raw >= saturation { mask::SATURATED } else { 0 };
            *out = raw - overscan;
        }
    }

    /// true = x (1 + c₀ x + c₁ x² + …).
    pub(super) fn linearise(coefficients: &[f64], row: &mut [f32]) {
        if coefficients.is_empty() {
            return;
        }
        for value in row {
            let x = f64::from(*value);
            let correction = coefficients.iter().rev().fold(0.0, |sum, c| (sum + c) * x);
            *value = (x * (1.0 + correction)) as f32;
        }
    }

    pub(super) fn bias(bias: &[f32], row: &mut [f32]) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value -= bias;
        }
    }

    pub(super) fn gain(gain: f32, row: &mut [f32]) {
        for value in row {
            *value *= gain;
        }
    }

    pub(super) fn dark(dark: &[f32], scale: f32, hot_limit: f32, row: &mut [f32], bits: &mut [u16]) {
        for ((value, bits), dark) in row.iter_mut().zip(bits).zip(dark) {
            *value -= dark * scale;
            *bits |= if *dark >= hot_limit { mask::HOT } else { 0 };
        }
    }

    /// Divides by the response; where there is none worth the name the value stays and is flagged.
    pub(super) fn flat(flat: &[f32], row: &mut [f32], bits: &mut [u16]) {
        for ((value, bits), flat) in row.iter_mut().zip(bits).zip(flat) {
            let usable = FLAT_RANGE.contains(flat);
            *value /= if usable { *flat } else { 1.0 };
            *bits |= if usable { 0 } else { mask::LOW_FLAT };
        }
    }
}

fn copy_missing(missing: &Mask, amplifiers: &[Amplifier], mosaic: &Mosaic, pixels: &mut Array2<f32>, bits: &mut Mask) {
    for (place, amplifier) in mosaic.places.iter().zip(amplifiers) {
        let data = amplifier.data;
        let from = missing.slice(ndarray::s![data.y0..data.y1, data.x0..data.x1]);
        let to = ndarray::s![place.y0..place.y1, place.x0..place.x1];
        let (mut bits, mut pixels) = (bits.slice_mut(to), pixels.slice_mut(to));
        ndarray::Zip::from(&from).and(&mut bits).and(&mut pixels).for_each(|missing, bits, pixel| {
            if *missing != 0 {
                *bits |= missing;
                *pixel = 0.0;
            }
        });
    }
}

/// What the variance of a pixel is made of, beside its sky and its flux.
pub(super) struct NoiseModel {
    /// Read noise squared plus that of the bias and the dark, electrons², by column and amplifier row.
    read: Vec<(crate::camera::Section, f32)>,
    /// Relative variance of the flat at response 1.
    flat: f32,
    /// Measured over modelled variance of the empty sky: 1 where gain and read noise are right.
    pub sky_scale: f32,
    /// Variance per unit of signal: 1 in electrons, 1/gain where the gain is unknown and the sky tells it.
    per_photon: f32,
}

impl NoiseModel {
    fn new(
        readouts: &[Readout],
        mosaic: &Mosaic,
        chosen: &Chosen<'_>,
        background: &Background,
        gain_known: bool,
    ) -> Self {
        let pedestal_free = chosen.bias.is_some() || readouts.iter().all(|readout| readout.overscan.is_some());
        let read = mosaic.places.iter().zip(readouts).map(|(place, readout)| {
            let bias = chosen.bias.map_or(0.0, |bias| bias.noise as f32 * readout.gain);
            let dark = chosen.dark.map_or(0.0, |dark| dark.noise as f32 * chosen.dark_scale);
            (*place, readout.read_noise.powi(2) + bias * bias + dark * dark)
        });
        let mut model = Self {
            read: read.collect(),
            flat: chosen.flat.map_or(0.0, |flat| (flat.noise * flat.noise) as f32),
            sky_scale: 1.0,
            per_photon: 1.0,
        };
        if !gain_known && pedestal_free {
            // A photon-limited sky of level L and variance σ² has the gain L / (σ² − read noise²).
            let (level, noise) = (background.median_level(), background.median_noise());
            let read = model.read.first().map_or(0.0, |(_, read)| *read);
            if level > 0.0 && noise * noise > 2.0 * read {
                model.per_photon = ((noise * noise - read) / level).clamp(1e-3, 1e3);
            }
        }
        // The model at the centre of each box against the noise that was measured there.
        let mut ratios: Vec<f32> = Vec::new();
        for ((j, i), noise) in background.noise.indexed_iter() {
            let at = |node: usize, length: usize| (node * BOX_SIZE + BOX_SIZE / 2).min(length - 1);
            let (y, x) = (at(j, mosaic.height), at(i, mosaic.width));
            let response = chosen.flat.map_or(1.0, |flat| local_response(&flat.image.pixels, y, x));
            let level = background.level[[j, i]];
            let modelled = model.of_sky(model.read_at(y, x), level, 0.0, response);
            if modelled > 0.0 && *noise > 0.0 {
                ratios.push(noise * noise / modelled);
            }
        }
        let middle = ratios.len() / 2;
        if !ratios.is_empty() {
            model.sky_scale = ratios.select_nth_unstable_by(middle, f32::total_cmp).1.clamp(0.02, 50.0);
        }
        model
    }

    fn read_at(&self, y: usize, x: usize) -> f32 {
        let at = self.read.iter().find(|(p, _)| (p.y0..p.y1).contains(&y) && (p.x0..p.x1).contains(&x));
        at.map_or(0.0, |(_, read)| *read)
    }

    /// Variance of empty sky, electrons²: read noise, sky, dark current and flat.
    fn of_sky(&self, read: f32, level: f32, dark: f32, response: f32) -> f32 {
        let photons = (level.max(0.0) * response + dark) * self.per_photon;
        (read + photons) / (response * response) + self.flat / response * level * level
    }
}

/// Median response of a few pixels about a point.
fn local_response(flat: &Array2<f32>, y: usize, x: usize) -> f32 {
    let (height, width) = flat.dim();
    let mut near: Vec<f32> = (0..25)
        .map(|k| {
            flat[[
                (y + k / 5 * 7).saturating_sub(14).min(height - 1),
                (x + k % 5 * 7).saturating_sub(14).min(width - 1),
            ]]
        })
        .filter(|response| FLAT_RANGE.contains(response))
        .collect();
    let middle = near.len() / 2;
    if near.is_empty() { 1.0 } else { *near.select_nth_unstable_by(middle, f32::total_cmp).1 }
}

/// Takes the background off and gives the variance, in one pass.
fn subtract(
    pixels: &mut Array2<f32>,
    bits: &Mask,
    background: &Background,
    model: &NoiseModel,
    chosen: &Chosen<'_>,
) -> Array2<f32> {
    let (height, width) = pixels.dim();
    let levels = background.level_surface();
    let mut variance = Array2::<f32>::zeros((height, width));
    let rows =
        pixels.outer_iter_mut().into_par_iter().zip(variance.outer_iter_mut()).zip(bits.outer_iter()).enumerate();
    rows.for_each_init(
        || (vec![0.0_f32; width], vec![0.0_f32; width]),
        |(level, read), (y, ((mut row, mut variance), bits))| {
            levels.fill_row(y, level);
            for (place, value) in model.read.iter().filter(|(place, _)| (place.y0..place.y1).contains(&y)) {
                read[place.x0..place.x1].fill(*value);
            }
            let columns = 0..width;
            let flat = chosen.flat.and_then(|flat| row_of(&flat.image.pixels, y, &columns));
            let dark = chosen.dark.and_then(|dark| row_of(&dark.image.pixels, y, &columns));
            subtract_row(&mut row, &mut variance, level, read, (flat, dark, chosen.dark_scale), model);
            for (value, _) in row.iter_mut().zip(bits).filter(|(_, bits)| *bits & mask::NO_DATA != 0) {
                *value = 0.0;
            }
        },
    );
    variance
}

type RowMasters<'a> = (Option<&'a [f32]>, Option<&'a [f32]>, f32);

fn subtract_row(
    row: &mut ArrayViewMut1<'_, f32>,
    variance: &mut ArrayViewMut1<'_, f32>,
    level: &[f32],
    read: &[f32],
    (flat, dark, dark_scale): RowMasters<'_>,
    model: &NoiseModel,
) {
    let (Some(row), Some(variance)) = (row.as_slice_mut(), variance.as_slice_mut()) else { return };
    for (x, (value, variance)) in row.iter_mut().zip(variance).enumerate() {
        let response = flat.map_or(1.0, |flat| if FLAT_RANGE.contains(&flat[x]) { flat[x] } else { 1.0 });
        let dark = dark.map_or(0.0, |dark| (dark[x] * dark_scale).max(0.0));
        *value -= level[x];
        let sky = model.of_sky(read[x], level[x], dark, response);
        let sky = sky * model.sky_scale;
        // What does not stand out of the noise is noise: counting its upper half as flux would raise
        // the variance of the empty sky.
        let flux = if *value > 0.0 && *value * *value > FLUX_SIGMAS_2 * sky { *value } else { 0.0 };
        *variance = (sky + flux * model.per_photon / response).max(MIN_VARIANCE);
    }
}
