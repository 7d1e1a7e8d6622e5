//! The oracle: a process of its own with a consumer of its own, which knows nothing of spool and
//! uplink. It is told what is owed, reads committed records, and compares: every alert of every
//! exposure that was acknowledged, each once, whole, and in order under its key.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nightjar::service::clock::{self, Stopwatch};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::alerts;
use crate::row::Row;

/// Milliseconds since 1970, for latencies between processes of one host.
pub fn unix_ms() -> i64 {
    (clock::now().unix_seconds() * 1000.0) as i64
}

#[derive(Default)]
struct Seen {
    owed: BTreeSet<String>,
    counts: HashMap<String, BTreeMap<u32, u32>>,
    last: HashMap<(String, Vec<u8>), u32>,
    complete: HashSet<String>,
    corrupt: u64,
    first: Option<String>,
}

impl Seen {
    fn complain(&mut self, what: String) {
        self.first.get_or_insert(what);
    }

    /// Takes a record; gives the exposure that it completed.
    fn take(&mut self, message: &impl Message, count: u32, bytes: usize) -> Option<String> {
        let text = |name: &str| {
            let headers = message.headers()?;
            let header = headers.iter().find(|h| h.key == name)?;
            std::str::from_utf8(header.value?).ok().map(str::to_owned)
        };
        let named = text("exposure").and_then(|name| Some((name, text("alert")?.parse::<u32>().ok()?)));
        let Some((name, number)) = named else {
            self.corrupt += 1;
            self.complain("a record without a name".into());
            return None;
        };
        let wanted = alerts::alert(&name, number, bytes);
        if Some(wanted.key.as_slice()) != message.key() || Some(wanted.payload.as_slice()) != message.payload() {
            self.corrupt += 1;
            self.complain(format!("{name} {number} arrived damaged"));
        }
        let before = self.last.insert((name.clone(), wanted.key), number);
        if before.is_some_and(|before| before > number) {
            self.corrupt += 1;
            self.complain(format!("{name} {number} arrived after {before:?} of its key"));
        }
        let numbers = self.counts.entry(name.clone()).or_default();
        *numbers.entry(number).or_default() += 1;
        (numbers.len() as u32 == count && self.complete.insert(name.clone())).then_some(name)
    }

    fn verdict(&mut self, count: u32) -> String {
        let mut lost = 0;
        let missing: Vec<String> = self.owed.iter().filter(|name| !self.complete.contains(*name)).cloned().collect();
        for name in missing {
            lost += u64::from(count) - self.counts.get(&name).map_or(0, |numbers| numbers.len() as u64);
            self.complain(format!("{name} was acknowledged and did not arrive whole"));
        }
        let twice: u64 = self.counts.values().flat_map(BTreeMap::values).map(|n| u64::from(n - 1)).sum();
        if twice > 0 && self.first.is_none() {
            let name =
                self.counts.iter().find(|(_, numbers)| numbers.values().any(|n| *n > 1)).map(|(name, _)| name.clone());
            self.complain(format!("{} arrived twice", name.unwrap_or_default()));
        }
        let alerts = self.owed.len() as u64 * u64::from(count);
        format!("verdict {alerts} {lost} {twice} {} {}", self.corrupt, self.first.clone().unwrap_or_default())
    }
}

/// Not a test of its own: the process. `bootstrap count bytes` in the environment, commands on
/// standard input.
#[test]
fn oracle() {
    let Ok(job) = std::env::var("NIGHTJAR_TEST_ORACLE") else { return };
    let words: Vec<&str> = job.split(' ').collect();
    let (count, bytes): (u32, usize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let mut consumer = reader(words[0]);
    let mut positions = Positions::new();
    let mut heard = Stopwatch::start();
    let (tell, commands) = channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| tell.send(line)).ok();
    });
    let mut seen = Seen::default();
    let mut assigned = false;
    let mut waiting: Option<(Stopwatch, f64)> = None;
    loop {
        // A client that was told for a moment that there are no brokers forgets them and asks nobody
        // any more (librdkafka 2.12.1): another one goes on where it was.
        if waiting.is_some() && heard.seconds() > 20.0 {
            (consumer, assigned, heard) = (reader(words[0]), false, Stopwatch::start());
        }
        if !assigned {
            assigned = assign(&consumer, &positions);
        }
        loop {
            match commands.try_recv() {
                Ok(line) => match line.split_once(' ').unwrap_or((&line, "")) {
                    ("owe", name) => _ = seen.owed.insert(name.to_owned()),
                    ("check", seconds) => {
                        waiting = Some((Stopwatch::start(), seconds.parse().unwrap()));
                        heard = Stopwatch::start();
                    }
                    ("afresh", _) => {
                        consumer.unassign().unwrap();
                        positions.clear();
                        assigned = false;
                    }
                    (other, _) => panic!("{other}?"),
                },
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
        }
        let mut quiet = true;
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            quiet = false;
            heard = Stopwatch::start();
            positions.insert(message.partition(), message.offset() + 1);
            if let Some(name) = seen.take(&message, count, bytes) {
                say(&format!("complete {name} {}", unix_ms()));
            }
        }
        if let Some((watch, seconds)) = waiting {
            let all = seen.owed.iter().all(|name| seen.complete.contains(name));
            // A twin would come right behind: a moment of quiet after the last.
            if (all && quiet) || watch.seconds() > seconds {
                waiting = None;
                say(&seen.verdict(count));
            }
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Where reading goes on, by partition.
type Positions = HashMap<i32, i64>;

fn reader(bootstrap: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "oracle")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "50")
        .set("topic.metadata.refresh.interval.ms", "2000")
        .set("reconnect.backoff.max.ms", "1000")
        .set("fetch.error.backoff.ms", "100")
        .set_log_level(RDKafkaLogLevel::Emerg)
        .create()
        .unwrap()
}

fn assign(consumer: &BaseConsumer, positions: &Positions) -> bool {
    let Ok(metadata) = consumer.fetch_metadata(Some(alerts::TOPIC), Duration::from_millis(500)) else { return false };
    let mut list = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|topic| topic.error().is_none()) {
        for partition in topic.partitions() {
            let from = positions.get(&partition.id()).map_or(Offset::Beginning, |next| Offset::Offset(*next));
            list.add_partition_offset(topic.name(), partition.id(), from).unwrap();
        }
    }
    list.count() > 0 && consumer.assign(&list).is_ok()
}

/// The oracle as the campaign sees it.
pub struct Oracle {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    owed: BTreeSet<String>,
    /// When each exposure had arrived whole, ms since 1970.
    pub complete: BTreeMap<String, i64>,
    alerts: u64,
}

impl Oracle {
    /// Reads from the cluster at `bootstrap` exposures of `count` alerts of `bytes`.
    pub fn start(bootstrap: &str, count: u32, bytes: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "oracle::oracle", "--nocapture", "--test-threads", "1"])
            .env("NIGHTJAR_TEST_ORACLE", format!("{bootstrap} {count} {bytes}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (input, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| tell.send(line)).ok();
        });
        Self { child, input, lines, owed: BTreeSet::new(), complete: BTreeMap::new(), alerts: 0 }
    }

    /// Tells it what is owed by now.
    pub fn owe(&mut self, acknowledged: &BTreeSet<String>) {
        for name in acknowledged {
            if self.owed.insert(name.clone()) {
                writeln!(self.input, "owe {name}").unwrap();
            }
        }
    }

    /// The topic was made anew: read it from its beginning.
    pub fn read_afresh(&mut self) {
        writeln!(self.input, "afresh").unwrap();
    }

    /// Waits until all that is owed has arrived, at most `seconds`; puts the verdict into the row.
    pub fn check(&mut self, seconds: f64, row: &mut Row) {
        writeln!(self.input, "check {seconds}").unwrap();
        let watch = Stopwatch::start();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    // The first line follows the test harness's own words.
                    let start = line.find("complete ").or_else(|| line.find("verdict ")).unwrap_or(0);
                    let line = &line[start..];
                    let words: Vec<&str> = line.splitn(6, ' ').collect();
                    match words.as_slice() {
                        ["complete", name, ms] => _ = self.complete.insert((*name).to_owned(), ms.parse().unwrap()),
                        ["verdict", alerts, lost, twice, corrupt, first] => {
                            let number = |text: &str| text.parse::<u64>().unwrap();
                            row.runs += 1;
                            // The oracle's figures are those of the whole run.
                            row.alerts += number(alerts) - self.alerts;
                            self.alerts = number(alerts);
                            (row.lost, row.doubled, row.corrupt) = (number(lost), number(twice), number(corrupt));
                            if !first.is_empty() {
                                row.first.get_or_insert((*first).to_owned());
                            }
                            return;
                        }
                        _ => {}
                    }
                }
                Err(RecvTimeoutError::Timeout) => assert!(watch.seconds() < seconds + 120.0, "the oracle is silent"),
                Err(RecvTimeoutError::Disconnected) => panic!("the oracle has died"),
            }
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
