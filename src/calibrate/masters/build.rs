//! Combines frames into masters, and refuses those that would spoil one.
//!
//! A master is on every exposure of a night, so that a bad one makes bad alerts everywhere. A frame that
//! does not belong is left out with its reason; fewer than [`MIN_FRAMES`] good ones make no master.

use super::stack::{Load, Member, Stack};
use super::{MasterBias, MasterDark, MasterError, MasterFlat, Masters, Provenance, Refusal};
use crate::exposure::FrameKind;
use crate::image::Image;

/// Fewest frames that make a master: with two nothing tells which of them is wrong.
pub const MIN_FRAMES: usize = 3;
/// Largest difference of temperature from the median of the frames, kelvin.
const TEMPERATURE_TOLERANCE: f64 = 3.0;
/// Longest exposure of a bias, seconds.
const MAX_BIAS_S: f64 = 0.1;
/// Faintest flat that is worth having, ADU above bias.
const MIN_FLAT_ADU: f64 = 500.0;

/// A master and the frames that were left out of it.
#[derive(Debug, Clone)]
pub struct Combined<M> {
    /// The master.
    pub master: M,
    /// Frames that were refused, with reasons.
    pub refused: Vec<Refusal>,
}

/// Combines `count` frames into a master bias.
///
/// # Errors
///
/// When fewer than [`MIN_FRAMES`] are good; the error lists why the others are not.
pub fn combine_bias(count: usize, load: Load<'_>) -> Result<Combined<MasterBias>, MasterError> {
    let mut refused = Vec::new();
    let mut stack = Stack::new(count, load, &mut refused)?;
    refuse(&mut stack, &mut refused, |member| {
        wrong_kind(member, &[FrameKind::Bias]).or_else(|| {
            let seconds = member.exposure.exposure_s;
            (seconds > MAX_BIAS_S).then(|| format!("it was exposed for {seconds} s; a bias has no exposure"))
        })
    });
    refuse_strangers(&mut stack, &mut refused);
    let others = Others::of(&stack);
    refuse(&mut stack, &mut refused, |member| light_in_bias(member, &others));
    enough("bias", &stack, &mut refused)?;
    let read_noise = stack.noise(|_| 1.0);
    let image = stack.combine(read_noise as f32, |_, _, _| {})?;
    let master = MasterBias {
        image: Image::new(image),
        noise: read_noise / (stack.members.len() as f64).sqrt(),
        read_noise,
        provenance: provenance(&stack),
    };
    Ok(Combined { master, refused })
}

/// Combines `count` frames into a master dark. The bias is taken from `masters`; without it the frames
/// need an overscan.
///
/// # Errors
///
/// As [`combine_bias`], and when there is no bias to take off.
pub fn combine_dark(count: usize, load: Load<'_>, masters: &Masters) -> Result<Combined<MasterDark>, MasterError> {
    let mut refused = Vec::new();
    let mut stack = Stack::new(count, load, &mut refused)?;
    refuse(&mut stack, &mut refused, |member| {
        wrong_kind(member, &[FrameKind::Dark]).or_else(|| {
            let seconds = member.exposure.exposure_s;
            (seconds < 1e-3).then(|| "its exposure is 0 s; a dark is exposed as long as the sky".to_owned())
        })
    });
    refuse_strangers(&mut stack, &mut refused);
    let (others, bias_level) = (Others::of(&stack), level_of(masters.bias.as_ref()));
    let exposure_s = typical(&stack, |m| m.exposure.exposure_s);
    refuse(&mut stack, &mut refused, |member| light_in_dark(member, &others, bias_level, exposure_s));
    needs_pedestal("dark", &stack, masters)?;
    enough("dark", &stack, &mut refused)?;
    fits_bias("dark", &stack, masters)?;
    let bias = masters.bias.as_ref();
    let gain = gain_of(&stack);
    let per_second = gain * stack.noise(|member| 1.0 / member.exposure.exposure_s);
    let image = stack.combine(per_second as f32, |member, y, row| {
        to_electrons(member, bias, y, row);
        let seconds = member.exposure.exposure_s as f32;
        row.iter_mut().for_each(|value| *value /= seconds);
    })?;
    let mut sample: Vec<f32> = image.iter().step_by((image.len() / 100_000).max(1)).copied().collect();
    let rate = median(&mut sample);
    sample.iter_mut().for_each(|value| *value = (*value - rate).abs());
    let spread = 1.4826 * f64::from(median(&mut sample));
    let bias_noise = bias.map_or(0.0, |bias| bias.noise * gain / exposure_s);
    let master = MasterDark {
        image: Image::new(image),
        noise: (per_second.powi(2) / stack.members.len() as f64 + bias_noise.powi(2)).sqrt(),
        exposure_s,
        hot_limit: f64::from(rate) + (20.0 * spread).max(HOT_RATE),
        provenance: provenance(&stack),
    };
    Ok(Combined { master, refused })
}

/// A pixel with less dark current than this is not called hot, electrons a second.
const HOT_RATE: f64 = 5.0;

/// Combines `count` frames of one filter into a master flat.
///
/// # Errors
///
/// As [`combine_dark`].
pub fn combine_flat(count: usize, load: Load<'_>, masters: &Masters) -> Result<Combined<MasterFlat>, MasterError> {
    let mut refused = Vec::new();
    let mut stack = Stack::new(count, load, &mut refused)?;
    // Some telescopes take their flats on the dithered sky and call them light frames.
    refuse(&mut stack, &mut refused, |member| wrong_kind(member, &[FrameKind::Flat, FrameKind::Light]));
    let filter = most_common(stack.members.iter().map(|member| member.exposure.filter.clone()));
    refuse(&mut stack, &mut refused, |member| {
        let own = &member.exposure.filter;
        (*own != filter).then(|| format!("its filter is {own}, that of the others {filter}"))
    });
    refuse_strangers(&mut stack, &mut refused);
    needs_pedestal("flat", &stack, masters)?;
    fits_bias("flat", &stack, masters)?;
    let bias = masters.bias.as_ref();
    let bias_level = bias
        .map_or(0.0, |bias| f64::from(median(&mut bias.image.pixels.iter().step_by(97).copied().collect::<Vec<_>>())));
    let read_noise = bias.map_or(0.0, |bias| bias.read_noise);
    let gain = gain_of(&stack);
    let gain_known = stack.members.iter().all(|member| member.gain.is_some());
    refuse(&mut stack, &mut refused, |member| {
        unusable_flat(member, member.level - bias_level, read_noise, gain_known.then_some(gain))
    });
    enough("flat", &stack, &mut refused)?;
    let dark = masters.dark.as_ref().filter(|dark| dark.image.shape() == (stack.mosaic.height, stack.mosaic.width));
    let levels: Vec<f64> = stack.members.iter().map(|member| (member.level - bias_level) * gain).collect();
    let noise = stack.noise(|member| 1.0 / (member.level - bias_level));
    let names: Vec<String> = stack.members.iter().map(|member| member.exposure.file.clone()).collect();
    let image = stack.combine(noise as f32, |member, y, row| {
        to_electrons(member, bias, y, row);
        if let Some(dark) = dark {
            let seconds = member.exposure.exposure_s as f32;
            row.iter_mut().zip(dark.image.pixels.row(y)).for_each(|(value, rate)| *value -= rate * seconds);
        }
        let level = names.iter().position(|name| *name == member.exposure.file).map_or(1.0, |at| levels[at]);
        row.iter_mut().for_each(|value| *value /= level as f32);
    })?;
    let middle = median(&mut image.iter().step_by((image.len() / 200_000).max(1)).copied().collect::<Vec<_>>());
    let image = image.mapv_into(|value| value / middle);
    let master = MasterFlat {
        image: Image::new(image),
        noise: noise / (stack.members.len() as f64).sqrt(),
        filter,
        provenance: provenance(&stack),
    };
    Ok(Combined { master, refused })
}

/// ADU above the overscan to electrons above bias (ADU where the gain is unknown).
fn to_electrons(member: &Member, bias: Option<&MasterBias>, y: usize, row: &mut [f32]) {
    if let Some(bias) = bias {
        row.iter_mut().zip(bias.image.pixels.row(y)).for_each(|(value, bias)| *value -= bias);
    }
    if let [only] = member.amplifiers.as_slice() {
        let gain = only.gain.unwrap_or(1.0) as f32;
        row.iter_mut().for_each(|value| *value *= gain);
        return;
    }
    if let Some(mosaic) = crate::camera::Mosaic::of(&member.amplifiers) {
        for (place, amplifier) in mosaic.places.iter().zip(&member.amplifiers) {
            if (place.y0..place.y1).contains(&y) {
                let gain = amplifier.gain.unwrap_or(1.0) as f32;
                row[place.x0..place.x1].iter_mut().for_each(|value| *value *= gain);
            }
        }
    }
}

/// Leaves out every member for which `why` gives a reason.
fn refuse(stack: &mut Stack<'_>, refused: &mut Vec<Refusal>, why: impl Fn(&Member) -> Option<String>) {
    stack.members.retain(|member| match why(member) {
        Some(reason) => {
            refused.push(Refusal { file: member.exposure.file.clone(), reason });
            false
        }
        None => true,
    });
}

/// Another gain, readout mode or temperature than most.
fn refuse_strangers(stack: &mut Stack<'_>, refused: &mut Vec<Refusal>) {
    let mode = most_common(stack.members.iter().map(|member| member.mode.clone()));
    refuse(stack, refused, |member| {
        (member.mode != mode).then(|| format!("its readout mode is '{}', that of the others '{mode}'", member.mode))
    });
    let gain = typical(stack, |member| member.gain.unwrap_or(0.0));
    refuse(stack, refused, |member| {
        let own = member.gain.unwrap_or(0.0);
        ((own - gain).abs() > 0.01 * gain).then(|| format!("its gain is {own} e-/ADU, that of the others {gain}"))
    });
    let mut known: Vec<f32> = stack.members.iter().filter_map(|m| m.exposure.temperature_c).map(|t| t as f32).collect();
    let middle = f64::from(median(&mut known));
    refuse(stack, refused, |member| {
        let own = member.exposure.temperature_c?;
        ((own - middle).abs() > TEMPERATURE_TOLERANCE)
            .then(|| format!("the detector was at {own:.1} C, for the others at {middle:.1} C"))
    });
}

fn wrong_kind(member: &Member, allowed: &[FrameKind]) -> Option<String> {
    let kind = member.exposure.kind;
    (!allowed.contains(&kind)).then(|| format!("its header calls it a {kind:?} frame").to_lowercase())
}

/// What most members of a stack have, ADU.
struct Others {
    level: f64,
    noise: f64,
    unevenness: f64,
}

impl Others {
    fn of(stack: &Stack<'_>) -> Self {
        Self {
            level: typical(stack, |member| member.level),
            noise: typical(stack, |member| member.noise),
            unevenness: typical(stack, |member| member.unevenness),
        }
    }
}

fn light_in_bias(member: &Member, others: &Others) -> Option<String> {
    if member.noise <= 0.0 {
        return Some(no_noise(member));
    }
    let quiet = others.noise.max(0.5);
    if member.noise > 1.3 * others.noise + 0.5
        || (member.level - others.level).abs() > 5.0 * quiet + 0.02 * others.level.abs()
    {
        return Some(format!(
            "its level is {:.1} ADU and its noise {:.1}, for the others {:.1} and {:.1}: light in it, or another setting",
            member.level, member.noise, others.level, others.noise
        ));
    }
    // A pattern that all frames share belongs to the readout, unless it is as strong as light.
    let limit = (1.5 * others.unevenness + 5.0 * quiet).min(300.0_f64.max(100.0 * quiet));
    if member.unevenness > limit || member.bright > 0.005 {
        return Some(format!(
            "parts of it differ by {:.1} ADU (at most {limit:.1}) and {:.2} % of its pixels stand out: light in it",
            member.unevenness,
            100.0 * member.bright
        ));
    }
    if member.has_overscan() && member.level > 50.0_f64.max(15.0 * quiet) {
        return Some(format!("it lies {:.1} ADU above its overscan: light in it", member.level));
    }
    None
}

fn no_noise(member: &Member) -> String {
    format!("every pixel is {:.1} ADU: no read noise, so no readout", member.level)
}

/// Darks of different exposures differ in level; what is compared is what the bias leaves, by exposure.
fn light_in_dark(member: &Member, others: &Others, bias_level: f64, exposure_s: f64) -> Option<String> {
    if member.noise <= 0.0 {
        return Some(no_noise(member));
    }
    let expected = bias_level + (others.level - bias_level) * member.exposure.exposure_s / exposure_s;
    let limit = 10.0 * others.noise.max(0.5) + 0.1 * (expected - bias_level).abs();
    ((member.level - expected).abs() > limit).then(|| {
        format!("its level is {:.1} ADU where the others make {expected:.1} likely: light in it", member.level)
    })
}

fn unusable_flat(member: &Member, level: f64, read_noise: f64, gain: Option<f64>) -> Option<String> {
    if member.saturated > 0.01 {
        return Some(format!("{:.1} % of its pixels are saturated; expose less", 100.0 * member.saturated));
    }
    if level < MIN_FLAT_ADU {
        return Some(format!(
            "its level is {level:.0} ADU above bias, at least {MIN_FLAT_ADU:.0} are needed; expose longer or earlier"
        ));
    }
    let photons = gain.map_or(0.0, |gain| (level / gain).sqrt());
    let expected = photons.hypot(read_noise);
    if member.noise <= 0.0 || member.noise < 0.4 * expected {
        return Some(format!(
            "it is featureless: its noise is {:.2} ADU where light of {level:.0} ADU makes {expected:.1}; check the camera",
            member.noise
        ));
    }
    if member.bright > 0.02 {
        return Some(format!(
            "{:.1} % of its pixels are covered by stars; take it in brighter twilight",
            100.0 * member.bright
        ));
    }
    None
}

fn needs_pedestal(kind: &'static str, stack: &Stack<'_>, masters: &Masters) -> Result<(), MasterError> {
    if masters.bias.is_some() || stack.members.iter().all(Member::has_overscan) {
        return Ok(());
    }
    Err(MasterError::NoBias { kind })
}

fn fits_bias(kind: &'static str, stack: &Stack<'_>, masters: &Masters) -> Result<(), MasterError> {
    match masters.bias.as_ref().map(|bias| bias.image.shape()) {
        Some((height, width)) if (height, width) != (stack.mosaic.height, stack.mosaic.width) => {
            Err(MasterError::BiasSize {
                kind,
                frames: (stack.mosaic.width, stack.mosaic.height),
                bias: (width, height),
            })
        }
        _ => Ok(()),
    }
}

fn enough(kind: &'static str, stack: &Stack<'_>, refused: &mut Vec<Refusal>) -> Result<(), MasterError> {
    if stack.members.len() >= MIN_FRAMES {
        return Ok(());
    }
    Err(MasterError::TooFew {
        kind,
        good: stack.members.len(),
        needed: MIN_FRAMES,
        refused: super::Refusals(std::mem::take(refused)),
    })
}

/// Level of the median pixel of a master bias, ADU; 0 without one.
fn level_of(bias: Option<&MasterBias>) -> f64 {
    bias.map_or(0.0, |bias| f64::from(median(&mut bias.image.pixels.iter().step_by(97).copied().collect::<Vec<_>>())))
}

fn gain_of(stack: &Stack<'_>) -> f64 {
    let gain = typical(stack, |member| member.gain.unwrap_or(1.0));
    if gain > 0.0 { gain } else { 1.0 }
}

fn provenance(stack: &Stack<'_>) -> Provenance {
    let mut temperatures: Vec<f32> =
        stack.members.iter().filter_map(|m| m.exposure.temperature_c).map(|t| t as f32).collect();
    let starts = stack.members.iter().map(|member| member.exposure.start.0);
    Provenance {
        files: stack.members.iter().map(|member| member.exposure.file.clone()).collect(),
        temperature_c: (!temperatures.is_empty()).then(|| f64::from(median(&mut temperatures))),
        gain: stack.members.first().and_then(|member| member.gain),
        mjd: Some((starts.clone().fold(f64::MAX, f64::min), starts.fold(f64::MIN, f64::max))),
    }
}

fn typical(stack: &Stack<'_>, of: impl Fn(&Member) -> f64) -> f64 {
    let mut values: Vec<f64> = stack.members.iter().map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn most_common(texts: impl Iterator<Item = String>) -> String {
    let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    texts.for_each(|text| *counts.entry(text).or_insert(0) += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(text, _)| text).unwrap_or_default()
}

fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f32::total_cmp).1 }
}
