//! The sender: a process with a spool and an uplink, fed with exposures as a night feeds them. It
//! says on a pipe what the spool has acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nightjar::exposure::ExposureId;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Spool, SpoolError, SpoolParameters};
use nightjar::uplink::{Delivery, Security, TlsParameters, TopicParameters, Uplink, UplinkParameters};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::alerts;
use crate::careless_uplink::{self, Flaw};
use crate::oracle::unix_ms;

/// What a sender is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub spool: PathBuf,
    pub brokers: String,
    /// Names of its exposures begin with this.
    pub name: String,
    pub count: u32,
    pub bytes: usize,
    /// Pause between two exposures, ms.
    pub every_ms: u64,
    /// No more exposures than these wait in the spool.
    pub backlog: u64,
    pub replication: i32,
    pub transaction_timeout_s: u64,
    pub idempotent: bool,
    pub most_transaction_bytes: u64,
    /// CA file and password, for TLS with SCRAM.
    pub login: Option<(PathBuf, String)>,
    /// Exposures that are there at once.
    pub at_once: u32,
    /// Further librdkafka properties.
    pub extra: Vec<(String, String)>,
    /// Runs inside this network namespace.
    pub namespace: Option<String>,
    /// A protocol that is broken on purpose instead of ours.
    pub flaw: Option<Flaw>,
}

impl Job {
    /// A night's worth of small exposures.
    pub fn new(spool: &Path, brokers: &str, name: &str) -> Self {
        Self {
            spool: spool.to_owned(),
            brokers: brokers.into(),
            name: name.into(),
            count: COUNT,
            bytes: BYTES,
            every_ms: 100,
            backlog: 50,
            replication: 1,
            transaction_timeout_s: 60,
            idempotent: false,
            most_transaction_bytes: 400_000,
            login: None,
            at_once: 0,
            extra: Vec::new(),
            namespace: None,
            flaw: None,
        }
    }

    pub fn parameters(&self) -> UplinkParameters {
        let security = match &self.login {
            None => Security::Plaintext,
            Some((ca, password)) => Security::SaslTls {
                tls: TlsParameters { ca_file: Some(ca.clone()), ..Default::default() },
                mechanism: "SCRAM-SHA-512".into(),
                username: "nightjar".into(),
                password: password.clone(),
            },
        };
        UplinkParameters {
            brokers: self.brokers.split(',').map(str::to_owned).collect(),
            topics: TopicParameters { partitions: 4, replication: self.replication, ..Default::default() },
            transaction_timeout: Duration::from_secs(self.transaction_timeout_s),
            delivery: if self.idempotent { Delivery::Idempotent } else { Delivery::ExactlyOnce },
            max_transaction_bytes: self.most_transaction_bytes,
            extra: self.extra.clone(),
            security,
            ..Default::default()
        }
    }
}

/// Alerts of an exposure, where a row does not say otherwise.
pub const COUNT: u32 = 20;
/// Bytes of an alert, about.
pub const BYTES: usize = 2000;

/// Not a test of its own: the process.
#[test]
fn sender() {
    let Ok(job) = std::env::var("NIGHTJAR_TEST_SENDER") else { return };
    if std::env::var_os("NIGHTJAR_TEST_LOG").is_some() {
        tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    }
    let job: Job = serde_json::from_str(&job).unwrap();
    let (finish, paused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (ends, pauses) = (finish.clone(), paused.clone());
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            pauses.store(line == "pause", Ordering::SeqCst);
            say(&line);
        }
        ends.store(true, Ordering::SeqCst);
    });
    let watch = Stopwatch::start();
    let spool = match Spool::open(&job.spool, SpoolParameters { keep_sent_hours: 0.0 }) {
        Ok(spool) => Arc::new(spool),
        Err(error) => return say(&format!("refused {error}")),
    };
    say(&format!("opened {}", watch.seconds()));
    if let Some(flaw) = job.flaw {
        let (spool, parameters) = (spool.clone(), job.parameters());
        std::thread::spawn(move || careless_uplink::run(&parameters, &spool, flaw));
    }
    let uplink = job.flaw.is_none().then(|| Uplink::start(job.parameters(), spool.clone()).unwrap());
    let mut n = 0_u32;
    let mut told = String::new();
    while !finish.load(Ordering::SeqCst) {
        if let Some(uplink) = &uplink {
            let status = uplink.status();
            let error = status.last_error.unwrap_or_default();
            if !error.is_empty() && error != told {
                say(&format!("trouble {}", error.replace('\n', " ")));
            }
            told = error;
            say(&format!("sessions {}", status.sessions));
        }
        if n >= job.at_once {
            std::thread::sleep(Duration::from_millis(job.every_ms));
        }
        let enough = spool.status().waiting_exposures >= job.backlog && n >= job.at_once;
        if enough || paused.load(Ordering::SeqCst) {
            continue;
        }
        let name = format!("{}-{n}", job.name);
        match spool.append(&ExposureId::from_stored(name.as_str()), &alerts::exposure(&name, job.count, job.bytes)) {
            Ok(_) | Err(SpoolError::Twin { .. }) => say(&format!("acknowledged {name} {}", unix_ms())),
            Err(error) => say(&format!("trouble {error}")),
        }
        n += 1;
    }
    let watch = Stopwatch::start();
    while spool.status().waiting_exposures > 0 && watch.seconds() < 180.0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let left = spool.status().waiting_exposures;
    drop(uplink);
    say(if left == 0 { "drained" } else { "not drained" });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever listened may be gone.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

#[derive(Debug, Default)]
struct Heard {
    acknowledged: BTreeMap<String, i64>,
    troubles: Vec<String>,
    drained: bool,
    paused: bool,
    opened_s: Option<f64>,
    refused: Option<String>,
}

/// The sender as the campaign sees it; killed when dropped.
pub struct Sender {
    child: Child,
    input: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    sessions: Arc<AtomicU64>,
    listener: Option<std::thread::JoinHandle<()>>,
}

impl Sender {
    pub fn start(job: &Job) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = match &job.namespace {
            None => Command::new(program),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
        };
        let mut child = command
            .args(["--exact", "sender::sender", "--nocapture", "--test-threads", "1"])
            .env("NIGHTJAR_TEST_SENDER", serde_json::to_string(job).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (heard, sessions) = (Arc::<Mutex<Heard>>::default(), Arc::<AtomicU64>::default());
        let (out, theirs, count) = (child.stdout.take().unwrap(), heard.clone(), sessions.clone());
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut heard = theirs.lock().unwrap();
                // A line may follow the test harness's own words.
                if let Some((_, rest)) = line.split_once("acknowledged ") {
                    let (name, ms) = rest.split_once(' ').unwrap();
                    heard.acknowledged.insert(name.to_owned(), ms.parse().unwrap());
                } else if let Some((_, n)) = line.split_once("sessions ") {
                    count.store(n.parse().unwrap_or(0), Ordering::SeqCst);
                } else if let Some((_, text)) = line.split_once("trouble ") {
                    heard.troubles.push(text.to_owned());
                } else if let Some((_, text)) = line.split_once("refused ") {
                    heard.refused = Some(text.to_owned());
                } else if let Some((_, text)) = line.split_once("opened ") {
                    heard.opened_s = text.parse().ok();
                } else if line.ends_with("pause") || line.ends_with("go") {
                    heard.paused = line.ends_with("pause");
                } else if line.ends_with("drained") {
                    heard.drained = !line.ends_with("not drained");
                }
            }
        });
        Self { input: child.stdin.take(), child, heard, sessions, listener: Some(listener) }
    }

    /// What the spool has acknowledged so far, and when.
    pub fn acknowledged(&self) -> BTreeMap<String, i64> {
        self.heard.lock().unwrap().acknowledged.clone()
    }

    /// The names alone.
    pub fn names(&self) -> BTreeSet<String> {
        self.heard.lock().unwrap().acknowledged.keys().cloned().collect()
    }

    /// What it complained of.
    pub fn troubles(&self) -> Vec<String> {
        self.heard.lock().unwrap().troubles.clone()
    }

    /// Why it was not let into the spool.
    pub fn refused(&self) -> Option<String> {
        self.heard.lock().unwrap().refused.clone()
    }

    /// Producers that it has introduced.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::SeqCst)
    }

    /// Seconds that opening the spool took.
    pub fn opened_s(&self) -> Option<f64> {
        self.heard.lock().unwrap().opened_s
    }

    /// No more exposures for now; the one in hand is heard of before this returns.
    pub fn pause(&mut self) {
        writeln!(self.input.as_mut().unwrap(), "pause").unwrap();
        assert!(self.wait(20.0, |s| s.heard.lock().unwrap().paused));
        std::thread::sleep(Duration::from_millis(500));
    }

    /// Exposures again.
    pub fn go_on(&mut self) {
        writeln!(self.input.as_mut().unwrap(), "go").unwrap();
        assert!(self.wait(20.0, |s| !s.heard.lock().unwrap().paused));
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `question` is answered with yes, at most `seconds`.
    pub fn wait(&self, seconds: f64, question: impl Fn(&Self) -> bool) -> bool {
        let watch = Stopwatch::start();
        while watch.seconds() < seconds {
            if question(self) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Kills it and hears what it had said.
    pub fn kill(&mut self) -> BTreeSet<String> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        self.names()
    }

    /// Lets it send what it has; true when nothing was left.
    pub fn finish(&mut self) -> bool {
        drop(self.input.take());
        let _ = self.child.wait();
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        self.heard.lock().unwrap().drained
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGCONT);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
