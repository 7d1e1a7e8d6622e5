//! Promise: `nightjar check` proves the way to Kafka by going it once. With the documented
//! permissions nothing is at fault; without any single one it is named with the command that gives
//! it; mirrors may read and strangers may not; and what is wrong with brokers, certificates and
//! topics is told with what to do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/kafka.rs"]
mod kafka;

use std::time::Duration;

use kafka::Kafka;
use nightjar::service::clock;
use nightjar::service::finding::{Finding, Severity};
use nightjar::uplink::check::{self, Asked};
use nightjar::uplink::{Security, TlsParameters, TopicParameters, UplinkParameters};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

const CONFIGS: &str = "kafka.admin.ConfigCommand";
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const TONIGHT: &str = "nightjar_20261124_programid1";

/// The permissions that the README lists, one each, and how a finding names them. Describe is not
/// among them: Kafka's authorizer grants it with Read and with Write.
const PERMISSIONS: [(&str, &str); 6] = [
    (
        "--operation Write --transactional-id nightjar- --resource-pattern-type prefixed",
        "Write on the transactional id nightjar-*",
    ),
    ("--operation Read --topic observatory_cursor", "Read on the topic observatory_cursor"),
    ("--operation Write --topic observatory_cursor", "Write on the topic observatory_cursor"),
    ("--operation Create --topic observatory_cursor", "Create on the topic observatory_cursor"),
    ("--operation Write --topic nightjar_ --resource-pattern-type prefixed", "Write on the topics nightjar_*"),
    ("--operation Create --topic nightjar_ --resource-pattern-type prefixed", "Create on the topics nightjar_*"),
];

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn parameters(kafka: &Kafka) -> UplinkParameters {
    UplinkParameters {
        brokers: vec![kafka.secure_bootstrap()],
        topics: TopicParameters { partitions: 4, replication: 1, ..Default::default() },
        cursor_topic: "observatory_cursor".into(),
        security: Security::SaslTls {
            tls: TlsParameters { ca_file: Some(kafka.ca_file()), ..Default::default() },
            mechanism: "SCRAM-SHA-512".into(),
            username: "nightjar".into(),
            password: kafka::PASSWORD.into(),
        },
        ..Default::default()
    }
}

fn findings(parameters: &UplinkParameters) -> Vec<Finding> {
    let now_s = clock::now().unix_seconds() as i64;
    let asked = Asked { prefix: "nightjar", topic: TONIGHT, user: "nightjar", name: "test", now_s };
    check::cluster(parameters, &asked)
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

fn faults(findings: &[Finding]) -> Vec<String> {
    findings.iter().filter(|f| f.severity == Severity::Fault).map(ToString::to_string).collect()
}

#[test]
fn each_missing_permission_is_named_with_the_command_that_gives_it() {
    let Some(kafka) = Kafka::start_secure() else { return };
    for (permission, _) in PERMISSIONS {
        kafka.allow(&words(permission));
    }
    let all = findings(&parameters(&kafka));
    println!("{}", lines(&all));
    assert!(faults(&all).is_empty(), "{}", lines(&all));
    for wanted in [
        "is Kafka 4.1",
        "is good until",
        "lets this account in",
        "an alert of 4 MB goes through",
        "may do all that is needed",
    ] {
        assert!(lines(&all).contains(wanted), "no {wanted:?} in\n{}", lines(&all));
    }
    for (permission, name) in PERMISSIONS {
        kafka.disallow(&words(permission));
        let without = faults(&findings(&parameters(&kafka)));
        assert!(
            without.iter().any(|line| line.contains(name) && line.contains("kafka-acls.sh --add")),
            "{name}: {without:#?}"
        );
        let others = PERMISSIONS.iter().filter(|(_, other)| *other != name);
        for (_, other) in others {
            assert!(
                !without.iter().any(|line| line.contains(other)),
                "{name} is missing and {other} is named: {without:#?}"
            );
        }
        kafka.allow(&words(permission));
    }

    // A topic that somebody made otherwise is told of and left as it is.
    kafka.tool(TOPICS, &["--create", "--topic", TONIGHT, "--partitions", "2", "--replication-factor", "1"]);
    let other = lines(&findings(&parameters(&kafka)));
    assert!(
        other.contains("2 partitions instead of 4") && other.contains("may not be read by this account"),
        "{other}"
    );
    kafka.allow(&words("--operation DescribeConfigs --topic nightjar_ --resource-pattern-type prefixed"));
    let other = lines(&findings(&parameters(&kafka)));
    assert!(other.contains("message.timestamp.type=CreateTime instead of LogAppendTime"), "{other}");

    // The mirrors may read, a stranger may not.
    for user in ["mirror", "stranger"] {
        let config = format!("SCRAM-SHA-512=[password={}]", kafka::PASSWORD);
        kafka.tool(CONFIGS, &["--alter", "--entity-type", "users", "--entity-name", user, "--add-config", &config]);
    }
    kafka.allow_user("mirror", &words("--operation Read --topic nightjar_ --resource-pattern-type prefixed"));
    // Both may have a group of readers: the topic decides.
    kafka.allow_user("mirror", &words("--operation Read --group mirror"));
    kafka.allow_user("stranger", &words("--operation Read --group stranger"));
    assert!(reads(&kafka, "mirror").is_ok());
    assert_eq!(reads(&kafka, "stranger"), Err(RDKafkaErrorCode::TopicAuthorizationFailed));
}

/// Whether a user may read the topic of the checks, which holds a record.
fn reads(kafka: &Kafka, user: &str) -> Result<(), RDKafkaErrorCode> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.secure_bootstrap())
        .set("security.protocol", "sasl_ssl")
        .set("ssl.ca.location", kafka.ca_file().display().to_string())
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", user)
        .set("sasl.password", kafka::PASSWORD)
        .set("group.id", user)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    // Read brings the sight of a topic with it: who may not see it may not read it.
    let seen = consumer.fetch_metadata(Some("nightjar_check"), Duration::from_secs(15)).unwrap();
    if let Some(refused) = seen.topics().iter().find_map(|topic| topic.error()) {
        return Err(RDKafkaErrorCode::from(refused));
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("nightjar_check", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    for _ in 0..60 {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(_)) => return Ok(()),
            Some(Err(KafkaError::MessageConsumption(code))) => return Err(code),
            _ => {}
        }
    }
    panic!("neither a record nor a refusal for {user}");
}

#[test]
fn brokers_that_are_away_or_protected_otherwise_are_told_apart() {
    // A port that is free now may be another test's broker in a moment: nobody is at that of tcpmux.
    let nobody = 1;
    let away = UplinkParameters { brokers: vec![format!("127.0.0.1:{nobody}")], ..Default::default() };
    let text = lines(&findings(&away));
    assert!(text.contains("nobody answers at 127.0.0.1") && text.contains("check [uplink] brokers"), "{text}");

    let Some(kafka) = Kafka::start_secure() else { return };
    let plain = UplinkParameters { security: Security::Plaintext, ..parameters(&kafka) };
    let text = lines(&findings(&plain));
    assert!(text.contains("does not speak Kafka so") && text.contains("[uplink] security"), "{text}");

    let tls = |ca_file| Security::SaslTls {
        tls: TlsParameters { ca_file, ..Default::default() },
        mechanism: "SCRAM-SHA-512".into(),
        username: "nightjar".into(),
        password: "not the password".into(),
    };
    let untrusted = UplinkParameters { security: tls(None), ..parameters(&kafka) };
    let text = lines(&findings(&untrusted));
    assert!(text.contains("TLS with localhost") && text.contains("[uplink] ca_file"), "{text}");

    let wrong = UplinkParameters { security: tls(Some(kafka.ca_file())), ..parameters(&kafka) };
    let text = lines(&findings(&wrong));
    assert!(text.contains("login") && text.contains("sasl_username and the password credential"), "{text}");

    // One of two brokers that is away is a warning: the night goes on.
    let half = UplinkParameters {
        brokers: vec![kafka.bootstrap(), format!("127.0.0.1:{nobody}")],
        security: Security::Plaintext,
        topics: TopicParameters { replication: 3, ..Default::default() },
        ..Default::default()
    };
    let text = lines(&findings(&half));
    assert!(text.contains("warning broker") && !text.contains("FAULT   broker"), "{text}");
    assert!(text.contains("the cluster has 1 brokers, [uplink] replication asks for 3"), "{text}");
}
