//! Several real brokers on loopback, each of which may be stopped, killed and started again.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part; one that cannot go on fails")]

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use nightjar::service::clock::Stopwatch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::kafka;

/// The brokers; killed when dropped.
pub struct Cluster {
    folder: tempfile::TempDir,
    jars: PathBuf,
    ports: Vec<u16>,
    brokers: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts `count` brokers, or says why this test does not run.
    pub fn start(count: usize) -> Option<Self> {
        kafka::or_say(Self::try_start(count))
    }

    fn try_start(count: usize) -> Result<Self, String> {
        std::process::Command::new("java")
            .arg("-version")
            .stderr(std::process::Stdio::null())
            .status()
            .map_err(|e| format!("java: {e}"))?;
        let jars = kafka::jars()?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let listeners: Vec<TcpListener> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let all: Vec<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(listeners);
        let (ports, controllers) = all.split_at(count);
        let voters: Vec<String> =
            controllers.iter().enumerate().map(|(n, port)| format!("{}@127.0.0.1:{port}", n + 1)).collect();
        let mut cluster = Self { folder, jars, ports: ports.to_vec(), brokers: (0..count).map(|_| None).collect() };
        for (n, controller) in controllers.iter().enumerate() {
            let place = cluster.place(n);
            fs::create_dir(&place).map_err(|e| e.to_string())?;
            let properties = format!(
                "process.roles=broker,controller\nnode.id={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
                 controller.quorum.voters={}\nlog.dirs={}\nnum.partitions=1\nauto.create.topics.enable=false\n\
                 default.replication.factor={count}\nmin.insync.replicas={}\n\
                 offsets.topic.replication.factor={count}\ntransaction.state.log.replication.factor={count}\n\
                 transaction.state.log.min.isr={}\noffsets.topic.num.partitions=4\n\
                 transaction.state.log.num.partitions=4\nbroker.session.timeout.ms=3000\n\
                 broker.heartbeat.interval.ms=500\nreplica.lag.time.max.ms=3000\n\
                 leader.imbalance.check.interval.seconds=2\nleader.imbalance.per.broker.percentage=0\n",
                n + 1,
                controller,
                voters.join(","),
                place.join("log").display(),
                count.min(2),
                count.min(2),
                port = cluster.ports[n],
            );
            fs::write(place.join("server.properties"), properties).map_err(|e| e.to_string())?;
            kafka::format_storage(&cluster.jars, &place)?;
        }
        for n in 0..count {
            cluster.brokers[n] = Some(kafka::run(&cluster.jars, &cluster.place(n)).map_err(|e| e.to_string())?);
        }
        cluster.wait_for_brokers(count);
        Ok(cluster)
    }

    fn place(&self, n: usize) -> PathBuf {
        self.folder.path().join(n.to_string())
    }

    /// Where clients find them.
    pub fn bootstrap(&self) -> String {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    fn asker(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("reconnect.backoff.max.ms", "500")
            .set_log_level(RDKafkaLogLevel::Emerg)
            .create()
            .unwrap()
    }

    fn wait_for_brokers(&self, count: usize) {
        let (watch, asker) = (Stopwatch::start(), self.asker());
        while asker.fetch_metadata(None, Duration::from_secs(2)).map_or(0, |m| m.brokers().len()) < count {
            assert!(watch.seconds() < 180.0, "the brokers do not come up; see {}", self.folder.path().display());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until every copy of every partition is in sync.
    pub fn wait_until_in_sync(&self) {
        let (watch, asker) = (Stopwatch::start(), self.asker());
        loop {
            let answer = asker.fetch_metadata(None, Duration::from_secs(2));
            let in_sync = answer.is_ok_and(|m| {
                m.brokers().len() == self.ports.len()
                    && m.topics().iter().flat_map(|t| t.partitions()).all(|p| p.isr().len() == p.replicas().len())
            });
            if in_sync {
                return;
            }
            assert!(watch.seconds() < 180.0, "the copies do not come in sync");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn signal(&self, n: usize, signal: Signal) {
        if let Some(child) = &self.brokers[n] {
            kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        }
    }

    /// Stops one in its tracks, connections open.
    pub fn freeze(&self, n: usize) {
        self.signal(n, Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self, n: usize) {
        self.signal(n, Signal::SIGCONT);
    }

    /// Kills one.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.brokers[n].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks one to stop, which hands its partitions over first, and waits for that.
    pub fn ask_to_stop(&mut self, n: usize) {
        self.signal(n, Signal::SIGTERM);
        let watch = Stopwatch::start();
        while watch.seconds() < 30.0 {
            if let Some(child) = &mut self.brokers[n]
                && matches!(child.try_wait(), Ok(None))
            {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            break;
        }
        self.kill(n);
    }

    /// Starts one again.
    pub fn start_again(&mut self, n: usize) {
        self.brokers[n] = Some(kafka::run(&self.jars, &self.place(n)).unwrap());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for n in 0..self.brokers.len() {
            self.kill(n);
        }
    }
}
