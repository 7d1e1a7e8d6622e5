//! The daemon: camera, journal, pipeline and uplink together, until somebody asks it to stop.
//!
//! Three threads beside the uplink's: the camera's side ([`super::intake`]), the pipeline, and this
//! one, which looks after them once a second. Camera, masters, references and broker are states and
//! not conditions: each that is missing is said once, with what to do, and frames are kept all the
//! same.

mod camera_side;
mod look_after;
mod reload;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use super::daemon_error::DaemonError;
use super::intake::Waiting;
use super::keeping::{Held, Keeping, open_history};
use super::master_builder::MasterBuilder;
use super::outcome::Outcome;
use super::queue::FrameQueue;
use super::science::{Science, ScienceError};
use super::status::Board;
use super::{Night, Prepared, belt, site_check, values};
use crate::camera::journal::FrameJournal;
use crate::exposure::ExposureId;
use crate::service::shutdown::{Phase, Request, catch_signals};
use crate::service::status_file::StatusFile;
use crate::service::{Hearts, Shutdown, Stopwatch, clock, events, metrics, systemd};
use crate::service::{credentials, defect};
use crate::settings::{CameraKind, Settings};
use crate::spool::Spool;
use crate::uplink::{State, Uplink};

/// Longest time a stage may take for one frame before the watchdog is no longer fed, in its periods.
const STAGE_DEADLINE: u32 = 2;
/// An exposure whose work hung so often is closed with that as its reason.
const MOST_HANGS: u64 = 5;
/// How often state is looked at and shown.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before something that was missing is looked for again.
const RETRY: Duration = Duration::from_secs(10);
/// How long the uplink may go on sending after the pipeline has stopped; below `TimeoutStopSec=`.
const DRAIN: Duration = Duration::from_secs(30);
/// How often old frames are looked for, in rounds of [`LOOK`].
const TRIM_ROUNDS: u64 = 600;

/// What the threads share.
struct Daemon {
    settings: RwLock<Arc<Settings>>,
    /// Those with which the process began.
    began_with: Arc<Settings>,
    night: Night,
    journal: FrameJournal,
    queue: FrameQueue<Waiting>,
    board: Board,
    shutdown: Shutdown,
    reload: AtomicBool,
    hearts: Hearts,
    /// Tonight's calibration frames.
    masters: MasterBuilder,
    /// Warnings of the last exposure.
    said: Mutex<Vec<String>>,
}

/// Runs until a signal asks to stop.
///
/// # Errors
///
/// When it cannot start; once it runs, nothing ends it but a signal.
pub fn run(settings: &Settings) -> Result<(), DaemonError> {
    let camera = match (settings.camera.kind, &settings.camera.folder) {
        (CameraKind::Folder, Some(folder)) => format!("folder {}", folder.display()),
        (CameraKind::Replay, Some(folder)) => format!("replay of {}", folder.display()),
        (CameraKind::Serial, _) => format!("readout link at {}", settings.camera.device),
        (CameraKind::Sg4, _) => format!("SG-4 at {}", settings.camera.device),
        (_, None) => return Err(DaemonError::Camera),
    };
    defect::say_panics();
    use_threads(settings.service.threads);
    let (shutdown, hangup) = (Shutdown::new(), Arc::new(AtomicBool::new(false)));
    let (asked, reload) = (shutdown.clone(), hangup.clone());
    catch_signals(move |request| match request {
        Request::Stop => asked.request(),
        Request::Reload => reload.store(true, Ordering::Relaxed),
    })?;

    let in_the_way = site_check::in_the_way(settings);
    if !in_the_way.is_empty() {
        return Err(DaemonError::Folders(in_the_way.join("\n")));
    }
    let mut uplink_parameters = values::uplink_values(settings);
    uplink_parameters.security = values::security(settings, credentials::folder().as_deref())?;
    let spool = Arc::new(Spool::open(&settings.spool.folder, values::spool_parameters(settings))?);
    let history = open_history(&settings.history.file)?;
    let journal = FrameJournal::open(&settings.frames.folder)?;
    let uplink = Uplink::start(uplink_parameters, spool.clone())?;
    for finding in spool.findings() {
        tracing::warn!("{finding}");
    }

    let days = f64::from(settings.history.days);
    let code = &settings.observatory.code;
    let keeping = Keeping::new(history, spool, values::alert_parameters(settings), code, days)
        .with_numbers(values::schema_numbers(settings, &settings.spool.folder)?);
    let hearts = Hearts::new(systemd::watchdog().map_or(Duration::MAX, |period| period * STAGE_DEADLINE));
    let daemon = Arc::new(Daemon {
        settings: RwLock::new(Arc::new(settings.clone())),
        began_with: Arc::new(settings.clone()),
        night: Night::new(Science::empty(settings), keeping, hearts.clone(), None),
        journal,
        queue: FrameQueue::default(),
        board: Board::new(clock::now(), &camera),
        shutdown: shutdown.clone(),
        reload: AtomicBool::new(false),
        hearts,
        masters: MasterBuilder::default(),
        said: Mutex::default(),
    });
    if !settings.metrics.listen.is_empty() {
        let figures = daemon.clone();
        if let Err(error) = metrics::serve(&settings.metrics.listen, move || figures.board.exposition()) {
            tracing::error!(
                "{}: no figures for Prometheus ({error}); correct [metrics] listen",
                settings.metrics.listen
            );
        }
    }
    systemd::ready("ready");
    let hung = daemon.clone();
    systemd::feed_watchdog(daemon.hearts.clone(), shutdown.clone(), move |exposure| hung.note_hang(exposure))?;
    tracing::info!(message_id = events::STARTED, "nightjar {} is ready: {camera}", env!("CARGO_PKG_VERSION"));

    let at_camera = daemon.clone();
    std::thread::Builder::new().name("camera".into()).spawn(move || defect::or_exit(|| at_camera.take_frames()))?;
    let ended = Arc::new(AtomicBool::new(false));
    let (at_pipeline, ends) = (daemon.clone(), ended.clone());
    std::thread::Builder::new().name("pipeline".into()).spawn(move || {
        defect::or_exit(|| at_pipeline.process());
        ends.store(true, Ordering::Release);
    })?;
    defect::or_exit(|| {
        let uplink = Daemon::look_after(&daemon, uplink, &hangup);
        daemon.stop(uplink, &ended);
    });
    Ok(())
}

/// Pixel work on so many threads; 0 is one a core.
fn use_threads(threads: usize) {
    if threads > 0 && rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().is_err() {
        tracing::warn!("[service] threads = {threads} has no effect: the threads run already");
    }
}

impl Daemon {
    /// The settings that are in force.
    fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pipeline's thread.
    fn process(&self) {
        if !self.wait_for_masters() {
            return;
        }
        belt::run(&self.queue, &self.shutdown, |waiting| self.prepare(waiting), |prepared| self.finish(prepared));
    }

    /// Loads masters and references; waits for masters, without which nothing can be calibrated.
    /// `false` when the process stops before.
    fn wait_for_masters(&self) -> bool {
        let mut said = false;
        loop {
            match Science::load(&self.settings()) {
                Ok(science) => {
                    self.night.replace_science(science);
                    self.board.set(|status| status.held.clear());
                    return true;
                }
                Err(error) if !said => {
                    tracing::error!(message_id = events::MASTERS_MISSING, "{error}; frames are kept until then");
                    self.board.set(|status| status.held = error.to_string());
                    said = true;
                }
                Err(_) => {}
            }
            if self.shutdown.sleep(RETRY) {
                return false;
            }
        }
    }

    fn prepare(&self, waiting: Waiting) -> Prepared {
        if self.reload.swap(false, Ordering::Relaxed) {
            match Science::load(&self.settings()) {
                Ok(science) => {
                    self.night.replace_science(science);
                    tracing::info!("masters and references are read again");
                }
                Err(ScienceError(reason)) => tracing::error!("{reason}; those in use stay in use"),
            }
        }
        match self.journal.hangs(&waiting.kept.id) {
            hangs @ MOST_HANGS.. => {
                let file = waiting.kept.path.display();
                let reason =
                    format!("the work on it hung {hangs} times; {file} is kept: look at the disk, or report the frame");
                Night::refuse(waiting, reason)
            }
            _ => self.night.prepare(waiting),
        }
    }

    /// Work that hangs ends with the process. An exposure that does it again and again must not end the night.
    fn note_hang(&self, exposure: &ExposureId) {
        if let Err(error) = self.journal.note_hang(exposure) {
            tracing::error!("{error}");
        }
    }

    fn finish(&self, mut prepared: Prepared) -> ControlFlow<()> {
        match self.night.finish(&mut prepared) {
            Ok(outcome) => self.say(&outcome),
            Err(held) => self.hold(prepared, &held),
        }
        ControlFlow::Continue(())
    }

    fn say(&self, outcome: &Outcome) {
        self.board.done(outcome, clock::now());
        self.warn(outcome);
        let status = self.board.now();
        let exposure = &outcome.exposure;
        let kind = if outcome.result.is_ok() { events::EXPOSURE_DONE } else { events::EXPOSURE_WITHOUT_ALERTS };
        tracing::info!(
            message_id = kind,
            nightjar_exposure = %exposure.id,
            nightjar_field = %exposure.field,
            nightjar_filter = %exposure.filter,
            nightjar_alerts = outcome.alerts(),
            nightjar_seconds = outcome.seconds.total(),
            nightjar_spool_seq = outcome.result.as_ref().ok().and_then(|found| found.sequence),
            "{outcome}, spool {} behind, uplink {}{}",
            status.spool_exposures,
            status.uplink,
            match self.queue.len() {
                0 => String::new(),
                waiting => format!(", {waiting} frames wait"),
            }
        );
    }

    /// Warnings of the stages: each once while it holds, since they tend to hold all night.
    fn warn(&self, outcome: &Outcome) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in outcome.warnings() {
            if !said.contains(warning) {
                tracing::warn!(nightjar_exposure = %outcome.exposure.id, "exposure {}: {warning}", outcome.exposure.id);
            }
        }
        *said = outcome.warnings().to_vec();
    }

    /// Something outside the exposure is in its way: it waits, on disk, and is tried again.
    fn hold(&self, prepared: Prepared, held: &Held) {
        let exposure = &prepared.waiting.exposure;
        let reason = held.to_string();
        if self.board.now().held != reason {
            tracing::error!(
                message_id = events::EXPOSURE_WAITS,
                nightjar_exposure = %exposure.id,
                "exposure {} waits in the frame journal: {reason}",
                exposure.id
            );
        }
        self.board.set(|status| status.held = reason.clone());
        if let Err(error) = self.night.keeping().defer(exposure, &reason) {
            tracing::debug!("the ledger does not take it either: {error}");
        }
        self.queue.put_back(prepared.waiting);
        self.shutdown.sleep(RETRY);
    }

    fn is_done(&self, exposure: &ExposureId) -> bool {
        // An unreadable ledger means that a frame is processed again: the spool knows the twin.
        self.night.keeping().is_done(exposure).unwrap_or(false)
    }

    /// The one way to the end: the exposure in hand, then what the uplink can send, each no longer
    /// than it may; a second request cuts both short.
    fn stop(&self, uplink: Uplink, ended: &AtomicBool) {
        systemd::stopping("finishing the exposure in hand");
        self.board.set(|status| status.state = "stopping".into());
        while !ended.load(Ordering::Acquire) && !self.shutdown.wait_for(Phase::AtOnce, Duration::from_millis(50)) {}
        let since = Stopwatch::start();
        let sending = |uplink: &Uplink| matches!(uplink.status().state, State::Connected);
        while sending(&uplink)
            && since.elapsed() < DRAIN
            && !uplink.drain(Duration::from_millis(200))
            && self.shutdown.phase() < Phase::AtOnce
        {}
        self.look_at_uplink(&uplink);
        uplink.stop(Duration::ZERO);
        let undone = self.undone();
        self.board.set(|status| {
            status.frames_waiting = undone as u64;
            status.state = "stopped".into();
        });
        let status = self.board.now();
        StatusFile::new(&self.settings().service.status_file).write(&status);
        tracing::info!(
            message_id = events::STOPPED,
            "nightjar has stopped: {undone} frames wait in the frame journal, {} alerts in the spool",
            status.spool_alerts
        );
    }

    /// Frames of the journal that the next start takes up.
    fn undone(&self) -> usize {
        let frames = self.journal.frames().unwrap_or_default();
        frames.iter().filter(|frame| !self.is_done(&frame.id)).count()
    }
}
