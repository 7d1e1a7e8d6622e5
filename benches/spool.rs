//! The spool beside the plain writes that it cannot do without, taken in turns in one run; and the
//! time to open it with 2,000 exposures in it.
//!
//! `cargo bench --bench spool`; `NIGHTJAR_BENCH_FOLDER` names a folder on the disk to measure.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use nightjar::exposure::ExposureId;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Message, Spool, SpoolParameters};

const ALERTS: usize = 1000;
const BYTES: usize = 60_000;
const ROUNDS: usize = 12;
const SEGMENTS: usize = 2000;

fn exposure() -> Vec<Message> {
    let noise = |i: usize| (0..BYTES).map(move |j| (((i * 31 + j) * 2_654_435_761) >> 13) as u8).collect();
    (0..ALERTS)
        .map(|i| Message {
            topic: "nightjar_20261124_programid1".into(),
            key: format!("NJR26{i:07}").into_bytes(),
            headers: vec![("exposure".into(), b"20261124-031522.120".to_vec())],
            payload: noise(i),
        })
        .collect()
}

/// The least that durability costs: one file, written in pieces of 1 MiB, synchronised, renamed,
/// its folder synchronised.
fn plain(folder: &Path, round: usize, bytes: &[u8]) -> std::io::Result<()> {
    let (fresh, name) = (folder.join("plain.tmp"), folder.join(format!("plain{round}")));
    let mut file = File::create(&fresh)?;
    for piece in bytes.chunks(1 << 20) {
        file.write_all(piece)?;
    }
    file.sync_all()?;
    fs::rename(&fresh, &name)?;
    File::open(folder)?.sync_all()?;
    fs::remove_file(&name)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::var_os("NIGHTJAR_BENCH_FOLDER").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(&base)?;
    let spool = Spool::open(&folder.path().join("spool"), SpoolParameters { keep_sent_hours: 0.0 })?;
    let messages = exposure();
    let bytes: Vec<u8> = messages.iter().flat_map(|m| m.payload.clone()).collect();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let watch = Stopwatch::start();
        plain(folder.path(), round, &bytes)?;
        floor.push(watch.seconds());
        let watch = Stopwatch::start();
        let receipt = spool.append(&ExposureId::from_stored(format!("e{round}")), &messages)?;
        ours.push(watch.seconds());
        spool.settle(&[(receipt.sequence, receipt.alerts)], 0)?;
        spool.trim(1)?;
    }
    let (ours, floor) = (median(ours), median(floor));
    let megabytes = bytes.len() as f64 / 1e6;
    println!("spool append: {ALERTS} alerts of {BYTES} bytes durable in {ours:.3} s, {:.0} MB/s", megabytes / ours);
    println!("plain writes with the same fsyncs: {floor:.3} s, {:.0} MB/s", megabytes / floor);
    println!("ratio {:.2} (the aim is 0.80)", floor / ours);
    drop(spool);

    let many = folder.path().join("many");
    let spool = Spool::open(&many, SpoolParameters::default())?;
    for n in 0..SEGMENTS {
        spool.append(&ExposureId::from_stored(format!("e{n}")), &messages[..2])?;
    }
    drop(spool);
    let watch = Stopwatch::start();
    let spool = Spool::open(&many, SpoolParameters::default())?;
    println!("opening with {} exposures: {:.3} s (the aim is 1 s)", spool.status().waiting_exposures, watch.seconds());
    Ok(())
}
