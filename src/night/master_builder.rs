//! Masters of the night's own calibration frames, while the night goes on.
//!
//! Bias, dark and flat frames lie in the frame journal like any other frame. When a run of them is
//! over (a frame of another kind has come, or none for a while), masters are made of all of tonight's,
//! written into the folder of masters under the night's name, and in force from the next exposure on.
//! Of two masters of a kind the one with the later frames counts, so that a failed twilight leaves
//! yesterday's in force.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::intake::Waiting;
use super::science::{Science, masters_of};
use crate::calibrate::masters::{Master, Masters, of_night};
use crate::camera::RawFrame;
use crate::exposure::{Exposure, FrameKind};
use crate::service::Stopwatch;
use crate::settings::Settings;
use crate::time::NightName;

/// A run of calibration frames is over when none has come for so long.
pub const QUIET: Duration = Duration::from_secs(120);

/// Tonight's calibration frames.
#[derive(Debug, Default)]
pub struct MasterBuilder(Mutex<Tonight>);

#[derive(Debug, Default)]
struct Tonight {
    night: Option<NightName>,
    frames: Vec<(Exposure, PathBuf)>,
    /// Since the last frame came; `None` when all that came are built.
    fresh: Option<Stopwatch>,
    /// A frame of another kind came since.
    over: bool,
}

/// What was made.
#[derive(Debug, Default)]
pub struct Made {
    /// Files that were written.
    pub files: Vec<PathBuf>,
    /// Sentences: what was made, what was left out and why.
    pub findings: Vec<String>,
}

/// Whether masters are made of such frames.
pub fn is_for_masters(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Bias | FrameKind::Dark | FrameKind::Flat)
}

impl MasterBuilder {
    /// A frame came, whatever it is for.
    pub fn hear(&self, waiting: &Waiting) {
        let mut tonight = self.tonight();
        let exposure = &waiting.exposure;
        if !is_for_masters(exposure.kind) {
            tonight.over |= exposure.kind == FrameKind::Light;
            return;
        }
        if tonight.night != Some(exposure.night) {
            *tonight = Tonight { night: Some(exposure.night), ..Tonight::default() };
        }
        if tonight.frames.iter().all(|(other, _)| other.id != exposure.id) {
            tonight.frames.push((exposure.clone(), waiting.kept.path.clone()));
            tonight.fresh = Some(Stopwatch::start());
            tonight.over = false;
        }
    }

    /// The frames of the run that is over, once; `quiet` is how long it must have been silent.
    pub fn due(&self, quiet: Duration) -> Option<Vec<(Exposure, PathBuf)>> {
        let mut tonight = self.tonight();
        let fresh = tonight.fresh.as_ref()?;
        if !tonight.over && fresh.elapsed() < quiet {
            return None;
        }
        tonight.fresh = None;
        Some(tonight.frames.clone())
    }

    fn tonight(&self) -> MutexGuard<'_, Tonight> {
        // The list is whole whatever a thread died of.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes masters of `frames` and writes them into the settings' folder.
pub fn build(frames: &[(Exposure, PathBuf)], settings: &Settings) -> Made {
    let folder = &settings.calibration.masters;
    let before = masters_of(folder, settings).unwrap_or_default();
    let exposures: Vec<Exposure> = frames.iter().map(|(exposure, _)| exposure.clone()).collect();
    let reader = Science::empty(settings);
    let load = |index: usize| -> Result<RawFrame, String> {
        let (exposure, path) = frames.get(index).ok_or("no such frame")?;
        let mut raw = reader.raw(path)?;
        raw.exposure.file.clone_from(&exposure.file);
        Ok(raw)
    };
    let night = of_night(&exposures, &load, before.clone());
    let mut made = Made { files: Vec::new(), findings: night.findings };
    if let Err(error) = std::fs::create_dir_all(folder) {
        made.findings.push(format!("{}: no folder for masters: {error}; make it writable", folder.display()));
        return made;
    }
    let name = exposures.last().map(|exposure| exposure.night.to_string()).unwrap_or_default();
    for (kind, master) in new_ones(&before, &night.masters) {
        let path = folder.join(format!("{kind}-{name}.fits"));
        match write(&master, &path) {
            Ok(()) => made.files.push(path),
            Err(reason) => made.findings.push(format!("master {kind}: not written: {reason}")),
        }
    }
    made
}

fn write(master: &Master, path: &Path) -> Result<(), String> {
    master.write(path).map_err(|error| error.to_string())
}

/// Masters that are other ones than before, with the beginning of their file's name.
fn new_ones(before: &Masters, after: &Masters) -> Vec<(String, Master)> {
    let mut new = Vec::new();
    if let Some(bias) = &after.bias
        && before.bias.as_ref().is_none_or(|old| old.provenance != bias.provenance)
    {
        new.push(("bias".to_owned(), Master::Bias(bias.clone())));
    }
    if let Some(dark) = &after.dark
        && before.dark.as_ref().is_none_or(|old| old.provenance != dark.provenance)
    {
        new.push(("dark".to_owned(), Master::Dark(dark.clone())));
    }
    for (filter, flat) in &after.flats {
        if before.flats.get(filter).is_none_or(|old| old.provenance != flat.provenance) {
            let filter: String = filter.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            new.push((format!("flat-{filter}"), Master::Flat(flat.clone())));
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::journal::Kept;
    use crate::night::outcome::tests::outcome;

    fn waiting(kind: FrameKind, number: u32) -> Waiting {
        let mut exposure = outcome().exposure;
        exposure.kind = kind;
        exposure.id = crate::exposure::ExposureId::from_stored(format!("20261123-{number}"));
        Waiting { kept: Kept { id: exposure.id.clone(), path: PathBuf::from("a.fits") }, exposure }
    }

    #[test]
    fn a_run_of_calibration_frames_is_built_once_when_it_is_over() {
        let builder = MasterBuilder::default();
        builder.hear(&waiting(FrameKind::Light, 0));
        assert!(builder.due(Duration::ZERO).is_none(), "nothing to build of");
        (1..=5).for_each(|number| builder.hear(&waiting(FrameKind::Flat, number)));
        builder.hear(&waiting(FrameKind::Flat, 5));
        assert!(builder.due(Duration::from_secs(3600)).is_none(), "more may come");
        builder.hear(&waiting(FrameKind::Light, 6));
        assert_eq!(builder.due(Duration::from_secs(3600)).map(|frames| frames.len()), Some(5));
        assert!(builder.due(Duration::ZERO).is_none(), "once");
        builder.hear(&waiting(FrameKind::Bias, 7));
        assert_eq!(builder.due(Duration::ZERO).map(|frames| frames.len()), Some(6));
    }
}
