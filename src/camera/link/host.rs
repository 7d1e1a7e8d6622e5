//! The host's side of the link: bytes and the time in; packets, events and the next deadline out.

mod greeting;
mod transfer;

use std::collections::VecDeque;
use std::time::Duration;

use super::cobs::Splitter;
use super::frame_messages::{Begin, Expose};
use super::image::Incoming;
use super::messages::{Baud, BaudStep, Caps, Refused, Status};
use super::packet::{self, Kind, LONGEST_STUFFED, Packet};
use super::{ANSWER, Counters, Event, INITIAL_BAUD, Lost, SILENCE};

/// What the host wants of the link.
#[derive(Debug, Clone, PartialEq)]
pub struct HostParameters {
    /// Speed to be changed to; `None` where speed has no meaning (TCP).
    pub baud: Option<u32>,
    /// Payload of a block that is asked for, bytes.
    pub block_bytes: u16,
    /// Largest frame that is taken, bytes.
    pub most_bytes: u64,
    /// Session and number of the last frame that is on disk, from an earlier run.
    pub durable: Option<(u32, u32)>,
    /// How long a camera may take beyond the exposure until its frame is ready.
    pub readout: Duration,
}

impl Default for HostParameters {
    fn default() -> Self {
        Self { baud: None, block_bytes: 4096, most_bytes: 512 << 20, durable: None, readout: Duration::from_secs(60) }
    }
}

/// How far the acquaintance has gone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    /// No line.
    Down,
    /// `HELLO` went out so often.
    Calling { times: u32 },
    /// A change of speed is at this step.
    Speeding { step: BaudStep, times: u32 },
    /// As one wishes.
    Up,
}

/// An exposure that was commanded.
#[derive(Debug, Clone, Copy)]
struct Ordered {
    frame: u32,
    expose: Expose,
    times: u32,
    acknowledged: bool,
    /// When its frame must be there.
    until: Duration,
}

/// The host's side.
#[derive(Debug)]
pub struct Host {
    parameters: HostParameters,
    link: Link,
    /// The camera that the host knows.
    session: Option<u32>,
    caps: Option<Caps>,
    baud: u32,
    /// Whether a packet of another version was heard on this line, and said.
    foreign: bool,
    /// Speeds at which the camera did not answer the test.
    unheard: bool,
    splitter: Splitter,
    sequence: u16,
    ordered: Option<Ordered>,
    incoming: Option<(u32, Incoming)>,
    stalls: u32,
    credit: u32,
    crc_failures: u32,
    /// Given out, not yet on disk.
    handed: Option<u32>,
    /// On disk, the camera does not know yet.
    releasing: Option<u32>,
    /// Highest frame that is on disk.
    durable: Option<u32>,
    /// Highest frame that is accounted for: given out, or named as missed.
    counted: Option<u32>,
    /// When something is to be said again.
    again: Option<Duration>,
    heard: Duration,
    out: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    scratch: Vec<u8>,
    counters: Counters,
}

impl Host {
    /// A host without a line.
    pub fn new(parameters: HostParameters) -> Self {
        let durable = parameters.durable;
        Self {
            link: Link::Down,
            session: durable.map(|(session, _)| session),
            caps: None,
            baud: INITIAL_BAUD,
            foreign: false,
            unheard: false,
            splitter: Splitter::new(LONGEST_STUFFED),
            sequence: 0,
            ordered: None,
            incoming: None,
            stalls: 0,
            credit: 0,
            crc_failures: 0,
            handed: None,
            releasing: None,
            durable: durable.map(|(_, frame)| frame),
            counted: durable.map(|(_, frame)| frame),
            again: None,
            heard: Duration::ZERO,
            out: VecDeque::new(),
            events: VecDeque::new(),
            scratch: Vec::new(),
            counters: Counters::default(),
            parameters,
        }
    }

    /// A line is there (again): what was on its way is gone. It runs at [`INITIAL_BAUD`].
    pub fn connected(&mut self, now: Duration) {
        self.splitter.clear();
        self.out.clear();
        self.foreign = false;
        self.set_baud(INITIAL_BAUD);
        self.call(now, 0);
    }

    /// The line is gone.
    pub fn disconnected(&mut self) {
        self.link = Link::Down;
        self.again = None;
        self.out.clear();
        self.splitter.clear();
    }

    /// The next bytes to be written.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Host::timeout`] is to be called, whatever happens before.
    pub fn deadline(&self) -> Option<Duration> {
        let ordered = self.ordered.as_ref().filter(|_| self.is_up()).map(|ordered| ordered.until);
        [self.again, ordered].into_iter().flatten().min()
    }

    /// Whether the camera answers.
    pub fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    /// What the camera said of itself.
    pub fn caps(&self) -> Option<&Caps> {
        self.caps.as_ref()
    }

    /// What went by.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether [`Host::expose`] would be taken.
    pub fn can_expose(&self) -> bool {
        self.is_up() && self.ordered.is_none() && self.caps.as_ref().is_some_and(|caps| caps.exposes)
    }

    /// Asks for an exposure; gives its number. `None` while the camera does not answer, takes none on
    /// command, or is busy with another one.
    pub fn expose(&mut self, expose: Expose, now: Duration) -> Option<u32> {
        if !self.can_expose() {
            return None;
        }
        let frame = self.highest().map_or(1, |frame| frame.wrapping_add(1));
        let until = now + Duration::from_micros(expose.exposure_us) + self.parameters.readout;
        self.ordered = Some(Ordered { frame, expose, times: 0, acknowledged: false, until });
        self.send(Kind::Expose, frame, 0, &expose.write());
        self.again = Some(now + ANSWER);
        Some(frame)
    }

    /// Ends the exposure in hand; the camera keeps what it has read.
    pub fn abort(&mut self, now: Duration) {
        if let Some(ordered) = &mut self.ordered {
            ordered.until = now + self.parameters.readout;
            let frame = ordered.frame;
            self.send(Kind::Abort, frame, 0, &[]);
        }
    }

    /// The frame is on disk: the camera may forget it.
    pub fn release(&mut self, frame: u32, now: Duration) {
        self.durable = self.durable.max(Some(frame));
        if self.handed == Some(frame) {
            self.handed = None;
        }
        self.say_released(frame, now);
    }

    /// Takes bytes from the line.
    pub fn receive(&mut self, mut bytes: &[u8], now: Duration) {
        self.counters.bytes += bytes.len() as u64;
        while let Some(whole) = self.splitter.next(&mut bytes) {
            if !whole {
                self.counters.damaged += 1;
                continue;
            }
            let plain = self.splitter.take();
            match packet::read(&plain) {
                Ok(packet) => self.take(&packet, now),
                Err(damage) => {
                    self.counters.damaged += 1;
                    if matches!(damage, packet::Damage::Version(_)) && !std::mem::replace(&mut self.foreign, true) {
                        self.events.push_back(Event::Trouble(damage.to_string()));
                    }
                }
            }
            self.splitter.give_back(plain);
        }
    }

    /// A deadline has passed.
    pub fn timeout(&mut self, now: Duration) {
        if self.link == Link::Down {
            return;
        }
        // Only a camera that answers can be late: one that was away offers its frame when it is back.
        if let Some(ordered) = self.ordered.filter(|ordered| self.is_up() && now >= ordered.until) {
            self.ordered = None;
            self.send(Kind::Abort, ordered.frame, 0, &[]);
            self.lose(ordered.frame, Lost::NoImage);
        }
        if self.again.is_none_or(|again| now < again) {
            return;
        }
        match self.link {
            Link::Down => {}
            Link::Calling { times } => self.call(now, times + 1),
            Link::Speeding { step, times } => self.speed_again(step, times + 1, now),
            Link::Up if now.saturating_sub(self.heard) >= SILENCE => {
                self.events.push_back(Event::Silent);
                self.call(now, 0);
            }
            Link::Up => self.say_again(now),
        }
    }

    fn take(&mut self, packet: &Packet<'_>, now: Duration) {
        self.heard = now;
        self.counters.packets += 1;
        if packet.kind == Kind::Caps {
            match (self.link, Caps::read(packet.payload)) {
                (Link::Calling { .. }, Some(caps)) => self.introduced(packet.session, packet.frame, caps, now),
                // It was reset, and waits to be greeted.
                _ if self.session != Some(packet.session) => self.call(now, 0),
                _ => {}
            }
            return;
        }
        if self.session != Some(packet.session) {
            // Somebody else, or the same one after a reset: ask.
            if self.link == Link::Up {
                self.call(now, 0);
            }
            return;
        }
        match (packet.kind, self.link) {
            (Kind::Baud, _) => {
                if let Some(baud) = Baud::read(packet.payload) {
                    self.speeding(baud, now);
                }
            }
            (_, Link::Up) => self.take_up(packet, now),
            _ => {}
        }
    }

    fn take_up(&mut self, packet: &Packet<'_>, now: Duration) {
        match packet.kind {
            Kind::Block => self.block(packet, now),
            Kind::FrameBegin => {
                if let Some(begin) = Begin::read(packet.payload) {
                    self.begin(packet.frame, begin, now);
                }
            }
            Kind::FrameEnd => self.end(packet, now),
            Kind::Status => {
                if let Some(status) = Status::read(packet.payload) {
                    self.status(packet.frame, status);
                }
            }
            Kind::Release if self.releasing.is_some_and(|frame| frame <= packet.frame) => self.releasing = None,
            Kind::Error => {
                if let Some(refused) = Refused::read(packet.payload) {
                    self.refused(packet.frame, &refused);
                }
            }
            _ => {}
        }
    }

    fn highest(&self) -> Option<u32> {
        let incoming = self.incoming.as_ref().map(|(frame, _)| *frame);
        self.counted.max(self.ordered.map(|ordered| ordered.frame)).max(incoming)
    }

    fn count(&mut self, frame: u32) {
        self.counted = self.counted.max(Some(frame));
    }

    /// Frames below `frame` of which nothing was ever heard are named.
    fn count_up_to(&mut self, frame: u32) {
        if let Some(counted) = self.counted.filter(|counted| counted.saturating_add(1) < frame) {
            self.events.push_back(Event::Missed { first: counted + 1, last: frame - 1, why: Lost::NeverSeen });
            self.count(frame - 1);
        }
    }

    fn lose(&mut self, frame: u32, why: Lost) {
        self.count_up_to(frame);
        self.count(frame);
        self.events.push_back(Event::Missed { first: frame, last: frame, why });
    }

    fn send(&mut self, kind: Kind, frame: u32, block: u32, payload: &[u8]) {
        self.sequence = self.sequence.wrapping_add(1);
        let session = self.session.unwrap_or(0);
        let packet = Packet { kind, sequence: self.sequence, session, frame, block, payload };
        let mut out = Vec::new();
        packet.write(&mut self.scratch, &mut out);
        self.out.push_back(out);
    }
}
