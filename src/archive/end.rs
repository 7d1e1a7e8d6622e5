//! Whether a topic is read to its end.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ArchiveError;
use super::follow::{CALL, fault};
use crate::service::clock::Stopwatch;

/// A consumer that looks whether anything comes after positions, one topic at a time: the event of a
/// partition's end does not name the topic.
pub fn probe(config: &ClientConfig) -> Result<BaseConsumer, ArchiveError> {
    let mut config = config.clone();
    config
        .set("client.id", "nightjar-archive")
        .set("group.id", "nightjar-archive-probe")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    config.create().map_err(|error| fault("making the consumer", &error))
}

/// Whether each of these partitions ends at its `next` for readers of committed messages.
pub fn nothing_follows(probe: &BaseConsumer, topic: &str, nexts: &[(i32, i64)]) -> bool {
    let mut list = TopicPartitionList::new();
    for (partition, next) in nexts {
        let offset = if *next == 0 { Offset::Beginning } else { Offset::Offset(*next) };
        if list.add_partition_offset(topic, *partition, offset).is_err() {
            return false;
        }
    }
    if probe.assign(&list).is_err() {
        return false;
    }
    let mut open: BTreeSet<i32> = nexts.iter().map(|(partition, _)| *partition).collect();
    let watch = Stopwatch::start();
    while !open.is_empty() && watch.elapsed() < CALL {
        match probe.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = open.remove(&partition),
            Some(Ok(_)) => return false,
            Some(Err(_)) | None => {}
        }
    }
    open.is_empty()
}
