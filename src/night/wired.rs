//! The camera's side of the night for cameras on a wire: the one loop that reads a port, runs the
//! protocol machine, starts exposures and makes frames durable.
//!
//! Whatever the camera does, the loop goes on: a line that is away is opened again with back-off, a
//! frame that the disk refuses is held and offered again while the camera keeps its own, and every
//! exposure that does not come is named by its number, in the journal and in the ledger.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::intake::{Intake, Waiting};
use super::status::Board;
use super::trigger::{Order, Plan, Starter};
use super::wired_frame::{Circumstances, NUMBER, SESSION, complete};
use crate::camera::exposure_from_header;
use crate::camera::fields::FieldList;
use crate::camera::link::{Host, HostParameters};
use crate::camera::port::{Port, is_server};
use crate::camera::readout::{Happening, Readout, When, WiredFrame};
use crate::camera::sg4::{Binning, Sg4Host};
use crate::exposure::{Exposure, ExposureId, FrameKind};
use crate::fits::read_header;
use crate::service::{Stopwatch, clock, events};
use crate::settings::{Camera, CameraKind};
use crate::time::{Mjd, NightName};

/// Longest sleep: somebody may have asked to stop.
const LOOK: Duration = Duration::from_millis(200);
/// First and longest pause before a line that is away is opened again.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Pause before a frame is offered again to a disk that refused it.
const DISK_PAUSE: Duration = Duration::from_secs(5);
/// So often a camera may leave its calls unanswered before the line is opened anew.
const SILENCES: u32 = 3;
/// The host's clock moves by less than this against a steady one unless it is set, seconds.
const STEP_S: f64 = 0.05;
/// A step of the host's clock by more than this during an exposure leaves its time unknown, seconds.
const LOST_TIME_S: f64 = 1.0;
/// A camera's own clock is believed from so long before to so long after the host's time, seconds: it may have kept
/// frames for some days, but not frames of tomorrow.
const BELIEVED_S: (f64, f64) = (7.0 * 86_400.0, 300.0);
/// Exposures that are under way, and missed ones that may still come, that are remembered at most.
const REMEMBERED: usize = 100;

/// What the loop needs.
pub struct Wired<'a> {
    /// Journal, queue, ledger, fall-backs, stop.
    pub intake: &'a Intake<'a>,
    /// `[camera]`.
    pub camera: &'a Camera,
    /// The list of fields.
    pub fields: FieldList,
    /// Where the state is shown.
    pub board: &'a Board,
    /// Writes a missed exposure into the ledger, with the reason.
    pub missed: &'a dyn Fn(&Exposure, &str),
    /// What is to be exposed now.
    pub plan: &'a dyn Fn() -> Plan,
    /// Starts exposures, with `trigger = "cadence"`.
    pub starter: Option<Starter>,
}

/// What changes while it runs.
struct Run {
    readout: Readout,
    watch: Stopwatch,
    away: bool,
    held: Option<(Box<WiredFrame>, Duration)>,
    /// Exposures that were started, by the camera's number.
    orders: BTreeMap<u32, Order>,
    /// Rows of the ledger of exposures that were named as missed, by the camera's number.
    missed: BTreeMap<u32, Exposure>,
    /// Whether the camera's clock was wrong, and said to be.
    clock_wrong: bool,
    /// UTC minus the steady clock when last looked at, and the last step: when and by how much.
    offset_s: f64,
    step: Option<(Duration, f64)>,
    /// How often the camera has not answered on this line.
    silences: u32,
}

impl Wired<'_> {
    /// Reads the camera until the process stops.
    ///
    /// # Errors
    ///
    /// When the system gives no event loop.
    pub fn run(mut self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let watch = Stopwatch::start();
        let offset_s = clock::now().unix_seconds() - watch.seconds();
        let readout = self.readout();
        let mut run = Run {
            readout,
            watch,
            away: false,
            held: None,
            orders: BTreeMap::new(),
            missed: BTreeMap::new(),
            clock_wrong: false,
            offset_s,
            step: None,
            silences: 0,
        };
        runtime.block_on(async {
            let mut pause = BACK_OFF.0;
            while !self.intake.shutdown.is_requested() {
                match Port::open(&self.camera.device, run.readout.initial_baud()).await {
                    Ok(port) => {
                        let trouble = self.serve(&mut run, port).await;
                        run.readout.disconnected();
                        // Without a port nothing of it can fail.
                        let _ = self.happenings(&mut run, None).await;
                        if self.intake.shutdown.is_requested() {
                            break;
                        }
                        // A line that worked for a while is tried again at once.
                        pause = BACK_OFF.0;
                        self.lost(&mut run, &format!("{}: the line is gone ({trouble})", self.camera.device));
                    }
                    Err(error) => self.lost(&mut run, &error.to_string()),
                }
                self.count_skipped(&run);
                self.pause(&mut run, pause).await;
                pause = (pause * 2).min(BACK_OFF.1);
            }
        });
        Ok(())
    }

    /// The protocol machine, which knows what is on disk from an earlier run.
    fn readout(&self) -> Readout {
        let last = self.intake.journal.frames().unwrap_or_default().into_iter().rev().take(100).find_map(|frame| {
            let header = read_header(&frame.path).ok()?;
            Some((header.number(&[SESSION])? as u32, header.number(&[NUMBER])? as u32))
        });
        match self.camera.kind {
            CameraKind::Sg4 => {
                let number = last.map_or(0, |(_, number)| number);
                Readout::Sg4(Box::new(Sg4Host::new(self.camera.baud, Binning::Full, number)))
            }
            _ => {
                let baud = (!is_server(&self.camera.device)).then_some(self.camera.baud);
                Readout::Link(Box::new(Host::new(HostParameters { baud, durable: last, ..HostParameters::default() })))
            }
        }
    }

    async fn pause(&self, run: &mut Run, pause: Duration) {
        let until = run.watch.elapsed() + pause;
        while run.watch.elapsed() < until && !self.intake.shutdown.is_requested() {
            self.keep_held(run);
            tokio::time::sleep(LOOK.min(pause)).await;
        }
    }

    /// Reads and writes until the line is gone or the process stops; says what became of the line.
    async fn serve(&mut self, run: &mut Run, mut port: Port) -> String {
        let mut bytes = vec![0; 64 << 10];
        run.readout.connected(run.watch.elapsed());
        run.silences = 0;
        loop {
            if let Err(error) = self.happenings(run, Some(&mut port)).await {
                return error.to_string();
            }
            if self.intake.shutdown.is_requested() {
                return "stopping".into();
            }
            // A line on which nothing answers may be a dead one of a serial server: it is opened anew.
            if run.silences > SILENCES {
                run.silences = 0;
                return "nothing answers on it".into();
            }
            self.look_at_clock(run);
            self.keep_held(run);
            self.start_exposure(run);
            while let Some(packet) = run.readout.poll_transmit() {
                if let Err(error) = port.write_all(&packet).await {
                    return error.to_string();
                }
            }
            let now = run.watch.elapsed();
            let wait = run.readout.deadline().map_or(LOOK, |at| at.saturating_sub(now).min(LOOK));
            tokio::select! {
                read = port.read(&mut bytes) => match read {
                    Ok(0) => return "it was closed".into(),
                    Ok(length) => run.readout.receive(&bytes[..length], run.watch.elapsed()),
                    Err(error) => return error.to_string(),
                },
                () = tokio::time::sleep(wait) => {}
            }
            let now = run.watch.elapsed();
            if run.readout.deadline().is_some_and(|at| at <= now) {
                run.readout.timeout(now);
            }
        }
    }

    async fn happenings(&mut self, run: &mut Run, mut port: Option<&mut Port>) -> io::Result<()> {
        while let Some(happening) = run.readout.poll() {
            match happening {
                Happening::Up(what) => self.found(run, &what),
                Happening::Silent => {
                    run.silences += 1;
                    let text =
                        format!("{}: the camera does not answer; switch it on, look at the cable", self.camera.device);
                    self.lost(run, &text);
                }
                Happening::Reset => {
                    tracing::warn!("the camera was reset; look at its power supply if this comes again");
                    // Its numbers may begin again.
                    run.missed.clear();
                }
                Happening::SetBaud(baud) => {
                    if let Some(port) = &mut port {
                        port.flush().await?;
                        port.set_baud(baud)?;
                    }
                }
                Happening::Frame(frame) => {
                    self.make_way(run);
                    run.held = Some((frame, Duration::ZERO));
                    self.keep_held(run);
                }
                Happening::Missed { first, last, why } => self.say_missed(run, first, last, &why),
                Happening::Temperature(celsius) => self.board.set(|status| status.camera_temperature_c = Some(celsius)),
                Happening::Trouble(text) => tracing::warn!("{text}"),
            }
        }
        Ok(())
    }

    /// The camera has gone on to another frame while the disk refused this one: it gets a last chance.
    fn make_way(&self, run: &mut Run) {
        if let Some((_, again)) = &mut run.held {
            *again = Duration::ZERO;
            self.keep_held(run);
        }
        if let Some((frame, _)) = run.held.take() {
            let why = "the disk took it neither when it came nor until the camera had the next; make room";
            self.say_missed(run, frame.number, frame.number, why);
        }
    }

    /// Makes the frame in hand durable, and lets the camera forget it.
    fn keep_held(&self, run: &mut Run) {
        let now = run.watch.elapsed();
        let Some((frame, _)) = run.held.take_if(|(_, again)| *again <= now) else { return };
        let number = frame.number;
        let kept = self.keep(run, (*frame).clone(), now);
        match kept {
            Ok(()) => {
                run.readout.release(number, run.watch.elapsed());
                run.orders = run.orders.split_off(&number.saturating_add(1));
                self.board.disk_takes_frames();
            }
            Err(reason) => {
                self.board.disk_refuses_frames(&reason, "the camera keeps its own until then");
                run.held = Some((frame, now + DISK_PAUSE));
            }
        }
    }

    /// When the shutter was open by the camera's clock, where that can be believed; else as if it had closed now.
    fn believed(&self, run: &mut Run, frame: &WiredFrame, now: Duration) -> When {
        let When::Utc { open_s, close_s } = frame.when else { return frame.when };
        let ahead_s = close_s - (run.offset_s + now.as_secs_f64());
        let wrong = !(-BELIEVED_S.0..=BELIEVED_S.1).contains(&ahead_s);
        if wrong && !run.clock_wrong {
            tracing::error!(
                "frame {}: the camera's clock is {:.0} s off the host's, which is used instead; set the camera's clock",
                frame.number,
                ahead_s
            );
        }
        run.clock_wrong = wrong;
        if !wrong {
            return frame.when;
        }
        let open_for_s = (close_s - open_s).clamp(0.0, 86_400.0);
        let close_s = now.as_secs_f64();
        When::Ours { open_s: close_s - open_for_s, close_s }
    }

    fn keep(&self, run: &mut Run, frame: WiredFrame, now: Duration) -> Result<(), String> {
        let (number, missing) = (frame.number, frame.missing.iter().map(|range| range.len()).sum::<usize>());
        let when = self.believed(run, &frame, now);
        let order = run.orders.get(&number);
        let utc = |at_s: f64| Mjd::from_unix_seconds(run.offset_s + at_s);
        let (mut start, exposure_s, opened_s) = match when {
            When::Utc { open_s, close_s } => {
                (Mjd::from_unix_seconds(open_s), (close_s - open_s).max(0.0), now.as_secs_f64())
            }
            When::Ours { open_s, close_s } => {
                let latency = if self.camera.kind == CameraKind::Sg4 { self.camera.shutter_latency_s } else { 0.0 };
                (utc(open_s).plus_seconds(latency), (close_s - open_s).max(0.0), open_s)
            }
        };
        // To the millisecond, as the name of the exposure has it.
        let exposure_s = (exposure_s * 1e3).round() / 1e3;
        let night = NightName::of(start, self.intake.longitude_deg);
        while let Some(other) = self.intake.journal.find(&ExposureId::new(night, start)) {
            let known = read_header(&other.path).ok().and_then(|header| header.number(&[NUMBER]));
            if known == Some(f64::from(number)) {
                return Ok(());
            }
            // Another frame of the same millisecond.
            start = start.plus_seconds(1e-3);
        }
        let clock_step_s = run.step.filter(|(at, _)| at.as_secs_f64() >= opened_s).map(|(_, by)| by);
        let pointing = order.and_then(|order| order.pointing.clone());
        let known = Circumstances { start, exposure_s, pointing, clock_step_s };
        let Some(kept) = complete(frame, &known, &self.fields) else {
            tracing::error!("frame {number}: its pixels do not fill its size; it is left out");
            return Ok(());
        };
        let name = format!("frame {number}");
        let exposure = exposure_from_header(&kept.header, &name, self.intake.longitude_deg, self.intake.fallbacks);
        let id = exposure.as_ref().map_or_else(|_| ExposureId::new(night, start), |exposure| exposure.id.clone());
        let file = self.intake.journal.keep_counts(&id, &kept.header, &kept.pixels, kept.missing.as_ref());
        let file = file.map_err(|e| e.to_string())?;
        if missing > 0 {
            tracing::warn!(nightjar_exposure = %id, "exposure {id}: {missing} pixels never came; they are masked");
        }
        if let Some(step) = known.clock_step_s {
            tracing::warn!(nightjar_exposure = %id, "exposure {id}: the host's clock was set by {step:+.2} s during it");
        }
        match exposure {
            Ok(exposure) if known.clock_step_s.is_some_and(|step| step.abs() > LOST_TIME_S) => {
                (self.missed)(&exposure, "the host's clock was set during it: nobody knows when it was taken");
            }
            Ok(exposure) => self.intake.push(Waiting { kept: file, exposure }),
            Err(error) => {
                tracing::error!("{error}; the frame lies in the frame journal and is not processed");
                (self.missed)(&Exposure { id: id.clone(), ..nameless(start, night, number) }, &error.to_string());
            }
        }
        if let Some(row) = run.missed.remove(&number) {
            tracing::info!(nightjar_exposure = %id, "frame {number} was named as missed and has come: exposure {id}");
            self.board.set(|status| status.frames_missed = status.frames_missed.saturating_sub(1));
            (self.missed)(&row, &format!("named as missed; it came later, as exposure {id}"));
        }
        self.board.set(|status| status.frames_read += 1);
        Ok(())
    }

    fn start_exposure(&mut self, run: &mut Run) {
        let Some(starter) = &mut self.starter else { return };
        let now_s = run.watch.seconds();
        let free = run.readout.can_expose() && run.held.is_none();
        let (readout, now) = (&mut run.readout, run.watch.elapsed());
        let plan = (self.plan)();
        let exposure_s = plan.exposure_s;
        starter.follow(&plan, now_s);
        if let Some(order) = starter.poll(now_s, free, self.board, || readout.expose(exposure_s, now)) {
            run.orders.insert(order.number, order);
            if run.orders.len() > REMEMBERED {
                run.orders.pop_first();
            }
        }
    }

    /// Exposures of the cadence that fell into a time without a camera.
    fn count_skipped(&mut self, run: &Run) {
        if let Some(starter) = &mut self.starter {
            starter.skip(run.watch.seconds(), self.board);
        }
    }

    fn look_at_clock(&self, run: &mut Run) {
        let offset_s = clock::now().unix_seconds() - run.watch.seconds();
        let by = offset_s - run.offset_s;
        if by.abs() > STEP_S {
            run.step = Some((run.watch.elapsed(), by));
        }
        run.offset_s = offset_s;
    }

    fn found(&self, run: &mut Run, what: &str) {
        run.silences = 0;
        if std::mem::take(&mut run.away) {
            let now = self.board.now();
            tracing::info!(
                message_id = events::CAMERA_BACK,
                "the camera is back: {what}; since the start {} exposures are missed and {} of the cadence were not begun",
                now.frames_missed,
                now.cadence_skipped
            );
        } else {
            tracing::info!("the camera answers: {what}");
        }
        let text = format!("{} at {}", what, self.camera.device);
        self.board.set(|status| {
            status.camera = text;
            status.camera_ok = true;
        });
    }

    fn lost(&self, run: &mut Run, trouble: &str) {
        if !std::mem::replace(&mut run.away, true) {
            tracing::error!(message_id = events::CAMERA_LOST, "{trouble}");
        }
        self.board.set(|status| {
            status.camera = trouble.to_owned();
            status.camera_ok = false;
        });
    }

    /// Names exposures that will not come, and writes them into the ledger.
    fn say_missed(&self, run: &mut Run, first: u32, last: u32, why: &str) {
        let count = last.saturating_sub(first) + 1;
        let which = if count == 1 { format!("frame {first}") } else { format!("frames {first} to {last}") };
        tracing::warn!(message_id = events::EXPOSURE_MISSED, nightjar_frame = first, "{which}: missed: {why}");
        self.board.set(|status| {
            status.frames_missed += u64::from(count);
            status.last_missed = format!("{which}: {why}");
        });
        let now = clock::now();
        // Thousands in one gap are counted; a row each of the ledger is for those one can look at.
        for number in (first..=last).take(REMEMBERED) {
            let start = now.plus_seconds(f64::from(number - first) * 1e-3);
            let exposure = nameless(start, NightName::of(start, self.intake.longitude_deg), number);
            (self.missed)(&exposure, &format!("missed: {why}"));
            run.missed.insert(number, exposure);
            if run.missed.len() > REMEMBERED {
                run.missed.pop_first();
            }
        }
    }
}

/// An exposure of which only the camera's number is known, for the ledger.
fn nameless(start: Mjd, night: NightName, number: u32) -> Exposure {
    Exposure {
        id: ExposureId::from_stored(format!("{}-missed-{number}", ExposureId::new(night, start))),
        night,
        kind: FrameKind::Light,
        start,
        exposure_s: 0.0,
        filter: String::new(),
        field: String::new(),
        pointing: None,
        temperature_c: None,
        file: format!("frame {number}"),
    }
}
