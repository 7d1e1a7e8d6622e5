//! The host's side: bytes and the time in; commands, events and the next deadline out.

mod transfer;

use std::collections::VecDeque;
use std::time::Duration;

use super::events::{Event, Lost};
use super::{BAUDS, Binning, INITIAL_BAUD, TEST, TEST_OK, checksum, command, take_command};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(500);
/// The camera says `E` every 150 ms; after this time without it is away.
const PULSE: Duration = Duration::from_secs(5);
/// How long reading out may take after the exposure.
const READOUT: Duration = Duration::from_secs(15);
/// A line that was silent for so long, beyond the time of some bytes, has nothing more to say.
const QUIET: Duration = Duration::from_millis(300);
/// How often a command or a block is repeated before it has failed.
const TRIES: u32 = 10;
/// How often an image is asked for from its beginning.
const RESTARTS: u32 = 3;
/// How often an idle camera is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Down,
    /// `E` went out so often, at one speed after the other.
    Searching {
        times: u32,
    },
    /// `B` went out.
    Proposing {
        times: u32,
    },
    /// `Test` went out at the new speed.
    Testing {
        times: u32,
    },
    Idle,
    /// `E` went out to see whether it is still there.
    Asking {
        times: u32,
    },
    /// `T` went out.
    Commanding {
        times: u32,
    },
    Exposing,
    /// Blocks come; this one so often.
    Transferring {
        block: usize,
        tries: u32,
    },
    /// A block was wrong: wait until the line is quiet before it is asked for again.
    Draining {
        block: usize,
        tries: u32,
    },
}

#[derive(Debug, Clone, Copy)]
struct Exposure {
    number: u32,
    units: u32,
    light: bool,
    opened: Duration,
    heard: Duration,
}

/// The host's side of an SG-4.
#[derive(Debug)]
pub struct Sg4Host {
    state: State,
    wanted: u32,
    baud: u32,
    /// The wanted speed has failed.
    slow: bool,
    binning: Binning,
    exposure: Option<Exposure>,
    last_number: u32,
    input: Vec<u8>,
    image: Vec<u8>,
    quiet_at: Option<Duration>,
    deadline: Option<Duration>,
    out: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    /// Blocks that were asked for again.
    repeated: u64,
    /// Transfers of the image in hand that were begun again.
    restarts: u32,
    /// Nothing at all came of the block that is expected.
    nothing_came: bool,
}

impl Sg4Host {
    /// A host that wants this speed; `last_number` is that of the last exposure of an earlier run.
    pub fn new(baud: u32, binning: Binning, last_number: u32) -> Self {
        let wanted = BAUDS.into_iter().filter(|speed| *speed <= baud).max().unwrap_or(INITIAL_BAUD);
        Self {
            state: State::Down,
            wanted,
            baud: INITIAL_BAUD,
            slow: false,
            binning,
            exposure: None,
            last_number,
            input: Vec::new(),
            image: Vec::new(),
            quiet_at: None,
            deadline: None,
            out: VecDeque::new(),
            events: VecDeque::new(),
            repeated: 0,
            restarts: 0,
            nothing_came: false,
        }
    }

    /// A line is there, at [`INITIAL_BAUD`].
    pub fn connected(&mut self, now: Duration) {
        self.set_baud(INITIAL_BAUD);
        self.slow = false;
        self.search(0, now);
    }

    /// The line is gone, and with it the exposure in hand.
    pub fn disconnected(&mut self) {
        self.miss(Lost::Silent);
        self.state = State::Down;
        self.out.clear();
        (self.deadline, self.quiet_at) = (None, None);
    }

    /// Whether it waits for something to do.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether the camera answers.
    pub fn is_up(&self) -> bool {
        !matches!(self.state, State::Down | State::Searching { .. } | State::Proposing { .. } | State::Testing { .. })
    }

    /// Blocks that were asked for again.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The next bytes to be written.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Sg4Host::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Duration> {
        [self.deadline, self.quiet_at].into_iter().flatten().min()
    }

    /// Commands an exposure and gives its number; `None` while the camera is busy or away.
    pub fn expose(&mut self, exposure: Duration, light: bool, now: Duration) -> Option<u32> {
        if !self.is_idle() {
            return None;
        }
        self.last_number += 1;
        self.restarts = 0;
        let units = (exposure.as_micros() / 100).min(u128::from(super::LONGEST)) as u32;
        let number = self.last_number;
        self.exposure = Some(Exposure { number, units, light, opened: now, heard: now });
        self.command_exposure(0, now);
        Some(number)
    }

    /// Ends the exposure in hand; the camera keeps what it has.
    pub fn abort(&mut self) {
        if self.state == State::Exposing {
            self.out.push_back(command(b"A"));
        }
    }

    /// Takes bytes from the line.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        match self.state {
            State::Down => {}
            State::Draining { .. } => self.quiet_at = Some(now + QUIET),
            State::Transferring { block, tries } => self.take_block(block, tries, bytes, now),
            State::Exposing => self.pulse(bytes, now),
            _ => {
                // Answers are short: what is old is noise.
                self.input.extend_from_slice(bytes);
                let surplus = self.input.len().saturating_sub(64);
                self.input.drain(..surplus);
                self.answer(now);
            }
        }
    }

    /// A deadline has passed.
    pub fn timeout(&mut self, now: Duration) {
        if self.quiet_at.is_some_and(|at| now >= at) {
            self.quiet_at = None;
            match self.state {
                State::Draining { block, tries } => self.ask_again(block, tries, now),
                // Bytes are missing: what is there of the block is worth nothing.
                State::Transferring { block, tries } => {
                    self.nothing_came = false;
                    self.ask_again(block, tries + 1, now);
                }
                _ => {}
            }
        }
        if self.deadline.is_none_or(|at| now < at) {
            return;
        }
        match self.state {
            State::Down => {}
            State::Searching { times } => self.search(times + 1, now),
            State::Proposing { times } if times < 2 => self.propose(times + 1, now),
            State::Proposing { .. } => self.too_fast(now),
            State::Testing { times } if times < 2 => self.test(times + 1, now),
            State::Testing { .. } => self.too_fast(now),
            State::Idle => self.ask(0, now),
            State::Asking { times } if times < 3 => self.ask(times + 1, now),
            State::Asking { .. } => self.lose_camera(None, now),
            State::Commanding { times } if times < 3 => self.command_exposure(times + 1, now),
            State::Commanding { .. } => self.lose_camera(Some(Lost::Unanswered), now),
            State::Exposing => self.exposing_is_late(now),
            State::Transferring { block, tries } | State::Draining { block, tries } => {
                // The camera may have lost our verdict on the block before: then it sends that one again.
                self.nothing_came = true;
                self.ask_again(block, tries + 1, now);
            }
        }
    }

    // The camera is looked for at the wanted speed, at the initial one and at all others by turns.
    fn search(&mut self, times: u32, now: Duration) {
        let order = [self.wanted, INITIAL_BAUD].into_iter().chain(BAUDS.into_iter().rev());
        let speeds: Vec<u32> = order.collect();
        // Two tries each: the first may find rubbish in the camera's input.
        if times > 0 {
            self.set_baud(speeds[(times as usize / 2) % speeds.len()]);
        }
        if times > 0 && times.is_multiple_of(speeds.len() as u32 * 2) {
            self.events.push_back(Event::Silent);
        }
        self.say(command(b"E"), State::Searching { times }, now + ANSWER / 2);
    }

    fn ask(&mut self, times: u32, now: Duration) {
        self.say(command(b"E"), State::Asking { times }, now + ANSWER);
    }

    fn propose(&mut self, times: u32, now: Duration) {
        self.say(command(&self.proposal()), State::Proposing { times }, now + ANSWER);
    }

    fn proposal(&self) -> [u8; 2] {
        let digit = BAUDS.iter().position(|speed| *speed == self.wanted).unwrap_or(0);
        [b'B', b'0' + digit as u8]
    }

    fn test(&mut self, times: u32, now: Duration) {
        self.say(TEST.to_vec(), State::Testing { times }, now + ANSWER);
    }

    fn too_fast(&mut self, now: Duration) {
        self.slow = true;
        let wanted = self.wanted;
        self.events.push_back(Event::Trouble(format!(
            "the line does not carry {wanted} baud; set a lower [camera] baud or look at the cable"
        )));
        self.set_baud(INITIAL_BAUD);
        self.search(0, now);
    }

    fn command_exposure(&mut self, times: u32, now: Duration) {
        let Some(exposure) = self.exposure else { return self.idle(now) };
        let take = take_command(exposure.units, self.binning, exposure.light);
        self.say(command(&take), State::Commanding { times }, now + ANSWER);
    }

    fn say(&mut self, bytes: Vec<u8>, state: State, deadline: Duration) {
        self.input.clear();
        self.out.push_back(bytes);
        self.state = state;
        self.deadline = Some(deadline);
    }

    fn idle(&mut self, now: Duration) {
        self.state = State::Idle;
        self.input.clear();
        self.deadline = Some(now + ASK_EVERY);
        self.quiet_at = None;
    }

    /// An answer is looked for in what has come, wherever noise put it.
    fn answer(&mut self, now: Duration) {
        let has = |wanted: &[u8]| self.input.windows(wanted.len()).any(|part| part == wanted);
        match self.state {
            State::Searching { .. } if has(&[checksum(b"E"), b'O']) => {
                if self.baud == self.wanted || self.slow {
                    self.events.push_back(Event::Up);
                    self.idle(now);
                } else {
                    self.propose(0, now);
                }
            }
            State::Asking { .. } if has(&[checksum(b"E"), b'O']) => self.idle(now),
            State::Proposing { .. } if has(&[checksum(&self.proposal())]) => {
                self.set_baud(self.wanted);
                self.test(0, now);
            }
            State::Testing { .. } if has(TEST_OK) => {
                self.out.push_back(b"k".to_vec());
                self.events.push_back(Event::Up);
                self.idle(now);
            }
            State::Commanding { .. } => {
                let echo = self.exposure.map(|e| checksum(&take_command(e.units, self.binning, e.light)));
                // The echo may be lost: the camera that says that it exposes has heard the command.
                let heard = self.input.first().copied() == echo || has(b"EE");
                if heard {
                    if let Some(exposure) = &mut self.exposure {
                        (exposure.opened, exposure.heard) = (now, now);
                    }
                    self.state = State::Exposing;
                    self.deadline = Some(now + PULSE);
                    let rest = self.input.split_off(1);
                    self.input.clear();
                    self.pulse(&rest, now);
                }
            }
            _ => {}
        }
    }

    fn pulse(&mut self, bytes: &[u8], now: Duration) {
        let Some(exposure) = &mut self.exposure else { return };
        if bytes.is_empty() {
            return;
        }
        exposure.heard = now;
        let until = exposure.opened + Duration::from_micros(u64::from(exposure.units) * 100) + READOUT;
        self.deadline = Some((now + PULSE).min(until));
        // One byte says that it is over; noise that says so as well costs a transfer that is asked for again.
        let early = now + Duration::from_millis(100) < until.saturating_sub(READOUT);
        if bytes.contains(&b'D') && !early {
            self.transfer(now);
        }
    }

    /// No report in time. The report of the end may be lost: a camera that is through gives its image.
    fn exposing_is_late(&mut self, now: Duration) {
        let over = self.exposure.is_some_and(|exposure| {
            now >= exposure.opened + Duration::from_micros(u64::from(exposure.units) * 100) + Duration::from_secs(1)
        });
        if over { self.transfer(now) } else { self.lose_camera(Some(Lost::Silent), now) }
    }

    fn lose_camera(&mut self, why: Option<Lost>, now: Duration) {
        if let Some(why) = why {
            self.miss(why);
        }
        self.set_baud(INITIAL_BAUD);
        self.slow = false;
        if why != Some(Lost::Transfer) {
            self.events.push_back(Event::Silent);
        }
        self.search(0, now);
    }

    fn miss(&mut self, why: Lost) {
        if let Some(exposure) = self.exposure.take() {
            self.events.push_back(Event::Missed { number: exposure.number, why });
        }
    }

    fn set_baud(&mut self, baud: u32) {
        if self.baud != baud {
            self.baud = baud;
            self.events.push_back(Event::SetBaud(baud));
        }
    }
}
