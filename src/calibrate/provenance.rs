//! The header of a calibrated frame: the camera's cards, the WCS moved to the trimmed image, and what
//! was done.

use super::cosmic_rays;
use super::frame::{Chosen, Readout};
use crate::camera::{Mosaic, RawFrame};
use crate::fits::{Header, Value};

/// What calibration found on a frame.
pub(super) struct Found {
    /// Saturated pixels.
    pub saturated: usize,
    pub cosmic_rays: cosmic_rays::Found,
    /// Satellite and aircraft trails.
    pub trails: usize,
    /// Measured over modelled noise of the empty sky.
    pub noise_ratio: f32,
    pub gain_known: bool,
}

/// Cards that describe the raw array and no longer hold.
const OF_THE_RAW_ARRAY: [&str; 8] =
    ["BIASSEC", "TRIMSEC", "DATASEC", "AMPSEC", "CCDSEC", "BLANK", "DATAMIN", "DATAMAX"];

pub(super) fn header(
    raw: &RawFrame,
    mosaic: &Mosaic,
    chosen: &Chosen<'_>,
    readouts: &[Readout],
    found: &Found,
) -> Header {
    let mut header = raw.header.clone();
    move_origin(&mut header, raw, mosaic);
    let numbered: Vec<String> = header
        .cards()
        .iter()
        .map(|card| card.keyword.clone())
        .filter(|keyword| OF_THE_RAW_ARRAY.iter().any(|stem| keyword.starts_with(stem)))
        .collect();
    for keyword in numbered {
        header.remove(&keyword);
    }
    if found.gain_known {
        let gains: Vec<String> = readouts.iter().map(|readout| readout.gain.to_string()).collect();
        header.set("RAWGAIN", gains.join(" "), "e-/ADU of the raw frame, by amplifier");
        header.set("GAIN", 1.0, "the pixels are in electrons");
        header.remove("EGAIN");
    }
    let saturation = readouts.iter().map(|r| f64::from(r.saturation * r.gain)).fold(f64::INFINITY, f64::min);
    if saturation.is_finite() {
        header.set("SATURATE", saturation, "raw saturation level in the unit of the pixels");
    }
    let noise = readouts.iter().map(|r| f64::from(r.read_noise)).fold(0.0, f64::max);
    header.set("RDNOISE", noise, "read noise, electrons");
    let used = |name: Option<String>| name.unwrap_or_else(|| "none".into());
    let frames = |count: usize, what: String| format!("{count} frames{what}");
    let overscan = readouts.iter().all(|readout| readout.overscan.is_some());
    header
        .set("CALOVSC", overscan, "overscan subtracted")
        .set("CALBIAS", used(chosen.bias.map(|bias| frames(bias.provenance.files.len(), String::new()))), "master bias")
        .set(
            "CALDARK",
            used(chosen.dark.map(|d| frames(d.provenance.files.len(), format!(", x {:.4}", chosen.dark_scale)))),
            "master dark, times seconds",
        )
        .set(
            "CALFLAT",
            used(chosen.flat.map(|flat| frames(flat.provenance.files.len(), format!(", {}", flat.filter)))),
            "master flat",
        )
        .set("NSATUR", count(found.saturated), "saturated pixels")
        .set("NCOSMIC", count(found.cosmic_rays.hits), "cosmic rays")
        .set("NCRPIX", count(found.cosmic_rays.pixels), "pixels hit by cosmic rays")
        .set("NTRAILS", count(found.trails), "satellite and aircraft trails")
        .set("NOISERAT", f64::from(found.noise_ratio), "noise of the sky, measured over expected");
    if let Some(fwhm) = found.cosmic_rays.fwhm {
        header.set("FWHMPIX", f64::from(fwhm), "first estimate of a star's FWHM, pixels");
    }
    header
}

fn count(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Moves the reference pixels of the WCS, `CRPIXn` and its alternates, to the trimmed image.
fn move_origin(header: &mut Header, raw: &RawFrame, mosaic: &Mosaic) {
    let Some((amplifier, place)) = raw.amplifiers.iter().zip(&mosaic.places).min_by_key(|(_, p)| (p.y0, p.x0)) else {
        return;
    };
    let shift_x = amplifier.data.x0 as f64 - place.x0 as f64;
    let shift_y = amplifier.data.y0 as f64 - place.y0 as f64;
    for (axis, shift) in [("CRPIX1", shift_x), ("CRPIX2", shift_y)] {
        let there: Vec<(String, String)> = header
            .cards()
            .iter()
            .filter(|card| card.keyword.starts_with(axis))
            .map(|card| (card.keyword.clone(), card.comment.clone()))
            .collect();
        for (keyword, comment) in there {
            if let Some(pixel) = header.number(&[&keyword]) {
                header.set(&keyword, pixel - shift, &comment);
            }
        }
    }
}
