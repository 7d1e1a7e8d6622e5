//! The camera's side of the link, as firmware would have it: bytes and the time in; packets, events
//! and the next deadline out. The simulated camera runs it, and it is the second description of the
//! protocol for whoever writes a firmware.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::cobs::Splitter;
use super::device::{CameraParameters, Picture, Wish};
use super::frame_messages::{Begin, Expose, Shutter};
use super::image::asked;
use super::messages::{Activity, Baud, BaudStep, Caps, Config, Refused, Status, code};
use super::packet::{self, Kind, LONGEST_STUFFED, Packet};
use super::{ANNOUNCE, BAUD_FALLBACK, INITIAL_BAUD};

#[derive(Debug)]
struct Exposing {
    frame: u32,
    opened: Duration,
    closes: Duration,
    ready: Duration,
}

#[derive(Debug)]
struct Stored {
    frame: u32,
    picture: Picture,
    opened: Duration,
    closed: Duration,
    crc: u32,
}

/// The camera's side.
#[derive(Debug)]
pub struct Camera {
    parameters: CameraParameters,
    highest: u32,
    greeted: bool,
    baud: u32,
    /// Back to the initial speed unless the host confirms until then.
    unconfirmed: Option<Duration>,
    block_bytes: u16,
    exposing: Option<Exposing>,
    read: Option<(u32, Duration, Duration)>,
    memory: VecDeque<Stored>,
    next: u32,
    credit: u32,
    again: BTreeSet<u32>,
    end_due: bool,
    announce: Option<Duration>,
    splitter: Splitter,
    sequence: u16,
    control: VecDeque<Vec<u8>>,
    wishes: VecDeque<Wish>,
    scratch: Vec<u8>,
}

impl Camera {
    /// A camera that was just switched on.
    pub fn new(parameters: CameraParameters) -> Self {
        Self {
            highest: parameters.highest,
            greeted: false,
            baud: INITIAL_BAUD,
            unconfirmed: None,
            block_bytes: parameters.caps.block_bytes.max(2) & !1,
            exposing: None,
            read: None,
            memory: VecDeque::new(),
            next: 0,
            credit: 0,
            again: BTreeSet::new(),
            end_due: false,
            announce: None,
            splitter: Splitter::new(LONGEST_STUFFED),
            sequence: 0,
            control: VecDeque::new(),
            wishes: VecDeque::new(),
            scratch: Vec::new(),
            parameters,
        }
    }

    /// The line was cut and is there again: what was on its way is gone.
    pub fn reconnected(&mut self) {
        self.splitter.clear();
        self.control.clear();
        self.greeted = false;
        self.announce = None;
        self.unconfirmed = None;
        self.set_baud(INITIAL_BAUD);
    }

    /// Highest number that a frame has had.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// The frame that is exposed or read, if any.
    pub fn busy_with(&self) -> Option<u32> {
        self.exposing.as_ref().map(|exposing| exposing.frame).or(self.read.map(|(frame, ..)| frame))
    }

    /// Frames that wait for the host.
    pub fn waiting(&self) -> usize {
        self.memory.len()
    }

    /// Starts an exposure of the camera's own (an external trigger). `false` while it is busy, full,
    /// or not yet acquainted: frames get their numbers after the first `HELLO`.
    pub fn trigger(&mut self, expose: Expose, now: Duration) -> bool {
        let able = self.greeted && self.busy_with().is_none() && self.memory.len() < self.room();
        if able {
            self.open(self.highest + 1, expose, now);
        }
        able
    }

    /// Takes the picture of the frame that was read out.
    pub fn store(&mut self, frame: u32, picture: Picture) {
        let Some((_, opened, closed)) = self.read.take_if(|(read, ..)| *read == frame) else { return };
        let crc = crc32c::crc32c(&picture.bytes);
        self.memory.push_back(Stored { frame, picture, opened, closed, crc });
        if self.memory.len() == 1 {
            self.next = 0;
            self.offer();
        }
    }

    /// The next wish.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// When [`Camera::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Duration> {
        let exposing = self.exposing.as_ref().map(|exposing| exposing.ready);
        [exposing, self.announce, self.unconfirmed].into_iter().flatten().min()
    }

    /// A deadline has passed.
    pub fn timeout(&mut self, now: Duration) {
        if let Some(done) = self.exposing.take_if(|exposing| now >= exposing.ready) {
            self.read = Some((done.frame, done.opened, done.closes));
            self.wishes.push_back(Wish::Read { frame: done.frame });
        }
        if self.unconfirmed.is_some_and(|until| now >= until) {
            self.unconfirmed = None;
            self.greeted = false;
            self.set_baud(INITIAL_BAUD);
        }
        if self.announce.is_some_and(|due| now >= due) {
            self.announce(now);
        }
    }

    /// The next packet to be written, if there is one.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        if let Some(packet) = self.control.pop_front() {
            return Some(packet);
        }
        if !self.greeted || self.unconfirmed.is_some() {
            return None;
        }
        if self.announce == Some(Duration::ZERO) {
            self.announce(now);
            return self.control.pop_front();
        }
        let stored = self.memory.front()?;
        let blocks = stored.picture.bytes.len().div_ceil(usize::from(self.block_bytes)) as u32;
        let block = match self.again.pop_first() {
            Some(block) => block,
            None if self.next < blocks.min(self.credit) => {
                self.next += 1;
                self.next - 1
            }
            None => {
                if self.next < blocks || !std::mem::take(&mut self.end_due) {
                    return None;
                }
                let (frame, crc) = (stored.frame, stored.crc);
                return Some(self.packet(Kind::FrameEnd, frame, blocks, &crc.to_le_bytes()));
            }
        };
        self.end_due = true;
        let start = block as usize * usize::from(self.block_bytes);
        let end = (start + usize::from(self.block_bytes)).min(stored.picture.bytes.len());
        let (frame, bytes) = (stored.frame, stored.picture.bytes.clone());
        Some(self.packet(Kind::Block, frame, block, bytes.get(start..end).unwrap_or(&[])))
    }

    /// Takes bytes from the line.
    pub fn receive(&mut self, mut bytes: &[u8], now: Duration) {
        while let Some(whole) = self.splitter.next(&mut bytes) {
            if whole {
                let plain = self.splitter.take();
                if let Ok(packet) = packet::read(&plain) {
                    self.take(&packet, now);
                }
                self.splitter.give_back(plain);
            }
        }
    }

    fn take(&mut self, packet: &Packet<'_>, now: Duration) {
        if packet.kind == Kind::Hello {
            self.highest = self.highest.max(packet.frame);
            self.greeted = true;
            self.unconfirmed = None;
            self.introduce();
            return self.offer();
        }
        if packet.session != self.parameters.session {
            // The host does not know of the reset yet.
            return self.introduce();
        }
        match packet.kind {
            Kind::Baud => self.speed(packet, now),
            Kind::Config => {
                if let Some(config) = Config::read(packet.payload) {
                    self.configure(config);
                }
            }
            Kind::Expose => {
                if let Some(expose) = Expose::read(packet.payload) {
                    self.expose(packet.frame, expose, now);
                }
            }
            Kind::Abort => self.abort(packet.frame, now),
            Kind::Credit if self.is_offered(packet.frame) => self.credit = self.credit.max(packet.block),
            Kind::Nak if self.is_offered(packet.frame) => {
                if let Some((onwards, blocks)) = asked(packet.block, packet.payload) {
                    self.announce = None;
                    self.next = self.next.min(onwards);
                    self.again.extend(blocks.filter(|block| *block < self.next));
                    self.end_due = true;
                }
            }
            Kind::Credit | Kind::Nak => {
                self.refuse(packet.frame, code::NO_SUCH_FRAME, "it is not in the camera's memory")
            }
            Kind::Release => self.release(packet.frame),
            Kind::Ping => self.say_status(now),
            _ => {}
        }
    }

    fn introduce(&mut self) {
        let caps = Caps { waiting: self.memory.len() as u16, ..self.parameters.caps.clone() };
        self.queue(Kind::Caps, self.highest, 0, &caps.write());
    }

    fn configure(&mut self, config: Config) {
        let most = self.parameters.caps.block_bytes;
        let wanted = config.block_bytes.clamp(2, most.max(2)) & !1;
        if wanted != self.block_bytes {
            self.block_bytes = wanted;
            self.next = 0;
            self.offer();
        }
        let config = Config { block_bytes: self.block_bytes, setpoint_c: config.setpoint_c };
        self.queue(Kind::Config, 0, 0, &config.write());
    }

    fn speed(&mut self, packet: &Packet<'_>, now: Duration) {
        let Some(Baud { step, baud }) = Baud::read(packet.payload) else { return };
        match step {
            BaudStep::Propose if baud == 0 || baud > self.parameters.caps.baud => {
                self.queue(Kind::Baud, 0, 0, &Baud { step: BaudStep::Refuse, baud }.write());
            }
            BaudStep::Propose => {
                self.queue(Kind::Baud, 0, 0, &Baud { step: BaudStep::Accept, baud }.write());
                self.set_baud(baud);
                self.unconfirmed = Some(now + BAUD_FALLBACK);
            }
            BaudStep::Test => self.queue(Kind::Baud, 0, 0, &Baud { step, baud: self.baud }.write()),
            BaudStep::Confirm => {
                self.unconfirmed = None;
                self.queue(Kind::Baud, 0, 0, &Baud { step, baud: self.baud }.write());
            }
            BaudStep::Accept | BaudStep::Refuse => {}
        }
    }

    fn set_baud(&mut self, baud: u32) {
        if self.baud != baud {
            self.baud = baud;
            self.wishes.push_back(Wish::SetBaud(baud));
        }
    }

    fn expose(&mut self, frame: u32, expose: Expose, now: Duration) {
        if frame <= self.highest {
            // Said twice, or taken long ago: the answer is the state.
            return self.say_status(now);
        }
        if self.busy_with().is_some() || self.memory.len() >= self.room() {
            return self.refuse(frame, code::BUSY, "the camera is busy or its memory is full");
        }
        if !self.parameters.caps.exposes {
            return self.refuse(frame, code::NOT_POSSIBLE, "the camera takes no exposures on command");
        }
        self.open(frame, expose, now);
        self.say_status(now);
    }

    fn open(&mut self, frame: u32, expose: Expose, now: Duration) {
        self.highest = frame;
        let closes = now + Duration::from_micros(expose.exposure_us);
        let ready = closes + self.parameters.readout;
        self.exposing = Some(Exposing { frame, opened: now, closes, ready });
        self.wishes.push_back(Wish::Open { frame, expose });
    }

    /// Ends the exposure: what the detector has collected is read out.
    fn abort(&mut self, frame: u32, now: Duration) {
        if let Some(exposing) = self.exposing.as_mut().filter(|exposing| exposing.frame == frame) {
            exposing.closes = exposing.closes.min(now);
            exposing.ready = exposing.closes + self.parameters.readout;
        }
        self.say_status(now);
    }

    fn release(&mut self, frame: u32) {
        let before = self.memory.front().map(|stored| stored.frame);
        while let Some(stored) = self.memory.front().map(|stored| stored.frame).filter(|stored| *stored <= frame) {
            self.memory.pop_front();
            self.wishes.push_back(Wish::Forget { frame: stored });
        }
        self.queue(Kind::Release, frame, 0, &[]);
        if self.memory.front().map(|stored| stored.frame) != before {
            self.next = 0;
            self.offer();
        }
    }

    fn say_status(&mut self, now: Duration) {
        let (activity, remaining, frame) = match (&self.exposing, self.read) {
            (Some(e), _) if now < e.closes => (Activity::Exposing, e.ready.saturating_sub(now), e.frame),
            (Some(e), _) => (Activity::Reading, e.ready.saturating_sub(now), e.frame),
            (None, Some((frame, ..))) => (Activity::Reading, Duration::ZERO, frame),
            (None, None) => (Activity::Idle, Duration::ZERO, self.highest),
        };
        let status = Status {
            activity,
            waiting: self.memory.len() as u16,
            remaining_ms: remaining.as_millis().min(u128::from(u32::MAX)) as u32,
            temperature_c: self.memory.front().and_then(|stored| stored.picture.begin.temperature_c),
        };
        self.queue(Kind::Status, frame, 0, &status.write());
    }

    fn refuse(&mut self, frame: u32, code: u16, text: &str) {
        self.queue(Kind::Error, frame, 0, &Refused { code, text: text.into() }.write());
    }

    fn room(&self) -> usize {
        usize::from(self.parameters.caps.memory.max(1))
    }

    fn is_offered(&self, frame: u32) -> bool {
        self.memory.front().is_some_and(|stored| stored.frame == frame)
    }

    /// Offers the oldest frame. The host says from which block on it wants it.
    fn offer(&mut self) {
        (self.credit, self.end_due) = (0, false);
        self.again.clear();
        self.announce = (!self.memory.is_empty()).then_some(Duration::ZERO);
    }

    /// Says that the oldest frame is ready, and again later as long as nobody wants it.
    fn announce(&mut self, now: Duration) {
        self.announce = None;
        let Some(stored) = self.memory.front().filter(|_| self.greeted && self.credit == 0) else { return };
        let ago = |since: Duration| now.saturating_sub(since).as_micros() as u64;
        let shutter = match stored.picture.utc_us {
            Some((open_us, close_us)) => Shutter::Utc { open_us, close_us },
            None => Shutter::Ago { open_us: ago(stored.opened), close_us: ago(stored.closed) },
        };
        let begin = Begin { shutter, block_bytes: self.block_bytes, ..stored.picture.begin.clone() };
        let frame = stored.frame;
        self.announce = Some(now + ANNOUNCE);
        self.queue(Kind::FrameBegin, frame, 0, &begin.write());
    }

    fn packet(&mut self, kind: Kind, frame: u32, block: u32, payload: &[u8]) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let session = self.parameters.session;
        let packet = Packet { kind, sequence: self.sequence, session, frame, block, payload };
        let mut out = Vec::with_capacity(payload.len() + 64);
        packet.write(&mut self.scratch, &mut out);
        out
    }

    fn queue(&mut self, kind: Kind, frame: u32, block: u32, payload: &[u8]) {
        let packet = self.packet(kind, frame, block, payload);
        self.control.push_back(packet);
    }
}
