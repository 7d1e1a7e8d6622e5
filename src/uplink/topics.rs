//! Topics: made where they are missing and the account may; reported where they differ.

use std::cell::RefCell;
use std::collections::BTreeSet;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::UplinkParameters;
use super::client::{self, Fault, MAX_MESSAGE, SLICE, Watch};
use super::failure::{Class, classify};

/// The topics that a session has seen.
pub struct Topics {
    known: BTreeSet<String>,
    asker: BaseConsumer<Watch>,
}

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A night's alerts.
    Alerts,
    /// The cursors of spools.
    Cursor,
}

impl Topics {
    /// Knows none yet.
    pub fn new(parameters: &UplinkParameters) -> Result<Self, Fault> {
        let asker = client::reader(parameters, true).map_err(|e| Fault::new("making a client", &e))?;
        Ok(Self { known: BTreeSet::new(), asker })
    }

    /// Makes sure that `topic` is there. How it differs from what Nightjar would make is told once:
    /// `reported` outlives the sessions.
    pub fn ensure(
        &mut self,
        parameters: &UplinkParameters,
        topic: &str,
        purpose: Purpose,
        reported: &RefCell<BTreeSet<String>>,
    ) -> Result<(), Fault> {
        if self.known.contains(topic) {
            return Ok(());
        }
        let doing = format!("looking for topic {topic}");
        let fault = |error: &KafkaError| Fault::new(&doing, error);
        let answer = self.asker.fetch_metadata(Some(topic), 10 * SLICE).map_err(|e| fault(&e))?;
        let there = answer.topics().iter().find(|t| t.name() == topic);
        let code = there.and_then(|t| t.error()).map(Code::from);
        let partitions = there.map_or(0, |t| t.partitions().len());
        match code {
            None if partitions > 0 => {
                if !parameters.topics.by_broker && reported.borrow_mut().insert(topic.to_owned()) {
                    let (differences, _) = differences(parameters, topic, purpose, there);
                    if !differences.is_empty() {
                        tracing::warn!(
                            "topic {topic} exists with {}; it is used as it is, kafka-configs.sh changes it",
                            differences.join(", ")
                        );
                    }
                }
            }
            None | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                if !parameters.topics.by_broker {
                    make(parameters, topic, purpose)?;
                }
            }
            // The broker is making it this moment.
            Some(Code::LeaderNotAvailable) => {}
            Some(code) => return Err(Fault { class: classify(code), text: format!("{doing}: {code}") }),
        }
        self.known.insert(topic.to_owned());
        Ok(())
    }
}

/// Settings of a topic that Nightjar makes.
fn settings(parameters: &UplinkParameters, purpose: Purpose) -> Vec<(&'static str, String)> {
    match purpose {
        Purpose::Alerts => vec![
            ("retention.ms", (u64::from(parameters.topics.retention_days) * 86_400_000).to_string()),
            ("message.timestamp.type", "LogAppendTime".into()),
            ("max.message.bytes", MAX_MESSAGE.to_string()),
        ],
        // Read from its beginning at each start: kept short.
        Purpose::Cursor => vec![
            ("cleanup.policy", "compact".into()),
            ("max.message.bytes", MAX_MESSAGE.to_string()),
            ("segment.ms", "3600000".into()),
            ("min.cleanable.dirty.ratio", "0.01".into()),
        ],
    }
}

/// Partitions of a topic that Nightjar makes.
pub fn partitions(parameters: &UplinkParameters, purpose: Purpose) -> i32 {
    match purpose {
        Purpose::Alerts => parameters.topics.partitions,
        Purpose::Cursor => 1,
    }
}

/// Runs the administration client.
pub fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Fault { class: Class::Other, text: format!("starting the administration client: {error}") })
}

fn make(parameters: &UplinkParameters, topic: &str, purpose: Purpose) -> Result<(), Fault> {
    let doing = format!("making topic {topic}");
    let admin: AdminClient<Watch> =
        client::administration(parameters).create_with_context(Watch::default()).map_err(|e| Fault::new(&doing, &e))?;
    let settings = settings(parameters, purpose);
    let replication = TopicReplication::Fixed(parameters.topics.replication);
    let mut new = NewTopic::new(topic, partitions(parameters, purpose), replication);
    for (name, value) in &settings {
        new = new.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(10 * SLICE)).request_timeout(Some(15 * SLICE));
    let results = runtime()?.block_on(admin.create_topics([&new], &options)).map_err(|e| Fault::new(&doing, &e))?;
    for result in results {
        match result {
            Ok(_) => tracing::info!("topic {topic} made with {} partitions", partitions(parameters, purpose)),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                let command = format!(
                    "kafka-topics.sh --create --topic {topic} --partitions {} --replication-factor {}{}",
                    partitions(parameters, purpose),
                    parameters.topics.replication,
                    settings.iter().map(|(n, v)| format!(" --config {n}={v}")).collect::<String>()
                );
                let text = format!("{doing}: {code}; who runs the cluster can make it with `{command}`");
                return Err(Fault { class: classify(code), text });
            }
        }
    }
    Ok(())
}

/// How a topic differs from what Nightjar would make, and whether the account may read its
/// settings; without that, only partitions and copies are compared.
pub fn differences(
    parameters: &UplinkParameters,
    topic: &str,
    purpose: Purpose,
    found: Option<&MetadataTopic>,
) -> (Vec<String>, bool) {
    let mut differences = Vec::new();
    if let Some(found) = found {
        let wanted = partitions(parameters, purpose);
        let there = found.partitions().len();
        if i32::try_from(there) != Ok(wanted) {
            differences.push(format!("{there} partitions instead of {wanted}"));
        }
        let fewest = found.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
        if i32::try_from(fewest) != Ok(parameters.topics.replication) {
            differences.push(format!("{fewest} copies instead of {}", parameters.topics.replication));
        }
    }
    let admin: Result<AdminClient<Watch>, _> = client::administration(parameters).create_with_context(Watch::default());
    let options = AdminOptions::new().request_timeout(Some(5 * SLICE));
    let mut readable = false;
    if let (Ok(admin), Ok(runtime)) = (admin, runtime()) {
        let answer = runtime.block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options));
        for resource in answer.unwrap_or_default().into_iter().flatten() {
            for (name, value) in settings(parameters, purpose) {
                let there = resource.get(name).and_then(|entry| entry.value.clone());
                // An account that may not read them gets an answer without any.
                readable |= there.is_some();
                if let Some(there) = there.filter(|there| *there != value) {
                    differences.push(format!("{name}={there} instead of {value}"));
                }
            }
        }
    }
    (differences, readable)
}
