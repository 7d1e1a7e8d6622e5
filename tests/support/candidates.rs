//! `nightjar difference` on a pair of images, and the table that it leaves.
#![allow(dead_code, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use super::night::{both, nightjar};

/// One line of `candidates.csv`.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Found {
    pub x: f64,
    pub y: f64,
    pub flux: f64,
    pub snr: f64,
    pub trail: f64,
    #[serde(deserialize_with = "is_t")]
    pub positive: bool,
    pub rejected: Option<String>,
}

fn is_t<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text: String = serde::Deserialize::deserialize(deserializer)?;
    Ok(text == "t")
}

/// All candidates of a pair.
#[derive(Debug)]
pub struct Table(pub Vec<Found>);

impl Table {
    /// Those that no rule rejects.
    pub fn alerts(&self) -> Vec<Found> {
        self.0.iter().filter(|c| c.rejected.is_none()).cloned().collect()
    }
}

/// Runs the command; an error is what it printed.
pub fn subtract(science: &Path, reference: &Path) -> Result<Table, String> {
    let out = tempfile::tempdir().unwrap();
    subtract_into(science, reference, out.path(), &[]).map(|(table, _)| table)
}

/// Runs the command with more arguments and leaves its images in `out`; gives what it printed, too.
pub fn subtract_into(science: &Path, reference: &Path, out: &Path, more: &[&str]) -> Result<(Table, String), String> {
    let output =
        nightjar().arg("difference").arg(science).arg(reference).arg("--out").arg(out).args(more).output().unwrap();
    let said = both(&output);
    assert!(!said.contains("panicked"), "{said}");
    if !output.status.success() {
        return Err(said);
    }
    let mut reader = csv::Reader::from_path(out.join("candidates.csv")).unwrap();
    Ok((Table(reader.deserialize().map(Result::unwrap).collect()), said))
}
