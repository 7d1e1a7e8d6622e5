//! `nightjar camera`: a simulated camera that plays recorded exposures over the real protocols.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use super::camera_line::{Line, PseudoTerminal};
use crate::camera::faults::{Faults, Mishaps};
use crate::camera::link::{Camera, CameraParameters, Caps, Expose, LONGEST_PAYLOAD, Picture, Purpose, Wish};
use crate::camera::played::Played;
use crate::camera::replay::RecordedNight;
use crate::camera::sg4::{self, Sg4Camera};
use crate::exposure::FrameKind;
use crate::night::values;
use crate::service::Stopwatch;
use crate::settings::Settings;

/// Longest sleep.
const LOOK: Duration = Duration::from_millis(20);
/// How long to wait for a line that takes nothing at the moment.
const FULL: Duration = Duration::from_millis(1);
/// Time that a simulated detector takes to be read out.
const READOUT: Duration = Duration::from_millis(100);

/// Arguments of `nightjar camera`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  nightjar camera night --listen tcp://127.0.0.1:7000\n  \
    nightjar camera night --pty /tmp/camera --protocol sg4\n  \
    nightjar camera night --listen tcp://127.0.0.1:7000 --every 45 --faults flip=1e-6,reset=0.01 --loop\n\n\
    Then set [camera] kind = \"serial\" (or \"sg4\") and device = \"tcp://127.0.0.1:7000\" (or \"/tmp/camera\").\n\
    Without --every it waits for the command to expose ([camera] trigger = \"cadence\").")]
pub struct Args {
    /// Folder of recorded frames
    #[arg(value_name = "NIGHT")]
    night: PathBuf,
    /// Wait for a connection at this address
    #[arg(long, value_name = "tcp://HOST:PORT", required_unless_present = "pty", conflicts_with = "pty")]
    listen: Option<String>,
    /// Make a pseudo-terminal and this link to it
    #[arg(long, value_name = "PATH")]
    pty: Option<PathBuf>,
    /// What it speaks
    #[arg(long, value_enum, default_value = "link")]
    protocol: Protocol,
    /// Speed of the line, 10 bits a byte [default: as it is agreed on; connections: without limit]
    #[arg(long, value_name = "BAUD")]
    baud: Option<u32>,
    /// What goes wrong: flip, drop, repeat (probability a byte), reset, lie (a frame), stall (seconds), cut (bytes), silent
    #[arg(long, value_name = "FAULTS", default_value = "")]
    faults: Faults,
    /// Seed of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin again after the last frame
    #[arg(long = "loop")]
    again: bool,
    /// Expose by itself, every so many seconds
    #[arg(long, value_name = "SECONDS")]
    every: Option<f64>,
    /// Open-shutter time with --every, seconds [default: what is left of the cadence, at most 30]
    #[arg(long, value_name = "SECONDS")]
    exposure: Option<f64>,
    /// Play bias, dark and flat frames too
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// Nightjar's readout link
    Link,
    /// SBIG SG-4 and AllSky-340
    Sg4,
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let longitude = settings.observatory.longitude_deg;
    let night =
        RecordedNight::read(&args.night, longitude, &values::header_fallbacks(settings)).map_err(Failure::input)?;
    let frames: Vec<_> =
        night.frames.iter().filter(|frame| args.all || frame.exposure.kind == FrameKind::Light).cloned().collect();
    let first = frames.first().ok_or_else(|| {
        Failure::Input(format!("{}: none of its frames is a light frame; name a recorded night", args.night.display()))
    })?;
    let (width, height) =
        Played::read(first).map(|played| (played.begin.width, played.begin.height)).map_err(Failure::input)?;
    let caps = Caps {
        width,
        height,
        bits: 16,
        exposes: true,
        memory: 4,
        block_bytes: LONGEST_PAYLOAD as u16,
        waiting: 0,
        baud: if args.pty.is_some() { args.baud.unwrap_or(12_000_000) } else { 0 },
        firmware: concat!("simulated camera ", env!("CARGO_PKG_VERSION")).into(),
    };
    let mut device = Device {
        args,
        machine: Machine::new(args.protocol, session(0), 0, &caps),
        caps,
        frames,
        next: 0,
        resets: 0,
        mishaps: Mishaps::new(args.faults.clone(), args.seed),
        watch: Stopwatch::start(),
        due: Duration::ZERO,
        bytes_per_s: args.baud.map(|baud| f64::from(baud) / 10.0),
        free_at: Duration::ZERO,
        trouble: Trouble::default(),
    };
    match (&args.listen, &args.pty) {
        (Some(address), _) => serve_connections(&mut device, address),
        (None, Some(path)) => {
            let terminal =
                PseudoTerminal::open(path).map_err(|e| Failure::Input(format!("{}: {e}", path.display())))?;
            eprintln!("camera at {}, {} frames", path.display(), device.frames.len());
            let line = terminal.line().map_err(Failure::input)?;
            device.serve(line).map_err(Failure::input)
        }
        (None, None) => Ok(()),
    }
}

fn serve_connections(device: &mut Device<'_>, address: &str) -> Result<(), Failure> {
    let wrong = |reason: String| Failure::Input(format!("--listen {address}: {reason}; write tcp://127.0.0.1:7000"));
    let place = address.strip_prefix("tcp://").ok_or_else(|| wrong("is no address".into()))?;
    let listener = TcpListener::bind(place).map_err(|e| wrong(e.to_string()))?;
    let bound = listener.local_addr().map_err(|e| wrong(e.to_string()))?;
    eprintln!("camera at tcp://{bound}, {} frames", device.frames.len());
    while !device.is_through() {
        let (stream, _) = listener.accept().map_err(Failure::input)?;
        if let Machine::Link(camera) = &mut device.machine {
            camera.reconnected();
        }
        let line = Line::of_connection(stream).map_err(Failure::input)?;
        device.serve(line).map_err(Failure::input)?;
    }
    Ok(())
}

/// Either protocol's camera.
enum Machine {
    Link(Box<Camera>),
    Sg4(Box<Sg4Camera>),
}

impl Machine {
    fn new(protocol: Protocol, session: u32, highest: u32, caps: &Caps) -> Self {
        match protocol {
            Protocol::Link => {
                let parameters = CameraParameters { session, highest, caps: caps.clone(), readout: READOUT };
                Self::Link(Box::new(Camera::new(parameters)))
            }
            Protocol::Sg4 => Self::Sg4(Box::default()),
        }
    }
}

/// Faults that hit the frame in hand: bytes until they do.
#[derive(Debug, Default)]
struct Trouble {
    stall_in: Option<u64>,
    reset_in: Option<u64>,
}

/// The simulated camera.
struct Device<'a> {
    args: &'a Args,
    machine: Machine,
    caps: Caps,
    frames: Vec<crate::camera::replay::Recorded>,
    next: usize,
    resets: u32,
    mishaps: Mishaps,
    watch: Stopwatch,
    /// When the next exposure of its own is due.
    due: Duration,
    bytes_per_s: Option<f64>,
    free_at: Duration,
    trouble: Trouble,
}

impl Device<'_> {
    /// Whether every frame has been played and taken.
    fn is_through(&self) -> bool {
        let waiting = match &self.machine {
            Machine::Link(camera) => camera.waiting() > 0 || camera.busy_with().is_some(),
            Machine::Sg4(camera) => !camera.is_read(),
        };
        !self.args.again && self.next >= self.frames.len() && !waiting
    }

    /// Speaks on `line` until it is gone or everything is through.
    fn serve(&mut self, mut line: Line) -> std::io::Result<()> {
        while !self.is_through() {
            let now = self.watch.elapsed();
            let deadline = match &self.machine {
                Machine::Link(camera) => camera.deadline(),
                Machine::Sg4(camera) => camera.deadline(),
            };
            let wait = deadline.map_or(LOOK, |at| at.saturating_sub(now).min(LOOK));
            let room = line.has_room();
            let busy = room && self.free_at <= now + LOOK && self.has_more();
            match line.receive(match (busy, room) {
                (true, _) => Duration::ZERO,
                (false, true) => wait,
                (false, false) => FULL.min(wait),
            }) {
                Some(bytes) if bytes.is_empty() => return Ok(()),
                Some(bytes) if !self.mishaps.faults().silent => {
                    let (bytes, _) = self.mishaps.pass(bytes);
                    let now = self.watch.elapsed();
                    match &mut self.machine {
                        Machine::Link(camera) => camera.receive(&bytes, now),
                        Machine::Sg4(camera) => camera.receive(&bytes, now),
                    }
                }
                _ => {}
            }
            self.tick();
            if !self.transmit(&mut line) {
                return Ok(());
            }
        }
        line.finish();
        Ok(())
    }

    /// Whether the machine may have something to send: the link has, while a frame waits.
    fn has_more(&self) -> bool {
        matches!(&self.machine, Machine::Link(camera) if camera.waiting() > 0) && self.free_at > Duration::ZERO
    }

    fn tick(&mut self) {
        let now = self.watch.elapsed();
        let through = self.next >= self.frames.len() && !self.args.again;
        let expose = self.args.every.filter(|_| now >= self.due && !through).map(|every| {
            let seconds = self.args.exposure.unwrap_or_else(|| (every - 5.0).min(30.0).max(every * 0.1));
            Expose { exposure_us: (seconds * 1e6) as u64, purpose: Purpose::Light }
        });
        match &mut self.machine {
            Machine::Link(camera) => {
                if let (Some(expose), Some(every)) = (expose, self.args.every)
                    && camera.trigger(expose, now)
                {
                    self.due = now + Duration::from_secs_f64(every);
                }
                if camera.deadline().is_some_and(|at| at <= now) {
                    camera.timeout(now);
                }
            }
            Machine::Sg4(camera) => {
                if camera.deadline().is_some_and(|at| at <= now) {
                    camera.timeout(now);
                }
            }
        }
        self.fulfil();
    }

    fn fulfil(&mut self) {
        loop {
            let wish = match &mut self.machine {
                Machine::Link(camera) => camera.poll_wish().map(|wish| match wish {
                    Wish::Read { frame } => (Some(frame), None),
                    Wish::SetBaud(baud) => (None, Some(baud)),
                    Wish::Open { .. } | Wish::Forget { .. } => (None, None),
                }),
                Machine::Sg4(camera) => camera.poll_wish().map(|wish| match wish {
                    sg4::Wish::Read { .. } => (Some(0), None),
                    sg4::Wish::SetBaud(baud) => (None, Some(baud)),
                }),
            };
            match wish {
                None => return,
                Some((Some(frame), _)) => self.give(frame),
                // A pseudo-terminal has no speed of its own.
                Some((None, Some(baud))) if self.args.pty.is_some() => self.bytes_per_s = Some(f64::from(baud) / 10.0),
                Some(_) => {}
            }
        }
    }

    /// Gives the next recorded frame as the picture of `frame`.
    fn give(&mut self, frame: u32) {
        let recorded = &self.frames[self.next % self.frames.len()];
        self.next += 1;
        let mut played = match Played::read(recorded) {
            Ok(played) => played,
            Err(error) => return eprintln!("{error}"),
        };
        eprintln!("frame {frame}: {}", recorded.exposure.file);
        let faults = self.mishaps.faults().clone();
        let bytes = played.counts.len() as u64 * 2;
        if !faults.stall.is_zero() {
            self.trouble.stall_in = Some(self.mishaps.below(bytes));
        }
        if self.mishaps.happens(faults.reset) {
            self.trouble.reset_in = Some(self.mishaps.below(bytes));
        }
        if self.mishaps.happens(faults.lie) {
            played.begin.width = played.begin.width.wrapping_mul(65_537);
        }
        match &mut self.machine {
            Machine::Link(camera) => {
                camera.store(frame, Picture { bytes: played.bytes(), begin: played.begin, utc_us: None });
            }
            Machine::Sg4(camera) => {
                let width = played.begin.width as usize;
                let rows = played.counts.chunks(width.max(1)).take(sg4::HEIGHT);
                let pixels = rows.flat_map(|row| (0..sg4::WIDTH).map(|x| row.get(x).copied().unwrap_or(0))).collect();
                camera.store(sg4::Picture(pixels));
            }
        }
    }

    /// Writes what there is; `false` when the line is gone or cut.
    fn transmit(&mut self, line: &mut Line) -> bool {
        loop {
            let now = self.watch.elapsed();
            if self.free_at > now + LOOK || !line.has_room() {
                return true;
            }
            let packet = match &mut self.machine {
                Machine::Link(camera) => camera.poll_transmit(now),
                Machine::Sg4(camera) => camera.poll_transmit(),
            };
            let Some(packet) = packet.filter(|_| !self.mishaps.faults().silent) else {
                self.free_at = Duration::ZERO;
                return true;
            };
            let length = packet.len() as u64;
            let (bytes, cut) = self.mishaps.pass(packet);
            if cut && self.args.pty.is_none() {
                return false;
            }
            let takes = self.bytes_per_s.map_or(Duration::ZERO, |speed| Duration::from_secs_f64(length as f64 / speed));
            self.free_at = self.free_at.max(now).max(Duration::from_nanos(1)) + takes;
            if !line.send(bytes) {
                return false;
            }
            if run_down(&mut self.trouble.stall_in, length) {
                self.free_at = now + self.mishaps.faults().stall;
            }
            if run_down(&mut self.trouble.reset_in, length) {
                self.reset();
            }
        }
    }

    /// Switches the camera off and on: its memory is gone, its numbers are kept.
    fn reset(&mut self) {
        self.resets += 1;
        let highest = match &self.machine {
            Machine::Link(camera) => camera.highest(),
            Machine::Sg4(_) => 0,
        };
        eprintln!("the camera is reset, highest frame {highest}");
        self.machine = Machine::new(self.args.protocol, session(self.resets), highest, &self.caps);
    }
}

/// Another number at every power-up, never 0.
fn session(resets: u32) -> u32 {
    std::process::id().wrapping_mul(0x9e37_79b1).wrapping_add(resets).max(1)
}

/// Counts bytes down; `true` when the count is through now.
fn run_down(left: &mut Option<u64>, bytes: u64) -> bool {
    *left = left.map(|left| left.saturating_sub(bytes));
    left.take_if(|left| *left == 0).is_some()
}
