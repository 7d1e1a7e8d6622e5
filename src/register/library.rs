//! The reference library: calibrated deep images, found by sky position, filter and overlap.
//!
//! At the start only headers are read: an [`Entry`] of some hundred bytes for each file, so that a
//! library of thousands of fields costs nothing. Pixels are loaded when an exposure needs them, and
//! the last few references stay in memory. A file that cannot serve is refused by name and keyword
//! and does not stop the others.
//!
//! What a reference's header may say, beside its WCS and filter:
//!
//! | keyword (synonyms) | meaning | where absent |
//! | --- | --- | --- |
//! | `RFID` (`REFID`) | its number in alerts, positive | a hash of the file's name |
//! | `JDSTART`, `JDEND` | first and last exposure in it, JD | `DATE-OBS`, for both |
//! | `NFRAMES` (`NCOMBINE`, `NIMAGES`, `NCOADD`) | exposures in it | 1 |
//! | `MAGZP` (`MAGZERO`, `MAGZPT`, `ZP`, `ZEROPOINT`, `PHOTZP`) | magnitude of one unit of the image | [`FALLBACK_ZERO_POINT`], and magnitudes are instrumental |
//! | `MAGLIM` (`LIMMAG`, `MAGLIMIT`) | 5σ depth, magnitudes | unknown |

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::polynomial::Map;
use crate::calibrate::{AdoptParameters, CalibrateError, CalibratedFrame, adopt};
use crate::exposure::Exposure;
use crate::fits::{FitsError, Header, read_header, read_planes};
use crate::time::Mjd;
use crate::wcs::{Wcs, WcsError, separation};

/// Magnitude of one electron for references that do not say it: magnitudes are then instrumental.
pub const FALLBACK_ZERO_POINT: f64 = 25.0;
/// `MAGZP` and its synonyms: the magnitude of one unit of the image.
pub const ZERO_POINT_KEYWORDS: [&str; 7] = ["MAGZP", "MAGZERO", "MAGZPT", "ZP", "ZEROPOINT", "ZEROPNT", "PHOTZP"];
/// Least part of an exposure that a reference has to cover to be compared with it.
pub const LEAST_OVERLAP: f64 = 0.1;
/// Points a side at which the overlap is probed.
const PROBES: usize = 9;

/// A reference's header without its pixels.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// Its number in alerts (`rfid`).
    pub id: i64,
    /// What its header says as of an exposure: filter, field, start.
    pub exposure: Exposure,
    /// Where it lies on the sky.
    pub wcs: Wcs,
    /// Rows and columns.
    pub shape: (usize, usize),
    /// Centre: right ascension, declination, degrees.
    pub centre: (f64, f64),
    /// From the centre to the farthest corner, degrees.
    pub radius_deg: f64,
    /// First and last exposure in it, JD.
    pub jd: (f64, f64),
    /// Exposures in it.
    pub frames: i32,
    /// Magnitude of one unit of the image as the header gives it.
    pub zero_point: Option<f64>,
    /// 5σ depth as the header gives it, magnitudes.
    pub limit_mag: Option<f64>,
}

/// A reference with its pixels.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Electrons above the sky, variance and mask.
    pub frame: CalibratedFrame,
    /// Where it lies on the sky.
    pub wcs: Wcs,
    /// Its number in alerts (`rfid`).
    pub id: i64,
    /// First and last exposure in it, JD.
    pub jd: (f64, f64),
    /// Exposures in it.
    pub frames: i32,
    /// Magnitude of one electron.
    pub zero_point: f64,
    /// Whether the header gave the zero point; otherwise it is [`FALLBACK_ZERO_POINT`].
    pub zero_point_known: bool,
}

/// Why a file cannot serve as a reference. Each message names the file and the keyword.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FitsError),
    /// Its celestial coordinates are missing or wrong.
    #[error("{path}: {error}", path = path.display())]
    Coordinates {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the keyword.
        error: WcsError,
    },
    /// Its header lacks the filter or holds what cannot be.
    #[error("{path}: {reason}", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the keyword.
        reason: String,
    },
    /// Its pixels are of no use.
    #[error(transparent)]
    Pixels(#[from] CalibrateError),
    /// Two files claim the same number.
    #[error("{path}: RFID = {id} is also that of {other}; give one of them another RFID", path = path.display(), other = other.display())]
    SameId {
        /// The file.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
        /// The number.
        id: i64,
    },
}

/// Why no reference serves an exposure.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoReference {
    /// There is none at all.
    #[error("the library holds no reference; build some with nightjar reference, or let the daemon build them")]
    Empty,
    /// There is none in this filter.
    #[error("no reference in filter {filter} (there are: {others}); build one with nightjar reference")]
    Filter {
        /// The exposure's filter.
        filter: String,
        /// The filters that there are.
        others: String,
    },
    /// There is none here.
    #[error(
        "no reference in filter {filter} covers {place}; the nearest, {nearest}, lies {distance_deg:.2} degrees away"
    )]
    Place {
        /// The exposure's filter.
        filter: String,
        /// Where the exposure points, or the field that it names.
        place: String,
        /// Name of the nearest reference's file.
        nearest: String,
        /// Distance of its centre, degrees.
        distance_deg: f64,
    },
    /// The exposure says neither where it points nor a field that is known.
    #[error(
        "the header gives neither a WCS, nor RA and DEC, nor a field (OBJECT) that a reference in filter {filter} has"
    )]
    Unknown {
        /// The exposure's filter.
        filter: String,
    },
}

/// A reference that serves an exposure.
#[derive(Debug, Clone, Copy)]
pub struct Serving<'a> {
    /// The reference.
    pub entry: &'a Entry,
    /// The part of the exposure that it covers, 0 to 1; `None` where only pointing or field are known.
    pub overlap: Option<f64>,
}

/// Reads what a reference's header says as of an exposure; the error names the keyword.
pub type ReadExposure<'a> = &'a dyn Fn(&Header, &str) -> Result<Exposure, String>;

/// All references that can serve, and the pixels of the last few that did.
#[derive(Debug)]
pub struct Library {
    entries: Vec<Entry>,
    refused: Vec<LibraryError>,
    parameters: AdoptParameters,
    keep: usize,
    /// The last loaded first.
    loaded: Mutex<VecDeque<Arc<Reference>>>,
}

impl Library {
    /// Reads the headers of `files`. Keeps the pixels of at most `keep` references in memory, one at least.
    pub fn index(files: &[PathBuf], read: ReadExposure<'_>, parameters: AdoptParameters, keep: usize) -> Self {
        let mut library =
            Self { entries: Vec::new(), refused: Vec::new(), parameters, keep: keep.max(1), loaded: Mutex::default() };
        for path in files {
            match Entry::read(path, read).and_then(|entry| library.unclaimed(entry)) {
                Ok(entry) => library.entries.push(entry),
                Err(error) => library.refused.push(error),
            }
        }
        library
    }

    fn unclaimed(&self, entry: Entry) -> Result<Entry, LibraryError> {
        match self.entries.iter().find(|other| other.id == entry.id) {
            Some(other) => Err(LibraryError::SameId { path: entry.path, other: other.path.clone(), id: entry.id }),
            None => Ok(entry),
        }
    }

    /// The references that can serve, in the order of the files.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The files that cannot, and why.
    pub fn refused(&self) -> &[LibraryError] {
        &self.refused
    }

    /// The reference that serves an exposure of `shape` (rows, columns) best: found by its WCS, else
    /// by its pointing, else by its field's name.
    ///
    /// # Errors
    ///
    /// When none does, with the reason.
    pub fn find(
        &self,
        exposure: &Exposure,
        wcs: Option<&Wcs>,
        shape: (usize, usize),
    ) -> Result<Serving<'_>, NoReference> {
        let filter = exposure.filter.trim();
        let candidates: Vec<&Entry> = self.entries.iter().filter(|e| e.exposure.filter.trim() == filter).collect();
        if self.entries.is_empty() {
            return Err(NoReference::Empty);
        }
        if candidates.is_empty() {
            let mut others: Vec<&str> = self.entries.iter().map(|e| e.exposure.filter.trim()).collect();
            others.sort_unstable();
            others.dedup();
            return Err(NoReference::Filter { filter: filter.to_owned(), others: others.join(", ") });
        }
        let centre = wcs.map(|wcs| wcs.pixel_to_sky((shape.1 as f64 - 1.0) / 2.0, (shape.0 as f64 - 1.0) / 2.0));
        if let Some(best) = wcs.and_then(|wcs| covering(&candidates, wcs, shape).into_iter().next()) {
            return Ok(best);
        }
        let place = centre.or(exposure.pointing);
        if let Some(entry) = place.and_then(|place| nearest(&candidates, place).filter(|(e, d)| *d <= e.radius_deg)) {
            return Ok(Serving { entry: entry.0, overlap: None });
        }
        let named = |entry: &&&Entry| {
            let (ours, theirs) = (exposure.field.trim(), entry.exposure.field.trim());
            !ours.is_empty() && ours.eq_ignore_ascii_case(theirs)
        };
        if let Some(entry) = candidates.iter().filter(named).max_by(|a, b| a.frames.cmp(&b.frames)) {
            return Ok(Serving { entry, overlap: None });
        }
        match place.and_then(|place| Some((place, nearest(&candidates, place)?))) {
            Some(((ra, dec), (entry, distance_deg))) => Err(NoReference::Place {
                filter: filter.to_owned(),
                place: format!("RA {ra:.4} Dec {dec:+.4}"),
                nearest: file_name(&entry.path),
                distance_deg,
            }),
            None => Err(NoReference::Unknown { filter: filter.to_owned() }),
        }
    }

    /// Every reference in the exposure's filter that covers some of it, the largest part first.
    pub fn covering(&self, filter: &str, wcs: &Wcs, shape: (usize, usize)) -> Vec<Serving<'_>> {
        let candidates: Vec<&Entry> =
            self.entries.iter().filter(|e| e.exposure.filter.trim() == filter.trim()).collect();
        covering(&candidates, wcs, shape)
    }

    /// The pixels of a reference, from memory where it served lately.
    ///
    /// # Errors
    ///
    /// When the file cannot be read any more or holds no usable image.
    pub fn load(&self, entry: &Entry) -> Result<Arc<Reference>, LibraryError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = loaded.iter().position(|reference| reference.id == entry.id)
            && let Some(reference) = loaded.remove(at)
        {
            loaded.push_front(Arc::clone(&reference));
            return Ok(reference);
        }
        // Room is made before the pixels come, so that memory holds `keep` references and no more.
        loaded.truncate(self.keep - 1);
        let frame = adopt(read_planes(&entry.path)?, entry.exposure.clone(), &self.parameters)?;
        let reference = Arc::new(Reference::new(frame, entry, &self.parameters));
        loaded.push_front(Arc::clone(&reference));
        Ok(reference)
    }
}

impl Reference {
    fn new(frame: CalibratedFrame, entry: &Entry, parameters: &AdoptParameters) -> Self {
        // The header's zero point is that of the image's own unit; pixels are electrons now.
        let electrons_a_unit = if frame.gain_known() { unit_gain(frame.header(), parameters) } else { 1.0 };
        let zero_point = entry.zero_point.map(|zero_point| zero_point + 2.5 * electrons_a_unit.log10());
        Self {
            frame,
            wcs: entry.wcs.clone(),
            id: entry.id,
            jd: entry.jd,
            frames: entry.frames,
            zero_point: zero_point.unwrap_or(FALLBACK_ZERO_POINT),
            zero_point_known: zero_point.is_some(),
        }
    }

    /// The map from the pixels of an exposure to those of this reference that their world coordinates give;
    /// `None` where they lie on different sides of the sky.
    pub fn map_from(&self, wcs: &Wcs, shape: (usize, usize)) -> Option<Map> {
        Map::between(wcs, &self.wcs, shape)
    }
}

/// Electrons a unit of the image, where the header or the settings say so.
fn unit_gain(header: &Header, parameters: &AdoptParameters) -> f64 {
    let unit = header.text(&["BUNIT"]).unwrap_or_default().to_ascii_lowercase();
    if unit.starts_with('e') {
        return 1.0;
    }
    header.number(&["GAIN", "EGAIN"]).filter(|gain| *gain > 0.0).or(parameters.gain).unwrap_or(1.0)
}

impl Entry {
    /// Reads the header of a file.
    fn read(path: &Path, read: ReadExposure<'_>) -> Result<Self, LibraryError> {
        let header = read_header(path)?;
        let name = file_name(path);
        let wcs =
            Wcs::from_header(&header).map_err(|error| LibraryError::Coordinates { path: path.to_owned(), error })?;
        let exposure = read(&header, &name).map_err(|reason| LibraryError::Header { path: path.to_owned(), reason })?;
        if exposure.filter.trim().is_empty() {
            let reason = "FILTER is missing; write the filter's name into the header".to_owned();
            return Err(LibraryError::Header { path: path.to_owned(), reason });
        }
        let side = |keyword| header.number(&[keyword]).unwrap_or(0.0) as usize;
        let shape = (side("NAXIS2"), side("NAXIS1"));
        let (right, top) = (shape.1 as f64 - 1.0, shape.0 as f64 - 1.0);
        let centre = wcs.pixel_to_sky(right / 2.0, top / 2.0);
        let corners = [(0.0, 0.0), (right, 0.0), (right, top), (0.0, top)];
        let radius_deg =
            corners.map(|(x, y)| separation(centre, wcs.pixel_to_sky(x, y))).into_iter().fold(0.0, f64::max);
        let start = exposure.start.jd();
        let first = header.number(&["JDSTART"]).unwrap_or(start);
        let last = header.number(&["JDEND"]).unwrap_or(first.max(start));
        Ok(Self {
            id: identity(&header, &name),
            path: path.to_owned(),
            exposure,
            wcs,
            shape,
            centre,
            radius_deg,
            jd: (first, last),
            frames: header
                .number(&["NFRAMES", "NCOMBINE", "NIMAGES", "NCOADD"])
                .map_or(1, |n| n.clamp(1.0, 1e6) as i32),
            zero_point: header.number(&ZERO_POINT_KEYWORDS).filter(|zero_point| (-50.0..=60.0).contains(zero_point)),
            limit_mag: header.number(&["MAGLIM", "LIMMAG", "MAGLIMIT"]),
        })
    }

    /// First exposure, for reports.
    pub fn first(&self) -> Mjd {
        Mjd::from_jd(self.jd.0)
    }

    /// The part of an exposure of `shape` (rows, columns) that this reference covers, 0 to 1.
    pub fn overlap(&self, wcs: &Wcs, shape: (usize, usize)) -> f64 {
        let at = |index: usize, side: usize| (index as f64 + 0.5) / PROBES as f64 * side as f64 - 0.5;
        let inside = |index: &usize| {
            let (ra, dec) = wcs.pixel_to_sky(at(index % PROBES, shape.1), at(index / PROBES, shape.0));
            self.wcs.sky_to_pixel(ra, dec).is_some_and(|(x, y)| {
                (-0.5..self.shape.1 as f64 - 0.5).contains(&x) && (-0.5..self.shape.0 as f64 - 0.5).contains(&y)
            })
        };
        (0..PROBES * PROBES).filter(inside).count() as f64 / (PROBES * PROBES) as f64
    }
}

/// Those of `candidates` that cover some of an exposure, the largest part first; of equal ones the
/// one of most exposures.
fn covering<'a>(candidates: &[&'a Entry], wcs: &Wcs, shape: (usize, usize)) -> Vec<Serving<'a>> {
    let (right, top) = (shape.1 as f64 - 1.0, shape.0 as f64 - 1.0);
    let centre = wcs.pixel_to_sky(right / 2.0, top / 2.0);
    let radius = separation(centre, wcs.pixel_to_sky(0.0, 0.0)).max(separation(centre, wcs.pixel_to_sky(right, top)));
    let mut found: Vec<(f64, &Entry)> = candidates
        .iter()
        .filter(|entry| separation(entry.centre, centre) <= 1.5 * (entry.radius_deg + radius))
        .map(|entry| (entry.overlap(wcs, shape), *entry))
        .filter(|(overlap, _)| *overlap >= LEAST_OVERLAP)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.frames.cmp(&a.1.frames)).then(a.1.path.cmp(&b.1.path)));
    found.into_iter().map(|(overlap, entry)| Serving { entry, overlap: Some(overlap) }).collect()
}

/// The entry whose centre lies nearest to a place, and its distance in degrees.
fn nearest<'a>(candidates: &[&'a Entry], place: (f64, f64)) -> Option<(&'a Entry, f64)> {
    let by_distance = candidates.iter().map(|entry| (*entry, separation(entry.centre, place)));
    by_distance.min_by(|a, b| a.1.total_cmp(&b.1))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `RFID`, else that of the file's name without what follows its first point.
fn identity(header: &Header, name: &str) -> i64 {
    let written = header.number(&["RFID", "REFID"]).filter(|id| *id >= 1.0 && *id < 9e15);
    written.map_or_else(|| id_of_name(name.split('.').next().unwrap_or(name)), |id| id as i64)
}

/// A number for a reference of this name: 48 bits of its FNV-1a hash, positive, and exact in a double.
pub fn id_of_name(name: &str) -> i64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    ((hash >> 16) as i64).max(1)
}
