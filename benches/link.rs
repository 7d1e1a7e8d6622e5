//! The host's side of the readout link: bytes of a frame of 3072×3080 from the line to pixels, on one
//! core. It must keep up with 40 MB/s.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nightjar::camera::link::{
    Camera, CameraParameters, Caps, Event, Expose, Host, HostParameters, Picture, Purpose, Wish, plain_begin,
};

const SIZE: (u32, u32) = (3072, 3080);

/// Everything that a camera sends for one frame to a host that is content, in pieces as a port reads them.
fn recorded() -> Vec<Vec<u8>> {
    let mut seed = 1_u32;
    let bytes: Arc<[u8]> = (0..SIZE.0 * SIZE.1 * 2)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .collect();
    let caps = Caps {
        width: SIZE.0,
        height: SIZE.1,
        bits: 16,
        exposes: true,
        memory: 2,
        block_bytes: 4096,
        ..Caps::default()
    };
    let mut camera = Camera::new(CameraParameters { session: 1, highest: 0, caps, readout: Duration::ZERO });
    let mut host = Host::new(HostParameters::default());
    let (mut now, mut line, mut out) = (Duration::ZERO, Vec::new(), Vec::new());
    host.connected(now);
    loop {
        now += Duration::from_millis(1);
        while let Some(packet) = host.poll_transmit() {
            camera.receive(&packet, now);
        }
        camera.trigger(Expose { exposure_us: 0, purpose: Purpose::Light }, now);
        camera.timeout(now);
        while let Some(wish) = camera.poll_wish() {
            if let Wish::Read { frame } = wish {
                let begin = plain_begin(SIZE.0, SIZE.1, Purpose::Light);
                camera.store(frame, Picture { begin, bytes: bytes.clone(), utc_us: None });
            }
        }
        while let Some(packet) = camera.poll_transmit(now) {
            host.receive(&packet, now);
            line.extend_from_slice(&packet);
        }
        while let Some(event) = host.poll_event() {
            if matches!(event, Event::Frame(_)) {
                out.extend(line.chunks(65_536).map(<[u8]>::to_vec));
                return out;
            }
        }
    }
}

fn receive(pieces: &[Vec<u8>]) -> usize {
    let mut host = Host::new(HostParameters::default());
    host.connected(Duration::ZERO);
    for piece in pieces {
        host.receive(piece, Duration::ZERO);
        while host.poll_transmit().is_some() {}
    }
    std::iter::from_fn(|| host.poll_event())
        .find_map(|event| match event {
            Event::Frame(frame) => Some(frame.pixels.len()),
            _ => None,
        })
        .unwrap_or(0)
}

fn link(criterion: &mut Criterion) {
    let pieces = recorded();
    let bytes: usize = pieces.iter().map(Vec::len).sum();
    assert_eq!(receive(&pieces), (SIZE.0 * SIZE.1) as usize, "the frame comes out");
    let mut group = criterion.benchmark_group("readout link, host");
    group.sample_size(10).throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("a frame of 3072x3080", |bench| bench.iter(|| receive(black_box(&pieces))));
    group.finish();
}

criterion_group!(benches, link);
criterion_main!(benches);
