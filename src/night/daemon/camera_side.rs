//! The camera's thread: a folder, a recorded night, or a camera on a wire.

use super::{Daemon, RETRY};
use crate::camera::fields::FieldList;
use crate::camera::folder::FolderCamera;
use crate::camera::replay::{Pace, RecordedNight};
use crate::exposure::{Exposure, ExposureId};
use crate::night::intake::Intake;
use crate::night::trigger::{Plan, Starter};
use crate::night::values;
use crate::night::wired::Wired;
use crate::service::events;
use crate::settings::{CameraKind, Trigger};

impl Daemon {
    /// Takes frames until the process stops.
    pub(super) fn take_frames(&self) {
        let settings = self.settings();
        let fallbacks = values::header_fallbacks(&settings);
        let is_done = |id: &ExposureId| self.is_done(id);
        let intake = Intake {
            journal: &self.journal,
            queue: &self.queue,
            is_done: &is_done,
            longitude_deg: settings.observatory.longitude_deg,
            fallbacks: &fallbacks,
            hear: &|waiting| self.masters.hear(waiting),
            board: &self.board,
            shutdown: &self.shutdown,
        };
        match intake.take_up_undone() {
            Ok(0) => {}
            Ok(count) => tracing::info!("{count} frames of the journal are not done and are processed first"),
            Err(error) => tracing::error!("the frames of the journal cannot be read: {error}"),
        }
        match settings.camera.kind {
            CameraKind::Folder | CameraKind::Replay => self.take_files(&intake),
            CameraKind::Serial | CameraKind::Sg4 => self.take_from_wire(&intake),
        }
    }

    fn take_from_wire(&self, intake: &Intake<'_>) {
        let settings = self.settings();
        let (camera, telescope) = (&settings.camera, &settings.telescope);
        let plan = || {
            let settings = self.settings();
            Plan {
                cadence_s: settings.camera.cadence_s,
                exposure_s: settings.camera.exposure_s,
                command: settings.telescope.pointing_command.clone(),
            }
        };
        let starter = (camera.trigger == Trigger::Cadence)
            .then(|| Starter::new(camera.cadence_s, &telescope.pointing_command, 0.0));
        let missed = |exposure: &Exposure, reason: &str| {
            if let Err(error) = self.night.keeping().close_without_alerts(exposure, reason) {
                tracing::error!("{}: the ledger does not take that it is missed: {error}", exposure.file);
            }
        };
        let wired =
            Wired { intake, camera, fields: self.fields(), board: &self.board, missed: &missed, plan: &plan, starter };
        if let Err(error) = wired.run() {
            tracing::error!(
                message_id = events::CAMERA_LOST,
                "no event loop for the camera: {error}; start nightjar again"
            );
        }
    }

    /// The list of fields, empty where there is none; one that cannot be read is said.
    fn fields(&self) -> FieldList {
        let settings = self.settings();
        let file = &settings.telescope.fields;
        let Ok(text) = std::fs::read_to_string(file) else { return FieldList::default() };
        FieldList::parse(&text).unwrap_or_else(|error| {
            tracing::warn!("{}: {error}; the list of fields is not used", file.display());
            FieldList::default()
        })
    }

    fn take_files(&self, intake: &Intake<'_>) {
        let settings = self.settings();
        let folder = settings.camera.folder.clone().unwrap_or_default();
        let mut away = false;
        while !self.shutdown.is_requested() {
            let trouble = match settings.camera.kind {
                CameraKind::Replay => match RecordedNight::read(&folder, intake.longitude_deg, intake.fallbacks) {
                    Ok(recorded) => {
                        self.board.set(|status| status.camera_ok = true);
                        intake.play(&recorded.frames, Pace::Times(1.0));
                        tracing::info!("the recorded night is over; SIGTERM ends the daemon");
                        return;
                    }
                    Err(error) => error.to_string(),
                },
                _ => match FolderCamera::open(&folder) {
                    Ok(camera) => {
                        if away {
                            tracing::info!(message_id = events::CAMERA_BACK, "{}: is there again", folder.display());
                        }
                        self.board.set(|status| {
                            status.camera = format!("folder {}", folder.display());
                            status.camera_ok = true;
                        });
                        return intake.watch(camera, settings.camera.consume);
                    }
                    Err(error) => error.to_string(),
                },
            };
            if !away {
                tracing::error!(message_id = events::CAMERA_LOST, "{trouble}");
                self.board.set(|status| {
                    status.camera = trouble.clone();
                    status.camera_ok = false;
                });
            }
            away = true;
            self.shutdown.sleep(RETRY);
        }
    }
}
