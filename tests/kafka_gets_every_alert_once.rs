//! Promise: every alert of every acknowledged exposure reaches a reader of committed records once,
//! through SIGKILL of the sender in mid-transaction and through brokers that hang, die and return.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/kafka.rs"]
mod kafka;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka::Kafka;
use nightjar::exposure::ExposureId;
use nightjar::spool::disk::Disk;
use nightjar::spool::store::{Entry, Reading, Room, Store, Writing};
use nightjar::spool::{Order, Spool, SpoolError, SpoolParameters};
use nightjar::uplink::{Delivery, TopicParameters, Uplink, UplinkParameters};

const COUNT: u32 = 60;
const BYTES: usize = 20_000;

fn parameters(bootstrap: &str) -> UplinkParameters {
    UplinkParameters {
        brokers: vec![bootstrap.into()],
        topics: TopicParameters { partitions: 4, replication: 1, ..Default::default() },
        max_transaction_bytes: 1_500_000,
        ..Default::default()
    }
}

/// Not a test of its own: the process that the tests below start and kill.
#[test]
fn sender() {
    let Ok(job) = std::env::var("NIGHTJAR_TEST_SENDER") else { return };
    let words: Vec<&str> = job.split(' ').collect();
    let (folder, bootstrap, first, exposures) = (words[0], words[1], words[2], words[3]);
    let spool = Arc::new(Spool::open(Path::new(folder), SpoolParameters::default()).unwrap());
    let uplink = Uplink::start(parameters(bootstrap), spool.clone()).unwrap();
    let first: u32 = first.parse().unwrap();
    let mut out = std::io::stdout();
    for n in first..first + exposures.parse::<u32>().unwrap() {
        let name = format!("e{n:05}");
        match spool.append(&ExposureId::from_stored(name.as_str()), &alerts::exposure(&name, COUNT, BYTES)) {
            Ok(_) | Err(SpoolError::Twin { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        writeln!(out, "acknowledged {name}").unwrap();
        out.flush().unwrap();
        std::thread::sleep(Duration::from_millis(40));
    }
    assert!(uplink.stop(Duration::from_secs(120)), "the spool did not drain");
    writeln!(out, "drained").unwrap();
}

fn start_sender(folder: &Path, bootstrap: &str, first: u32, exposures: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sender", "--nocapture", "--test-threads", "1"])
        .env("NIGHTJAR_TEST_SENDER", format!("{} {bootstrap} {first} {exposures}", folder.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What the sender said until it ended.
fn heard(sender: &mut Child) -> (BTreeSet<String>, bool) {
    let lines: Vec<String> = BufReader::new(sender.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    sender.wait().unwrap();
    let said = lines.iter().filter_map(|l| l.split("acknowledged ").nth(1)).map(str::to_owned).collect();
    (said, lines.iter().any(|l| l.ends_with("drained")))
}

fn check(kafka: &Kafka, acknowledged: &BTreeSet<String>) {
    let records = kafka.read_all(alerts::TOPIC, true);
    let counts =
        alerts::tally(records.iter().map(|r| (r.headers.as_slice(), r.key.as_slice(), r.payload.as_slice())), BYTES);
    let twice: Vec<_> = counts.iter().filter(|(_, n)| **n != 1).collect();
    assert!(twice.is_empty(), "{} alerts arrived more than once, such as {:?}", twice.len(), twice[0]);
    let mut by_exposure: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, _) in counts.keys() {
        *by_exposure.entry(name).or_default() += 1;
    }
    let lost: Vec<_> = acknowledged.iter().filter(|e| by_exposure.get(e.as_str()) != Some(&COUNT)).collect();
    assert!(lost.is_empty(), "acknowledged and not (wholly) arrived: {lost:?}");
    println!("{} alerts of {} exposures arrived, each once", counts.len(), by_exposure.len());
}

#[test]
fn a_sender_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    let rounds = if std::env::var_os("NIGHTJAR_CAMPAIGN").is_some() { 150_u32 } else { 8 };
    for round in 0..rounds {
        let mut sender = start_sender(folder.path(), &kafka.bootstrap(), 1 + round * 100, 100);
        std::thread::sleep(Duration::from_millis(400 + u64::from(round * 397 % 1100)));
        sender.kill().unwrap();
        acknowledged.extend(heard(&mut sender).0);
    }
    let mut sender = start_sender(folder.path(), &kafka.bootstrap(), 90_001, 3);
    let (said, drained) = heard(&mut sender);
    assert!(drained, "the last sender did not end well");
    acknowledged.extend(said);
    check(&kafka, &acknowledged);
    let all = kafka.read_all(alerts::TOPIC, false).len();
    println!("{all} records in all: the others were aborted");
}

#[test]
fn a_broker_that_hangs_and_dies_delays_and_loses_nothing() {
    let Some(mut kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut sender = start_sender(folder.path(), &kafka.bootstrap(), 1, 120);
    std::thread::sleep(Duration::from_millis(2500));
    kafka.freeze();
    std::thread::sleep(Duration::from_secs(3));
    kafka.thaw();
    std::thread::sleep(Duration::from_millis(1500));
    kafka.restart();
    let (acknowledged, drained) = heard(&mut sender);
    assert!(drained && acknowledged.len() == 120);
    check(&kafka, &acknowledged);
}

#[test]
fn a_restored_snapshot_of_the_spool_loses_and_doubles_nothing() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let send = |spool: Arc<Spool>, wait: bool| {
        let uplink = Uplink::start(parameters(&kafka.bootstrap()), spool).unwrap();
        assert!(!wait || uplink.stop(Duration::from_secs(60)));
    };
    let append = |spool: &Spool, n: u32| {
        let name = format!("e{n:05}");
        let messages = alerts::exposure(&name, COUNT, BYTES);
        spool.append(&ExposureId::from_stored(name.as_str()), &messages).unwrap();
    };
    let open = || Arc::new(Spool::open(folder.path(), SpoolParameters::default()).unwrap());
    let spool = open();
    (1..=3).for_each(|n| append(&spool, n));
    send(spool, true);
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(folder.path().join(".")).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let spool = open();
    (4..=6).for_each(|n| append(&spool, n));
    send(spool, true);
    let restored = Arc::new(Spool::open(copy.path(), SpoolParameters::default()).unwrap());
    (7..=8).for_each(|n| append(&restored, n));
    send(restored.clone(), true);
    assert_eq!(restored.status().waiting_exposures, 0);
    check(&kafka, &(1..=8).map(|n| format!("e{n:05}")).collect());
}

#[test]
fn after_an_outage_the_newest_exposure_arrives_before_the_backlog() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default()).unwrap());
    for n in 1..=20 {
        let name = format!("e{n:05}");
        spool.append(&ExposureId::from_stored(name.as_str()), &alerts::exposure(&name, COUNT, BYTES)).unwrap();
    }
    let one = UplinkParameters {
        topics: TopicParameters { partitions: 1, replication: 1, ..Default::default() },
        order: Order::NewestFirst,
        ..parameters(&kafka.bootstrap())
    };
    assert!(Uplink::start(one, spool).unwrap().stop(Duration::from_secs(60)));
    let records = kafka.read_all(alerts::TOPIC, true);
    let order: Vec<&str> = records.iter().step_by(COUNT as usize).map(|r| r.headers[0].1.as_str()).collect();
    let mut newest_first = order.clone();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(order, newest_first);
}

#[test]
fn without_transactions_everything_still_arrives() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default()).unwrap());
    let names: BTreeSet<String> = (1..=10).map(|n| format!("e{n:05}")).collect();
    for name in &names {
        spool.append(&ExposureId::from_stored(name.as_str()), &alerts::exposure(name, COUNT, BYTES)).unwrap();
    }
    let plain = UplinkParameters { delivery: Delivery::Idempotent, ..parameters(&kafka.bootstrap()) };
    let uplink = Uplink::start(plain, spool).unwrap();
    assert!(uplink.drain(Duration::from_secs(60)));
    let status = uplink.status();
    assert_eq!((status.acknowledged_alerts, status.acknowledged_exposures), (600, 10));
    check(&kafka, &names);
}

#[test]
fn an_alert_that_the_broker_refuses_goes_to_dead_and_the_others_arrive() {
    let Some(kafka) = Kafka::start_with(&["message.max.bytes=100000"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default()).unwrap());
    // The topic as somebody else made it, with a small limit.
    make_topic_with_small_limit(&kafka);
    let mut messages = alerts::exposure("e00001", COUNT, BYTES);
    messages[17] = alerts::alert("e00001", 17, 300_000);
    spool.append(&ExposureId::from_stored("e00001"), &messages).unwrap();
    let uplink = Uplink::start(parameters(&kafka.bootstrap()), spool.clone()).unwrap();
    assert!(uplink.drain(Duration::from_secs(60)), "{:?}", uplink.status());
    assert_eq!(uplink.status().refused, 1);
    assert_eq!(spool.status().dead, 1);
    assert_eq!(kafka.read_all(alerts::TOPIC, true).len() as u32, COUNT - 1);
}

fn make_topic_with_small_limit(kafka: &Kafka) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::config::ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let topic = NewTopic::new(alerts::TOPIC, 4, TopicReplication::Fixed(1)).set("max.message.bytes", "100000");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(made[0].is_ok(), "{made:?}");
}

/// A disk that becomes read-only, as ext4 does after an error.
struct Worn {
    disk: Disk,
    read_only: Arc<AtomicBool>,
}

impl Worn {
    fn writes<T>(&self, write: impl FnOnce(&Disk) -> io::Result<T>) -> io::Result<T> {
        if self.read_only.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        write(&self.disk)
    }
}

impl Store for Worn {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.writes(|disk| disk.make_folder(folder))
    }
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn Writing>> {
        self.writes(|disk| disk.create(name, bytes))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn Reading>> {
        self.disk.open(name)
    }
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.writes(|disk| disk.cut(name, bytes))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.writes(|disk| disk.rename(from, to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.writes(|disk| disk.remove(name))
    }
    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.writes(|disk| disk.sync_folder(folder))
    }
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.disk.list(folder)
    }
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.disk.lock(name)
    }
    fn room(&self) -> io::Result<Room> {
        self.disk.room()
    }
    fn place(&self) -> String {
        self.disk.place()
    }
}

#[test]
fn a_disk_that_takes_no_writes_any_more_is_emptied_to_kafka_all_the_same() {
    let Some(mut kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let read_only = Arc::new(AtomicBool::new(false));
    let worn = || Worn { disk: Disk::at(folder.path()), read_only: read_only.clone() };
    let spool = Arc::new(Spool::open_on(Arc::new(worn()), SpoolParameters::default()).unwrap());
    let names: BTreeSet<String> = (0..12).map(|n| format!("e{n:05}")).collect();
    for name in &names {
        spool.append(&ExposureId::from_stored(name.as_str()), &alerts::exposure(name, COUNT, BYTES)).unwrap();
    }
    read_only.store(true, Ordering::SeqCst);
    let uplink = Uplink::start(parameters(&kafka.bootstrap()), spool.clone()).unwrap();
    while spool.status().waiting_exposures > 8 {
        std::thread::sleep(Duration::from_millis(20));
    }
    // A new session in the middle of it asks the broker how far it was.
    kafka.restart();
    assert!(uplink.drain(Duration::from_secs(120)), "{:?}", uplink.status());
    drop(uplink);
    drop(spool);
    check(&kafka, &names);
    // The disk is mended: files that are still there, and were sent, are not sent again.
    read_only.store(false, Ordering::SeqCst);
    let spool = Arc::new(Spool::open_on(Arc::new(worn()), SpoolParameters::default()).unwrap());
    assert_eq!(spool.status().waiting_exposures, 12, "nothing could be moved");
    let uplink = Uplink::start(parameters(&kafka.bootstrap()), spool).unwrap();
    assert!(uplink.drain(Duration::from_secs(60)), "{:?}", uplink.status());
    drop(uplink);
    check(&kafka, &names);
}
