//! From a frame of 3072×3080 in the watched folder to its alerts with a reader of committed records on real Apache
//! Kafka: `nightjar run` as it is installed, one exposure after the other, each when the one before has been read.
//!
//! `cargo bench --bench to_the_reader`; needs java and mvn, and says so where they are missing. The time begins when
//! the file gets its name in the folder. The first exposure reads the masters and the reference and is not counted.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

#[path = "../tests/support"]
mod support {
    pub mod kafka;
    pub mod night;
    pub mod site;
}

use std::time::Duration;

use nightjar::service::clock::Stopwatch;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use support::kafka::Kafka;
use support::night::{Daemon, wait_until};
use support::site::Site;

const EXPOSURES: usize = 10;
const TOPIC: &str = "nightjar_20261124_programid1";

/// Seconds from the frame's arrival.
struct Timing {
    durable: f64,
    first: f64,
    last: f64,
    alerts: usize,
}

/// How many alerts the daemon said that its exposures made, one number a line of the log.
fn promised(daemon: &Daemon) -> Vec<usize> {
    let said = daemon.said();
    let of_line = |line: &str| line.split_once(" alerts in ")?.0.rsplit(' ').next()?.parse().ok();
    said.lines().filter(|line| line.contains("exposure ")).filter_map(of_line).collect()
}

fn follow(consumer: &BaseConsumer, daemon: &Daemon, number: usize, watch: &Stopwatch) -> Timing {
    let mut timing = Timing { durable: 0.0, first: 0.0, last: 0.0, alerts: 0 };
    loop {
        assert!(watch.seconds() < 120.0, "two minutes without the alerts of an exposure:\n{}", daemon.said());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(2)) {
            assert!(message.payload().is_some_and(|payload| payload.starts_with(b"Obj\x01")));
            timing.last = watch.seconds();
            timing.alerts += 1;
            if timing.alerts == 1 {
                timing.first = timing.last;
            }
            continue;
        }
        if let Some(promised) = promised(daemon).get(number) {
            if timing.durable == 0.0 {
                timing.durable = watch.seconds();
            }
            if *promised == timing.alerts {
                return timing;
            }
        }
    }
}

/// The most memory that the process had resident, MB (`VmHWM` of proc(5)).
fn peak_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

fn median(of: impl Fn(&Timing) -> f64, timings: &[Timing]) -> f64 {
    let mut values: Vec<f64> = timings.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let Some(kafka) = Kafka::start() else { return };
    let uplink = format!("brokers = [\"{}\"]\nreplication = 1", kafka.bootstrap());
    let site = Site::with_frames((3072, 3080), EXPOSURES, &uplink);
    let daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    let consumer = kafka.consumer(true);
    let mut timings = Vec::new();
    for (number, frame) in site.frames.iter().enumerate() {
        let watch = site.drop_in_and_time(frame);
        if number == 0 {
            // The topic comes with the first alert.
            wait_until("the first exposure is done", || promised(&daemon).len() == 1);
            let mut assignment = TopicPartitionList::new();
            for partition in 0..16 {
                assignment.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
            }
            wait_until("the topic is there", || {
                let metadata = consumer.fetch_metadata(Some(TOPIC), Duration::from_secs(10)).unwrap();
                metadata.topics()[0].partitions().len() == 16
            });
            consumer.assign(&assignment).unwrap();
        }
        timings.push(follow(&consumer, &daemon, number, &watch));
    }
    println!("3072 x 3080, {EXPOSURES} exposures, seconds from the file in the folder to");
    println!("              durable  first read   all read    alerts");
    for timing in &timings {
        let Timing { durable, first, last, alerts } = timing;
        println!("            {durable:9.2} {first:11.2} {last:10.2} {alerts:9}");
    }
    let counted = &timings[1..];
    let (durable, last) = (median(|t| t.durable, counted), median(|t| t.last, counted));
    println!("peak of the daemon's memory: {:.0} MB; aimed at are 500, at most 700", peak_mb(daemon.child.id()));
    println!("median without the first: durable {durable:.2} s, all with a reader {last:.2} s; the aim is 3 s");
}
