//! Sending a backlog to real Apache Kafka, in turns with two peers: a bare librdkafka loop with the
//! same settings that sends the same messages from memory, one transaction an exposure; and
//! librdkafka's own `rdkafka_performance`, without transactions, with messages of the same size, the same
//! acknowledgements and batches, and no compression on either side (its messages are one letter
//! repeated).
//!
//! `cargo bench --bench catch_up`; needs java and mvn, and says so where they are missing.
//! `NIGHTJAR_RDKAFKA_PERFORMANCE` names the tool; `packaging/bench` builds it from the sources that
//! come with rdkafka-sys.

#[path = "../tests/support/kafka.rs"]
mod kafka;

use std::error::Error;
use std::process::Command;
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

/// Seconds that librdkafka's own tool says it took; `None` where there is no tool.
fn tool(bootstrap: &str, topic: &str) -> Result<Option<f64>, Box<dyn Error>> {
    let Some(program) = std::env::var_os("NIGHTJAR_RDKAFKA_PERFORMANCE") else { return Ok(None) };
    let (count, bytes) = ((EXPOSURES * ALERTS).to_string(), BYTES.to_string());
    let mut command = Command::new(program);
    command.args(["-P", "-q", "-a", "-1", "-t", topic, "-b", bootstrap, "-c", &count, "-s", &bytes]);
    for property in [
        "enable.idempotence=true",
        "linger.ms=20",
        "batch.size=1000000",
        "queue.buffering.max.kbytes=65536",
        "partitioner=murmur2_random",
    ] {
        command.args(["-X", property]);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // `% 6000 messages produced (360000000 bytes), 6000 delivered (offset 0, 0 failed) in 2345ms: …`
    let said = text.lines().rev().find_map(|line| {
        let (front, rest) = line.split_once("ms: ")?;
        line.contains(&format!("{count} delivered")).then_some(())?;
        Some((front.rsplit(' ').next()?.parse::<f64>().ok()? / 1e3, rest))
    });
    said.map(|(seconds, _)| Some(seconds)).ok_or_else(|| format!("rdkafka_performance said: {text}").into())
}

/// Seconds to introduce the producer and read the cursor, and seconds from then to the last commit.
fn ours(bootstrap: &str, messages: &[Message], codec: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default())?);
    for n in 0..EXPOSURES {
        spool.append(&ExposureId::from_stored(format!("e{n}")), messages)?;
    }
    let parameters = UplinkParameters {
        brokers: vec![bootstrap.into()],
        topics: TopicParameters { replication: 1, ..Default::default() },
        extra: vec![("compression.codec".into(), codec.into())],
        ..Default::default()
    };
    let watch = Stopwatch::start();
    let uplink = Uplink::start(parameters, spool)?;
    while uplink.status().sessions == 0 && watch.seconds() < 60.0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let introduced = watch.seconds();
    if !uplink.drain(Duration::from_secs(600)) {
        return Err(format!("{:?}", uplink.status()).into());
    }
    Ok((introduced, watch.seconds() - introduced))
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(kafka) = Kafka::start() else { return Ok(()) };
    let topic = "nightjar_20261124_programid1";
    let messages = exposure(topic);
    let megabytes = (EXPOSURES * ALERTS * BYTES) as f64 / 1e6;
    let bootstrap = kafka.bootstrap();
    ours(&bootstrap, &messages[..1], "zstd")?;
    let (mut bare_s, mut ours_s, mut tool_s, mut plain_s, mut start_s) =
        (f64::MAX, f64::MAX, f64::MAX, f64::MAX, f64::MAX);
    for round in 0..ROUNDS {
        bare_s = bare_s.min(bare(&bootstrap, round, &messages)?);
        let (introduced, sent) = ours(&bootstrap, &messages, "zstd")?;
        (start_s, ours_s) = (start_s.min(introduced), ours_s.min(sent));
        if let Some(seconds) = tool(&bootstrap, topic)? {
            tool_s = tool_s.min(seconds);
            plain_s = plain_s.min(ours(&bootstrap, &messages, "none")?.1);
        }
    }
    println!(
        "best of {ROUNDS}, each after its producer was introduced ({start_s:.2} s for Nightjar); the aim is 0.80 of the peer"
    );
    println!("bare loop, from memory, zstd: {:.0} MB/s", megabytes / bare_s);
    println!("Nightjar, from disk, zstd: {:.0} MB/s, ratio {:.2}", megabytes / ours_s, bare_s / ours_s);
    if tool_s < f64::MAX {
        println!("rdkafka_performance, uncompressed: {:.0} MB/s", megabytes / tool_s);
        println!("Nightjar, from disk, uncompressed: {:.0} MB/s, ratio {:.2}", megabytes / plain_s, tool_s / plain_s);
    } else {
        println!("rdkafka_performance: not run, NIGHTJAR_RDKAFKA_PERFORMANCE does not name it (see packaging/bench)");
    }
    Ok(())
}
