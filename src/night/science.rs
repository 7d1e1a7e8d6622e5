//! What an exposure is calibrated with and compared with: masters and references, and the values
//! of the science stages.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::compare::{Compared, compare};
use super::fallbacks::Fallbacks;
use super::intake::Waiting;
use crate::calibrate::masters::{Masters, of_night, read_folder};
use crate::calibrate::{CalibratedFrame, CalibrationParameters, calibrate};
use crate::camera::replay::{Recorded, RecordedNight, fits_files};
use crate::camera::{HeaderFallbacks, RawFrame, exposure_from_header, raw_frame};
use crate::detect::context::ReferenceContext;
use crate::exposure::{Exposure, FrameKind};
use crate::fits::{Header, read_image};
use crate::register::library::{Library, Reference};
use crate::register::stars::{StarList, find};
use crate::settings::Settings;
use crate::wcs::Wcs;

/// References whose pixels stay in memory: about 100 MB each of 3072×3080.
const REFERENCES_IN_MEMORY: usize = 1;

/// Why there is nothing to calibrate or to compare with. The sentence says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScienceError(pub String);

/// Masters, references and values.
pub struct Science {
    longitude_deg: f64,
    fallbacks: Fallbacks,
    calibration: CalibrationParameters,
    threshold: f64,
    masters: Masters,
    library: Library,
    /// The stars of the reference that served last.
    stars: Mutex<Option<(i64, Arc<StarList>)>>,
}

impl Science {
    /// Without masters and references.
    pub fn empty(settings: &Settings) -> Self {
        Self::with(settings, Masters::default(), library(settings, &[]))
    }

    /// With the masters and references of the settings' folders.
    ///
    /// # Errors
    ///
    /// When there are no masters. Without references exposures are calibrated, and each says why it
    /// makes no alerts.
    pub fn load(settings: &Settings) -> Result<Self, ScienceError> {
        let masters = masters_of(&settings.calibration.masters, settings)?;
        let files = fits_files(&settings.references.folder).unwrap_or_default();
        let library = library(settings, &files);
        say_refused(&library, &|line| tracing::warn!("{line}"));
        if library.entries().is_empty() {
            tracing::warn!(
                "{}: holds no reference; exposures are calibrated and make no alerts until one is there \
                 (nightjar reference FRAMES... -o FILE)",
                settings.references.folder.display()
            );
        }
        Ok(Self::with(settings, masters, library))
    }

    /// With what lies inside a recorded night, else with the settings' folders; `say` hears what is
    /// taken.
    ///
    /// # Errors
    ///
    /// When there are neither masters nor frames to make them of.
    pub fn of_night(night: &RecordedNight, settings: &Settings, say: &dyn Fn(&str)) -> Result<Self, ScienceError> {
        let masters = masters_for_night(night, settings, say)?;
        let folder = night.folder_with_files("references");
        let folder = folder.unwrap_or_else(|| settings.references.folder.clone());
        let files = fits_files(&folder).unwrap_or_default();
        let library = library(settings, &files);
        say_refused(&library, say);
        match library.entries().len() {
            0 => say(&format!(
                "there are no references, so no exposure can make alerts: put calibrated deep images with a WCS into {} \
                 (`nightjar reference FRAMES... -o FILE` builds one)",
                night.folder.join("references").display()
            )),
            count => say(&format!("{count} references from {}", folder.display())),
        }
        Ok(Self::with(settings, masters, library))
    }

    fn with(settings: &Settings, masters: Masters, library: Library) -> Self {
        Self {
            longitude_deg: settings.observatory.longitude_deg,
            // The settings' sections have been checked when they were read.
            fallbacks: fallbacks(settings).unwrap_or_default(),
            calibration: CalibrationParameters::default(),
            threshold: settings.detect.threshold,
            masters,
            library,
            stars: Mutex::new(None),
        }
    }

    /// Reads the file of a light frame; any other frame is the reason why it goes no further.
    ///
    /// # Errors
    ///
    /// When it is no light frame or cannot be read.
    pub fn read(&self, waiting: &Waiting) -> Result<RawFrame, String> {
        match waiting.exposure.kind {
            FrameKind::Light => {}
            FrameKind::Other => return Err("is a focus, test or pointing frame: kept and nothing else".into()),
            kind => return Err(format!("is a {kind:?} frame, for masters: kept").to_lowercase()),
        }
        let image = read_image(&waiting.kept.path).map_err(|e| e.to_string())?;
        let mut raw = raw_frame(image, self.longitude_deg, &self.fallbacks.header, &self.fallbacks.detector)
            .map_err(|e| e.to_string())?;
        // The journal's copy has another name; reports tell the camera's.
        raw.exposure.file.clone_from(&waiting.exposure.file);
        Ok(raw)
    }

    /// Calibrates a raw frame with the masters.
    ///
    /// # Errors
    ///
    /// When a master does not fit, or there is no sky in it.
    pub fn calibrate(&self, raw: RawFrame) -> Result<CalibratedFrame, String> {
        calibrate(raw, &self.masters, &self.calibration).map_err(|e| e.to_string())
    }

    /// Compares a calibrated frame with its reference.
    ///
    /// # Errors
    ///
    /// When there is none, or the frame cannot be registered or subtracted.
    pub fn compare(&self, frame: CalibratedFrame) -> Result<Compared, String> {
        let wcs = Wcs::from_header(frame.header()).ok();
        let serving = self.library.find(frame.exposure(), wcs.as_ref(), frame.pixels().shape());
        let entry = serving.map_err(|e| e.to_string())?.entry;
        let reference = self.library.load(entry).map_err(|e| e.to_string())?;
        let stars = self.stars_of(&reference);
        let context = ReferenceContext {
            stars: &stars,
            wcs: Some(&reference.wcs),
            zero_point: (reference.zero_point, 0.0),
            id: reference.id,
            jd: reference.jd,
            frames: reference.frames,
        };
        let mut compared = compare(frame, &reference.frame, &context, self.threshold).map_err(|e| e.to_string())?;
        if !reference.zero_point_known {
            let warning = format!(
                "{}: has no MAGZP, magnitudes are instrumental; write the zero point into its header",
                entry.path.display()
            );
            compared.detections.conditions.warnings.push(warning);
        }
        Ok(compared)
    }

    fn stars_of(&self, reference: &Reference) -> Arc<StarList> {
        let mut kept = self.stars.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((id, stars)) if *id == reference.id => stars.clone(),
            _ => {
                let stars = Arc::new(find(&reference.frame));
                *kept = Some((reference.id, stars.clone()));
                stars
            }
        }
    }
}

fn library(settings: &Settings, files: &[PathBuf]) -> Library {
    let fallbacks = fallbacks(settings).unwrap_or_default();
    let header = HeaderFallbacks {
        // A deep image need not say what it was taken for, nor for how long.
        kind: Some(FrameKind::Light),
        exposure_s: fallbacks.header.exposure_s.or(Some(1.0)),
        ..fallbacks.header
    };
    let read = |cards: &Header, name: &str| -> Result<Exposure, String> {
        exposure_from_header(cards, name, settings.observatory.longitude_deg, &header).map_err(|e| e.to_string())
    };
    Library::index(files, &read, fallbacks.adopt, REFERENCES_IN_MEMORY)
}

fn say_refused(library: &Library, say: &dyn Fn(&str)) {
    for error in library.refused() {
        say(&format!("this reference is not used: {error}"));
    }
}

/// The masters of a folder.
fn masters_of(folder: &Path, settings: &Settings) -> Result<Masters, ScienceError> {
    let place = folder.display();
    let missing = |what: &str| {
        ScienceError(format!(
            "{place}: {what}; put masters made by `nightjar master bias|dark|flat FRAMES... -o FILE` there, \
             or correct [calibration] masters"
        ))
    };
    if !folder.is_dir() {
        return Err(missing("there is no such folder of masters"));
    }
    let masters = read_folder(folder, settings.detector.gain).map_err(|e| ScienceError(e.to_string()))?;
    if masters.shape().is_none() { Err(missing("holds no masters")) } else { Ok(masters) }
}

/// The masters inside a recorded night, else those made of its own frames over the settings' ones.
fn masters_for_night(night: &RecordedNight, settings: &Settings, say: &dyn Fn(&str)) -> Result<Masters, ScienceError> {
    if let Some(folder) = night.folder_with_files("masters") {
        say(&format!("masters from {}", folder.display()));
        return masters_of(&folder, settings);
    }
    let before = masters_of(&settings.calibration.masters, settings).unwrap_or_default();
    let is_for_masters = |kind| matches!(kind, FrameKind::Bias | FrameKind::Dark | FrameKind::Flat);
    let frames: Vec<&Recorded> = night.frames.iter().filter(|frame| is_for_masters(frame.exposure.kind)).collect();
    if frames.is_empty() && before.shape().is_none() {
        return Err(ScienceError(format!(
            "{0}: there are neither masters nor bias, dark and flat frames to make them of; put some into {0}, or \
             masters made by `nightjar master bias|dark|flat FRAMES... -o FILE` into {1}",
            night.folder.display(),
            night.folder.join("masters").display()
        )));
    }
    let fallbacks = fallbacks(settings)?;
    let longitude = settings.observatory.longitude_deg;
    let exposures: Vec<Exposure> = frames.iter().map(|frame| frame.exposure.clone()).collect();
    let load = |index: usize| -> Result<RawFrame, String> {
        let image = read_image(&frames[index].path).map_err(|e| e.to_string())?;
        raw_frame(image, longitude, &fallbacks.header, &fallbacks.detector).map_err(|e| e.to_string())
    };
    let made = of_night(&exposures, &load, before);
    made.findings.iter().for_each(|finding| say(finding));
    if made.masters.shape().is_none() {
        return Err(ScienceError(format!(
            "{}: no master could be made of its calibration frames (see above); take better ones, or put masters into {}",
            night.folder.display(),
            night.folder.join("masters").display()
        )));
    }
    Ok(made.masters)
}

fn fallbacks(settings: &Settings) -> Result<Fallbacks, ScienceError> {
    Fallbacks::of(&settings.detector).map_err(|e| ScienceError(e.to_string()))
}
