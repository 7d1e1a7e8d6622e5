//! `candidates.csv`: one line a candidate, rejected ones included.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::leavings::{LeavingsError, fault};
use crate::detect::{Candidate, Detections, real_bogus};
use crate::exposure::ExposureId;

/// The table being written.
#[derive(Debug)]
pub struct CandidateTable {
    path: PathBuf,
    writer: csv::Writer<File>,
}

impl CandidateTable {
    /// Creates the file with its header.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(path: &Path) -> Result<Self, LeavingsError> {
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_path(path).map_err(fault(path))?;
        writer.write_record(COLUMNS.iter().chain(&real_bogus::NAMES)).map_err(fault(path))?;
        Ok(Self { path: path.to_owned(), writer })
    }

    /// Adds the candidates of an exposure.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn add(&mut self, detections: &Detections) -> Result<(), LeavingsError> {
        for candidate in &detections.candidates {
            let line = Line::of(&detections.exposure.id, candidate);
            self.writer.serialize(line).map_err(fault(&self.path))?;
        }
        self.writer.flush().map_err(fault(&self.path))
    }
}

/// One line of `candidates.csv`. Pixels are FITS pixels: the centre of the first is (1, 1).
#[derive(Debug, Serialize)]
struct Line<'a> {
    exposure: &'a ExposureId,
    x: f64,
    y: f64,
    ra: f64,
    dec: f64,
    flux: f64,
    flux_err: f64,
    snr: f64,
    mag: f64,
    mag_err: f64,
    positive: char,
    fwhm: f64,
    elong: f64,
    flags: u16,
    rejected: &'static str,
    scorr: f64,
    chi: f64,
    rb: f64,
    trail: f64,
    class_star: f64,
    nneg: u32,
    nbad: u32,
    core_chi: f64,
    sharpness: f64,
    track: Option<f64>,
    evidence: [f64; real_bogus::INPUTS],
}

impl<'a> Line<'a> {
    fn of(exposure: &'a ExposureId, candidate: &Candidate) -> Self {
        let c = candidate;
        Self {
            exposure,
            x: round(c.x + 1.0, 3),
            y: round(c.y + 1.0, 3),
            ra: round(c.ra, 7),
            dec: round(c.dec, 7),
            flux: round(c.flux, 2),
            flux_err: round(c.flux_err, 2),
            snr: round(c.snr, 2),
            mag: round(c.mag, 4),
            mag_err: round(c.mag_err, 4),
            positive: if c.positive { 't' } else { 'f' },
            fwhm: round(c.fwhm, 3),
            elong: round(c.a / c.b, 3),
            flags: c.flags,
            rejected: c.rejected.map_or("", |rule| rule.name()),
            scorr: round(c.scorr, 2),
            chi: round(c.chi, 3),
            rb: round(c.rb, 3),
            trail: round(c.trail_px, 2),
            class_star: round(c.class_star, 3),
            nneg: c.nneg,
            nbad: c.nbad,
            core_chi: round(c.core_chi, 3),
            sharpness: round(c.sharpness, 2),
            track: c.track.map(|track| round(track, 1)),
            evidence: real_bogus::evidence(c).map(|x| round(f64::from(x), 4)),
        }
    }
}

/// The header of `candidates.csv`: the fields of [`Line`] in their order, but for the evidence of `rb`, which comes last.
const COLUMNS: [&str; 25] = [
    "exposure",
    "x",
    "y",
    "ra",
    "dec",
    "flux",
    "flux_err",
    "snr",
    "mag",
    "mag_err",
    "positive",
    "fwhm",
    "elong",
    "flags",
    "rejected",
    "scorr",
    "chi",
    "rb",
    "trail",
    "class_star",
    "nneg",
    "nbad",
    "core_chi",
    "sharpness",
    "track",
];

pub(super) fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}
