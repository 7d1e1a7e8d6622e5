//! Promise: `nightjar alert --topic` shows the newest alerts of a real topic, Nightjar's and others', as a table, as
//! JSON and as a picture, leaves no trace there, and says in one sentence what cannot be done.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/downstream.rs"]
mod downstream;
#[path = "support/kafka.rs"]
mod kafka;
mod packets;

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use downstream::{Visit, send, uplink_to, visits};
use kafka::Kafka;
use nightjar::history::History;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const TOPIC: &str = "njr_20261124_programid1";
const OTHERS: &str = "others";

fn alert(broker: &str, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nightjar")).args(["alert", "--brokers", broker]).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The numbers of the alerts in lines of JSON.
fn numbers(output: &Output) -> Vec<i64> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["candid"].as_i64().unwrap();
    text(&output.stdout).lines().map(number).collect()
}

fn of(visits: &[Visit]) -> BTreeSet<i64> {
    visits.iter().flat_map(|visit| &visit.alerts).map(|alert| alert.candid).collect()
}

#[test]
fn the_newest_alerts_of_a_topic_are_shown_and_what_is_wrong_is_told() {
    let Some(kafka) = Kafka::start() else { return };
    let broker = kafka.bootstrap();
    let folder = tempfile::tempdir().unwrap();
    let night = visits(&mut History::in_memory().unwrap(), "2026-11-24", 4, 15);
    // Each visit is one transaction, with its marker in every partition that it touches.
    for (i, visit) in night.chunks(1).enumerate() {
        send(&folder.path().join(format!("spool{i}")), uplink_to(broker.clone(), 2), visit);
    }

    // The last visit, no more and no less, whatever its partitions; then all that there is.
    let output = alert(&broker, &["--topic", TOPIC, "--json", "--last", "15"]);
    let found = numbers(&output);
    assert_eq!(found.len(), 15);
    assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), of(&night[3..]));
    let all = numbers(&alert(&broker, &["--topic", TOPIC, "--json", "--last", "1000"]));
    assert_eq!((all.len(), all.iter().copied().collect()), (60, of(&night)));

    // The table, and a picture that is one.
    let sheet = folder.path().join("sheet.png");
    let words = ["--topic", TOPIC, "--last", "30", "--best", "4", "--png", sheet.to_str().unwrap()];
    let output = alert(&broker, &words);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.lines().count() == 5 && table.starts_with("candid"), "{table}");
    let picture = png::Decoder::new(std::io::Cursor::new(std::fs::read(&sheet).unwrap())).read_info().unwrap();
    assert!(picture.info().width > 500, "{}", picture.info().width);

    // No group came into being.
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &broker).create().unwrap();
    let groups = consumer.fetch_group_list(None, Duration::from_secs(30)).unwrap();
    let names: Vec<&str> = groups.groups().iter().map(|group| group.name()).collect();
    assert!(names.is_empty(), "{names:?}");

    // Packets of others beside what is no packet.
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &broker).create().unwrap();
    let (topic, options) = ([NewTopic::new(OTHERS, 1, TopicReplication::Fixed(1))], AdminOptions::new());
    let made = admin.create_topics(&topic, &options);
    tokio::runtime::Runtime::new().unwrap().block_on(made).unwrap()[0].clone().unwrap();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &broker).create().unwrap();
    let give = |payload: &[u8]| {
        producer.send(BaseRecord::to(OTHERS).key("x").payload(payload)).map_err(|e| e.0).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();
    };
    give(b"no alert at all");
    let mut given = 0;
    if let Some(data) = beside::real_data() {
        for packet in [
            "boom-astro+boom/alerts/2695378462115010012.avro",
            "astrolabsoftware+fink-broker/alerts_rubin_v9_0/169298432598474793_169298432598474793.avro",
            "skyportal+kowalski/alerts/3608704.avro",
        ] {
            give(&std::fs::read(data.join(packet)).unwrap());
            given += 1;
        }
    }
    let output = alert(&broker, &["--topic", OTHERS]);
    assert_eq!(output.status.code(), Some(1));
    let lines = if given > 0 { given + 1 } else { 0 };
    assert_eq!(text(&output.stdout).lines().count(), lines, "{}", text(&output.stdout));
    let told = text(&output.stderr);
    assert!(told.contains("offset 0: not an alert packet") && told.contains(&format!("1 of {} messages", given + 1)));

    // What cannot be done.
    let refused = |broker: &str, words: &[&str], wanted: &[&str]| {
        let output = alert(broker, words);
        let told = text(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{told}");
        assert!(told.trim_end().lines().count() == 1 && wanted.iter().all(|word| told.contains(word)), "{told}");
    };
    refused(&broker, &["--topic", "absent"], &["no topic absent", TOPIC]);
    refused("127.0.0.1:1", &["--topic", TOPIC], &["--brokers"]);
}
