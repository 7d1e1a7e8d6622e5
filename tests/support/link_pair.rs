//! Both ends of the readout link with the line between them, and the time: nothing waits, and the
//! same seed gives the same night.
#![allow(dead_code, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use nightjar::camera::link::{
    Camera, CameraParameters, Caps, Event, Expose, Host, HostParameters, Picture, Purpose, Wish, plain_begin,
};

/// What is wrong with the line.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// One bit flips in so many bytes; 0 never.
    pub flip_every: u64,
    /// The line is cut after so many bytes; 0 never.
    pub break_every: u64,
}

/// One direction of the line.
struct Wire {
    on_its_way: VecDeque<(Duration, Vec<u8>)>,
    free_at: Duration,
}

/// Time that a packet is on its way beside its bytes.
const LATENCY: Duration = Duration::from_millis(1);
/// How long a cut line stays away.
const AWAY: Duration = Duration::from_millis(200);

pub struct Pair {
    pub host: Host,
    pub camera: Camera,
    pub now: Duration,
    pub faults: Faults,
    pub bytes_per_s: f64,
    pub size: (u32, u32),
    /// Whether the camera has a picture for every exposure; otherwise they never become ready.
    pub pictures: bool,
    /// Bytes that the host hears nothing of: the camera's side of the cable is broken.
    pub deaf: bool,
    base: Arc<[u8]>,
    caps: Caps,
    to_host: Wire,
    to_camera: Wire,
    back_at: Option<Duration>,
    bytes: u64,
    next_flip: u64,
    next_break: u64,
    random: u64,
    pub breaks: u32,
    pub flips: u32,
    pub bauds: Vec<u32>,
}

/// Pixels of any frame: those of one noisy image, shifted by the frame's number.
fn shifted(base: &[u8], frame: u32) -> Vec<u8> {
    let mut bytes = base.to_vec();
    let by = (frame as usize * 7919 * 2) % bytes.len();
    bytes.rotate_left(by);
    bytes
}

impl Pair {
    pub fn new(size: (u32, u32), parameters: HostParameters, caps: Caps, faults: Faults) -> Self {
        let mut seed = 1_u32;
        let base: Vec<u8> = (0..size.0 as usize * size.1 as usize * 2)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        let caps = Caps { width: size.0, height: size.1, ..caps };
        let camera =
            Camera::new(CameraParameters { session: 1, highest: 0, caps: caps.clone(), readout: Duration::ZERO });
        let wire = || Wire { on_its_way: VecDeque::new(), free_at: Duration::ZERO };
        let mut pair = Self {
            host: Host::new(parameters),
            camera,
            now: Duration::ZERO,
            faults,
            bytes_per_s: 2e7,
            size,
            pictures: true,
            deaf: false,
            base: base.into(),
            caps,
            to_host: wire(),
            to_camera: wire(),
            back_at: None,
            bytes: 0,
            next_flip: 0,
            next_break: faults.break_every,
            random: 9,
            breaks: 0,
            flips: 0,
            bauds: Vec::new(),
        };
        pair.next_flip = pair.a_flip_after(0);
        pair.host.connected(Duration::ZERO);
        pair
    }

    /// A camera that takes exposures on command and holds two frames.
    pub fn caps() -> Caps {
        Caps { bits: 16, exposes: true, memory: 2, block_bytes: 4096, firmware: "test 1".into(), ..Caps::default() }
    }

    /// The pixels that frame `frame` must have.
    pub fn pixels(&self, frame: u32) -> Vec<u16> {
        shifted(&self.base, frame).chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    /// Switches the camera off and on: its memory is gone, and its numbers too unless it `keeps` them.
    pub fn reset_camera(&mut self, session: u32, keeps: bool) {
        let highest = if keeps { self.camera.highest() } else { 0 };
        let (caps, readout) = (self.caps.clone(), Duration::ZERO);
        self.camera = Camera::new(CameraParameters { session, highest, caps, readout });
        self.to_host.on_its_way.clear();
    }

    /// Starts the host again, which remembers what is on disk.
    pub fn restart_host(&mut self, parameters: HostParameters) {
        self.host = Host::new(parameters);
        self.to_camera.on_its_way.clear();
        self.host.connected(self.now);
    }

    /// The camera exposes by itself whenever it can.
    pub fn trigger(&mut self) -> bool {
        self.camera.trigger(Expose { exposure_us: 1000, purpose: Purpose::Light }, self.now)
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    fn a_flip_after(&mut self, at: u64) -> u64 {
        match self.faults.flip_every {
            0 => u64::MAX,
            every => (at / every + 1) * every + self.random() % every,
        }
    }

    /// What the line makes of a packet; `false` when it is cut in it.
    fn carry(&mut self, packet: &mut [u8]) -> bool {
        let start = self.bytes;
        self.bytes += packet.len() as u64;
        while self.next_flip < self.bytes {
            let at = self.next_flip.saturating_sub(start) as usize;
            let bit = self.random() % 8;
            packet[at.min(packet.len() - 1)] ^= 1 << bit;
            self.flips += 1;
            self.next_flip = self.a_flip_after(self.next_flip);
        }
        if self.faults.break_every > 0 && self.bytes >= self.next_break {
            self.next_break += self.faults.break_every;
            self.breaks += 1;
            return false;
        }
        true
    }

    /// Pulls the cable out for so long.
    pub fn unplug_for(&mut self, time: Duration) {
        self.cut();
        self.back_at = Some(self.now + time);
    }

    fn cut(&mut self) {
        self.to_host.on_its_way.clear();
        self.to_camera.on_its_way.clear();
        self.host.disconnected();
        self.back_at = Some(self.now + AWAY);
    }

    fn arrives(&self, wire: &Wire, length: usize) -> Duration {
        wire.free_at.max(self.now) + Duration::from_secs_f64(length as f64 / self.bytes_per_s)
    }

    /// One step: whatever is due now, or the time goes on to what is due next. `false` when nothing is.
    pub fn step(&mut self) -> bool {
        if self.back_at.is_some_and(|at| self.now >= at) {
            self.back_at = None;
            self.camera.reconnected();
            self.host.connected(self.now);
        }
        while self.to_host.on_its_way.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, bytes)) = self.to_host.on_its_way.pop_front() else { break };
            if !self.deaf {
                self.host.receive(&bytes, self.now);
            }
        }
        while self.to_camera.on_its_way.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, bytes)) = self.to_camera.on_its_way.pop_front() else { break };
            self.camera.receive(&bytes, self.now);
        }
        if self.host.deadline().is_some_and(|at| at <= self.now) {
            self.host.timeout(self.now);
        }
        if self.camera.deadline().is_some_and(|at| at <= self.now) {
            self.camera.timeout(self.now);
        }
        while let Some(wish) = self.camera.poll_wish() {
            match wish {
                Wish::Read { frame } if self.pictures => {
                    let begin = plain_begin(self.size.0, self.size.1, Purpose::Light);
                    let bytes = shifted(&self.base, frame).into();
                    self.camera.store(frame, Picture { begin, bytes, utc_us: None });
                }
                Wish::SetBaud(baud) => self.bauds.push(baud),
                _ => {}
            }
        }
        self.transmit();
        let next = [
            self.back_at,
            self.to_host.on_its_way.front().map(|(at, _)| *at),
            self.to_camera.on_its_way.front().map(|(at, _)| *at),
            self.host.deadline(),
            self.camera.deadline(),
        ];
        match next.into_iter().flatten().min() {
            Some(next) => self.now = next.max(self.now),
            None => return false,
        }
        true
    }

    fn transmit(&mut self) {
        while let Some(mut packet) = self.host.poll_transmit() {
            if self.back_at.is_some() {
                continue;
            }
            if !self.carry(&mut packet) {
                return self.cut();
            }
            let at = self.arrives(&self.to_camera, packet.len());
            self.to_camera.free_at = at;
            self.to_camera.on_its_way.push_back((at + LATENCY, packet));
        }
        // What the camera's buffer takes: a few packets.
        while self.back_at.is_none() && self.to_host.on_its_way.len() < 8 {
            let Some(mut packet) = self.camera.poll_transmit(self.now) else { break };
            if !self.carry(&mut packet) {
                return self.cut();
            }
            let at = self.arrives(&self.to_host, packet.len());
            self.to_host.free_at = at;
            self.to_host.on_its_way.push_back((at + LATENCY, packet));
        }
    }

    /// Goes on until something happened that `wanted` takes, for at most `seconds`.
    pub fn until<T>(&mut self, seconds: u64, mut wanted: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            let more = self.step();
            while let Some(event) = self.host.poll_event() {
                if let Event::SetBaud(baud) = event {
                    self.bauds.push(baud);
                }
                if let Some(found) = wanted(&event) {
                    return Some(found);
                }
            }
            if !more {
                break;
            }
        }
        None
    }
}
