//! The two protocols of wired cameras behind one face: bytes and the time in, what happened out.
//!
//! It does no I/O and reads no clock. Times of shutters that a camera without a clock gives are by
//! the clock of the arguments ([`When::Ours`]); the caller knows what UTC that is.

use std::ops::Range;
use std::time::Duration;

use super::link::{self, Expose, Purpose, Shutter};
use super::sg4;
use crate::exposure::FrameKind;
use crate::fits::Header;

/// A camera on a wire.
#[derive(Debug)]
pub enum Readout {
    /// Nightjar's readout link.
    Link(Box<link::Host>),
    /// An SG-4 or AllSky-340.
    Sg4(Box<sg4::Sg4Host>),
}

/// When a shutter was open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// By the camera's clock, seconds since 1970, UTC.
    Utc {
        /// Opened.
        open_s: f64,
        /// Closed.
        close_s: f64,
    },
    /// By the clock of the arguments, seconds; less than 0 for a frame that the camera took before that clock began
    /// and kept.
    Ours {
        /// Opened.
        open_s: f64,
        /// Closed.
        close_s: f64,
    },
}

/// A frame that has come from a wired camera.
#[derive(Debug, Clone, PartialEq)]
pub struct WiredFrame {
    /// The camera's session; 0 where the protocol has none.
    pub session: u32,
    /// The camera's number of the frame.
    pub number: u32,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row.
    pub pixels: Vec<u16>,
    /// Numbers of pixels that never came.
    pub missing: Vec<Range<usize>>,
    /// When the shutter was open.
    pub when: When,
    /// What it was taken for, where the protocol says it.
    pub kind: Option<FrameKind>,
    /// What the camera said of it as a FITS header.
    pub header: Header,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// The camera answers; what it is, in words.
    Up(String),
    /// It does not.
    Silent,
    /// It was reset.
    Reset,
    /// The line is to be set to this speed.
    SetBaud(u32),
    /// A frame has come.
    Frame(Box<WiredFrame>),
    /// Exposures that will not come.
    Missed {
        /// Number of the first.
        first: u32,
        /// Number of the last.
        last: u32,
        /// Why, and what to do.
        why: String,
    },
    /// The detector's temperature, Celsius.
    Temperature(f64),
    /// Something that the operator should know.
    Trouble(String),
}

impl Readout {
    /// A line is there.
    pub fn connected(&mut self, now: Duration) {
        match self {
            Self::Link(host) => host.connected(now),
            Self::Sg4(host) => host.connected(now),
        }
    }

    /// The line is gone.
    pub fn disconnected(&mut self) {
        match self {
            Self::Link(host) => host.disconnected(),
            Self::Sg4(host) => host.disconnected(),
        }
    }

    /// Speed at which the line begins, baud.
    pub fn initial_baud(&self) -> u32 {
        match self {
            Self::Link(_) => link::INITIAL_BAUD,
            Self::Sg4(_) => sg4::INITIAL_BAUD,
        }
    }

    /// Takes bytes.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        match self {
            Self::Link(host) => host.receive(bytes, now),
            Self::Sg4(host) => host.receive(bytes, now),
        }
    }

    /// The next bytes to be written.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Link(host) => host.poll_transmit(),
            Self::Sg4(host) => host.poll_transmit(),
        }
    }

    /// When [`Readout::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Link(host) => host.deadline(),
            Self::Sg4(host) => host.deadline(),
        }
    }

    /// A deadline has passed.
    pub fn timeout(&mut self, now: Duration) {
        match self {
            Self::Link(host) => host.timeout(now),
            Self::Sg4(host) => host.timeout(now),
        }
    }

    /// Whether the camera answers.
    pub fn is_up(&self) -> bool {
        match self {
            Self::Link(host) => host.is_up(),
            Self::Sg4(host) => host.is_up(),
        }
    }

    /// Whether an exposure would be taken now.
    pub fn can_expose(&self) -> bool {
        match self {
            Self::Link(host) => host.can_expose(),
            Self::Sg4(host) => host.is_idle(),
        }
    }

    /// Commands a light exposure and gives its number; `None` while the camera is busy or away.
    pub fn expose(&mut self, exposure_s: f64, now: Duration) -> Option<u32> {
        let exposure = Duration::from_secs_f64(exposure_s);
        match self {
            Self::Link(host) => {
                host.expose(Expose { exposure_us: exposure.as_micros() as u64, purpose: Purpose::Light }, now)
            }
            Self::Sg4(host) => host.expose(exposure, true, now),
        }
    }

    /// The frame is on disk: the camera may forget it.
    pub fn release(&mut self, number: u32, now: Duration) {
        match self {
            Self::Link(host) => host.release(number, now),
            // It has but one image, which the next exposure replaces.
            Self::Sg4(_) => {}
        }
    }

    /// The next thing that happened.
    pub fn poll(&mut self) -> Option<Happening> {
        match self {
            Self::Link(host) => loop {
                let event = host.poll_event()?;
                if let Some(happening) = of_link(event, host) {
                    return Some(happening);
                }
            },
            Self::Sg4(host) => host.poll_event().map(of_sg4),
        }
    }
}

fn of_link(event: link::Event, host: &link::Host) -> Option<Happening> {
    Some(match event {
        link::Event::Up => {
            let caps = host.caps().cloned().unwrap_or_default();
            Happening::Up(format!("{}, {} x {} pixels", caps.firmware, caps.width, caps.height))
        }
        link::Event::Silent => Happening::Silent,
        link::Event::Reset => Happening::Reset,
        link::Event::SetBaud(baud) => Happening::SetBaud(baud),
        link::Event::Frame(frame) => Happening::Frame(Box::new(link_frame(*frame))),
        link::Event::Missed { first, last, why } => Happening::Missed { first, last, why: why.to_string() },
        link::Event::Status { status, .. } => Happening::Temperature(status.temperature_c?),
        link::Event::Trouble(text) => Happening::Trouble(text),
    })
}

fn link_frame(frame: link::Received) -> WiredFrame {
    let begin = frame.begin;
    let mut header = Header::parse(&begin.cards.lines().map(|line| format!("{line:<80.80}")).collect::<String>());
    if begin.gain_milli > 0 && header.get("GAIN").is_none() {
        header.set("GAIN", f64::from(begin.gain_milli) / 1000.0, "e-/ADU");
    }
    if let Some([x0, x1, y0, y1]) = begin.overscan.filter(|_| header.get("BIASSEC").is_none()) {
        header.set("BIASSEC", format!("[{}:{x1},{}:{y1}]", x0 + 1, y0 + 1), "overscan");
    }
    if let Some(celsius) = begin.temperature_c {
        header.set("CCD-TEMP", celsius, "Celsius");
    }
    let when = match begin.shutter {
        Shutter::Utc { open_us, close_us } => {
            When::Utc { open_s: open_us as f64 / 1e6, close_s: close_us as f64 / 1e6 }
        }
        Shutter::Ago { open_us, close_us } => When::Ours {
            open_s: frame.begun.as_secs_f64() - open_us as f64 / 1e6,
            close_s: frame.begun.as_secs_f64() - close_us as f64 / 1e6,
        },
    };
    WiredFrame {
        session: frame.session,
        number: frame.frame,
        width: begin.width as usize,
        height: begin.height as usize,
        pixels: frame.pixels,
        missing: frame.missing,
        when,
        kind: match begin.purpose {
            Purpose::Light => Some(FrameKind::Light),
            Purpose::Dark => Some(FrameKind::Dark),
            Purpose::Bias => Some(FrameKind::Bias),
            Purpose::Flat => Some(FrameKind::Flat),
            Purpose::Other => None,
        },
        header,
    }
}

fn of_sg4(event: sg4::Event) -> Happening {
    match event {
        sg4::Event::Up => Happening::Up("SG-4 or AllSky-340".into()),
        sg4::Event::Silent => Happening::Silent,
        sg4::Event::SetBaud(baud) => Happening::SetBaud(baud),
        sg4::Event::Missed { number, why } => Happening::Missed { first: number, last: number, why: why.to_string() },
        sg4::Event::Trouble(text) => Happening::Trouble(text),
        sg4::Event::Frame(frame) => Happening::Frame(Box::new(WiredFrame {
            session: 0,
            number: frame.number,
            width: frame.width,
            height: frame.height,
            pixels: frame.pixels,
            missing: Vec::new(),
            when: When::Ours {
                open_s: frame.opened.as_secs_f64(),
                close_s: (frame.opened + frame.exposure).as_secs_f64(),
            },
            kind: Some(if frame.light { FrameKind::Light } else { FrameKind::Dark }),
            header: Header::new(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::Value;

    #[test]
    fn what_a_link_camera_says_of_a_frame_becomes_its_header() {
        let mut begin = link::plain_begin(4, 2, Purpose::Flat);
        begin.cards = "FILTER  = 'r'                  / as it is\nFIELDID =                  512\n".into();
        begin.gain_milli = 6200;
        begin.overscan = Some([0, 1, 0, 2]);
        begin.shutter = Shutter::Ago { open_us: 31_000_000, close_us: 1_000_000 };
        let (begun, pixels) = (Duration::from_secs(100), vec![1; 8]);
        let frame = link_frame(link::Received { session: 3, frame: 7, begin, begun, pixels, missing: Vec::new() });
        assert_eq!(frame.header.text(&["FILTER"]).as_deref(), Some("r"));
        assert_eq!(frame.header.get("FIELDID"), Some(&Value::Integer(512)));
        assert_eq!(frame.header.number(&["GAIN"]), Some(6.2));
        assert_eq!(frame.header.text(&["BIASSEC"]).as_deref(), Some("[1:1,1:2]"));
        assert_eq!(frame.when, When::Ours { open_s: 69.0, close_s: 99.0 });
        assert_eq!(frame.kind, Some(FrameKind::Flat));
    }

    #[test]
    fn a_frame_that_the_camera_took_before_the_host_was_there_keeps_its_time() {
        let mut begin = link::plain_begin(4, 2, Purpose::Light);
        begin.shutter = Shutter::Ago { open_us: 31_000_000, close_us: 1_000_000 };
        let (begun, pixels) = (Duration::from_millis(250), vec![1; 8]);
        let frame = link_frame(link::Received { session: 3, frame: 7, begin, begun, pixels, missing: Vec::new() });
        assert_eq!(frame.when, When::Ours { open_s: -30.75, close_s: -0.75 });
    }
}
