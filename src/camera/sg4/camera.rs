//! The camera's side, as an SG-4 behaves: the simulated camera runs it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{BAUDS, Binning, INITIAL_BAUD, TEST, TEST_OK, block_checksum, checksum};

/// How often it reports while it exposes.
const PULSE: Duration = Duration::from_millis(150);
/// Time from shutter close to a readable image.
const READOUT: Duration = Duration::from_millis(50);
/// After this time the rest of a command no longer comes.
const PART: Duration = Duration::from_millis(200);
/// How long it waits for `Test` and `k` at a new speed.
const FALLBACK: Duration = Duration::from_secs(2);

/// What the rest of the camera has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Change the line's speed.
    SetBaud(u32),
    /// The image of this exposure is wanted: [`Sg4Camera::store`].
    Read {
        /// How it is read.
        binning: Binning,
        /// Whether the shutter was open.
        light: bool,
    },
}

/// An image: pixels of one row after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture(pub Vec<u16>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Idle,
    /// At a new speed, waiting for `Test` and then for `k`.
    Testing {
        back: u32,
        until: Duration,
    },
    Exposing {
        closes: Duration,
        next: Duration,
        binning: Binning,
        light: bool,
    },
    Transferring {
        block: usize,
    },
}

/// The camera's side.
#[derive(Debug)]
pub struct Sg4Camera {
    state: State,
    baud: u32,
    input: Vec<u8>,
    heard: Duration,
    image: Vec<u8>,
    /// The host has taken every block of it.
    read: bool,
    binning: Binning,
    out: VecDeque<Vec<u8>>,
    wishes: VecDeque<Wish>,
}

impl Default for Sg4Camera {
    fn default() -> Self {
        Self::new()
    }
}

impl Sg4Camera {
    /// A camera that was just switched on.
    pub fn new() -> Self {
        Self {
            state: State::Idle,
            baud: INITIAL_BAUD,
            input: Vec::new(),
            heard: Duration::ZERO,
            image: Vec::new(),
            read: true,
            binning: Binning::Full,
            out: VecDeque::new(),
            wishes: VecDeque::new(),
        }
    }

    /// The next bytes to be written.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// The next wish.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// Whether the host has taken the last image.
    pub fn is_read(&self) -> bool {
        self.read
    }

    /// When [`Sg4Camera::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Testing { until, .. } => Some(until),
            State::Exposing { closes, next, .. } => Some(next.min(closes + READOUT)),
            State::Idle | State::Transferring { .. } => None,
        }
    }

    /// Takes the image that was wished for; missing pixels are dark, surplus ones are left out.
    pub fn store(&mut self, picture: Picture) {
        let (width, height) = self.binning.size();
        self.read = false;
        let mut pixels = picture.0;
        pixels.resize(width * height, 0);
        self.image = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    }

    /// A deadline has passed.
    pub fn timeout(&mut self, now: Duration) {
        match &mut self.state {
            State::Testing { back, until } if now >= *until => {
                let back = *back;
                self.set_baud(back);
                self.state = State::Idle;
            }
            State::Exposing { closes, binning, light, .. } if now >= *closes + READOUT => {
                let (binning, light) = (*binning, *light);
                self.binning = binning;
                self.wishes.push_back(Wish::Read { binning, light });
                self.out.push_back(b"RD".to_vec());
                self.state = State::Idle;
            }
            State::Exposing { closes, next, .. } if now >= *next => {
                *next = if now + PULSE < *closes { now + PULSE } else { *closes + READOUT };
                self.out.push_back(b"E".to_vec());
            }
            _ => {}
        }
    }

    /// Takes bytes from the line.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        if now.saturating_sub(self.heard) > PART {
            self.input.clear();
        }
        self.heard = now;
        for byte in bytes {
            match self.state {
                State::Transferring { block } => self.verdict(block, *byte),
                State::Testing { .. } => self.test(*byte),
                State::Idle | State::Exposing { .. } => {
                    self.input.push(*byte);
                    self.command(now);
                }
            }
        }
    }

    fn test(&mut self, byte: u8) {
        self.input.push(byte);
        if self.input.ends_with(TEST) {
            self.out.push_back(TEST_OK.to_vec());
        } else if byte == b'k' {
            self.input.clear();
            self.state = State::Idle;
        }
    }

    fn command(&mut self, now: Duration) {
        let length = match self.input.first() {
            Some(b'E' | b'X' | b'A' | b'V' | b'r') => 1,
            Some(b'B') => 2,
            Some(b'T') => 6,
            Some(_) => return self.input.clear(),
            None => return,
        };
        if self.input.len() <= length {
            return;
        }
        let received: Vec<u8> = self.input.drain(..).collect();
        let (command, sum) = (&received[..length], received[length]);
        self.out.push_back(vec![checksum(command)]);
        if checksum(command) == sum {
            self.carry_out(command, now);
        }
    }

    fn carry_out(&mut self, command: &[u8], now: Duration) {
        match (command, self.state) {
            ([b'E'], _) => self.out.push_back(b"O".to_vec()),
            ([b'V'], _) => self.out.push_back(vec![1, 30]),
            ([b'r'], _) => self.out.push_back(b"simulated".to_vec()),
            ([b'B', digit], State::Idle) => {
                if let Some(baud) = BAUDS.get(usize::from(digit.wrapping_sub(b'0'))) {
                    let back = self.baud;
                    self.set_baud(*baud);
                    self.out.push_back(b"S".to_vec());
                    self.state = State::Testing { back, until: now + FALLBACK };
                }
            }
            ([b'T', high, middle, low, binning, kind], State::Idle) => {
                let units = u32::from_be_bytes([0, *high, *middle, *low]);
                let closes = now + Duration::from_micros(u64::from(units) * 100);
                let binning = if *binning == 2 { Binning::Two } else { Binning::Full };
                let next = (now + PULSE).min(closes);
                self.state = State::Exposing { closes, next, binning, light: *kind != 0 };
            }
            ([b'A'], State::Exposing { binning, light, .. }) => {
                self.state = State::Exposing { closes: now, next: now, binning, light };
            }
            ([b'X'], State::Idle) if !self.image.is_empty() => {
                self.state = State::Transferring { block: 0 };
                self.send_block(0);
            }
            _ => {}
        }
    }

    fn verdict(&mut self, block: usize, byte: u8) {
        match byte {
            b'K' if block + 1 < self.binning.blocks() => {
                self.state = State::Transferring { block: block + 1 };
                self.send_block(block + 1);
            }
            b'R' => self.send_block(block),
            b'K' | b'S' => {
                self.read |= byte == b'K';
                self.state = State::Idle;
            }
            _ => {}
        }
    }

    fn send_block(&mut self, block: usize) {
        let length = self.binning.block() * 2;
        let start = (block * length).min(self.image.len());
        let mut bytes = self.image[start..(start + length).min(self.image.len())].to_vec();
        bytes.resize(length, 0);
        bytes.push(block_checksum(&bytes));
        self.out.push_back(bytes);
    }

    fn set_baud(&mut self, baud: u32) {
        if self.baud != baud {
            self.baud = baud;
            self.wishes.push_back(Wish::SetBaud(baud));
        }
    }
}
