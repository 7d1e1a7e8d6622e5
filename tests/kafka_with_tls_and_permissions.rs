//! Promise: over TLS and SCRAM, with exactly the documented permissions, everything arrives; each
//! permission that is missing is named in the line that the operator reads; a wrong password and
//! an unknown certificate are told apart.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/kafka.rs"]
mod kafka;

use std::sync::Arc;
use std::time::Duration;

use kafka::Kafka;
use nightjar::exposure::ExposureId;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Spool, SpoolParameters};
use nightjar::uplink::{Security, TlsParameters, TopicParameters, Uplink, UplinkParameters};

fn parameters(kafka: &Kafka, password: &str, with_ca: bool) -> UplinkParameters {
    UplinkParameters {
        brokers: vec![kafka.secure_bootstrap()],
        topics: TopicParameters { partitions: 2, replication: 1, ..Default::default() },
        security: Security::SaslTls {
            tls: TlsParameters { ca_file: with_ca.then(|| kafka.ca_file()), ..Default::default() },
            mechanism: "SCRAM-SHA-512".into(),
            username: "nightjar".into(),
            password: password.into(),
        },
        ..Default::default()
    }
}

/// Starts an uplink and waits until it complains; gives the line.
fn complaint(parameters: UplinkParameters, spool: &Arc<Spool>) -> String {
    let uplink = Uplink::start(parameters, spool.clone()).unwrap();
    let watch = Stopwatch::start();
    while watch.seconds() < 60.0 {
        if let Some(line) = uplink.status().last_error {
            return line;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no complaint: {:?}", uplink.status());
}

#[test]
fn each_missing_permission_is_named_and_the_documented_ones_suffice() {
    let Some(kafka) = Kafka::start_secure() else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default()).unwrap());
    spool.append(&ExposureId::from_stored("e1"), &alerts::exposure("e1", 50, 5000)).unwrap();

    let line = complaint(parameters(&kafka, "not the password", true), &spool);
    assert!(line.contains("sasl_username and the password credential"), "{line}");
    let line = complaint(parameters(&kafka, kafka::PASSWORD, false), &spool);
    assert!(line.contains("ca_file"), "{line}");

    let right = || parameters(&kafka, kafka::PASSWORD, true);
    let line = complaint(right(), &spool);
    assert!(line.contains("transactional id"), "{line}");
    kafka.allow(&[
        "--operation",
        "Write",
        "--operation",
        "Describe",
        "--transactional-id",
        "nightjar-",
        "--resource-pattern-type",
        "prefixed",
    ]);
    let line = complaint(right(), &spool);
    assert!(line.contains("nightjar_cursor") && line.contains("Read on the cursor topic"), "{line}");
    kafka.allow(&[
        "--operation",
        "Read",
        "--operation",
        "Write",
        "--operation",
        "Describe",
        "--operation",
        "Create",
        "--topic",
        "nightjar_cursor",
    ]);
    let line = complaint(right(), &spool);
    assert!(line.contains(alerts::TOPIC) && line.contains("Write, Describe and Create"), "{line}");
    kafka.allow(&[
        "--operation",
        "Write",
        "--operation",
        "Describe",
        "--operation",
        "Create",
        "--topic",
        "nightjar_2",
        "--resource-pattern-type",
        "prefixed",
    ]);
    let uplink = Uplink::start(right(), spool.clone()).unwrap();
    assert!(uplink.drain(Duration::from_secs(60)), "{:?}", uplink.status());
    assert_eq!(kafka.read_all(alerts::TOPIC, true).len(), 50);
}
