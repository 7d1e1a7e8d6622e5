//! Promise: two sites mirror the observatory's stream with Kafka's own MirrorMaker 2 and nothing but the
//! permissions of the manual; each gets what it may have, each alert once; archive and filters run on a
//! mirror; and the time from the durable alert to the reader behind the mirror is measured.
//!
//! The observatory's broker asks for TLS, passwords and permissions. The last line printed is the delay.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/downstream.rs"]
mod downstream;
#[path = "support/kafka.rs"]
mod kafka;
mod packets;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use downstream::{PREFIX, messages, visits};
use kafka::Kafka;
use nightjar::history::History;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Spool, SpoolParameters};
use nightjar::uplink::{Security, TlsParameters, TopicParameters, Uplink, UplinkParameters};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;

const PUBLIC: &str = "njr_20261124_programid1";
const PARTNERS: &str = "njr_20261124_programid2";

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the observatory allows: its own account writes, the mirrors' accounts read, as the manual says.
fn permissions(kafka: &Kafka) {
    let prefixed = ["--resource-pattern-type", "prefixed"];
    let allow = |user: &str, operations: &[&str], what: &[&str]| {
        let words: Vec<&str> =
            operations.iter().flat_map(|one| ["--operation", one]).chain(what.iter().copied()).collect();
        kafka.allow_user(user, &words);
    };
    allow("nightjar", &["Write", "Describe"], &[&["--transactional-id", "nightjar-"], &prefixed[..]].concat());
    allow("nightjar", &["Read", "Write", "Describe", "Create"], &["--topic", "nightjar_cursor"]);
    allow("nightjar", &["Write", "Describe", "Create"], &[&["--topic", PREFIX], &prefixed[..]].concat());
    let words = ["--alter", "--add-config", "SCRAM-SHA-512=[password=mirrors-read]", "--entity-type", "users"];
    kafka.tool("kafka.admin.ConfigCommand", &[&words[..], &["--entity-name", "mirror"]].concat());
    allow("mirror", &["Read", "Describe", "DescribeConfigs"], &[&["--topic", PREFIX], &prefixed[..]].concat());
}

/// The example with this test's addresses and passwords, and one copy of everything.
fn configuration(source: &Kafka, university: &Kafka, cloud: &Kafka) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/mirror-maker-2.properties");
    let lines = fs::read_to_string(example)
        .unwrap()
        .replace("kafka.observatory.example:9092", &source.secure_bootstrap())
        .replace("kafka.university.example:9092", &university.bootstrap())
        .replace("kafka.cloud.example:9092", &cloud.bootstrap())
        .replace("replication.factor = 3", "replication.factor = 1")
        .replace("interval.seconds = 30", "interval.seconds = 3")
        .replace("nightjar_[0-9]", &format!("{PREFIX}_[0-9]"))
        .replace("#observatory.", "observatory.")
        .replace("a-password", "mirrors-read")
        .replace("/etc/kafka/observatory-ca.pem", source.ca_file().to_str().unwrap());
    assert!(lines.contains("observatory.sasl.jaas.config") && lines.contains("mirrors-read"));
    lines
}

fn uplink_parameters(kafka: &Kafka) -> UplinkParameters {
    UplinkParameters {
        brokers: vec![kafka.secure_bootstrap()],
        topics: TopicParameters { partitions: 4, replication: 1, ..Default::default() },
        security: Security::SaslTls {
            tls: TlsParameters { ca_file: Some(kafka.ca_file()), ..Default::default() },
            mechanism: "SCRAM-SHA-512".into(),
            username: "nightjar".into(),
            password: kafka::PASSWORD.into(),
        },
        ..Default::default()
    }
}

/// Reads a topic of a mirror and notes when each alert came, seconds of `watch`.
fn arrivals(bootstrap: String, watch: Stopwatch, wanted: usize) -> BTreeMap<Vec<u8>, Vec<f64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "behind-the-mirror")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("topic.metadata.refresh.interval.ms", "1000")
        .create()
        .unwrap();
    consumer.subscribe(&[&format!("^{PREFIX}_[0-9]{{8}}_programid1$")]).unwrap();
    let mut seen: BTreeMap<Vec<u8>, Vec<f64>> = BTreeMap::new();
    let begun = Stopwatch::start();
    while seen.len() < wanted && begun.seconds() < 400.0 {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            seen.entry(message.payload().unwrap().to_vec()).or_default().push(watch.seconds());
        }
    }
    seen
}

#[test]
fn each_site_gets_what_it_may_have_once_and_archive_and_filters_run_on_a_mirror() {
    let Some(source) = Kafka::start_secure() else { return };
    let (Some(university), Some(cloud)) = (Kafka::start(), Kafka::start()) else { return };
    permissions(&source);
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(&folder.path().join("spool"), SpoolParameters::default()).unwrap());
    let uplink = Uplink::start(uplink_parameters(&source), spool.clone()).unwrap();
    let night = visits(&mut History::in_memory().unwrap(), "2026-11-24", 24, 40);

    // Two visits before the mirrors run: a night that they come late to, and alerts that only partners may see.
    let mut partners = messages(&night[0]);
    partners.iter_mut().for_each(|message| message.topic = PARTNERS.into());
    spool.append(&night[0].id, &partners).unwrap();
    spool.append(&night[1].id, &messages(&night[1])).unwrap();
    assert!(uplink.drain(Duration::from_secs(120)), "{:?}", uplink.status());
    let file = folder.path().join("mirror.properties");
    fs::write(&file, configuration(&source, &university, &cloud)).unwrap();
    let _maker = Ended(source.run_with("org.apache.kafka.connect.mirror.MirrorMaker", &file));
    let behind = Stopwatch::start();
    while university.read_all(PUBLIC, true).len() < 40 || cloud.read_all(PUBLIC, true).len() < 40 {
        assert!(behind.seconds() < 300.0, "the mirrors do not begin; see {}", source.folder().display());
        std::thread::sleep(Duration::from_secs(2));
    }

    // The night goes on: one visit after the other, and a reader behind each mirror.
    let watch = Stopwatch::start();
    let wanted = (night.len() - 1) * 40;
    let readers: Vec<_> = [&university, &cloud]
        .map(|site| site.bootstrap())
        .into_iter()
        .map(|bootstrap| std::thread::spawn(move || arrivals(bootstrap, watch, wanted)))
        .collect();
    let mut durable = BTreeMap::new();
    for visit in &night[2..] {
        let messages = messages(visit);
        spool.append(&visit.id, &messages).unwrap();
        durable.extend(messages.into_iter().map(|message| (message.payload, watch.seconds())));
        std::thread::sleep(Duration::from_secs(2));
    }
    for (site, reader) in ["university", "cloud"].into_iter().zip(readers) {
        let seen = reader.join().unwrap();
        assert_eq!(seen.len(), wanted, "{site}");
        assert!(seen.values().all(|times| times.len() == 1), "{site} has alerts twice");
        let mut delays: Vec<f64> = durable.iter().map(|(payload, at)| seen[payload][0] - at).collect();
        delays.sort_by(f64::total_cmp);
        let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize];
        println!(
            "behind the mirror of the {site}: median {:.2} s, 95 % {:.2} s, worst {:.2} s after the alert was durable ({} alerts)",
            at(0.5),
            at(0.95),
            at(1.0),
            delays.len()
        );
    }
    assert_eq!(university.read_all(PARTNERS, true).len(), 40, "the university may have the partners' alerts");
    assert!(cloud.read_all(PARTNERS, true).is_empty(), "the public site must not have them");
    assert!(cloud.read_all("nightjar_cursor", true).is_empty());

    // The archive and a filter on the mirror.
    let out = folder.path().join("archive");
    let archive = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightjar"));
        command.arg("archive").args(words).args(["--brokers", &university.bootstrap(), "--out"]).arg(&out);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    archive(&["--to-end", "--topics", &format!("^{PREFIX}_[0-9]{{8}}_programid[0-9]$")]);
    let text = archive(&["verify"]);
    assert!(
        text.contains(&format!("{wanted} alerts in the topic, {wanted} of them here, 0 missing, 0 twice")),
        "{text}"
    );
    assert!(text.contains("40 alerts in the topic, 40 of them here"), "{text}");
    let alerts = folder.path().join("alerts");
    downstream::write(&alerts, &night[1..]);
    let words = [&university.bootstrap(), PUBLIC, alerts.to_str().unwrap(), "2"];
    let Some((content, text)) = downstream::script("filters/campaign.py", &words) else { return };
    assert!(content, "{text}");
}
