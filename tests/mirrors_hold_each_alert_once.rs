//! Promise: with the example configuration, a mirror made by Kafka's own MirrorMaker 2 holds each
//! alert once and nothing that was aborted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/kafka.rs"]
mod kafka;

use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use kafka::Kafka;
use nightjar::exposure::ExposureId;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Spool, SpoolParameters};
use nightjar::uplink::{TopicParameters, Uplink, UplinkParameters};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const EXPOSURES: usize = 4;
const COUNT: u32 = 50;
const BYTES: usize = 5000;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The example with this test's addresses, one mirror, and one copy of everything.
fn configuration(source: &Kafka, mirror: &Kafka) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/mirror-maker-2.properties");
    fs::read_to_string(example)
        .unwrap()
        .replace("kafka.observatory.example:9092", &source.bootstrap())
        .replace("kafka.university.example:9092", &mirror.bootstrap())
        .replace("clusters = observatory, university, cloud", "clusters = observatory, university")
        .replace("replication.factor = 3", "replication.factor = 1")
        .replace("interval.seconds = 30", "interval.seconds = 3")
        .lines()
        .filter(|line| !line.contains("cloud"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Records of a transaction that is aborted, in the alerts' own topic.
fn abort_some(kafka: &Kafka) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", "somebody-else")
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer.begin_transaction().unwrap();
    for n in 0..50 {
        let alert = alerts::alert("aborted", n, BYTES);
        producer.send(BaseRecord::to(alerts::TOPIC).key(&alert.key).payload(&alert.payload)).map_err(|e| e.0).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    producer.abort_transaction(Duration::from_secs(30)).unwrap();
}

#[test]
fn a_mirror_holds_each_alert_once_and_nothing_aborted() {
    let (Some(source), Some(mirror)) = (Kafka::start(), Kafka::start()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(&folder.path().join("spool"), SpoolParameters::default()).unwrap());
    let parameters = UplinkParameters {
        brokers: vec![source.bootstrap()],
        topics: TopicParameters { partitions: 2, replication: 1, ..Default::default() },
        ..Default::default()
    };
    let uplink = Uplink::start(parameters, spool.clone()).unwrap();
    let file = folder.path().join("mirror.properties");
    fs::write(&file, configuration(&source, &mirror)).unwrap();
    let _maker = Ended(source.run_with("org.apache.kafka.connect.mirror.MirrorMaker", &file));
    for n in 0..EXPOSURES {
        let name = format!("e{n}");
        spool.append(&ExposureId::from_stored(name.as_str()), &alerts::exposure(&name, COUNT, BYTES)).unwrap();
        assert!(uplink.drain(Duration::from_secs(60)), "{:?}", uplink.status());
        abort_some(&source);
    }
    let wanted = EXPOSURES * COUNT as usize;
    assert_eq!(source.read_all(alerts::TOPIC, false).len(), wanted + 50 * EXPOSURES);
    let watch = Stopwatch::start();
    let mut mirrored = Vec::new();
    while mirrored.len() < wanted && watch.seconds() < 150.0 {
        std::thread::sleep(Duration::from_secs(2));
        mirrored = mirror.read_all(alerts::TOPIC, true);
    }
    let counts =
        alerts::tally(mirrored.iter().map(|r| (r.headers.as_slice(), r.key.as_slice(), r.payload.as_slice())), BYTES);
    assert_eq!(counts.len(), wanted);
    assert!(counts.values().all(|n| *n == 1));
    assert!(mirror.read_all("nightjar_cursor", true).is_empty(), "the cursor topic must not be mirrored");
}
