//! What an exposure is calibrated with and compared with: masters and references, and the values
//! of the science stages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::bootstrap::Bootstrap;
use super::compare::{Compared, compare};
use super::fallbacks::Fallbacks;
use super::intake::Waiting;
use super::standards::{Band, on_reference};
use super::values;
use crate::calibrate::masters::{Masters, of_night, read_folder};
use crate::calibrate::{CalibratedFrame, CalibrationParameters, calibrate};
use crate::camera::replay::{Recorded, RecordedNight, fits_files};
use crate::camera::{HeaderFallbacks, RawFrame, exposure_from_header, raw_frame};
use crate::catalogue::StarCatalogue;
use crate::detect::context::ReferenceContext;
use crate::detect::photometry::Standard;
use crate::exposure::{Exposure, FrameKind};
use crate::fits::{Header, read_image, read_planes};
use crate::register::library::{Library, NoReference, Reference};
use crate::register::stars::{StarList, find};
use crate::service::{Stopwatch, events};
use crate::settings::Settings;
use crate::subtract::method::Method;
use crate::wcs::Wcs;

/// References whose pixels stay in memory: about 100 MB each of 3072×3080.
const REFERENCES_IN_MEMORY: usize = 1;

/// Why there is nothing to calibrate or to compare with. The sentence says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScienceError(pub String);

/// The catalogue's stars on a reference of this number, in a band.
type KeptStandards = (i64, Band, Arc<Vec<Standard>>);

/// Masters, references and values.
pub struct Science {
    longitude_deg: f64,
    fallbacks: Fallbacks,
    calibration: CalibrationParameters,
    threshold: f64,
    method: Method,
    masters: Masters,
    library: Library,
    /// Fields without a reference, whose frames are kept until they make one.
    growing: Option<Mutex<Bootstrap>>,
    /// The stars of the reference that served last.
    stars: Mutex<Option<(i64, Arc<StarList>)>>,
    /// Stars of known magnitude, where a catalogue is installed.
    catalogue: Option<StarCatalogue>,
    /// Numbers (`fid`) of the camera's filters.
    filters: BTreeMap<String, i32>,
    /// Those of the catalogue on the reference that served last, by reference and band.
    standards: Mutex<Option<KeptStandards>>,
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
                message_id = events::REFERENCE_MISSING,
                "{}: holds no reference; exposures are calibrated and make no alerts until one is there \
                 (nightjar reference FRAMES... -o FILE)",
                settings.references.folder.display()
            );
        }
        Ok(Self::with(settings, masters, library).growing(settings, &|line| tracing::warn!("{line}")))
    }

    /// With what lies inside a recorded night, else with the settings' folders; `say` hears what is
    /// taken.
    ///
    /// # Errors
    ///
    /// When there are neither masters nor frames to make them of.
    pub fn of_night(night: &RecordedNight, settings: &Settings, say: &dyn Fn(&str)) -> Result<Self, ScienceError> {
        let masters = masters_for_night(night, settings, say)?;
        let own = night.folder_with_files("references");
        let brings_its_own = own.is_some();
        let folder = own.unwrap_or_else(|| settings.references.folder.clone());
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
        let science = Self::with(settings, masters, library);
        // A night that brings references is compared with these and no others.
        Ok(if brings_its_own { science } else { science.growing(settings, say) })
    }

    fn with(settings: &Settings, masters: Masters, library: Library) -> Self {
        Self {
            longitude_deg: settings.observatory.longitude_deg,
            // The settings' sections have been checked when they were read.
            fallbacks: fallbacks(settings).unwrap_or_default(),
            calibration: CalibrationParameters::default(),
            threshold: settings.detect.threshold,
            method: values::subtraction(settings.subtract.method),
            masters,
            library,
            growing: None,
            stars: Mutex::new(None),
            // Why there is none is said where alerts are made.
            catalogue: values::star_catalogue(settings).ok().flatten(),
            filters: settings.filters.clone(),
            standards: Mutex::new(None),
        }
    }

    /// Keeps frames of fields without a reference in the settings' folder, where the settings ask for it.
    fn growing(mut self, settings: &Settings, say: &dyn Fn(&str)) -> Self {
        if !settings.references.build {
            return self;
        }
        let needed = settings.references.frames_needed as usize;
        match Bootstrap::open(&settings.references.folder, needed, Box::new(reader(settings))) {
            Ok(bootstrap) => self.growing = Some(Mutex::new(bootstrap)),
            Err(error) => say(&format!("no references can be built: {error}")),
        }
        self
    }

    /// Builds the references of fields that have frames enough; `say` hears of each. Gives their number.
    pub fn build_references(&self, say: &dyn Fn(&str)) -> usize {
        let Some(growing) = &self.growing else { return 0 };
        let mut growing = growing.lock().unwrap_or_else(PoisonError::into_inner);
        let results = growing.build_ready(&self.fallbacks.adopt, &|_| ());
        let mut built = 0;
        for result in results {
            match result {
                Ok((path, reference)) => {
                    built += 1;
                    let frames = reference.used.len();
                    say(&format!("{}: a new reference of {frames} frames", path.display()));
                    for (file, reason) in &reference.refused {
                        say(&format!("{file} is no part of it: {reason}"));
                    }
                }
                Err(error) => say(&error.to_string()),
            }
        }
        built
    }

    /// Why a frame without a reference makes no alerts, and how far its field is on its way to one.
    fn without_reference(&self, frame: &CalibratedFrame, reason: &NoReference) -> String {
        let Some(growing) = &self.growing else { return reason.to_string() };
        match growing.lock().unwrap_or_else(PoisonError::into_inner).keep(frame) {
            Ok(growth) => growth.to_string(),
            Err(error) => format!("{reason}; {error}"),
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
        let mut raw = self.raw(&waiting.kept.path)?;
        // The journal's copy has another name; reports tell the camera's.
        raw.exposure.file.clone_from(&waiting.exposure.file);
        Ok(raw)
    }

    /// Reads a raw frame; pixels that the camera's line lost are marked.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn raw(&self, path: &Path) -> Result<RawFrame, String> {
        let (header, detector) = (&self.fallbacks.header, &self.fallbacks.detector);
        let image = read_image(path).map_err(|e| e.to_string())?;
        let gaps = image.header.get("NMISSING").is_some();
        let mut raw = raw_frame(image, self.longitude_deg, header, detector).map_err(|e| e.to_string())?;
        if gaps {
            let planes = read_planes(path).map_err(|e| e.to_string())?;
            let plane =
                planes.into_iter().find(|plane| plane.name == "MISSING" && plane.pixels.dim() == raw.pixels.shape());
            raw.missing = plane.map(|plane| plane.pixels.mapv(|bits| bits as u16)).or(raw.missing);
        }
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
        let entry = match serving {
            Ok(serving) => serving.entry,
            Err(reason) => return Err(self.without_reference(&frame, &reason)),
        };
        let watch = Stopwatch::start();
        let reference = self.library.load(entry).map_err(|e| e.to_string())?;
        let stars = self.stars_of(&reference);
        let fetched = watch.seconds();
        let standards = self.standards_of(&reference, frame.exposure());
        let context = ReferenceContext {
            standards: &standards,
            stars: &stars,
            wcs: Some(&reference.wcs),
            zero_point: (reference.zero_point, 0.0),
            id: reference.id,
            jd: reference.jd,
            frames: reference.frames,
        };
        let mut compared =
            compare(frame, &reference.frame, &context, self.threshold, self.method).map_err(|e| e.to_string())?;
        // A reference that is not in memory yet is read and searched for stars on the way to the registration.
        compared.seconds[0] += fetched;
        if !reference.zero_point_known && compared.detections.conditions.photometry.is_none() {
            let warning = format!(
                "{}: has no MAGZP, magnitudes are instrumental; write the zero point into its header",
                entry.path.display()
            );
            compared.detections.conditions.warnings.push(warning);
        }
        Ok(compared)
    }

    fn standards_of(&self, reference: &Reference, exposure: &Exposure) -> Arc<Vec<Standard>> {
        let fid = self.filters.get(exposure.filter.trim()).copied().unwrap_or(0);
        let (Some(catalogue), Some(band)) = (&self.catalogue, Band::of(fid, &exposure.filter)) else {
            return Arc::default();
        };
        let mut kept = self.standards.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((id, of, standards)) if *id == reference.id && *of == band => standards.clone(),
            _ => {
                let shape = reference.frame.pixels().shape();
                let standards = Arc::new(on_reference(catalogue, band, &reference.wcs, shape));
                *kept = Some((reference.id, band, standards.clone()));
                standards
            }
        }
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

/// The references of `files`.
pub fn library(settings: &Settings, files: &[PathBuf]) -> Library {
    let adopt = fallbacks(settings).unwrap_or_default().adopt;
    Library::index(files, &reader(settings), adopt, REFERENCES_IN_MEMORY)
}

/// Reads what the header of a calibrated image says of its exposure.
pub fn reader(settings: &Settings) -> impl Fn(&Header, &str) -> Result<Exposure, String> + Send + Sync + 'static {
    let own = fallbacks(settings).unwrap_or_default().header;
    // A deep image need not say what it was taken for, nor for how long.
    let header = HeaderFallbacks { kind: Some(FrameKind::Light), exposure_s: own.exposure_s.or(Some(1.0)), ..own };
    let longitude_deg = settings.observatory.longitude_deg;
    move |cards, name| exposure_from_header(cards, name, longitude_deg, &header).map_err(|e| e.to_string())
}

fn say_refused(library: &Library, say: &dyn Fn(&str)) {
    for error in library.refused() {
        say(&format!("this reference is not used: {error}"));
    }
}

/// The masters of a folder.
///
/// # Errors
///
/// When there are none.
pub fn masters_of(folder: &Path, settings: &Settings) -> Result<Masters, ScienceError> {
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
