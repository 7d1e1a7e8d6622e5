//! SBIG SG-4 and AllSky-340 cameras, both ends and the time in one hand: images through wrong
//! checksums and missing bytes, lost answers, and cameras that never answer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::time::Duration;

use nightjar::camera::sg4::{Binning, Event, HEIGHT, Lost, Picture, Received, Sg4Camera, Sg4Host, WIDTH, Wish};

/// What happens to the bytes of one direction.
#[derive(Default)]
struct Noise {
    /// Every so many bytes, one is flipped; 0 never.
    flip_every: u64,
    /// Every so many bytes, one is left out; 0 never.
    drop_every: u64,
    bytes: u64,
    happened: u32,
}

impl Noise {
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in bytes {
            self.bytes += 1;
            if self.drop_every > 0 && self.bytes.is_multiple_of(self.drop_every) {
                self.happened += 1;
            } else if self.flip_every > 0 && self.bytes.is_multiple_of(self.flip_every) {
                self.happened += 1;
                out.push(byte ^ (1 << (self.bytes / self.flip_every % 8)));
            } else {
                out.push(*byte);
            }
        }
        out
    }
}

struct Pair {
    host: Sg4Host,
    camera: Sg4Camera,
    now: Duration,
    to_host: VecDeque<(Duration, Vec<u8>)>,
    to_camera: VecDeque<(Duration, Vec<u8>)>,
    noise_to_host: Noise,
    noise_to_camera: Noise,
    host_baud: u32,
    camera_baud: u32,
    /// The line carries no more than this.
    carries: u32,
    dead: bool,
    free_at: Duration,
    exposures: u32,
}

fn pixel(exposure: u32, number: usize) -> u16 {
    (number as u32).wrapping_mul(2_654_435_761).wrapping_add(exposure * 97) as u16
}

fn picture(exposure: u32) -> Vec<u16> {
    (0..WIDTH * HEIGHT).map(|number| pixel(exposure, number)).collect()
}

impl Pair {
    fn new(baud: u32) -> Self {
        let mut host = Sg4Host::new(baud, Binning::Full, 0);
        host.connected(Duration::ZERO);
        Self {
            host,
            camera: Sg4Camera::new(),
            now: Duration::ZERO,
            to_host: VecDeque::new(),
            to_camera: VecDeque::new(),
            noise_to_host: Noise::default(),
            noise_to_camera: Noise::default(),
            host_baud: 9600,
            camera_baud: 9600,
            carries: u32::MAX,
            dead: false,
            free_at: Duration::ZERO,
            exposures: 0,
        }
    }

    /// Bytes at two different speeds, or beyond what the line carries, are other bytes.
    fn heard(&self, bytes: Vec<u8>) -> Vec<u8> {
        let understood = self.host_baud == self.camera_baud && self.host_baud <= self.carries;
        if understood { bytes } else { bytes.iter().map(|byte| byte.rotate_left(3) ^ 0x55).collect() }
    }

    fn step(&mut self) {
        while self.to_host.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, bytes)) = self.to_host.pop_front() else { break };
            self.host.receive(&bytes, self.now);
        }
        while self.to_camera.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, bytes)) = self.to_camera.pop_front() else { break };
            if !self.dead {
                self.camera.receive(&bytes, self.now);
            }
        }
        if self.host.deadline().is_some_and(|at| at <= self.now) {
            self.host.timeout(self.now);
        }
        if !self.dead && self.camera.deadline().is_some_and(|at| at <= self.now) {
            self.camera.timeout(self.now);
        }
        while let Some(bytes) = self.camera.poll_transmit() {
            // What was said before a change of speed is still out at the old one.
            let bytes = self.noise_to_host.pass(&bytes);
            let bytes = self.heard(bytes);
            for some in bytes.chunks(64) {
                let takes = Duration::from_secs_f64(some.len() as f64 * 10.0 / f64::from(self.camera_baud));
                self.free_at = self.free_at.max(self.now) + takes;
                self.to_host.push_back((self.free_at, some.to_vec()));
            }
        }
        while let Some(wish) = self.camera.poll_wish() {
            match wish {
                Wish::SetBaud(baud) => self.camera_baud = baud,
                Wish::Read { .. } => {
                    self.exposures += 1;
                    self.camera.store(Picture(picture(self.exposures)));
                }
            }
        }
        while let Some(bytes) = self.host.poll_transmit() {
            let bytes = self.noise_to_camera.pass(&bytes);
            let bytes = self.heard(bytes);
            self.to_camera.push_back((self.now + Duration::from_millis(1), bytes));
        }
        let next = [
            self.to_host.front().map(|(at, _)| *at),
            self.to_camera.front().map(|(at, _)| *at),
            self.host.deadline(),
            self.camera.deadline().filter(|_| !self.dead),
        ];
        self.now = next.into_iter().flatten().min().unwrap_or(self.now + Duration::from_secs(1)).max(self.now);
    }

    fn until<T>(&mut self, seconds: u64, mut wanted: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.step();
            while let Some(event) = self.host.poll_event() {
                if let Event::SetBaud(baud) = event {
                    self.host_baud = baud;
                }
                if let Some(found) = wanted(&event) {
                    return Some(found);
                }
            }
        }
        None
    }

    fn up(&mut self) {
        self.until(60, |event| matches!(event, Event::Up).then_some(())).unwrap();
    }

    fn take(&mut self, exposure: Duration) -> Received {
        let now = self.now;
        self.host.expose(exposure, true, now).unwrap();
        self.until(600, |event| match event {
            Event::Frame(frame) => Some((**frame).clone()),
            Event::Missed { number, why } => panic!("exposure {number} is missed: {why}"),
            _ => None,
        })
        .unwrap()
    }
}

#[test]
fn an_image_takes_the_time_of_its_bytes_at_the_speed_that_was_agreed_on() {
    let mut pair = Pair::new(460_800);
    pair.up();
    assert_eq!((pair.host_baud, pair.camera_baud), (460_800, 460_800));
    let begun = pair.now;
    let frame = pair.take(Duration::from_secs(2));
    assert_eq!((frame.number, frame.width, frame.height), (1, 640, 480));
    let first = frame.pixels.iter().zip(picture(1)).position(|(a, b)| *a != b);
    assert_eq!((frame.pixels.len(), first), (640 * 480, None));
    let seconds = (pair.now - begun).as_secs_f64() - 2.0;
    assert!((13.0..14.0).contains(&seconds), "640x480 at 460,800 baud took {seconds} s");
}

#[test]
fn wrong_checksums_and_missing_bytes_are_asked_for_again_and_every_pixel_is_right() {
    let mut pair = Pair::new(460_800);
    pair.up();
    pair.noise_to_host = Noise { flip_every: 60_013, drop_every: 100_003, ..Noise::default() };
    for exposure in 1..=20 {
        let frame = pair.take(Duration::from_millis(100));
        assert!(frame.number == exposure && frame.pixels == picture(exposure), "exposure {exposure}");
    }
    assert!(pair.noise_to_host.happened > 100 && pair.host.repeated() > 100);
}

#[test]
fn verdicts_and_commands_that_are_lost_on_their_way_to_the_camera_shift_no_block() {
    let mut pair = Pair::new(460_800);
    pair.up();
    pair.noise_to_camera = Noise { flip_every: 31, drop_every: 47, ..Noise::default() };
    for exposure in 1..=5 {
        let now = pair.now;
        pair.host.expose(Duration::from_millis(100), true, now).unwrap();
        let frame = pair.until(600, |event| match event {
            Event::Frame(frame) => Some((**frame).clone()),
            _ => None,
        });
        assert!(frame.unwrap().pixels == picture(pair.exposures), "exposure {exposure}");
    }
}

#[test]
fn a_line_that_does_not_carry_the_speed_falls_back_and_says_so() {
    let mut pair = Pair::new(460_800);
    pair.carries = 115_200;
    let said = pair.until(60, |event| match event {
        Event::Trouble(text) => Some(text.clone()),
        _ => None,
    });
    assert!(said.unwrap().contains("460800 baud"));
    pair.up();
    assert_eq!((pair.host_baud, pair.camera_baud), (9600, 9600));
}

#[test]
fn a_camera_that_kept_its_speed_from_an_earlier_run_is_found() {
    let mut pair = Pair::new(460_800);
    pair.up();
    let mut host = Sg4Host::new(115_200, Binning::Full, 7);
    host.connected(pair.now);
    (pair.host, pair.host_baud) = (host, 9600);
    pair.up();
    assert_eq!((pair.host_baud, pair.camera_baud), (115_200, 115_200));
    let now = pair.now;
    assert_eq!(pair.host.expose(Duration::from_secs(1), true, now), Some(8), "numbers go on");
}

#[test]
fn a_camera_that_never_answers_or_dies_is_said_and_the_exposure_counted() {
    let mut pair = Pair::new(460_800);
    pair.dead = true;
    pair.until(60, |event| matches!(event, Event::Silent).then_some(())).unwrap();
    pair.dead = false;
    pair.up();
    let now = pair.now;
    pair.host.expose(Duration::from_secs(30), true, now).unwrap();
    pair.until(5, |_| None::<()>);
    pair.dead = true;
    let missed = pair.until(60, |event| match event {
        Event::Missed { number, why } => Some((*number, *why)),
        _ => None,
    });
    assert_eq!(missed, Some((1, Lost::Silent)));
    assert!(pair.now - now < Duration::from_secs(15), "said after {:?}", pair.now - now);
}
