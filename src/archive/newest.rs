//! The newest messages of a topic, without a group and without leaving a trace.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ArchiveError;
use super::follow::{PATIENCE, fault, no_topic};
use crate::service::clock::Stopwatch;

/// How long the broker may be silent while messages are read.
const SILENCE_S: f64 = 30.0;

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Read {
    /// Partition and offset.
    pub place: (i32, i64),
    /// Milliseconds since 1970 that the topic gave it.
    pub timestamp: i64,
    /// The message.
    pub payload: Vec<u8>,
}

/// The newest `most` committed messages of `topic`, the oldest of them first.
pub fn newest(config: &ClientConfig, topic: &str, most: usize) -> Result<Vec<Read>, ArchiveError> {
    let mut config = config.clone();
    config
        .set("client.id", "nightjar-alert")
        // The client wants a name of a group; it joins none and commits nothing.
        .set("group.id", "nightjar-alert")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", "65536")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().map_err(|error| fault("making the consumer", &error))?;
    let partitions = partitions(&consumer, topic)?;
    // Markers of transactions and what was aborted count among the offsets: where too little is found,
    // the search begins further back.
    let mut width = 2 * most as i64 + 16;
    loop {
        let mut found = Vec::new();
        let mut more = false;
        let mut starts = BTreeMap::new();
        for partition in &partitions {
            let (low, high) = consumer
                .fetch_watermarks(topic, *partition, PATIENCE)
                .map_err(|error| fault("asking for the ends of the topic", &error))?;
            let start = low.max(high - width);
            more |= start > low;
            if start < high {
                starts.insert(*partition, start);
            }
        }
        if !starts.is_empty() {
            read(&consumer, topic, starts, most, &mut found)?;
        }
        if found.len() >= most || !more {
            found.sort_by_key(|one| (one.timestamp, one.place));
            return Ok(found.split_off(found.len().saturating_sub(most)));
        }
        width = width.saturating_mul(4);
    }
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, ArchiveError> {
    let answer = consumer.fetch_metadata(None, PATIENCE).map_err(|error| fault("asking for topics", &error))?;
    match answer.topics().iter().find(|one| one.name() == topic) {
        Some(found) => Ok(found.partitions().iter().map(|partition| partition.id()).collect()),
        None => Err(no_topic(topic, answer.topics().iter().map(|one| one.name()))),
    }
}

/// Reads from `starts` to the end of each partition; of each the last `most` are kept.
fn read(
    consumer: &BaseConsumer,
    topic: &str,
    mut starts: BTreeMap<i32, i64>,
    most: usize,
    found: &mut Vec<Read>,
) -> Result<(), ArchiveError> {
    let mut places = TopicPartitionList::new();
    for (partition, start) in &starts {
        places
            .add_partition_offset(topic, *partition, Offset::Offset(*start))
            .map_err(|error| fault("choosing where to begin", &error))?;
    }
    consumer.assign(&places).map_err(|error| fault("choosing where to begin", &error))?;
    let mut kept: BTreeMap<i32, Vec<Read>> = BTreeMap::new();
    let mut quiet = Stopwatch::start();
    while !starts.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                quiet = Stopwatch::start();
                let of_partition = kept.entry(message.partition()).or_default();
                of_partition.push(Read {
                    place: (message.partition(), message.offset()),
                    timestamp: message.timestamp().to_millis().unwrap_or(0),
                    payload: message.payload().unwrap_or_default().to_vec(),
                });
                if of_partition.len() > 2 * most {
                    of_partition.drain(..most);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                starts.remove(&partition);
            }
            Some(Err(error)) if quiet.seconds() > SILENCE_S => return Err(fault("reading the topic", &error)),
            None if quiet.seconds() > SILENCE_S => {
                let what = format!("{topic}: the broker sends nothing; look at the broker, then try again");
                return Err(ArchiveError::Kafka(what));
            }
            // The client connects again by itself.
            Some(Err(_)) | None => {}
        }
    }
    for mut of_partition in kept.into_values() {
        found.append(&mut of_partition.split_off(of_partition.len().saturating_sub(most)));
    }
    Ok(())
}
