//! Packets of real size by the million: a thousand are made as a night makes them, with the noise of a real sky in
//! their pictures, and every further exposure is the same with numbers of its own.
#![allow(dead_code, clippy::unwrap_used, reason = "each program uses its part; one that cannot go on fails")]

use std::sync::Arc;

use nightjar::alert::{Alert, packets as make};
use nightjar::detect::Detections;
use nightjar::history::{Past, PriorEpoch};
use nightjar::spool::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::packets::{candidate, detections, parameters, three_visits};

/// Earlier epochs in each packet.
const EPOCHS: usize = 20;

/// An exposure's alerts, and how further ones are made of it.
pub struct Exposure {
    alerts: Vec<Alert>,
    topic: String,
}

impl Exposure {
    /// `count` alerts that go to `topic`.
    pub fn of(count: usize, topic: &str) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let noise = Normal::new(0.0_f32, 12.0).unwrap();
        let candidates = (0..count).map(|_| {
            let flux = 10f64.powf(random.random_range(1.8..4.4));
            let mut one = candidate(random.random_range(40.0..3030.0), random.random_range(40.0..3040.0), flux);
            one.scorr = random.random_range(4.0..40.0);
            let cutouts = one.cutouts.as_mut().unwrap();
            for picture in [&mut cutouts.science, &mut cutouts.template, &mut cutouts.difference] {
                picture.mapv_inplace(|pixel| pixel + noise.sample(&mut random));
            }
            one
        });
        let seen = detections("2026-11-24T03:15:22.12", candidates.collect());
        let alerts = make(&seen, &pasts(&seen, count), &parameters()).unwrap();
        Self { alerts, topic: topic.to_owned() }
    }

    /// Bytes of one packet, the mean.
    pub fn mean_bytes(&self) -> f64 {
        self.alerts.iter().map(|alert| alert.payload.len()).sum::<usize>() as f64 / self.alerts.len() as f64
    }

    /// The messages of exposure `n`: each alert has a number that no other has, also inside the packet.
    pub fn messages(&self, n: u64) -> Vec<Message> {
        let message = |(i, alert): (usize, &Alert)| {
            let number = n * self.alerts.len() as u64 + i as u64;
            let candid = alert.candid + (n as i64 + 1) * 100_000_000;
            let (old, new) = (long(alert.candid), long(candid));
            assert_eq!(old.len(), new.len(), "numbers of another length would move what follows");
            let mut payload = alert.payload.clone();
            let mut found = 0;
            let mut at = 0;
            while let Some(place) = find(&payload[at..], &old) {
                payload[at + place..at + place + new.len()].copy_from_slice(&new);
                (at, found) = (at + place + new.len(), found + 1);
            }
            assert_eq!(found, 2, "the packet and its candidate say the number");
            let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
            Message {
                topic: self.topic.clone(),
                key: format!("{}{}", alert.object_id, n % 50).into_bytes(),
                headers: vec![
                    header("exposure", format!("20261124-{n:09}")),
                    header("candid", candid.to_string()),
                    header("number", number.to_string()),
                ],
                payload,
            }
        };
        self.alerts.iter().enumerate().map(message).collect()
    }
}

/// A past of twenty epochs, a detection in every fourth, as a real object has it.
fn pasts(seen: &Detections, count: usize) -> Vec<Past> {
    let visit = three_visits().remove(0);
    let limit = nightjar::alert::upper_limit(&visit, &parameters());
    let detection = PriorEpoch { candid: Some(1), isdiffpos: Some("t"), magpsf: Some(19.0), ..limit.clone() };
    let epochs: Vec<Arc<PriorEpoch>> =
        (0..EPOCHS).map(|i| Arc::new(if i % 4 == 0 { detection.clone() } else { limit.clone() })).collect();
    let past = |i: usize| Past {
        object_id: format!("NJR26aaaa{i:03}"),
        object_place: (10.0, 41.0),
        epochs: epochs.clone(),
        detections: 6,
        coverages: 21,
        first_jd: seen.exposure.start.jd() - 20.0,
        last_jd: seen.exposure.start.jd(),
    };
    (0..count).map(past).collect()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// An Avro `long`.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}
