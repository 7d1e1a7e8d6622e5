//! A night of two million alerts, from the disk buffer to everything downstream of it: spool and uplink into a real
//! Kafka, MirrorMaker 2 into a second one, there a group of sixteen readers, a filter in Python and an archive.
//! Counts every alert at every place; prints rates, lags and memory every ten seconds and a table at the end. What
//! the filter passes must be what it passes of the same packets in files; what the archive holds must be what the
//! readers got at the same offsets.
//!
//! Real Apache Kafka with its topics bounded in size, so that the disk holds a night of any length: the sender waits
//! for the slowest reader. `packaging/stress` runs it.
//!
//! | variable | default | |
//! | --- | --- | --- |
//! | `NIGHTJAR_STRESS_ALERTS` | 2000000 | alerts in all |
//! | `NIGHTJAR_STRESS_EXPOSURE` | 1000 | alerts an exposure |
//! | `NIGHTJAR_STRESS_ARCHIVE` | 100000 | alerts that are archived |
//! | `NIGHTJAR_STRESS_LAG` | 20000 | alerts between the sender and the slowest reader |

#[path = "../tests/support/beside.rs"]
mod beside;
#[path = "../tests/support/kafka.rs"]
mod kafka;
#[path = "../tests/packets/mod.rs"]
mod packets;
#[path = "../tests/support/real_size.rs"]
mod real_size;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka::Kafka;
use nightjar::exposure::ExposureId;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Spool, SpoolParameters};
use nightjar::uplink::{TopicParameters, Uplink, UplinkParameters};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Headers, Message};
use real_size::Exposure;

const TOPIC: &str = "nightjar_20261124_programid1";
const PARTITIONS: i32 = 16;
const READERS: usize = 16;
/// ZTF's average rate, MB/s.
const ZTF_RATE: f64 = 1.7;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// How often each alert was read, and where.
struct Counts {
    seen: Vec<AtomicU64>,
    read: AtomicU64,
    twice: AtomicU64,
    bytes: AtomicU64,
    /// Number of the alert at each partition and offset.
    places: Mutex<BTreeMap<(i32, i64), u64>>,
}

impl Counts {
    fn new(alerts: u64) -> Self {
        let seen = (0..alerts.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { seen, read: 0.into(), twice: 0.into(), bytes: 0.into(), places: Mutex::default() }
    }

    fn note(&self, place: (i32, i64), number: u64, bytes: u64) {
        let bit = 1 << (number % 64);
        let Some(word) = self.seen.get((number / 64) as usize) else { return };
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(place, number);
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            self.twice.fetch_add(1, Ordering::Relaxed);
        }
        self.read.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn has(&self, number: u64) -> bool {
        self.seen.get((number / 64) as usize).is_some_and(|word| word.load(Ordering::Relaxed) >> (number % 64) & 1 == 1)
    }

    fn distinct(&self) -> u64 {
        self.seen.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }
}

/// One of the group: reads, counts, commits every second, until it is told to stop.
fn reader(bootstrap: &str, topic: &str, group: &str, counts: &Counts, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "true")
        .set("topic.metadata.refresh.interval.ms", "2000")
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.message.max.bytes", "1000000")
        .create()?;
    consumer.subscribe(&[topic])?;
    let mut commit = Stopwatch::start();
    while !stop.load(Ordering::Relaxed) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
            let text = message.headers().and_then(|headers| headers.iter().find(|h| h.key == "number")?.value);
            let number = text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            let place = (message.partition(), message.offset());
            counts.note(place, number.ok_or("a message without its number")?, message.payload_len() as u64);
        }
        if commit.seconds() > 1.0 {
            commit = Stopwatch::start();
            // Nothing to commit is no fault.
            let _ = consumer.commit_consumer_state(CommitMode::Async);
        }
    }
    Ok(())
}

/// Resident memory of a process, MB.
fn memory(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}

/// The example configuration, to one mirror on this machine.
fn mirror(source: &Kafka, target: &Kafka, folder: &Path) -> Result<Ended, Box<dyn Error>> {
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/mirror-maker-2.properties"))?;
    let lines: Vec<String> = example
        .replace("kafka.observatory.example:9092", &source.bootstrap())
        .replace("kafka.university.example:9092", &target.bootstrap())
        .replace("clusters = observatory, university, cloud", "clusters = observatory, university")
        .replace("replication.factor = 3", "replication.factor = 1")
        .replace("interval.seconds = 30", "interval.seconds = 5")
        .lines()
        .filter(|line| !line.contains("cloud"))
        .map(str::to_owned)
        .chain(["tasks.max = 2".to_owned()])
        .collect();
    let file = folder.join("mirror.properties");
    std::fs::write(&file, lines.join("\n"))?;
    Ok(Ended(source.run_with("org.apache.kafka.connect.mirror.MirrorMaker", &file)))
}

/// The filter of this run.
const FILTER: &str = "examples/signal_and_brightness.py";

/// Which alerts of an exposure the filter passes, by its own word on files.
fn passing(exposure: &Exposure, folder: &Path) -> Result<BTreeSet<u64>, Box<dyn Error>> {
    let Some(python) = beside::python() else { return Ok(BTreeSet::new()) };
    let files = folder.join("packets");
    std::fs::create_dir_all(&files)?;
    let mut numbers = BTreeMap::new();
    for (i, message) in exposure.messages(0).iter().enumerate() {
        std::fs::write(files.join(format!("{i}.avro")), &message.payload)?;
        let candid = message.headers.iter().find(|(name, _)| name == "candid").map(|(_, value)| value.clone());
        numbers.insert(String::from_utf8(candid.ok_or("no candid")?)?, i as u64);
    }
    let home = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/filters");
    let output = Command::new(python)
        .args(["-m", "nightjar_filters", &format!("{home}/{FILTER}"), "--files"])
        .arg(&files)
        .env("PYTHONPATH", home)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let number = |line: &str| numbers.get(line.split_whitespace().nth(2)?).copied();
    let passing = text.lines().map(|line| number(line).ok_or_else(|| format!("no alert of these: {line}")));
    Ok(passing.collect::<Result<_, _>>()?)
}

/// Compares the archive with what the readers got at the same offsets; how many alerts it holds.
fn compare_archive(out: &Path, mirrored: &Counts) -> Result<u64, Box<dyn Error>> {
    // Rows of a file that did not get its name are removed by this.
    nightjar::archive::verify_files(out, None)?;
    let mut archived: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    let index = rusqlite::Connection::open(out.join("20261124/index.sqlite"))?;
    let mut rows = index.prepare("SELECT \"partition\", \"offset\", headers ->> 'number' FROM alerts")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let number: String = row.get(2)?;
        if archived.insert((row.get(0)?, row.get(1)?), number.parse()?).is_some() {
            return Err("the archive has an offset twice".into());
        }
    }
    let places = mirrored.places.lock().unwrap_or_else(PoisonError::into_inner);
    let mut compared = 0;
    for partition in 0..PARTITIONS {
        let of = (partition, i64::MIN)..(partition + 1, i64::MIN);
        let Some((last, _)) = archived.range(of.clone()).next_back() else { continue };
        let read = places.range((partition, i64::MIN)..=*last);
        if !read.eq(archived.range(of)) {
            return Err(format!("partition {partition}: the archive is not what the readers got").into());
        }
        compared += archived.range((partition, i64::MIN)..=*last).count() as u64;
    }
    Ok(compared)
}

/// The filter beside the group, on the mirror.
fn filter(target: &Kafka, folder: &Path) -> Result<Option<Ended>, Box<dyn Error>> {
    let Some(python) = beside::python() else { return Ok(None) };
    let home = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/filters");
    let child = Command::new(python)
        .args(["-m", "nightjar_filters"])
        .arg(format!("{home}/{FILTER}"))
        .args(["--brokers", &target.bootstrap(), "--replication", "1", "--group", "stress-filter"])
        .env("PYTHONPATH", home)
        .env("RUNTIME_DIRECTORY", folder)
        .stderr(std::fs::File::create(folder.join("filter.log"))?)
        .spawn()?;
    Ok(Some(Ended(child)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let alerts = number("NIGHTJAR_STRESS_ALERTS", 2_000_000);
    let each = number("NIGHTJAR_STRESS_EXPOSURE", 1000).min(alerts);
    let most_lag = number("NIGHTJAR_STRESS_LAG", 20_000);
    let wanted_archive = number("NIGHTJAR_STRESS_ARCHIVE", 100_000).min(alerts);
    let exposures = alerts / each;
    let alerts = exposures * each;
    // What a partition may keep: the lag that is allowed, twice, in small segments that are removed soon.
    let keep = (2 * most_lag * 70_000 / PARTITIONS as u64).max(64 << 20);
    let bounds = [
        format!("log.retention.bytes={keep}"),
        "log.segment.bytes=33554432".to_owned(),
        "log.retention.check.interval.ms=2000".to_owned(),
        "log.segment.delete.delay.ms=500".to_owned(),
    ];
    let lines: Vec<&str> = bounds.iter().map(String::as_str).collect();
    let (Some(source), Some(target)) = (Kafka::start_with(&lines), Kafka::start_with(&lines)) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let exposure = Exposure::of(each as usize, TOPIC);
    let megabytes = alerts as f64 * exposure.mean_bytes() / 1e6;
    println!("{alerts} alerts of {:.1} kB, {megabytes:.0} MB", exposure.mean_bytes() / 1e3);

    let spool = Arc::new(Spool::open(&folder.path().join("spool"), SpoolParameters { keep_sent_hours: 0.0 })?);
    let uplink = Uplink::start(
        UplinkParameters {
            brokers: vec![source.bootstrap()],
            topics: TopicParameters { partitions: PARTITIONS, replication: 1, ..Default::default() },
            ..Default::default()
        },
        spool.clone(),
    )?;
    let passing = passing(&exposure, folder.path())?;
    let maker = mirror(&source, &target, folder.path())?;
    let filtering = filter(&target, folder.path())?;
    let out = folder.path().join("archive");
    let mut archive = Command::new(env!("CARGO_BIN_EXE_nightjar"));
    archive.args(["archive", "--brokers", &target.bootstrap(), "--group", "stress-archive", "--out"]).arg(&out);
    let mut archiving = Some(Ended(archive.stderr(Stdio::null()).spawn()?));

    let stop = Arc::new(AtomicBool::new(false));
    let (mirrored, passed) = (Arc::new(Counts::new(alerts)), Arc::new(Counts::new(alerts)));
    let mut threads = Vec::new();
    let filtered = format!("{}_Filter001", TOPIC.trim_end_matches("_programid1"));
    let places = std::iter::repeat_n((TOPIC.to_owned(), "stress-readers", &mirrored), READERS).chain([(
        filtered,
        "stress-passed",
        &passed,
    )]);
    for (topic, group, counts) in places {
        let (bootstrap, counts, stop) = (target.bootstrap(), counts.clone(), stop.clone());
        threads.push(std::thread::spawn(move || {
            reader(&bootstrap, &topic, group, &counts, &stop).map_err(|error| error.to_string())
        }));
    }

    let watch = Stopwatch::start();
    let (mut tell, mut durable, mut peak) = (Stopwatch::start(), 0, [0.0_f64; 4]);
    let mut first_memory = None;
    let mut quiet = (Stopwatch::start(), 0);
    let mut archived_at = None;
    loop {
        let read = mirrored.read.load(Ordering::Relaxed);
        if durable < alerts && durable - read.min(durable) < most_lag {
            let n = durable / each;
            spool.append(&ExposureId::from_stored(format!("20261124-{n:09}")), &exposure.messages(n))?;
            durable += each;
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
        if read >= wanted_archive && archiving.is_some() && archived_at.is_none() {
            archived_at = Some(Stopwatch::start());
        }
        if archived_at.is_some_and(|since| since.seconds() > 30.0) && archiving.is_some() && durable < alerts {
            // The archive has had its part; its disk is not that large.
            drop(archiving.take());
        }
        if tell.seconds() > 10.0 {
            tell = Stopwatch::start();
            let now = [
                memory(std::process::id()),
                memory(maker.0.id()),
                filtering.as_ref().map_or(0.0, |child| memory(child.0.id())),
                archiving.as_ref().map_or(0.0, |child| memory(child.0.id())),
            ];
            if watch.seconds() > 30.0 {
                first_memory.get_or_insert(now);
            }
            peak = std::array::from_fn(|i| peak[i].max(now[i]));
            let rate = mirrored.bytes.load(Ordering::Relaxed) as f64 / 1e6 / watch.seconds();
            println!(
                "{:6.0} s: {durable} durable, {read} behind the mirror ({rate:.1} MB/s), lag {}, {} passed; \
                 memory MB: daemon and readers {:.0}, mirror {:.0}, filter {:.0}, archive {:.0}",
                watch.seconds(),
                durable - read.min(durable),
                passed.read.load(Ordering::Relaxed),
                now[0],
                now[1],
                now[2],
                now[3]
            );
        }
        let progress = read + passed.read.load(Ordering::Relaxed);
        if progress != quiet.1 {
            quiet = (Stopwatch::start(), progress);
        }
        // Everything came, and a while longer for what would come twice; or nothing comes any more.
        let due = exposures * passing.len() as u64;
        let all = durable == alerts && read >= alerts && passed.read.load(Ordering::Relaxed) >= due;
        if (all && quiet.0.seconds() > 8.0) || quiet.0.seconds() > 180.0 {
            break;
        }
    }
    let seconds = watch.seconds() - quiet.0.seconds();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a reader died")??;
    }
    uplink.drain(Duration::from_secs(10));
    let distinct = mirrored.distinct();
    let twice = mirrored.twice.load(Ordering::Relaxed);
    let rate = megabytes / seconds;
    println!("\n| what | figure |\n| --- | --- |");
    println!(
        "| alerts through spool, uplink, mirror, a group of {READERS} | {alerts} ({megabytes:.0} MB) in {seconds:.0} s |"
    );
    println!("| sustained | {rate:.1} MB/s, {:.1} times ZTF's average |", rate / ZTF_RATE);
    println!("| lost, twice, behind the mirror | {}, {twice} |", alerts - distinct);
    println!(
        "| passed by the filter, of it due, twice | {}, {}, {} |",
        passed.distinct(),
        exposures * passing.len() as u64,
        passed.twice.load(Ordering::Relaxed)
    );
    drop(archiving);
    let archived = compare_archive(&out, &mirrored)?;
    println!("| archived, each as the readers got it | {archived} in {} files |", count_files(&out));
    let first = first_memory.unwrap_or(peak);
    println!(
        "| memory after 30 s and at the peak, MB: daemon and readers; mirror; filter; archive | {:.0}, {:.0}; {:.0}, {:.0}; {:.0}, {:.0}; {:.0}, {:.0} |",
        first[0], peak[0], first[1], peak[1], first[2], peak[2], first[3], peak[3]
    );
    if archived < wanted_archive.min(alerts / 2) {
        return Err(format!("only {archived} alerts were archived").into());
    }
    if filtering.is_some() && (0..alerts).any(|number| passed.has(number) != passing.contains(&(number % each))) {
        return Err("the filter passed other alerts than it passes of files".into());
    }
    if distinct != alerts || twice != 0 || passed.twice.load(Ordering::Relaxed) != 0 {
        return Err("alerts were lost or doubled".into());
    }
    Ok(())
}

fn count_files(out: &Path) -> usize {
    let nights = std::fs::read_dir(out).into_iter().flatten().flatten();
    let files = nights.flat_map(|night| std::fs::read_dir(night.path()).into_iter().flatten().flatten());
    files.filter(|file| file.path().extension().is_some_and(|e| e == "avro")).count()
}
