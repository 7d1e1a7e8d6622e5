//! The camera's side of the night: every frame goes into the frame journal and then into the queue.
//!
//! This side never waits for the pipeline. It waits for the disk alone: a frame that cannot be made
//! durable stays with the camera and is asked for again.

use std::path::Path;
use std::time::Duration;

use super::master_builder::is_for_masters;
use super::queue::FrameQueue;
use super::status::Board;
use crate::camera::folder::FolderCamera;
use crate::camera::journal::{FrameJournal, JournalError, Kept, same_recording};
use crate::camera::replay::{Pace, Recorded};
use crate::camera::{HeaderFallbacks, exposure_from_header};
use crate::exposure::{Exposure, ExposureId};
use crate::fits::read_header;
use crate::service::{Shutdown, Stopwatch, clock};
use crate::time::NightName;

/// How often a folder is asked whether files have become whole.
const LOOK: Duration = Duration::from_millis(500);
/// How long to wait before a frame is offered again to a disk that refused it.
const DISK_PAUSE: Duration = Duration::from_secs(5);

/// A frame that is durable and waits for the pipeline.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Where it lies.
    pub kept: Kept,
    /// What its header says.
    pub exposure: Exposure,
}

/// What the camera's side needs to know.
pub struct Intake<'a> {
    /// Where frames become durable.
    pub journal: &'a FrameJournal,
    /// Where they wait.
    pub queue: &'a FrameQueue<Waiting>,
    /// Whether an exposure is done already, as the ledger says.
    pub is_done: &'a (dyn Fn(&ExposureId) -> bool + Sync),
    /// Longitude of the telescope, degrees, east positive.
    pub longitude_deg: f64,
    /// For headers that lack something.
    pub fallbacks: &'a HeaderFallbacks,
    /// Hears of every frame that goes into the queue: the builder of masters.
    pub hear: &'a (dyn Fn(&Waiting) + Sync),
    /// Where the state is shown.
    pub board: &'a Board,
    /// How the night ends.
    pub shutdown: &'a Shutdown,
}

/// What became of a file.
enum Taken {
    /// In the journal and in the queue.
    Kept,
    /// The ledger or the journal has its exposure already.
    Known,
    /// Its header says why it cannot be used.
    Unusable(String),
    /// The disk refused it.
    Refused(JournalError),
}

impl Intake<'_> {
    /// Puts the frames that were not done when the daemon stopped into the queue; says how many.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn take_up_undone(&self) -> Result<usize, JournalError> {
        let mut count = 0;
        for kept in self.journal.frames()? {
            if (self.is_done)(&kept.id) {
                self.remember(kept);
                continue;
            }
            match self.exposure_of(&kept.path) {
                Ok(exposure) => {
                    self.push(Waiting { kept, exposure });
                    count += 1;
                }
                Err(reason) => tracing::warn!("{reason}; this frame of the journal is left where it is"),
            }
        }
        Ok(count)
    }

    /// Tonight's calibration frames are done and yet of use: masters are made of all of them.
    fn remember(&self, kept: Kept) {
        let tonight = NightName::of(clock::now(), self.longitude_deg);
        if kept.id.night() != Some(tonight) {
            return;
        }
        if let Ok(exposure) = self.exposure_of(&kept.path)
            && is_for_masters(exposure.kind)
        {
            (self.hear)(&Waiting { kept, exposure });
        }
    }

    /// A frame that is durable waits for the pipeline from now on.
    pub fn push(&self, waiting: Waiting) {
        (self.hear)(&waiting);
        self.queue.push(waiting);
    }

    /// Takes what is dropped into a folder, until the process stops.
    pub fn watch(&self, mut camera: FolderCamera, consume: bool) {
        let clock = Stopwatch::start();
        while !self.shutdown.is_requested() {
            camera.wait(LOOK, clock.seconds());
            for file in camera.poll(clock.seconds()) {
                if self.shutdown.is_requested() {
                    return;
                }
                match self.take(&file) {
                    Taken::Unusable(reason) => camera.reject(&file, &reason),
                    Taken::Refused(error) => {
                        self.say_refused(&error);
                        camera.forget(&file);
                        self.shutdown.sleep(DISK_PAUSE);
                    }
                    Taken::Kept | Taken::Known => {
                        self.board.disk_takes_frames();
                        if consume {
                            camera.consume(&file);
                        }
                    }
                }
            }
        }
    }

    /// Plays recorded frames at `pace`; returns after the last, or when the process stops.
    pub fn play(&self, frames: &[Recorded], pace: Pace) {
        let clock = Stopwatch::start();
        let Some(first) = frames.first().map(|frame| frame.exposure.start) else { return };
        for frame in frames {
            let due = Duration::from_secs_f64(pace.due_s(first, &frame.exposure));
            if self.shutdown.sleep(due.saturating_sub(clock.elapsed())) {
                return;
            }
            loop {
                match self.take(&frame.path) {
                    Taken::Refused(error) => {
                        self.say_refused(&error);
                        if self.shutdown.sleep(DISK_PAUSE) {
                            return;
                        }
                    }
                    Taken::Unusable(reason) => {
                        tracing::warn!("{reason}; the frame is left out");
                        break;
                    }
                    Taken::Kept | Taken::Known => {
                        self.board.disk_takes_frames();
                        break;
                    }
                }
            }
        }
    }

    fn take(&self, file: &Path) -> Taken {
        let exposure = match self.exposure_of(file) {
            Ok(exposure) => exposure,
            Err(reason) => return Taken::Unusable(reason),
        };
        let kept = self.journal.find(&exposure.id);
        let same = kept.as_ref().map_or(Ok(true), |kept| same_recording(&kept.path, file));
        let same = match same {
            Ok(same) => same,
            Err(reason) => {
                return Taken::Refused(JournalError::Io {
                    path: file.to_owned(),
                    doing: "cannot be compared with the frame that is kept",
                    reason,
                });
            }
        };
        if !same {
            return Taken::Unusable(format!(
                "{}: has the DATE-OBS of another frame, exposure {}; let the camera write it with milliseconds",
                file.display(),
                exposure.id
            ));
        }
        if kept.is_some() || (self.is_done)(&exposure.id) {
            tracing::debug!("{}: exposure {} is known already", file.display(), exposure.id);
            return Taken::Known;
        }
        match self.journal.keep_file(&exposure.id, file) {
            Ok(kept) => {
                self.push(Waiting { kept, exposure });
                Taken::Kept
            }
            Err(error) => Taken::Refused(error),
        }
    }

    fn exposure_of(&self, file: &Path) -> Result<Exposure, String> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let header = read_header(file).map_err(|e| e.to_string())?;
        exposure_from_header(&header, &name, self.longitude_deg, self.fallbacks).map_err(|e| e.to_string())
    }

    fn say_refused(&self, error: &JournalError) {
        self.board.disk_refuses_frames(&error.to_string(), "the camera's files stay where they are until then");
    }
}
