//! A night of real packets in a real Kafka, sent by spool and uplink; and the scripts that judge what
//! becomes of them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses its part; one that cannot go on fails"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nightjar::alert::{Alert, AlertParameters};
use nightjar::exposure::ExposureId;
use nightjar::history::History;
use nightjar::spool::{Message, Spool, SpoolParameters};
use nightjar::uplink::{TopicParameters, Uplink, UplinkParameters};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::beside;
use crate::packets::{candidate, detections, night, parameters};

/// The first word of the topics.
pub const PREFIX: &str = "njr";

/// An exposure and its alerts.
pub struct Visit {
    /// Its name.
    pub id: ExposureId,
    /// What it made.
    pub alerts: Vec<Alert>,
}

/// Visits of one night, `count` alerts each; brightness and signal drawn. The visits of a night see the same
/// places, so that later packets carry earlier detections. `history` goes on from night to night.
pub fn visits(history: &mut History, date: &str, exposures: usize, count: usize) -> Vec<Visit> {
    let mut random = ChaCha8Rng::seed_from_u64(date.bytes().map(u64::from).sum());
    let parameters = AlertParameters { topic_prefix: PREFIX.into(), ..parameters() };
    (0..exposures)
        .map(|n| {
            let candidates = (0..count).map(|i| {
                let place = (60.0 + (i * 131 % 2900) as f64, 60.0 + (i * 577 % 2950) as f64);
                let mag: f64 = random.random_range(15.0..21.5);
                let sign = if i % 5 == 4 { -1.0 } else { 1.0 };
                let mut one = candidate(place.0, place.1, sign * 10f64.powf(0.4 * (26.0 - mag)));
                one.scorr = sign * random.random_range(4.0..40.0);
                // Where the frame is must be told by positions that are as good as measured ones.
                one.edge_distance = (place.0 + 0.5).min(place.1 + 0.5).min(3071.5 - place.0).min(3079.5 - place.1);
                one
            });
            let seen = detections(&format!("{date}T{:02}:{:02}:00", 3 + n / 60, n % 60), candidates.collect());
            Visit { id: seen.exposure.id.clone(), alerts: night(history, &seen, &parameters).1 }
        })
        .collect()
}

/// The messages of a visit, as the daemon makes them.
pub fn messages(visit: &Visit) -> Vec<Message> {
    let message = |alert: &Alert| Message {
        topic: alert.topic.clone(),
        key: alert.key.clone(),
        headers: alert.headers.clone(),
        payload: alert.payload.clone(),
    };
    visit.alerts.iter().map(message).collect()
}

/// Parameters of an uplink to one broker.
pub fn uplink_to(bootstrap: String, partitions: i32) -> UplinkParameters {
    UplinkParameters {
        brokers: vec![bootstrap],
        topics: TopicParameters { partitions, replication: 1, ..Default::default() },
        ..Default::default()
    }
}

/// Sends visits through a spool in `folder`.
pub fn send(folder: &Path, parameters: UplinkParameters, visits: &[Visit]) {
    send_in_turn(folder, parameters, visits, Duration::ZERO);
}

/// The same, with a pause after each.
pub fn send_in_turn(folder: &Path, parameters: UplinkParameters, visits: &[Visit], pause: Duration) {
    let spool = Arc::new(Spool::open(folder, SpoolParameters::default()).unwrap());
    let uplink = Uplink::start(parameters, spool.clone()).unwrap();
    for visit in visits {
        spool.append(&visit.id, &messages(visit)).unwrap();
        std::thread::sleep(pause);
    }
    assert!(uplink.drain(Duration::from_secs(300)), "{:?}", uplink.status());
}

/// The packets as files, one folder.
pub fn write(folder: &Path, visits: &[Visit]) -> usize {
    std::fs::create_dir_all(folder).unwrap();
    let mut count = 0;
    for alert in visits.iter().flat_map(|visit| &visit.alerts) {
        std::fs::write(folder.join(format!("{}.avro", alert.candid)), &alert.payload).unwrap();
        count += 1;
    }
    count
}

/// Runs a script of `tests`, prints its words, and says whether it was content. `None` without Python.
pub fn script(name: &str, words: &[&str]) -> Option<(bool, String)> {
    let python = beside::python()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let output = Command::new(python).arg(path).args(words).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{name}: {text}");
    Some((output.status.success(), text))
}

/// How often a process is killed: a few times in the suite, fifty in the campaign.
pub fn kills() -> &'static str {
    if std::env::var_os("NIGHTJAR_CAMPAIGN").is_some_and(|v| v == "1") { "50" } else { "8" }
}
