//! Anything on the line of the readout link, at either end: no panic, bounded memory, bounded output.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nightjar::camera::link::cobs;
use nightjar::camera::link::packet::{Kind, Packet};
use nightjar::camera::link::{Camera, CameraParameters, Caps, Host, HostParameters};

/// The first bytes of each piece say what is done with it: raw bytes, or a payload in a whole packet.
fuzz_target!(|data: &[u8]| {
    let mut host = Host::new(HostParameters { baud: Some(921_600), most_bytes: 1 << 20, ..HostParameters::default() });
    let caps = Caps { width: 8, height: 8, bits: 16, exposes: true, memory: 2, block_bytes: 4096, ..Caps::default() };
    let mut camera = Camera::new(CameraParameters { session: 1, highest: 0, caps, readout: Duration::ZERO });
    let mut now = Duration::ZERO;
    host.connected(now);
    let mut scratch = Vec::new();
    for piece in data.split(|byte| *byte == 0xfe).take(200) {
        now += Duration::from_millis(u64::from(piece.first().copied().unwrap_or(0)) * 10);
        let mut bytes = Vec::new();
        match piece {
            [_, kind, frame, block, session, payload @ ..] if kind % 2 == 1 => {
                let kinds = [
                    Kind::Caps,
                    Kind::Baud,
                    Kind::Config,
                    Kind::Status,
                    Kind::FrameBegin,
                    Kind::Block,
                    Kind::FrameEnd,
                    Kind::Nak,
                    Kind::Credit,
                    Kind::Release,
                    Kind::Error,
                    Kind::Hello,
                    Kind::Expose,
                ];
                let kind = kinds[usize::from(*kind) % kinds.len()];
                let (frame, block, session) = (u32::from(*frame), u32::from(*block), u32::from(*session % 3));
                Packet { kind, sequence: 0, session, frame, block, payload }.write(&mut scratch, &mut bytes);
            }
            raw => cobs::encode(raw, &mut bytes),
        }
        host.receive(&bytes, now);
        host.receive(piece, now);
        camera.receive(&bytes, now);
        host.timeout(now);
        camera.timeout(now);
        while host.poll_transmit().is_some() {}
        while host.poll_event().is_some() {}
        for _ in 0..20 {
            if camera.poll_transmit(now).is_none() {
                break;
            }
        }
        while camera.poll_wish().is_some() {}
        let _ = (host.deadline(), camera.deadline());
    }
});
