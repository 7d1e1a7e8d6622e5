//! What a rehearsal leaves behind: `candidates.csv`, `alerts/`, `difference/`, `summary.json`.
//!
//! ```text
//! OUT/
//!   candidates.csv                     one line a candidate, rejected ones included
//!   alerts/<exposure>/<candid>.avro    the bytes that Kafka gets
//!   difference/<exposure>.fits         extensions DIFFERENCE, SCORE, MASK
//!   summary.json                       exposures and totals
//!   history.sqlite, spool/             the rehearsal's own history and spool
//! ```

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::candidates::{CandidateTable, round};
use super::outcome::{Outcome, StageSeconds};
use crate::alert::Alert;
use crate::calibrate::mask_header;
use crate::detect::Detections;
use crate::exposure::ExposureId;
use crate::fits::{HduOut, Plane, write_fits};
use crate::subtract::DifferenceImages;

/// Everything in the folder that a rehearsal makes.
const OURS: [&str; 5] = ["candidates.csv", "alerts", "difference", "summary.json", "spool"];

/// Why nothing can be left there.
#[derive(Debug, thiserror::Error)]
pub enum LeavingsError {
    /// The folder holds something else.
    #[error("{}: is not empty and not the output of an earlier rehearsal; name a new folder with --out", .0.display())]
    NotOurs(PathBuf),
    /// The operating system said no.
    #[error("{path}: cannot be written ({reason}); name a folder with --out that you may write to and that has room", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// One exposure of `summary.json`.
#[derive(Debug, Clone, Serialize)]
pub struct ExposureSummary {
    /// Its name.
    pub exposure: ExposureId,
    /// The file that it came in.
    pub file: String,
    /// Field as its header names it.
    pub field: String,
    /// Filter as its header names it.
    pub filter: String,
    /// Seconds by stage.
    pub seconds: StageSeconds,
    /// Candidates, rejected ones included.
    pub candidates: usize,
    /// Alerts that are durable.
    pub alerts: usize,
    /// Alerts that Kafka has acknowledged.
    pub acknowledged: usize,
    /// How the difference was made, "zogy" or "kernel-fit"; null where the exposure was not subtracted.
    pub method: Option<&'static str>,
    /// FWHM of a star, arcseconds; null where the exposure was not subtracted.
    pub seeing_arcsec: Option<f64>,
    /// 5σ limiting magnitude; null where the exposure was not subtracted.
    pub limit_mag: Option<f64>,
    /// Why there are no alerts; null where there are.
    pub reason: Option<String>,
    /// What the operator should know of how the difference was made.
    pub warnings: Vec<String>,
}

impl ExposureSummary {
    /// What `outcome` says, with the number of alerts that Kafka has acknowledged.
    pub fn of(outcome: &Outcome, acknowledged: usize) -> Self {
        let found = outcome.result.as_ref().ok();
        Self {
            exposure: outcome.exposure.id.clone(),
            file: outcome.exposure.file.clone(),
            field: outcome.exposure.field.clone(),
            filter: outcome.exposure.filter.clone(),
            seconds: outcome.seconds,
            candidates: found.map_or(0, |f| f.candidates),
            alerts: outcome.alerts(),
            acknowledged,
            method: found.map(|f| f.method),
            seeing_arcsec: found.map(|f| round(f.seeing_arcsec, 3)),
            limit_mag: found.map(|f| round(f.limit_mag, 3)),
            reason: outcome.reason(),
            warnings: outcome.warnings().to_vec(),
        }
    }
}

/// The totals of `summary.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Totals {
    /// Exposures.
    pub exposures: usize,
    /// Alerts that are durable.
    pub alerts: usize,
    /// Alerts that Kafka has acknowledged.
    pub acknowledged: usize,
    /// Seconds from the first frame to the last acknowledgement.
    pub seconds: f64,
    /// Largest resident memory, MB.
    pub peak_rss_mb: Option<f64>,
}

/// `summary.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// One entry an exposure.
    pub exposures: Vec<ExposureSummary>,
    /// All of them together.
    pub totals: Totals,
}

/// The folder being filled.
#[derive(Debug)]
pub struct Leavings {
    folder: PathBuf,
    candidates: CandidateTable,
}

impl Leavings {
    /// Empties `folder` of an earlier rehearsal, or makes it.
    ///
    /// # Errors
    ///
    /// When it holds something else or cannot be written.
    pub fn begin(folder: &Path) -> Result<Self, LeavingsError> {
        std::fs::create_dir_all(folder).map_err(fault(folder))?;
        let entries = std::fs::read_dir(folder).map_err(fault(folder))?.flatten();
        let names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        if !names.is_empty() && !names.iter().any(|name| name == "candidates.csv") {
            return Err(LeavingsError::NotOurs(folder.to_owned()));
        }
        for name in names.iter().filter(|name| OURS.contains(&name.as_str()) || name.starts_with("history.sqlite")) {
            let path = folder.join(name);
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(fault(&path))?;
        }
        let candidates = CandidateTable::create(&folder.join("candidates.csv"))?;
        for name in ["alerts", "difference"] {
            std::fs::create_dir(folder.join(name)).map_err(fault(folder))?;
        }
        Ok(Self { folder: folder.to_owned(), candidates })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds the candidates, the alerts and the difference image of an exposure.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn add(
        &mut self,
        detections: &Detections,
        images: &DifferenceImages,
        alerts: &[Alert],
    ) -> Result<(), LeavingsError> {
        let exposure = &detections.exposure.id;
        self.candidates.add(detections)?;
        self.add_difference(exposure, images)?;
        if alerts.is_empty() {
            return Ok(());
        }
        let folder = self.folder.join("alerts").join(exposure.as_str());
        std::fs::create_dir_all(&folder).map_err(fault(&folder))?;
        for alert in alerts {
            let path = folder.join(format!("{}.avro", alert.candid));
            std::fs::write(&path, &alert.payload).map_err(fault(&path))?;
        }
        Ok(())
    }

    fn add_difference(&self, exposure: &ExposureId, images: &DifferenceImages) -> Result<(), LeavingsError> {
        let (header, mask_header) = (&images.header, mask_header());
        let planes = [
            HduOut { name: "DIFFERENCE", header, plane: Plane::F32(&images.difference.pixels) },
            HduOut { name: "SCORE", header, plane: Plane::F32(&images.score.pixels) },
            HduOut { name: "MASK", header: &mask_header, plane: Plane::U16(&images.mask) },
        ];
        let path = self.folder.join("difference").join(format!("{exposure}.fits"));
        write_fits(&path, &planes).map_err(fault(&path))
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn finish(self, summary: &Summary) -> Result<(), LeavingsError> {
        let path = self.folder.join("summary.json");
        let text = serde_json::to_vec_pretty(summary).map_err(fault(&path))?;
        std::fs::write(&path, text).map_err(fault(&path))
    }
}

pub(super) fn fault<E: ToString>(path: &Path) -> impl FnOnce(E) -> LeavingsError + use<E> {
    let path = path.to_owned();
    move |error| LeavingsError::Io { path, reason: error.to_string() }
}
