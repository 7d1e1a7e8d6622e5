//! A recorded night: a folder of FITS files, played again in the order in which they were taken.
//!
//! Names mean nothing; `DATE-OBS` gives the order and `IMAGETYP` the use. `references/` and
//! `masters/` may lie inside. A file that cannot be used is named with the reason and does not stop
//! the others.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{HeaderFallbacks, exposure_from_header};
use crate::exposure::{Exposure, FrameKind};
use crate::fits::read_header;
use crate::time::Mjd;

/// Endings of FITS files, in lower case.
const ENDINGS: [&str; 6] = [".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fits.fz"];

/// Why a folder is no recorded night.
#[derive(Debug, thiserror::Error)]
pub enum NightError {
    /// It is not there or cannot be read.
    #[error("{folder}: cannot be read ({reason}); check the path and its permissions", folder = folder.display())]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file where a folder is needed.
    #[error("{}: is a file; name the folder of the night", .0.display())]
    File(PathBuf),
    /// No FITS file in it.
    #[error("{folder}: there are no FITS files in it (.fits, .fits.gz, .fits.fz){hint}", folder = folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// Where there are some, as the end of the sentence.
        hint: String,
    },
    /// Files, but none that can be used.
    #[error("{folder}: none of its {files} FITS files can be used; the first: {first}", folder = folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// How many.
        files: usize,
        /// Why the first cannot.
        first: String,
    },
}

/// A frame of the night.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its file.
    pub path: PathBuf,
    /// What its header says.
    pub exposure: Exposure,
}

/// A recorded night.
#[derive(Debug)]
pub struct RecordedNight {
    /// The folder.
    pub folder: PathBuf,
    /// Its frames in the order in which they were taken.
    pub frames: Vec<Recorded>,
    /// Files that cannot be used, each with a sentence that names it.
    pub unusable: Vec<(PathBuf, String)>,
}

impl RecordedNight {
    /// Reads the headers of every FITS file in `folder`. `longitude_deg` (east positive) names the
    /// night; `fallbacks` serve headers that lack something.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or holds nothing that can be used.
    pub fn read(folder: &Path, longitude_deg: f64, fallbacks: &HeaderFallbacks) -> Result<Self, NightError> {
        if folder.is_file() {
            return Err(NightError::File(folder.to_owned()));
        }
        let files = fits_files(folder)?;
        if files.is_empty() {
            return Err(NightError::Empty { folder: folder.to_owned(), hint: hint(folder) });
        }
        let count = files.len();
        let (mut frames, mut unusable) = (Vec::new(), Vec::new());
        for path in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let exposure = read_header(&path).map_err(|e| e.to_string()).and_then(|header| {
                exposure_from_header(&header, &name, longitude_deg, fallbacks).map_err(|e| e.to_string())
            });
            match exposure {
                Ok(exposure) => frames.push(Recorded { path, exposure }),
                Err(reason) => unusable.push((path, reason)),
            }
        }
        if let (true, Some((_, first))) = (frames.is_empty(), unusable.first()) {
            return Err(NightError::Unusable { folder: folder.to_owned(), files: count, first: first.clone() });
        }
        frames.sort_by(|a, b| a.exposure.start.0.total_cmp(&b.exposure.start.0).then_with(|| a.path.cmp(&b.path)));
        Ok(Self { folder: folder.to_owned(), frames, unusable })
    }

    /// The frames of one kind, in order.
    pub fn of_kind(&self, kind: FrameKind) -> impl Iterator<Item = &Recorded> {
        self.frames.iter().filter(move |frame| frame.exposure.kind == kind)
    }

    /// The folder `name` inside the night, when it holds FITS files.
    pub fn folder_with_files(&self, name: &str) -> Option<PathBuf> {
        let folder = self.folder.join(name);
        fits_files(&folder).is_ok_and(|files| !files.is_empty()).then_some(folder)
    }
}

/// The FITS files of a folder by name, hidden ones left out, folders not entered.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn fits_files(folder: &Path) -> Result<Vec<PathBuf>, NightError> {
    let unreadable = |e: std::io::Error| NightError::Unreadable { folder: folder.to_owned(), reason: e.to_string() };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && !name.starts_with('.') && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Where the FITS files may be, when they are not where they were looked for.
fn hint(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let with_files = entries.filter(|path| fits_files(path).is_ok_and(|files| !files.is_empty())).min();
    match with_files {
        Some(inner) => format!("; there are some in {}: name that folder", inner.display()),
        None => "; name the folder that `nightjar sky --out DIR` or the camera's program filled".to_owned(),
    }
}

/// How fast a night is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as the frames are processed.
    Max,
    /// So many times faster than it was taken; 1 is its own pace.
    Times(f64),
}

impl Pace {
    /// When a frame is read out, seconds after the first shutter opened at `first`.
    pub fn due_s(self, first: Mjd, frame: &Exposure) -> f64 {
        match self {
            Self::Max => 0.0,
            Self::Times(factor) => (frame.start.seconds_since(first) + frame.exposure_s).max(0.0) / factor,
        }
    }
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let factor = match text {
            "max" => return Ok(Self::Max),
            "real" => Some(1.0),
            _ => text.strip_suffix('x').and_then(|number| number.parse::<f64>().ok()),
        };
        factor
            .filter(|factor| factor.is_finite() && *factor > 0.0)
            .map(Self::Times)
            .ok_or_else(|| "write max, real, or a factor such as 10x".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::{HduOut, Header, Plane, write_fits};

    fn frame(folder: &Path, name: &str, kind: &str, date: &str) {
        let mut header = Header::new();
        header.set("IMAGETYP", kind, "").set("DATE-OBS", date, "").set("EXPTIME", 30.0, "").set("FILTER", "r", "");
        let pixels = ndarray::Array2::<f32>::zeros((4, 5));
        let plane = HduOut { name: "", header: &header, plane: Plane::F32(&pixels) };
        write_fits(&folder.join(name), &[plane]).unwrap();
    }

    #[test]
    fn a_night_is_played_in_the_order_in_which_it_was_taken_whatever_the_names() {
        let folder = tempfile::tempdir().unwrap();
        frame(folder.path(), "a.fits", "light", "2026-11-24T03:15:22");
        frame(folder.path(), "b.FITS", "Light Frame", "2026-11-24T03:14:22");
        frame(folder.path(), "c.fits", "BIAS", "2026-11-23T22:00:00");
        std::fs::write(folder.path().join("d.fits"), "not FITS").unwrap();
        std::fs::write(folder.path().join("truth.csv"), "x,y").unwrap();
        let night = RecordedNight::read(folder.path(), 0.0, &HeaderFallbacks::default()).unwrap();
        let names: Vec<&str> = night.frames.iter().map(|frame| frame.exposure.file.as_str()).collect();
        assert_eq!(names, ["c.fits", "b.FITS", "a.fits"]);
        assert_eq!(night.of_kind(FrameKind::Light).count(), 2);
        assert_eq!(night.unusable.len(), 1);
        assert!(night.unusable[0].1.contains("d.fits"));
    }

    #[test]
    fn a_folder_without_frames_says_where_they_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("2026-11-24");
        std::fs::create_dir(&inner).unwrap();
        frame(&inner, "a.fits", "light", "2026-11-24T03:15:22");
        let read = |path: &Path| {
            let night = RecordedNight::read(path, 0.0, &HeaderFallbacks::default());
            night.unwrap_err().to_string()
        };
        assert!(read(folder.path()).contains("2026-11-24: name that folder"));
        assert!(read(&folder.path().join("absent")).contains("check the path"));
        assert!(read(&inner.join("a.fits")).contains("is a file"));
    }

    #[test]
    fn a_paced_frame_is_due_when_its_shutter_closed() {
        let folder = tempfile::tempdir().unwrap();
        frame(folder.path(), "a.fits", "light", "2026-11-24T03:00:00");
        frame(folder.path(), "b.fits", "light", "2026-11-24T03:01:00");
        let night = RecordedNight::read(folder.path(), 0.0, &HeaderFallbacks::default()).unwrap();
        let first = night.frames[0].exposure.start;
        let due = |pace: &str| pace.parse::<Pace>().unwrap().due_s(first, &night.frames[1].exposure);
        assert!((due("real") - 90.0).abs() < 1e-3 && (due("10x") - 9.0).abs() < 1e-3);
        assert_eq!(due("max"), 0.0);
        assert!("0x".parse::<Pace>().is_err() && "fast".parse::<Pace>().is_err());
    }
}
