//! The frame journal: pixels are safe before anything else happens to them.
//!
//! ```text
//! frames/
//!   20261124-031522.fits          a frame, whole and on disk; done or not, the ledger knows
//!   20261124-031607.120.fits.fz   one that came from a file keeps that file's bytes and form
//!   20261124-031652.fits.tmp      one that is being written; removed at the next start
//!   20261124-031607.hung          how often the work on a frame hung, a byte each; goes with the frame
//! ```
//!
//! A frame is written under a `.tmp` name, synchronised, renamed, and the folder synchronised; only
//! then may its source forget it. The exposure is *done* when its spool file is durable or when it
//! is written down why it makes no alerts: that stands in the ledger (history), not here. At start
//! every frame that is not done is processed again. A done frame is kept for some nights, oldest
//! removed first; one that is not done is never removed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::RawFrame;
use crate::exposure::ExposureId;
use crate::fits::{FitsError, HduOut, Header, Plane, write_fits};
use crate::image::Mask;
use crate::time::NightName;

/// Endings of frames; the longer ones first.
const ENDINGS: [&str; 3] = [".fits.gz", ".fits.fz", ".fits"];

/// Ending of the notes about frames whose processing hung.
const HUNG: &str = "hung";

/// Why the journal did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system said no.
    #[error("{path}: {doing} ({reason}); check the disk, its room and the folder's owner", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        reason: io::Error,
    },
    /// The frame could not be written as FITS.
    #[error(transparent)]
    Fits(#[from] FitsError),
}

/// A frame in the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// Its exposure.
    pub id: ExposureId,
    /// Its file.
    pub path: PathBuf,
}

/// The folder of raw frames.
#[derive(Debug)]
pub struct FrameJournal {
    folder: PathBuf,
}

impl FrameJournal {
    /// Opens the journal, makes its folder where there is none, and removes what was not finished.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made, read or written.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        make_durable_folder(folder).map_err(fault(folder, "the frame journal cannot be made"))?;
        let journal = Self { folder: folder.to_owned() };
        for path in journal.files()? {
            if path.extension().is_some_and(|ending| ending == "tmp") {
                std::fs::remove_file(&path).map_err(fault(&path, "an unfinished frame cannot be removed"))?;
            }
        }
        Ok(journal)
    }

    /// Every frame, in the order of the exposures.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn frames(&self) -> Result<Vec<Kept>, JournalError> {
        let mut frames: Vec<Kept> = self.files()?.into_iter().filter_map(kept).collect();
        frames.sort();
        Ok(frames)
    }

    /// The frame of an exposure, where it lies here.
    pub fn find(&self, id: &ExposureId) -> Option<Kept> {
        let paths = ENDINGS.iter().map(|ending| self.folder.join(format!("{id}{ending}")));
        paths.into_iter().find(|path| path.exists()).map(|path| Kept { id: id.clone(), path })
    }

    /// Keeps a copy of `file`, byte for byte; durable on return. A frame that is there already, from
    /// a run that was cut off, is replaced.
    ///
    /// # Errors
    ///
    /// When it cannot be copied or synchronised; the source must then keep its own.
    pub fn keep_file(&self, id: &ExposureId, file: &Path) -> Result<Kept, JournalError> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let ending = ENDINGS.iter().find(|ending| name.ends_with(*ending)).copied().unwrap_or(".fits");
        let path = self.folder.join(format!("{id}{ending}"));
        let temporary = self.folder.join(format!("{id}{ending}.tmp"));
        let copy = || {
            let mut source = File::open(file)?;
            let mut target = File::create(&temporary)?;
            io::copy(&mut source, &mut target)?;
            target.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        copy().map_err(|reason| {
            let _ = std::fs::remove_file(&temporary);
            JournalError::Io { path: path.clone(), doing: "the frame cannot be kept", reason }
        })?;
        Ok(Kept { id: id.clone(), path })
    }

    /// Writes a frame that came over a link, with `CHECKSUM` and `DATASUM`; durable on return.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the camera must then keep its own.
    pub fn keep_frame(&self, frame: &RawFrame) -> Result<Kept, JournalError> {
        let id = frame.exposure.id.clone();
        let path = self.folder.join(format!("{id}.fits"));
        let plane = Plane::F32(&frame.pixels.pixels);
        let mut planes = vec![HduOut { name: "", header: &frame.header, plane }];
        if let Some(missing) = &frame.missing {
            planes.push(HduOut { name: "MISSING", header: &frame.header, plane: Plane::U16(missing) });
        }
        write_fits(&path, &planes)?;
        Ok(Kept { id, path })
    }

    /// Writes the counts of a wired camera under the header that was completed for them; durable on
    /// return.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the camera must then keep its own.
    pub fn keep_counts(
        &self,
        id: &ExposureId,
        header: &Header,
        pixels: &Array2<u16>,
        missing: Option<&Mask>,
    ) -> Result<Kept, JournalError> {
        let path = self.folder.join(format!("{id}.fits"));
        let mut planes = vec![HduOut { name: "", header, plane: Plane::U16(pixels) }];
        if let Some(missing) = missing {
            planes.push(HduOut { name: "MISSING", header, plane: Plane::U16(missing) });
        }
        write_fits(&path, &planes)?;
        Ok(Kept { id: id.clone(), path })
    }

    /// Removes the frames that are done and older than `keep_nights` before `tonight`, oldest first;
    /// says how many.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or a frame cannot be removed.
    pub fn trim(
        &self,
        tonight: NightName,
        keep_nights: u32,
        is_done: impl Fn(&ExposureId) -> bool,
    ) -> Result<usize, JournalError> {
        let mut removed = 0;
        for frame in self.frames()? {
            let age = frame.id.night().map(|night| tonight.nid() - night.nid());
            if age.is_some_and(|nights| nights > keep_nights as i32) && is_done(&frame.id) {
                std::fs::remove_file(&frame.path).map_err(fault(&frame.path, "an old frame cannot be removed"))?;
                let _ = std::fs::remove_file(self.note(&frame.id));
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Notes that the work on a frame hung; durable on return.
    ///
    /// # Errors
    ///
    /// When the note cannot be written.
    pub fn note_hang(&self, id: &ExposureId) -> Result<(), JournalError> {
        let path = self.note(id);
        let write = || {
            let mut file = File::options().create(true).append(true).open(&path)?;
            file.write_all(b"+")?;
            file.sync_all()?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(fault(&path, "cannot be written"))
    }

    /// How often the work on a frame hung.
    pub fn hangs(&self, id: &ExposureId) -> u64 {
        std::fs::metadata(self.note(id)).map_or(0, |note| note.len())
    }

    fn note(&self, id: &ExposureId) -> PathBuf {
        self.folder.join(format!("{id}.{HUNG}"))
    }

    fn files(&self) -> Result<Vec<PathBuf>, JournalError> {
        let entries = std::fs::read_dir(&self.folder).map_err(fault(&self.folder, "cannot be read"))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }
}

/// Bytes that are compared at each of three places.
const SAMPLE: u64 = 1 << 16;

/// Whether two files are the same recording: of one length, with the same 64 KiB at the start, where the header is, in the
/// middle and at the end, which the noise of no two frames shares. To read all of a folder of three nights, 18 GB, at each
/// start would keep the night waiting.
///
/// # Errors
///
/// When one of them cannot be read.
pub fn same_recording(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let length = a.metadata()?.len();
    if length != b.metadata()?.len() {
        return Ok(false);
    }
    for from in [0, length / 2, length.saturating_sub(SAMPLE)] {
        let read = |file: &mut File| -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(from))?;
            file.take(SAMPLE).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        if read(&mut a)? != read(&mut b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a folder and synchronises each one that is new, up to one that was there.
fn make_durable_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_durable_folder(parent)?;
    std::fs::create_dir(folder)?;
    File::open(parent)?.sync_all()
}

fn kept(path: PathBuf) -> Option<Kept> {
    let name = path.file_name()?.to_str()?;
    let id = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending))?;
    Some(Kept { id: ExposureId::from_stored(id), path })
}

fn fault(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |reason| JournalError::Io { path, doing, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ExposureId {
        ExposureId::from_stored(text)
    }

    #[test]
    fn a_kept_file_has_the_bytes_and_the_form_of_its_source() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("IMG_0001.FITS.FZ");
        std::fs::write(&source, b"SIMPLE  = anything").unwrap();
        let journal = FrameJournal::open(&folder.path().join("var/frames")).unwrap();
        let kept = journal.keep_file(&id("20261124-031522"), &source).unwrap();
        assert!(kept.path.ends_with("var/frames/20261124-031522.fits.fz"));
        assert_eq!(std::fs::read(&kept.path).unwrap(), b"SIMPLE  = anything");
        assert!(same_recording(&kept.path, &source).unwrap());
        std::fs::write(&source, b"SIMPLE  = another").unwrap();
        assert!(!same_recording(&kept.path, &source).unwrap());
        assert!(same_recording(&kept.path, &folder.path().join("none")).is_err());
        assert_eq!(journal.find(&kept.id), Some(kept.clone()));
        assert_eq!(journal.frames().unwrap(), [kept]);
    }

    #[test]
    fn a_frame_that_was_not_finished_is_gone_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("20261124-031522.fits.tmp"), b"half").unwrap();
        let journal = FrameJournal::open(folder.path()).unwrap();
        assert_eq!(journal.frames().unwrap(), []);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn hangs_are_counted_over_restarts_and_are_no_frames() {
        let folder = tempfile::tempdir().unwrap();
        let exposure = id("20261124-031522");
        for _ in 0..2 {
            FrameJournal::open(folder.path()).unwrap().note_hang(&exposure).unwrap();
        }
        let journal = FrameJournal::open(folder.path()).unwrap();
        assert_eq!((journal.hangs(&exposure), journal.hangs(&id("20261124-031607"))), (2, 0));
        assert_eq!(journal.frames().unwrap(), []);
    }

    #[test]
    fn old_frames_are_removed_when_they_are_done_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["20261119-010000", "20261120-010000", "20261121-010000", "20261124-010000"];
        for name in names {
            std::fs::write(folder.path().join(format!("{name}.fits")), b"pixels").unwrap();
        }
        let journal = FrameJournal::open(folder.path()).unwrap();
        let tonight = id("20261124-010000").night().unwrap();
        let removed = journal.trim(tonight, 3, |id| id.as_str() != "20261120-010000").unwrap();
        assert_eq!(removed, 1);
        let left: Vec<String> = journal.frames().unwrap().iter().map(|frame| frame.id.to_string()).collect();
        assert_eq!(left, names[1..]);
    }

    #[test]
    fn a_frame_of_a_link_camera_is_written_as_fits() {
        use crate::exposure::{Exposure, FrameKind};
        let folder = tempfile::tempdir().unwrap();
        let journal = FrameJournal::open(folder.path()).unwrap();
        let start = "2026-11-24T03:15:22".parse().unwrap();
        let night = NightName::of(start, 0.0);
        let frame = RawFrame {
            exposure: Exposure {
                id: ExposureId::new(night, start),
                night,
                kind: FrameKind::Light,
                start,
                exposure_s: 30.0,
                filter: "r".into(),
                field: "512".into(),
                pointing: None,
                temperature_c: None,
                file: String::new(),
            },
            pixels: crate::image::Image::filled(4, 5, 1000.0),
            missing: Some(crate::image::Mask::from_elem((4, 5), crate::image::mask::NO_DATA)),
            amplifiers: Vec::new(),
            header: crate::fits::Header::new(),
        };
        let kept = journal.keep_frame(&frame).unwrap();
        let planes = crate::fits::read_planes(&kept.path).unwrap();
        assert_eq!(planes.len(), 2);
        assert_eq!((planes[0].pixels[[3, 4]], planes[1].pixels[[0, 0]]), (1000.0, 32.0));
    }
}
