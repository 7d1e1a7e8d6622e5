//! The frames that are combined: looked at once, held compactly, handed out row by row.

use std::ops::Range;

use ndarray::Array2;
use rayon::prelude::*;

use super::clip::clipped_mean;
use super::{MasterError, Refusal};
use crate::calibrate::overscan::{self, Overscan};
use crate::camera::{Amplifier, Mosaic, RawFrame};
use crate::exposure::Exposure;

/// Reads frame number `n` of those that are to be combined; the error is a sentence that names it.
pub type Load<'a> = &'a (dyn Fn(usize) -> Result<RawFrame, String> + Sync);

/// Most memory that the frames may take, bytes; with more of them they are read once for each band of
/// rows.
const BUDGET: usize = 512 << 20;
/// Pixels looked at for a frame's level and noise.
const SAMPLE: usize = 65_536;

/// Pixels of a raw frame as compactly as they can be held exactly.
enum Samples {
    Short(Vec<u16>),
    Float(Vec<f32>),
}

impl Samples {
    fn of(frame: &RawFrame, rows: Range<usize>) -> Self {
        let all = frame.pixels.pixels.slice(ndarray::s![rows, ..]);
        let short = |value: &f32| (0.0..=65_535.0).contains(value) && value.fract() == 0.0;
        if all.iter().all(short) {
            Self::Short(all.iter().map(|value| *value as u16).collect())
        } else {
            Self::Float(all.iter().copied().collect())
        }
    }

    fn copy(&self, from: usize, out: &mut [f32]) {
        let to = from + out.len();
        match self {
            Self::Short(all) => out.iter_mut().zip(&all[from..to]).for_each(|(out, value)| *out = f32::from(*value)),
            Self::Float(all) => out.copy_from_slice(&all[from..to]),
        }
    }
}

/// One frame of the stack, and what was measured on it.
pub(super) struct Member {
    number: usize,
    pub exposure: Exposure,
    pub amplifiers: Vec<Amplifier>,
    pub gain: Option<f64>,
    pub mode: String,
    shape: (usize, usize),
    overscans: Vec<Option<Overscan>>,
    /// Level of the median pixel above the overscan, ADU.
    pub level: f64,
    /// Noise from pixel to pixel, ADU, from differences of neighbours.
    pub noise: f64,
    /// Range of the levels of 8×8 parts of the frame, ADU.
    pub unevenness: f64,
    /// Part of the pixels that stand more than 15 times the noise above the level.
    pub bright: f64,
    /// Part of the pixels that are saturated.
    pub saturated: f64,
    /// The sampled raw values: two frames never agree in all of them.
    fingerprint: u64,
    /// Values of the trimmed frame at places that are the same for all members, ADU above the overscan.
    sample: Vec<f32>,
    samples: Option<Samples>,
}

impl Member {
    fn new(number: usize, frame: &RawFrame, mosaic: &Mosaic) -> Self {
        let overscans = frame.amplifiers.iter().map(|a| overscan::measure(frame.pixels.pixels.view(), a)).collect();
        let gains: Vec<f64> = frame.amplifiers.iter().filter_map(|a| a.gain).collect();
        let mut member = Self {
            number,
            exposure: frame.exposure.clone(),
            amplifiers: frame.amplifiers.clone(),
            gain: (!gains.is_empty()).then(|| gains.iter().sum::<f64>() / gains.len() as f64),
            mode: mode(frame),
            shape: frame.pixels.shape(),
            overscans,
            level: 0.0,
            noise: 0.0,
            unevenness: 0.0,
            bright: 0.0,
            saturated: 0.0,
            fingerprint: 0,
            sample: Vec::new(),
            samples: Some(Samples::of(frame, 0..frame.pixels.height())),
        };
        member.look(frame, mosaic);
        member
    }

    /// Level, noise and shape from a sample of rows.
    fn look(&mut self, frame: &RawFrame, mosaic: &Mosaic) {
        let step = (mosaic.width * mosaic.height / SAMPLE).max(1);
        let row_step = ((step as f64).sqrt() as usize).max(1).min(mosaic.height.div_ceil(8).max(1));
        let mut row = vec![0.0_f32; mosaic.width];
        let (mut values, mut differences) = (Vec::new(), Vec::new());
        let mut parts: Vec<Vec<f32>> = vec![Vec::new(); 64];
        let column_step = (step / row_step).max(1);
        for y in (0..mosaic.height).step_by(row_step) {
            self.row(mosaic, 0, y, &mut row);
            for x in (0..mosaic.width.saturating_sub(1)).step_by(column_step) {
                values.push(row[x]);
                differences.push((row[x + 1] - row[x]).abs());
                parts[y * 8 / mosaic.height * 8 + x * 8 / mosaic.width].push(row[x]);
            }
        }
        self.sample = values.clone();
        self.level = f64::from(median(&mut values));
        // Half of the differences of two values are below 0.6745 √2 standard deviations.
        self.noise = f64::from(median(&mut differences)) / (0.674_49 * std::f64::consts::SQRT_2);
        let levels = parts.iter_mut().filter(|part| !part.is_empty()).map(|part| f64::from(median(part)));
        let (low, high) = levels.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        self.unevenness = (high - low).max(0.0);
        let limit = (self.level + 15.0 * self.noise.max(0.5)) as f32;
        let count = values.len().max(1) as f64;
        self.bright = values.iter().filter(|value| **value > limit).count() as f64 / count;
        let raw = frame.pixels.pixels.view();
        let ceiling = frame.amplifiers.iter().filter_map(|a| a.saturation).fold(f64::INFINITY, f64::min).min(65_535.0);
        let (mut saturated, mut hash, mut seen) = (0_usize, 0xcbf2_9ce4_8422_2325_u64, 0_usize);
        for value in raw.iter().step_by(step) {
            saturated += usize::from(f64::from(*value) >= 0.99 * ceiling);
            // FNV-1a over the bits.
            hash = (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3);
            seen += 1;
        }
        (self.saturated, self.fingerprint) = (saturated as f64 / seen.max(1) as f64, hash);
    }

    /// Row `y` of the trimmed frame above its overscan, ADU. The samples begin with raw row `first`.
    fn row(&self, mosaic: &Mosaic, first: usize, y: usize, out: &mut [f32]) {
        let Some(samples) = &self.samples else { return };
        for ((place, amplifier), overscan) in mosaic.places.iter().zip(&self.amplifiers).zip(&self.overscans) {
            if !(place.y0..place.y1).contains(&y) {
                continue;
            }
            let inside = y - place.y0;
            let part = &mut out[place.x0..place.x1];
            samples.copy((amplifier.data.y0 + inside - first) * self.shape.1 + amplifier.data.x0, part);
            let level = overscan.as_ref().map_or(0.0, |overscan| overscan.levels[inside]);
            part.iter_mut().for_each(|value| *value -= level);
        }
    }

    /// Whether every amplifier's pedestal is taken off by its overscan.
    pub(super) fn has_overscan(&self) -> bool {
        self.overscans.iter().all(Option::is_some)
    }
}

/// What must agree between frames that are combined: binning and readout mode.
fn mode(frame: &RawFrame) -> String {
    let keywords = ["XBINNING", "YBINNING", "CCDSUM", "READOUTM", "READMODE", "CAM-GAIN", "GAINMODE"];
    let cards = keywords.iter().filter_map(|keyword| Some(format!("{keyword} {}", frame.header.text(&[keyword])?)));
    cards.collect::<Vec<_>>().join(", ")
}

fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f32::total_cmp).1 }
}

/// Frames of one size, ready to be combined.
pub(super) struct Stack<'a> {
    load: Load<'a>,
    pub mosaic: Mosaic,
    pub members: Vec<Member>,
    budget: usize,
}

impl<'a> Stack<'a> {
    /// Loads `count` frames and looks at each; those that cannot be read, are of another size than the
    /// first ones or a copy of an earlier one are refused.
    pub(super) fn new(count: usize, load: Load<'a>, refused: &mut Vec<Refusal>) -> Result<Self, MasterError> {
        let mut members: Vec<Member> = Vec::new();
        let mut mosaic: Option<Mosaic> = None;
        let mut held = 0;
        for number in 0..count {
            let frame = match load(number) {
                Ok(frame) => frame,
                Err(reason) => {
                    refused.push(Refusal { file: String::new(), reason });
                    continue;
                }
            };
            let file = frame.exposure.file.clone();
            let Some(here) = Mosaic::of(&frame.amplifiers) else {
                refused
                    .push(Refusal { file, reason: "its amplifiers do not tile a rectangle; correct DATASEC".into() });
                continue;
            };
            let mosaic = mosaic.get_or_insert_with(|| here.clone());
            if *mosaic != here || members.first().is_some_and(|first| first.shape != frame.pixels.shape()) {
                let reason = format!(
                    "it has {} x {} pixels where {} has {} x {}; take all frames in one readout mode",
                    here.width,
                    here.height,
                    members.first().map_or("the first frame", |first| first.exposure.file.as_str()),
                    mosaic.width,
                    mosaic.height
                );
                refused.push(Refusal { file, reason });
                continue;
            }
            let mut member = Member::new(number, &frame, mosaic);
            if let Some(twin) =
                members.iter().find(|other| other.fingerprint == member.fingerprint && other.noise == member.noise)
            {
                let reason = format!("it is a copy of {}; a frame counts once", twin.exposure.file);
                refused.push(Refusal { file, reason });
                continue;
            }
            held += frame.pixels.pixels.len() * 2;
            if held > BUDGET {
                member.samples = None;
                members.iter_mut().for_each(|member| member.samples = None);
            }
            members.push(member);
        }
        let mosaic = mosaic.ok_or(MasterError::NoFrames)?;
        Ok(Self { load, mosaic, members, budget: BUDGET })
    }

    /// The clipped mean of the members' rows after `reduce` (member, row number, row), which turns ADU
    /// above the overscan into what is combined; `noise` is that of a pixel then.
    pub(super) fn combine(
        &mut self,
        noise: f32,
        reduce: impl Fn(&Member, usize, &mut [f32]) + Sync,
    ) -> Result<Array2<f32>, MasterError> {
        let (width, height) = (self.mosaic.width, self.mosaic.height);
        let mut combined = Array2::<f32>::zeros((height, width));
        let whole = self.members.iter().all(|member| member.samples.is_some());
        let raw_rows = self.members.first().map_or(0, |first| first.shape.0);
        let bytes = self.members.iter().map(|member| member.shape.0 * member.shape.1 * 4).sum::<usize>();
        let bands = if whole { 1 } else { bytes.div_ceil(self.budget).max(1) };
        // Bands of trimmed rows; each needs the raw rows of all amplifiers that feed it.
        for band in 0..bands {
            let rows = band * height / bands..(band + 1) * height / bands;
            let raw = if whole { 0..raw_rows } else { self.raw_rows(&rows) };
            if !whole {
                self.load_band(&raw)?;
            }
            let mut part = combined.slice_mut(ndarray::s![rows.clone(), ..]);
            let count = self.members.len();
            let (members, mosaic) = (&self.members, &self.mosaic);
            part.outer_iter_mut().into_par_iter().enumerate().for_each_init(
                || (vec![0.0_f32; width * count], vec![0.0_f32; count]),
                |(lines, values), (line, mut out)| {
                    let y = rows.start + line;
                    for (member, row) in members.iter().zip(lines.chunks_mut(width)) {
                        member.row(mosaic, raw.start, y, row);
                        reduce(member, y, row);
                    }
                    for (x, out) in out.iter_mut().enumerate() {
                        for (k, value) in values.iter_mut().enumerate() {
                            *value = lines[k * width + x];
                        }
                        *out = clipped_mean(values, noise);
                    }
                },
            );
        }
        if !whole {
            self.members.iter_mut().for_each(|member| member.samples = None);
        }
        Ok(combined)
    }

    /// Noise of a pixel of a single member, times `scale` of its member: from the differences of members
    /// that follow each other, so that a pattern which they share is not taken for noise.
    pub(super) fn noise(&self, scale: impl Fn(&Member) -> f64) -> f64 {
        let pairs = self.members.windows(2).filter_map(|pair| {
            let [a, b] = pair else { return None };
            let (scale_a, scale_b) = (scale(a) as f32, scale(b) as f32);
            let mut differences: Vec<f32> =
                a.sample.iter().zip(&b.sample).map(|(a, b)| a * scale_a - b * scale_b).collect();
            let middle = median(&mut differences);
            differences.iter_mut().for_each(|difference| *difference = (*difference - middle).abs());
            Some((f64::from(median(&mut differences)) / (0.674_49 * std::f64::consts::SQRT_2)).powi(2))
        });
        let (sum, count) = pairs.fold((0.0, 0.0), |(sum, count), square| (sum + square, count + 1.0));
        f64::sqrt(sum / f64::max(count, 1.0))
    }

    /// The raw rows that the trimmed `rows` come from.
    fn raw_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let Some(first) = self.members.first() else { return 0..0 };
        let (mut start, mut end) = (usize::MAX, 0);
        for (place, amplifier) in self.mosaic.places.iter().zip(&first.amplifiers) {
            let (from, to) = (rows.start.max(place.y0), rows.end.min(place.y1));
            if from < to {
                start = start.min(from - place.y0 + amplifier.data.y0);
                end = end.max(to - place.y0 + amplifier.data.y0);
            }
        }
        start..end
    }

    fn load_band(&mut self, raw: &Range<usize>) -> Result<(), MasterError> {
        for member in &mut self.members {
            let frame = (self.load)(member.number).map_err(MasterError::Unreadable)?;
            if frame.pixels.shape() != member.shape {
                let reason = format!("{}: it changed while it was being read; run again", member.exposure.file);
                return Err(MasterError::Unreadable(reason));
            }
            member.samples = Some(Samples::of(&frame, raw.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::Section;
    use crate::exposure::{ExposureId, FrameKind};
    use crate::fits::Header;
    use crate::image::Image;
    use crate::time::{Mjd, NightName};

    fn frame(number: usize) -> RawFrame {
        let start = Mjd(60_000.0 + number as f64 * 1e-3);
        let night = NightName::of(start, 0.0);
        let section = |x0, x1, y0, y1| Section { x0, x1, y0, y1 };
        let amplifier = |data, overscan| Amplifier {
            data,
            overscan: Some(overscan),
            gain: None,
            read_noise: None,
            saturation: None,
        };
        RawFrame {
            exposure: Exposure {
                id: ExposureId::new(night, start),
                night,
                kind: FrameKind::Bias,
                start,
                exposure_s: 0.0,
                filter: String::new(),
                field: String::new(),
                pointing: None,
                temperature_c: None,
                file: format!("{number}.fits"),
            },
            pixels: Image::new(Array2::from_shape_fn((60, 50), |(y, x)| {
                let pedestal = if x < 25 { 500.0 } else { 700.0 };
                pedestal
                    + if (10..40).contains(&x) { (y * 3) as f32 } else { 0.0 }
                    + ((x * 7 + y * 13 + number * 5) % 11) as f32
            })),
            missing: None,
            amplifiers: vec![
                amplifier(section(10, 25, 0, 60), section(0, 10, 0, 60)),
                amplifier(section(25, 40, 0, 60), section(40, 50, 0, 60)),
            ],
            header: Header::new(),
        }
    }

    #[test]
    fn bands_give_the_same_as_the_whole() {
        let load = |number: usize| Ok(frame(number));
        let mut refused = Vec::new();
        let mut stack = Stack::new(5, &load, &mut refused).unwrap();
        let whole = stack.combine(3.0, |_, _, _| {}).unwrap();
        stack.members.iter_mut().for_each(|member| member.samples = None);
        stack.budget = 20_000;
        assert_eq!(stack.combine(3.0, |_, _, _| {}).unwrap(), whole);
        assert!(refused.is_empty());
        // Row by row the signal above the overscan.
        assert!((whole[[50, 3]] - 150.0).abs() < 8.0 && (whole[[50, 20]] - 150.0).abs() < 8.0, "{}", whole[[50, 3]]);
    }

    #[test]
    fn a_copy_is_refused_by_name() {
        let load = |number: usize| Ok(RawFrame { exposure: frame(number).exposure, ..frame(number % 2) });
        let mut refused = Vec::new();
        let stack = Stack::new(3, &load, &mut refused).unwrap();
        assert_eq!(stack.members.len(), 2);
        assert_eq!(refused[0].file, "2.fits");
        assert!(refused[0].reason.contains("copy of 0.fits"), "{}", refused[0].reason);
    }
}
