//! What comes after the observatory's broker: how fast the archive takes alerts of real size from a real Kafka on
//! loopback (the aim is 60 MB/s of messages), and how many of them a filter in Python decodes and judges on one core
//! (the aim is 1,500 a second). Best of three.
//!
//! `cargo bench --bench downstream`; needs java, mvn and the tests' Python, and says so where they are missing.

#[path = "../tests/support/beside.rs"]
mod beside;
#[path = "../tests/support/kafka.rs"]
mod kafka;
#[path = "../tests/packets/mod.rs"]
mod packets;
#[path = "../tests/support/real_size.rs"]
mod real_size;

use std::error::Error;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kafka::Kafka;
use nightjar::archive::{Codec, Plan, follow};
use nightjar::exposure::ExposureId;
use nightjar::service::shutdown::Shutdown;
use nightjar::spool::{Spool, SpoolParameters};
use nightjar::uplink::{TopicParameters, Uplink, UplinkParameters};
use rdkafka::config::ClientConfig;
use real_size::Exposure;

const TOPIC: &str = "nightjar_20261124_programid1";
const EXPOSURES: u64 = 8;
const ALERTS: usize = 1000;
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let exposure = Exposure::of(ALERTS, TOPIC);
    let size = exposure.mean_bytes();
    filters(&exposure)?;
    let Some(kafka) = Kafka::start() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let spool = Arc::new(Spool::open(&folder.path().join("spool"), SpoolParameters { keep_sent_hours: 0.0 })?);
    for n in 0..EXPOSURES {
        spool.append(&ExposureId::from_stored(format!("e{n}")), &exposure.messages(n))?;
    }
    let topics = TopicParameters { replication: 1, ..Default::default() };
    let parameters = UplinkParameters { brokers: vec![kafka.bootstrap()], topics, ..Default::default() };
    let uplink = Uplink::start(parameters, spool)?;
    if !uplink.drain(Duration::from_secs(600)) {
        return Err(format!("{:?}", uplink.status()).into());
    }
    drop(uplink);
    for (codec, name) in [(Codec::Deflate, "deflate"), (Codec::Null, "null")] {
        let mut best = 0.0_f64;
        for round in 0..ROUNDS {
            let out = folder.path().join(format!("{name}-{round}"));
            let plan = Plan {
                topics: vec![TOPIC.to_owned()],
                group: format!("{name}-{round}"),
                out: out.clone(),
                codec,
                most_bytes: 256_000_000,
                most_seconds: 60.0,
                to_end: true,
                from_files: false,
            };
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", kafka.bootstrap());
            let done = follow(&config, &plan, &Shutdown::new(), || {})?;
            if done.alerts != EXPOSURES * ALERTS as u64 {
                return Err(format!("{} alerts of {}", done.alerts, EXPOSURES * ALERTS as u64).into());
            }
            best = best.max(done.bytes as f64 / 1e6 / done.seconds);
            std::fs::remove_dir_all(out)?;
        }
        println!(
            "archive/{name}: {best:.0} MB/s of messages of {:.1} kB, durable with index; the aim is 60",
            size / 1e3
        );
    }
    Ok(())
}

/// The package's own measurement, on the same packets.
fn filters(exposure: &Exposure) -> Result<(), Box<dyn Error>> {
    let Some(python) = beside::python() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    for (i, message) in exposure.messages(0).iter().enumerate() {
        std::fs::write(folder.path().join(format!("{i}.avro")), &message.payload)?;
    }
    let home = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/filters");
    for example in ["signal_and_brightness", "young_supernovae"] {
        let output = Command::new(&python)
            .args(["-m", "nightjar_filters", &format!("{home}/examples/{example}.py"), "--check", "--files"])
            .arg(folder.path())
            .env("PYTHONPATH", home)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        println!("filters/{example}: {text}; the aim is 1,500");
    }
    Ok(())
}
