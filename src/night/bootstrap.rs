//! References for fields that have none: their calibrated frames are kept until there are enough of
//! them, and combined while nobody observes. From then on the field makes alerts.
//!
//! ```text
//! references/                         what exposures are compared with
//! references/growing/m31-r-1/         a field in the making: one calibrated frame a file
//! ```
//!
//! Frames belong to one field when they have one filter and their centres lie close together; where a
//! frame has no coordinates, its field's name decides. A field is ready when it has as many good
//! frames as are needed; more than one night may bring them. It never takes more room than twice the
//! frames that are needed; beyond that the frames of widest stars go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::reference_builder::{BuildError, Built, build};
use crate::calibrate::{AdoptParameters, CalibratedFrame, FrameImages, adopt};
use crate::exposure::Exposure;
use crate::fits::{FitsError, Header, read_header, read_planes, write_fits};
use crate::register::coadd::FEWEST_FRAMES;
use crate::register::stars::find;
use crate::time::NightName;
use crate::wcs::{Wcs, separation};

/// Folder of the fields in the making, inside that of the references.
pub const GROWING: &str = "growing";
/// Centres of one field's frames lie closer together than this part of the frame's half diagonal.
const SAME_FIELD: f64 = 0.4;
/// Stars wider than this times the field's median do not count as good.
const GOOD_SEEING: f64 = 1.5;
/// Keyword of the FWHM in kept frames.
const FWHM: &str = "FWHM";

/// Why a frame could not be kept, or a reference not be built. Nothing of it stops the night.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A frame of which nobody can say where it points.
    #[error("a reference needs coordinates: the header has neither a WCS nor a field's name; plate-solve the frames")]
    Nowhere,
    /// No stars: no part of a reference.
    #[error("shows no stars, so it is not kept for a reference")]
    NoStars,
    /// Files.
    #[error(transparent)]
    File(#[from] FitsError),
    /// A folder.
    #[error("{path}: {reason}; make the folder writable for nightjar", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The frames do not make a reference.
    #[error("{field} in {filter} has frames enough, but they make no reference: {error}")]
    Build {
        /// The field.
        field: String,
        /// The filter.
        filter: String,
        /// Why.
        error: BuildError,
    },
}

/// How far a field is on its way to a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The field's name, or where it lies.
    pub field: String,
    /// Its filter.
    pub filter: String,
    /// Good frames that it has.
    pub good: usize,
    /// Good frames that it needs.
    pub needed: usize,
    /// Nights that they come from.
    pub nights: usize,
}

impl Growth {
    /// Whether the reference can be built.
    pub fn ready(&self) -> bool {
        self.good >= self.needed
    }
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { field, filter, good, needed, nights } = self;
        let nights = if *nights == 1 { "one night".to_owned() } else { format!("{nights} nights") };
        write!(f, "no reference yet for {field} in {filter}: {good} good frames of {nights} are kept, ")?;
        match needed.saturating_sub(*good) {
            0 => f.write_str("enough to build one when the night is over"),
            more => write!(f, "{more} more make one"),
        }
    }
}

/// A frame that waits.
#[derive(Debug, Clone)]
struct KeptFrame {
    path: PathBuf,
    night: NightName,
    fwhm_px: f64,
}

/// A field in the making.
#[derive(Debug, Clone)]
struct Field {
    folder: PathBuf,
    name: String,
    filter: String,
    /// Centre and half diagonal of its first frame with coordinates, degrees.
    place: Option<((f64, f64), f64)>,
    frames: Vec<KeptFrame>,
}

/// Reads what a kept frame's header says of its exposure.
pub type ReadExposure = Box<dyn Fn(&Header, &str) -> Result<Exposure, String> + Send + Sync>;

/// The fields that have no reference yet.
pub struct Bootstrap {
    references: PathBuf,
    needed: usize,
    read: ReadExposure,
    fields: Vec<Field>,
}

impl Bootstrap {
    /// Takes up what is kept in the folder of the references. `needed` good frames make a reference.
    ///
    /// # Errors
    ///
    /// When the folder is there and cannot be read.
    pub fn open(references: &Path, needed: usize, read: ReadExposure) -> Result<Self, BootstrapError> {
        let needed = needed.max(FEWEST_FRAMES);
        let mut bootstrap = Self { references: references.to_owned(), needed, read, fields: Vec::new() };
        for folder in entries(&references.join(GROWING))?.into_iter().filter(|path| path.is_dir()) {
            for path in entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "fits")) {
                // A file that was damaged in a power cut is no part of a reference, and no fault.
                let Ok(header) = read_header(&path) else { continue };
                let Ok(exposure) = (bootstrap.read)(&header, &name_of(&path)) else { continue };
                bootstrap.enter(folder.clone(), path, &exposure, &header);
            }
        }
        Ok(bootstrap)
    }

    /// Keeps a calibrated frame whose field has no reference, and says how far the field is.
    ///
    /// # Errors
    ///
    /// When the frame is no part of a reference, or the disk fails.
    pub fn keep(&mut self, frame: &CalibratedFrame) -> Result<Growth, BootstrapError> {
        let exposure = frame.exposure();
        let stars = find(frame);
        if stars.stars.is_empty() {
            return Err(BootstrapError::NoStars);
        }
        let place = place_of(frame.header(), frame.pixels().shape());
        if place.is_none() && exposure.field.trim().is_empty() {
            return Err(BootstrapError::Nowhere);
        }
        let folder = match self.field_of(exposure, place) {
            Some(index) => self.fields[index].folder.clone(),
            None => self.new_folder(exposure),
        };
        std::fs::create_dir_all(&folder)
            .map_err(|e| BootstrapError::Folder { path: folder.clone(), reason: e.to_string() })?;
        let path = folder.join(format!("{}.fits", exposure.id));
        let mut images = FrameImages::new(frame);
        images.primary_mut().set(FWHM, stars.fwhm, "[pix] of its stars");
        write_fits(&path, &images.hdus())?;
        let mut header = frame.header().clone();
        header.set(FWHM, stars.fwhm, "");
        let index = self.enter_shaped(folder, path, exposure, &header, frame.pixels().shape());
        self.limit(index);
        Ok(self.growth(&self.fields[index]))
    }

    /// How far every field is.
    pub fn growths(&self) -> Vec<Growth> {
        self.fields.iter().map(|field| self.growth(field)).collect()
    }

    /// Builds the references of the fields that are ready and forgets their frames. Gives the files.
    pub fn build_ready(
        &mut self,
        parameters: &AdoptParameters,
        say: &dyn Fn(&str),
    ) -> Vec<Result<(PathBuf, Built), BootstrapError>> {
        let (ready, waiting): (Vec<Field>, Vec<Field>) =
            std::mem::take(&mut self.fields).into_iter().partition(|field| self.growth(field).ready());
        self.fields = waiting;
        let mut results = Vec::new();
        for field in ready {
            let result = self.build(&field, parameters, say);
            // Frames that do not make a reference today may do so with those of tomorrow.
            match &result {
                Ok(_) => {
                    let _ = std::fs::remove_dir_all(&field.folder);
                }
                Err(_) => self.fields.push(field),
            }
            results.push(result);
        }
        results
    }

    fn build(
        &self,
        field: &Field,
        parameters: &AdoptParameters,
        say: &dyn Fn(&str),
    ) -> Result<(PathBuf, Built), BootstrapError> {
        let files: Vec<PathBuf> = field.frames.iter().map(|frame| frame.path.clone()).collect();
        let load = |path: &Path| -> Result<CalibratedFrame, String> {
            let planes = read_planes(path).map_err(|error| error.to_string())?;
            let header = planes.first().map(|plane| plane.header.clone()).unwrap_or_default();
            let exposure = (self.read)(&header, &name_of(path))?;
            adopt(planes, exposure, parameters).map_err(|error| error.to_string())
        };
        let built = build(&files, &load, &field.folder, say).map_err(|error| BootstrapError::Build {
            field: field.title(),
            filter: field.filter.clone(),
            error,
        })?;
        let path = self.references.join(format!("{}.fits", name_of(&field.folder)));
        write_fits(&path, &FrameImages::new(&built.frame).hdus())?;
        Ok((path, built))
    }

    fn growth(&self, field: &Field) -> Growth {
        let mut widths: Vec<f64> = field.frames.iter().map(|frame| frame.fwhm_px).collect();
        widths.sort_by(f64::total_cmp);
        let limit = widths.get(widths.len() / 2).map_or(f64::INFINITY, |median| GOOD_SEEING * median);
        let good: Vec<&KeptFrame> = field.frames.iter().filter(|frame| frame.fwhm_px <= limit).collect();
        let nights: BTreeSet<NightName> = good.iter().map(|frame| frame.night).collect();
        Growth {
            field: field.title(),
            filter: field.filter.clone(),
            good: good.len(),
            needed: self.needed,
            nights: nights.len(),
        }
    }

    fn field_of(&self, exposure: &Exposure, place: Option<((f64, f64), f64)>) -> Option<usize> {
        self.fields.iter().position(|field| {
            field.filter == exposure.filter
                && match (place, field.place) {
                    (Some((at, _)), Some((centre, radius))) => separation(at, centre) < SAME_FIELD * radius,
                    _ => !field.name.is_empty() && field.name == exposure.field,
                }
        })
    }

    /// A folder of its own for a field that is new: name, filter and a number.
    fn new_folder(&self, exposure: &Exposure) -> PathBuf {
        let safe = |text: &str| -> String {
            let kept =
                text.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
            kept.take(40).collect()
        };
        let name = if exposure.field.trim().is_empty() { "field".to_owned() } else { safe(&exposure.field) };
        // Filters differ by case (r and R), so theirs is kept.
        let filter: String = exposure.filter.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let path = |number: usize| self.references.join(GROWING).join(format!("{name}-{filter}-{number}"));
        let taken = |number: &usize| {
            let path = path(*number);
            path.exists() || self.references.join(format!("{}.fits", name_of(&path))).exists()
        };
        path((1..).find(|number| !taken(number)).unwrap_or(0))
    }

    fn enter(&mut self, folder: PathBuf, path: PathBuf, exposure: &Exposure, header: &Header) {
        let side = |keyword| header.number(&[keyword]).unwrap_or(0.0) as usize;
        self.enter_shaped(folder, path, exposure, header, (side("NAXIS2"), side("NAXIS1")));
    }

    fn enter_shaped(
        &mut self,
        folder: PathBuf,
        path: PathBuf,
        exposure: &Exposure,
        header: &Header,
        shape: (usize, usize),
    ) -> usize {
        let index = self.fields.iter().position(|field| field.folder == folder).unwrap_or_else(|| {
            self.fields.push(Field {
                folder,
                name: exposure.field.clone(),
                filter: exposure.filter.clone(),
                place: None,
                frames: Vec::new(),
            });
            self.fields.len() - 1
        });
        let field = &mut self.fields[index];
        field.place = field.place.or_else(|| place_of(header, shape));
        field.frames.retain(|frame| frame.path != path);
        let fwhm_px = header.number(&[FWHM]).unwrap_or(f64::INFINITY);
        field.frames.push(KeptFrame { path, night: exposure.night, fwhm_px });
        index
    }

    /// Lets the frames of widest stars go where a field has more than twice what it needs.
    fn limit(&mut self, index: usize) {
        let field = &mut self.fields[index];
        while field.frames.len() > 2 * self.needed {
            let width = |at: &usize| field.frames[*at].fwhm_px;
            let Some(worst) = (0..field.frames.len()).max_by(|a, b| width(a).total_cmp(&width(b))) else { return };
            let frame = field.frames.swap_remove(worst);
            let _ = std::fs::remove_file(&frame.path);
        }
    }
}

impl Field {
    fn title(&self) -> String {
        match (self.name.trim(), self.place) {
            ("", Some(((ra, dec), _))) => format!("RA {ra:.3} Dec {dec:+.3}"),
            ("", None) => "a field without a name".to_owned(),
            (name, _) => name.to_owned(),
        }
    }
}

/// Centre and half diagonal of a frame, degrees.
fn place_of(header: &Header, (height, width): (usize, usize)) -> Option<((f64, f64), f64)> {
    let wcs = Wcs::from_header(header).ok()?;
    let centre = wcs.pixel_to_sky((width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0);
    Some((centre, separation(centre, wcs.pixel_to_sky(0.0, 0.0))))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a folder holds, by name; nothing where there is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, BootstrapError> {
    let failed = |e: std::io::Error| BootstrapError::Folder { path: folder.to_owned(), reason: e.to_string() };
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(listing) => {
            let mut paths =
                listing.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
            paths.sort();
            Ok(paths)
        }
    }
}
