//! Promise: the archive holds every alert of its topics once, however often it is killed; damage and full disks
//! are told in one sentence; and the history database comes back from it.
//!
//! `NIGHTJAR_CAMPAIGN=1` kills it fifty times.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/downstream.rs"]
mod downstream;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/loop_disk.rs"]
#[allow(dead_code, reason = "this disk keeps its power")]
mod loop_disk;
mod packets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use downstream::{kills, script, send, send_in_turn, uplink_to, visits};
use kafka::Kafka;
use nightjar::history::{History, Past, Question};

const PROGRAM: &str = env!("CARGO_BIN_EXE_nightjar");
const TOPIC: &str = "njr_20261124_programid1";

fn archive(words: &[&str], out: &Path) -> Output {
    Command::new(PROGRAM).arg("archive").args(words).arg("--out").arg(out).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn files(out: &Path) -> Vec<PathBuf> {
    let night = fs::read_dir(out.join("20261124")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = night.filter(|path| path.extension().is_some_and(|e| e == "avro")).collect();
    files.sort();
    files
}

#[test]
fn kills_neither_lose_nor_double_and_verify_finds_out_who_tampers() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let night = visits(&mut History::in_memory().unwrap(), "2026-11-24", 20, 60);
    let out = folder.path().join("archive");
    let broker = kafka.bootstrap();
    // There is a topic at the beginning; the rest comes while the archive is killed.
    let (first, rest) = night.split_at(1);
    send(&folder.path().join("spool"), uplink_to(broker.clone(), 4), first);
    let pause = Duration::from_secs_f64(0.08 * kills().parse::<f64>().unwrap());
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| send_in_turn(&folder.path().join("spool"), uplink_to(broker.clone(), 4), rest, pause));
        script("archive/campaign.py", &[PROGRAM, &broker, TOPIC, out.to_str().unwrap(), kills()])
    });
    let Some((content, text)) = outcome else { return };
    assert!(content && text.contains("1200 in the topic"), "{text}");
    let flawed = folder.path().join("flawed");
    let words = [PROGRAM, &broker, TOPIC, flawed.to_str().unwrap(), "6", "flawed"];
    let (content, text) = script("archive/campaign.py", &words).unwrap();
    assert!(
        !content && text.contains(" 0 lost") && !text.contains(" 0 twice"),
        "no positions, and nothing twice: {text}"
    );
    let output = archive(&["verify", "--brokers", &broker], &out);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("1200 alerts in the topic, 1200 of them here, 0 missing, 0 twice"),
        "{}",
        said(&output)
    );

    // What was twice is found: a file that is there again under another name.
    let copy = out.join("20261124").join(format!("{TOPIC}-000999.avro"));
    fs::copy(&files(&out)[0], &copy).unwrap();
    let output = archive(&["verify", "--brokers", &broker], &out);
    assert!(!output.status.success() && !said(&output).contains(" 0 twice"), "{}", said(&output));
    fs::remove_file(&copy).unwrap();

    // A byte that has changed is found, and a file that is cut; the way out that is named fetches it again.
    let victim = files(&out)[0].clone();
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() - bytes.len() / 4;
    bytes[middle] ^= 0x10;
    fs::write(&victim, &bytes).unwrap();
    let output = archive(&["verify"], &out);
    assert!(!output.status.success() && said(&output).contains("000001.avro"), "{}", said(&output));
    fs::write(&victim, &bytes[..middle]).unwrap();
    let output = archive(&["verify"], &out);
    assert!(!output.status.success() && said(&output).contains("000001.avro"), "{}", said(&output));
    fs::remove_file(&victim).unwrap();
    let output = archive(&["verify", "--brokers", &broker], &out);
    assert!(!output.status.success() && !said(&output).contains(" 0 missing"), "{}", said(&output));
    let output = archive(&["--brokers", &broker, "--topics", TOPIC, "--from-files", "--to-end"], &out);
    assert!(output.status.success(), "{}", said(&output));
    let output = archive(&["verify", "--brokers", &broker], &out);
    assert!(said(&output).contains("1200 of them here, 0 missing, 0 twice"), "{}", said(&output));
}

#[test]
fn what_is_wrong_is_told_in_one_sentence() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let night = visits(&mut History::in_memory().unwrap(), "2026-11-24", 4, 60);
    send(&folder.path().join("spool"), uplink_to(kafka.bootstrap(), 2), &night);
    let broker = kafka.bootstrap();
    let out = folder.path().join("archive");
    let refused = |words: &[&str], out: &Path, wanted: &[&str]| {
        let output = archive(words, out);
        let text = said(&output);
        let last = text.lines().last().unwrap_or_default();
        assert!(!output.status.success() && wanted.iter().all(|word| last.contains(word)), "{words:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    };
    refused(&["--brokers", &broker, "--topics", "absent"], &out, &["no topic absent", TOPIC]);
    refused(&["--brokers", "127.0.0.1:1"], &out, &["--brokers"]);
    refused(&["verify"], &folder.path().join("nowhere"), &["no folder", "--out"]);
    refused(&["verify", "--night", "20200101"], &out, &["20200101", "--out"]);

    // A message that is no alert is kept aside, and the rest is archived; two processes do not share a folder.
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let mut config = rdkafka::config::ClientConfig::new();
    let producer: BaseProducer = config.set("bootstrap.servers", &broker).create().unwrap();
    producer.send(BaseRecord::to(TOPIC).key("x").payload("no alert at all")).map_err(|e| e.0).unwrap();
    producer.flush(std::time::Duration::from_secs(30)).unwrap();
    let output = archive(&["--brokers", &broker, "--topics", TOPIC, "--to-end"], &out);
    assert!(output.status.success() && said(&output).contains("240 alerts archived"), "{}", said(&output));
    assert_eq!(fs::read_dir(out.join("20261124/refused")).unwrap().count(), 1);
    let lock = nix::fcntl::Flock::lock(fs::File::open(out.join("LOCK")).unwrap(), nix::fcntl::FlockArg::LockExclusive);
    refused(&["--brokers", &broker], &out, &["another nightjar archive writes there", "--out"]);
    drop(lock);

    // A full disk: one sentence, and with room it goes on and holds each alert once.
    let Some(disk) = loop_disk::LoopDisk::new(12) else { return };
    let (full, ballast) = (disk.folder().join("archive"), disk.folder().join("ballast"));
    fs::create_dir_all(&full).unwrap();
    let left = nix::sys::statvfs::statvfs(&disk.folder()).unwrap();
    let free = left.blocks_free() * left.fragment_size();
    fs::write(&ballast, vec![1; (free.saturating_sub(700_000)) as usize]).unwrap();
    let words = ["--brokers", &broker, "--topics", TOPIC, "--to-end", "--group", "full"];
    refused(&words, &full, &["the disk is full", "make room"]);
    fs::remove_file(&ballast).unwrap();
    let output = archive(&words, &full);
    assert!(output.status.success(), "{}", said(&output));
    let output = archive(&["verify", "--brokers", &broker], &full);
    assert!(said(&output).contains("240 of them here, 0 missing, 0 twice"), "{}", said(&output));
}

/// What a history answers for the places of a later exposure.
fn pasts(history: &History, code: &str) -> Vec<Past> {
    let later = packets::exposure("2026-11-26T05:00:00");
    let places: Vec<(f64, f64)> = (0..60)
        .map(|i| packets::sky(60.0 + (i * 131 % 2900) as f64, 60.0 + (i * 577 % 2950) as f64))
        .chain([packets::sky(1000.0, 30.0), packets::sky(-40.0, 1000.0)])
        .collect();
    history.look_up(&places, &Question::about(&later, code, 30.0)).unwrap()
}

#[test]
fn the_history_comes_back_from_the_archive() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut before = History::in_memory().unwrap();
    for date in ["2026-11-24", "2026-11-25"] {
        let night = visits(&mut before, date, 5, 60);
        send(&folder.path().join(format!("spool{date}")), uplink_to(kafka.bootstrap(), 2), &night);
    }
    let (out, file) = (folder.path().join("archive"), folder.path().join("history.sqlite"));
    let words = ["--brokers", &kafka.bootstrap(), "--topics", "^njr_[0-9]{8}_programid1$", "--to-end"];
    let output = archive(&words, &out);
    assert!(output.status.success() && said(&output).contains("600 alerts"), "{}", said(&output));
    let rebuild = || {
        let mut command = Command::new(PROGRAM);
        command.args(["history", "rebuild", "--from"]).arg(&out).arg("--out").arg(&file).output().unwrap()
    };
    let output = rebuild();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("600 detections, 10 exposures, the frame of 10 of them known"), "{}", said(&output));
    let after = History::open(&file).unwrap().history;
    let (wanted, found) = (pasts(&before, packets::CODE), pasts(&after, packets::CODE));
    assert_eq!(wanted[0].detections, 11);
    for (a, b) in wanted.iter().zip(&found) {
        assert_eq!((&a.object_id, a.detections, a.coverages), (&b.object_id, b.detections, b.coverages));
        assert_eq!(a.epochs, b.epochs);
        assert_eq!(a.object_place, b.object_place);
    }
    // What lies off the frame was never covered; a place on it without an alert was, ten times.
    assert_eq!((found[60].coverages, found[61].coverages), (11, 1));
    let again = rebuild();
    assert!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));
}
