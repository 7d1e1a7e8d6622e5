//! Sending a backlog to real Apache Kafka, beside a bare librdkafka loop with the same settings
//! that sends the same messages from memory in transactions of the same size, in turns.
//!
//! `cargo bench --bench catch_up`; needs java and mvn, and says so where they are missing.

#[path = "../tests/support/kafka.rs"]
mod kafka;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use kafka::Kafka;
use nightjar::exposure::ExposureId;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Message, Spool, SpoolParameters};
use nightjar::uplink::{TopicParameters, Uplink, UplinkParameters};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

const EXPOSURES: usize = 6;
const ALERTS: usize = 1000;
const BYTES: usize = 60_000;
const ROUNDS: usize = 3;

fn exposure(topic: &str) -> Vec<Message> {
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    // Half of a packet is compressed cut-outs, half is schema and repeated names.
    (0..ALERTS)
        .map(|i| Message {
            topic: topic.into(),
            key: format!("NJR26{i:07}").into_bytes(),
            headers: Vec::new(),
            payload: (0..BYTES).map(|j| if j < BYTES / 2 { noise() } else { (j % 251) as u8 }).collect(),
        })
        .collect()
}

fn bare(bootstrap: &str, round: usize, messages: &[Message]) -> Result<f64, Box<dyn Error>> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", format!("bare-{round}"))
        .set("compression.codec", "zstd")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("partitioner", "murmur2_random")
        .create()?;
    producer.init_transactions(Duration::from_secs(60))?;
    let watch = Stopwatch::start();
    for _ in 0..EXPOSURES {
        producer.begin_transaction()?;
        for message in messages {
            let mut record = BaseRecord::to(&message.topic).key(&message.key).payload(&message.payload);
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        record = back;
                        producer.poll(Duration::from_millis(5));
                    }
                    Err((error, _)) => return Err(error.into()),
                }
            }
        }
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(5));
        }
        producer.commit_transaction(Duration::from_secs(60))?;
    }
    Ok(watch.seconds())
}

fn ours(bootstrap: &str, messages: &[Message]) -> Result<f64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default())?);
    for n in 0..EXPOSURES {
        spool.append(&ExposureId::from_stored(format!("e{n}")), messages)?;
    }
    let parameters = UplinkParameters {
        brokers: vec![bootstrap.into()],
        topics: TopicParameters { replication: 1, ..Default::default() },
        ..Default::default()
    };
    let watch = Stopwatch::start();
    let uplink = Uplink::start(parameters, spool)?;
    if !uplink.drain(Duration::from_secs(600)) {
        return Err(format!("{:?}", uplink.status()).into());
    }
    Ok(watch.seconds())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(kafka) = Kafka::start() else { return Ok(()) };
    let topic = "nightjar_20261124_programid1";
    let messages = exposure(topic);
    let megabytes = (EXPOSURES * ALERTS * BYTES) as f64 / 1e6;
    ours(&kafka.bootstrap(), &messages[..1])?;
    let (mut best_bare, mut best_ours) = (f64::MAX, f64::MAX);
    for round in 0..ROUNDS {
        best_bare = best_bare.min(bare(&kafka.bootstrap(), round, &messages)?);
        best_ours = best_ours.min(ours(&kafka.bootstrap(), &messages)?);
    }
    println!("catch-up from disk, with its start-up: {:.0} MB/s", megabytes / best_ours);
    println!("bare librdkafka loop from memory: {:.0} MB/s", megabytes / best_bare);
    println!("ratio {:.2} (the aim is 0.80)", best_bare / best_ours);
    Ok(())
}
