//! The uplink's faults: a network namespace for the sender, a veth pair to the broker, and rules of
//! iptables and tc on the sender's side.

use std::process::{Command, Stdio};
use std::time::Duration;

use nightjar::service::clock::Stopwatch;

use crate::kafka::Kafka;
use crate::oracle::Oracle;
use crate::row::{Chance, Row, not_run, runs};
use crate::sender::{BYTES, COUNT, Job, Sender};

/// A namespace with one end of a veth pair; both are gone when this is dropped.
pub struct Link {
    number: u8,
}

fn run(program: &str, words: &[&str]) -> bool {
    Command::new(program)
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Link {
    /// A link, or why this machine has none for us.
    pub fn new() -> Result<Self, String> {
        for program in ["ip", "iptables", "tc"] {
            if !run(program, &["-V"]) {
                return Err(format!("there is no `{program}` (iproute2, iptables)"));
            }
        }
        let number = (1..250)
            .find(|n| run("ip", &["netns", "add", &format!("nightjar{n}")]))
            .ok_or("network namespaces need root")?;
        let link = Self { number };
        let (name, here, there) = (link.namespace(), format!("njh{number}"), format!("njn{number}"));
        let made = run("ip", &["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &name])
            && run("ip", &["addr", "add", &format!("{}/24", link.host()), "dev", &here])
            && run("ip", &["link", "set", &here, "up"])
            && link.inside("ip", &["addr", "add", &format!("10.213.{number}.2/24"), "dev", &there])
            && link.inside("ip", &["link", "set", &there, "up"])
            && link.inside("ip", &["link", "set", "lo", "up"])
            && link.inside(
                "iptables",
                &["-A", "INPUT", "-m", "statistic", "--mode", "random", "--probability", "0.0", "-j", "DROP"],
            );
        link.clear();
        if made { Ok(link) } else { Err("no veth pair, or no iptables in it".into()) }
    }

    pub fn namespace(&self) -> String {
        format!("nightjar{}", self.number)
    }

    /// The broker's side.
    pub fn host(&self) -> String {
        format!("10.213.{}.1", self.number)
    }

    fn device(&self) -> String {
        format!("njn{}", self.number)
    }

    fn inside(&self, program: &str, words: &[&str]) -> bool {
        let name = self.namespace();
        run("ip", &[["netns", "exec", &name, program].as_slice(), words].concat())
    }

    fn rule(&self, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        assert!(self.inside("iptables", &words), "iptables {words:?}");
    }

    /// Both directions at this rate, in the words of tc.
    pub fn limit(&self, rate: &str) {
        let shape = |device: &str| {
            let words = format!("qdisc add dev {device} root tbf rate {rate} burst 32k latency 300ms");
            words.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let (ours, theirs) = (shape(&self.device()), shape(&format!("njh{}", self.number)));
        assert!(self.inside("tc", &ours.iter().map(String::as_str).collect::<Vec<_>>()));
        assert!(run("tc", &theirs.iter().map(String::as_str).collect::<Vec<_>>()));
    }

    /// All is well again.
    pub fn clear(&self) {
        self.inside("iptables", &["-F"]);
        self.inside("tc", &["qdisc", "del", "dev", &self.device(), "root"]);
        run("tc", &["qdisc", "del", "dev", &format!("njh{}", self.number), "root"]);
        self.inside("ip", &["link", "set", &self.device(), "up"]);
    }

    /// Bytes that the sender's side has sent, with all headers and repetitions.
    fn sent_bytes(&self) -> u64 {
        let file = format!("/sys/class/net/njh{}/statistics/rx_bytes", self.number);
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.namespace()]);
        run("ip", &["link", "del", &format!("njh{}", self.number)]);
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Drop,
    Reset,
    RepliesLost,
    RequestsLost,
    Loss,
    Slow,
    Flap,
    Unplugged,
}

const FAULTS: [Fault; 8] = [
    Fault::Drop,
    Fault::Reset,
    Fault::RepliesLost,
    Fault::RequestsLost,
    Fault::Loss,
    Fault::Slow,
    Fault::Flap,
    Fault::Unplugged,
];

impl Fault {
    fn strike(self, link: &Link, chance: &mut Chance) {
        let hold = |chance: &mut Chance| std::thread::sleep(chance.ms(200, 2500));
        match self {
            Self::Drop => {
                link.rule("-A INPUT -j DROP");
                link.rule("-A OUTPUT -j DROP");
            }
            Self::Reset => link.rule("-A OUTPUT -p tcp --tcp-flags RST NONE -j REJECT --reject-with tcp-reset"),
            Self::RepliesLost => link.rule("-A INPUT -j DROP"),
            Self::RequestsLost => link.rule("-A OUTPUT -j DROP"),
            Self::Loss => {
                link.rule("-A INPUT -m statistic --mode random --probability 0.3 -j DROP");
                link.rule("-A OUTPUT -m statistic --mode random --probability 0.3 -j DROP");
            }
            Self::Slow => link.limit("1mbit"),
            Self::Flap => {
                for _ in 0..8 {
                    link.rule("-A OUTPUT -p tcp --tcp-flags RST NONE -j REJECT --reject-with tcp-reset");
                    std::thread::sleep(chance.ms(20, 200));
                    link.clear();
                    std::thread::sleep(chance.ms(20, 200));
                }
            }
            Self::Unplugged => assert!(link.inside("ip", &["link", "set", &link.device(), "down"])),
        }
        hold(chance);
        link.clear();
    }
}

/// A broker on the host's side of a new link, or a line that says why there is none.
pub fn broker_behind_a_link(row: &str) -> Option<(Link, Kafka)> {
    let link = match Link::new() {
        Ok(link) => link,
        Err(why) => {
            not_run(row, &why);
            return None;
        }
    };
    let kafka = Kafka::start_on(&link.host())?;
    Some((link, kafka))
}

#[test]
fn an_uplink_that_drops_resets_loses_crawls_and_flaps() {
    let title = "uplink: drop, reset, one way, 30 % loss, 1 Mbit/s, flapping, unplugged";
    let Some((link, kafka)) = broker_behind_a_link(title) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "n");
    job.namespace = Some(link.namespace());
    let mut sender = Sender::start(&job);
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let (mut row, mut chance) = (Row::default(), Chance(0x51ed_270b_5a1d_4c7f));
    assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    for run in runs(FAULTS.len() as u32, 500) {
        std::thread::sleep(chance.ms(50, 600));
        FAULTS[run as usize % FAULTS.len()].strike(&link, &mut chance);
        oracle.owe(&sender.names());
        oracle.check(120.0, &mut row);
    }
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(60.0, &mut row);
    row.runs -= 1;
    row.assert_clean(title);
    assert!(sender.sessions() > 2, "the faults never broke a session");
}

#[test]
fn a_large_exposure_gets_through_a_thin_link_without_being_sent_twice() {
    let title = "an exposure of 60 MB through 1 Mbit/s (3 MB in the tests)";
    let Some((link, kafka)) = broker_behind_a_link(title) else { return };
    let folder = tempfile::tempdir().unwrap();
    let count = if crate::row::long() { 1000 } else { 50 };
    let mut job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "thin");
    (job.count, job.bytes, job.at_once, job.backlog) = (count, 60_000, 1, 0);
    (job.most_transaction_bytes, job.transaction_timeout_s) = (64_000_000, 600);
    job.namespace = Some(link.namespace());
    link.limit("1mbit");
    let before = link.sent_bytes();
    let watch = Stopwatch::start();
    let mut sender = Sender::start(&job);
    let mut oracle = Oracle::start(&kafka.bootstrap(), count, 60_000);
    let mut row = Row::default();
    assert!(sender.wait(60.0, |s| !s.acknowledged().is_empty()));
    oracle.owe(&sender.names());
    oracle.check(900.0, &mut row);
    let (sent, payload) = (link.sent_bytes() - before, f64::from(count) * 60_000.0);
    row.assert_clean(title);
    let ratio = sent as f64 / payload;
    println!("{:.1} MB took {:.0} s and {:.3} of it went over the wire", payload / 1e6, watch.seconds(), ratio);
    assert!(ratio < 1.3, "{ratio:.2} times the alerts went over the wire: something was sent again");
    sender.finish();
}

/// A night of 100 exposures waits, the link of 20 Mbit/s comes back, and the night goes on.
#[test]
fn after_an_outage_new_exposures_do_not_wait_for_the_backlog() {
    let title = "newest first: latency of new exposures behind a backlog, 20 Mbit/s";
    let Some((link, kafka)) = broker_behind_a_link(title) else { return };
    let folder = tempfile::tempdir().unwrap();
    let backlog = if crate::row::long() { 100 } else { 12 };
    let (count, bytes) = (100, 30_000);
    let mut job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "late");
    (job.count, job.bytes, job.at_once, job.backlog) = (count, bytes, backlog, 100_000);
    (job.most_transaction_bytes, job.transaction_timeout_s, job.every_ms) = (64_000_000, 600, 5000);
    job.namespace = Some(link.namespace());
    link.rule("-A OUTPUT -p tcp -j DROP");
    let mut sender = Sender::start(&job);
    assert!(sender.wait(120.0, |s| s.acknowledged().len() as u32 >= backlog));
    let mut oracle = Oracle::start(&kafka.bootstrap(), count, bytes);
    link.clear();
    link.limit("20mbit");
    assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    let there = sender.acknowledged().len();
    let fresh = if crate::row::long() { 20 } else { 3 };
    assert!(sender.wait(240.0, |s| s.acknowledged().len() >= there + fresh));
    let acknowledged = sender.acknowledged();
    let mut by_time: Vec<(i64, String)> = acknowledged.iter().map(|(name, ms)| (*ms, name.clone())).collect();
    by_time.sort();
    let mut row = Row::default();
    oracle.owe(&sender.names());
    oracle.check(400.0, &mut row);
    row.assert_clean(title);
    let seconds = |(ms, name): &(i64, String)| (oracle.complete[name] - ms) as f64 / 1000.0;
    let waits: Vec<f64> = by_time[there..there + fresh].iter().map(seconds).collect();
    let oldest = seconds(&by_time[0]);
    println!(
        "new exposures arrived {waits:.1?} s after they were durable; the oldest of the backlog after {oldest:.1} s"
    );
    let worst = waits.iter().copied().fold(0.0, f64::max);
    assert!(worst < 10.0, "a new exposure waited {worst:.1} s");
    sender.kill();
}

/// Two outages one after the other: what came between them arrives too, though the newest went first.
#[test]
fn two_outages_one_after_the_other() {
    let title = "two outages in a row, newest first";
    let Some((link, kafka)) = broker_behind_a_link(title) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "o");
    job.namespace = Some(link.namespace());
    job.backlog = 1000;
    assert_eq!(job.parameters().order, nightjar::spool::Order::NewestFirst);
    let mut sender = Sender::start(&job);
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let mut row = Row::default();
    assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    for _ in runs(1, 20) {
        for _ in 0..2 {
            link.rule("-A OUTPUT -j DROP");
            std::thread::sleep(Duration::from_secs(4));
            link.clear();
            // Too short for the backlog: the second outage finds some of it sent and some not.
            std::thread::sleep(Duration::from_millis(700));
        }
        oracle.owe(&sender.names());
        oracle.check(120.0, &mut row);
    }
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(60.0, &mut row);
    row.runs -= 1;
    row.assert_clean(title);
}

/// A reader of committed records stops at the oldest open transaction of a partition, whoever owns
/// it: how long does it wait for the alerts of one sender while another is silent in the middle of a transaction?
#[test]
fn a_reader_waits_for_a_silent_sender_no_longer_than_it_is_silent() {
    let title = "20 s of silence in mid-transaction while a reader follows another sender";
    let Some((link, kafka)) = broker_behind_a_link(title) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("silent"), &kafka.bootstrap(), "s");
    (job.namespace, job.every_ms) = (Some(link.namespace()), 20);
    let mut silent = Sender::start(&job);
    let mut other = Sender::start(&Job::new(&folder.path().join("other"), &kafka.bootstrap(), "w"));
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    for sender in [&silent, &other] {
        assert!(sender.wait(90.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    }
    let silence = if crate::row::long() { 20 } else { 3 };
    let mut row = Row::default();
    for _ in runs(1, 5) {
        std::thread::sleep(Duration::from_secs(2));
        link.rule("-A INPUT -j DROP");
        link.rule("-A OUTPUT -j DROP");
        std::thread::sleep(Duration::from_secs(silence));
        link.clear();
        for sender in [&silent, &other] {
            oracle.owe(&sender.names());
        }
        oracle.check(120.0, &mut row);
    }
    let acknowledged = other.acknowledged();
    for sender in [&mut silent, &mut other] {
        assert!(sender.finish(), "{:?}", sender.troubles());
        oracle.owe(&sender.names());
    }
    oracle.check(60.0, &mut row);
    row.runs -= 1;
    row.assert_clean(title);
    let mut waits: Vec<i64> = acknowledged.iter().map(|(name, ms)| oracle.complete[name] - ms).collect();
    waits.sort_unstable();
    let (usual, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!(
        "a reader waited {:.1} s at most for another sender's alerts ({:.1} s in the median) around {silence} s of silence",
        longest as f64 / 1e3,
        usual as f64 / 1e3
    );
    let time_out = job.transaction_timeout_s as i64 * 1000;
    assert!(longest < time_out, "the reader was freed by the transaction's time-out and not by the sender");
    // Else no silence fell into a transaction, and nothing was measured.
    assert!(!crate::row::long() || longest > silence as i64 * 500, "the longest wait was {longest} ms");
}
