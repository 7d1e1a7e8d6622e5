//! Anything on the line of an SG-4, at either end.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nightjar::camera::sg4::{Binning, Sg4Camera, Sg4Host};

fuzz_target!(|data: &[u8]| {
    let mut host = Sg4Host::new(460_800, Binning::Two, 0);
    let mut camera = Sg4Camera::new();
    let mut now = Duration::ZERO;
    host.connected(now);
    for piece in data.chunks(17).take(400) {
        now += Duration::from_millis(u64::from(piece[0]) * 20);
        host.receive(&piece[1..], now);
        camera.receive(&piece[1..], now);
        host.expose(Duration::from_millis(u64::from(piece[0])), true, now);
        if host.deadline().is_some_and(|at| at <= now) {
            host.timeout(now);
        }
        if camera.deadline().is_some_and(|at| at <= now) {
            camera.timeout(now);
        }
        while let Some(bytes) = host.poll_transmit() {
            camera.receive(&bytes, now);
        }
        while let Some(bytes) = camera.poll_transmit() {
            host.receive(&bytes, now);
        }
        while camera.poll_wish().is_some() {}
        while host.poll_event().is_some() {}
    }
});
