//! A real Apache Kafka for tests: one KRaft broker on loopback, its jars fetched once by Maven.
//!
//! Where there is no `java` or `mvn` a test says "not run" and passes, unless
//! `NIGHTJAR_REQUIRE_KAFKA=1`, which makes it fail.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses its part; one that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nightjar::service::clock::Stopwatch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// A broker in a folder of its own; killed when dropped.
pub struct Kafka {
    folder: tempfile::TempDir,
    jars: PathBuf,
    host: String,
    port: u16,
    secure: u16,
    through: Option<u16>,
    child: Child,
}

/// What a broker is like.
#[derive(Default)]
struct Setup<'a> {
    host: Option<&'a str>,
    lines: &'a [&'a str],
    secure: bool,
    through: Option<u16>,
}

/// The password of the user `nightjar` of a secure broker.
pub const PASSWORD: &str = "a-password-of-tests";

fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("nightjar/kafka")
}

/// Kafka's jars, fetched where they are not there yet; tests in several processes take turns.
pub fn jars() -> Result<PathBuf, String> {
    let cache = cache();
    let lib = cache.join("lib");
    fs::create_dir_all(&cache).map_err(|e| e.to_string())?;
    let lock = File::create(cache.join("lock")).map_err(|e| e.to_string())?;
    let _turn = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, e)| e.to_string())?;
    if cache.join("complete").exists() {
        return Ok(lib);
    }
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/kafka/pom.xml");
    let status = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", lib.display()))
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("mvn: {e}"))?;
    if !status.success() {
        return Err(format!("mvn ended with {status}"));
    }
    fs::write(cache.join("complete"), "").map_err(|e| e.to_string())?;
    Ok(lib)
}

/// Ports that nobody uses now.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|l| l.local_addr().unwrap().port())
}

impl Kafka {
    /// Starts a broker, or says why this test does not run.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// As [`Kafka::start`], with further lines for `server.properties`.
    pub fn start_with(lines: &[&str]) -> Option<Self> {
        or_say(Self::try_start(&Setup { lines, ..Setup::default() }))
    }

    /// A broker at another address of this host.
    pub fn start_on(host: &str) -> Option<Self> {
        or_say(Self::try_start(&Setup { host: Some(host), ..Setup::default() }))
    }

    /// A broker that sends its clients to the port `through`, where a proxy passes them on to
    /// [`Kafka::port`]; those who come by [`Kafka::bootstrap`] stay on a listener of their own.
    pub fn start_behind(through: u16) -> Option<Self> {
        or_say(Self::try_start(&Setup { through: Some(through), ..Setup::default() }))
    }

    /// A broker that has a second listener ([`Kafka::secure_bootstrap`]) with TLS and
    /// SCRAM-SHA-512 for the user `nightjar`, who may do nothing but what [`Kafka::allow`] allows.
    /// The plain listener is the administrator's.
    pub fn start_secure() -> Option<Self> {
        Self::start_secure_with(&[])
    }

    /// As [`Kafka::start_secure`], with further lines for `server.properties`.
    pub fn start_secure_with(lines: &[&str]) -> Option<Self> {
        or_say(Self::try_start(&Setup { secure: true, lines, ..Setup::default() }))
    }

    fn try_start(setup: &Setup<'_>) -> Result<Self, String> {
        Command::new("java").arg("-version").stderr(Stdio::null()).status().map_err(|e| format!("java: {e}"))?;
        let jars = jars()?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let [port, controller, secure] = free_ports();
        let host = setup.host.unwrap_or("127.0.0.1");
        let beside = match setup.through {
            Some(through) => proxied(port, controller, secure, through),
            None if setup.secure => security(folder.path(), port, controller, secure)?,
            None => String::new(),
        };
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             listeners=PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://{host}:{port}\n\
             controller.listener.names=CONTROLLER\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             log.dirs={}\nnum.partitions=1\nauto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n\
             offsets.topic.num.partitions=4\ntransaction.state.log.num.partitions=4\n{}\n{beside}\n",
            folder.path().join("log").display(),
            setup.lines.join("\n"),
        );
        fs::write(folder.path().join("server.properties"), properties).map_err(|e| e.to_string())?;
        format_storage(&jars, folder.path())?;
        let child = run(&jars, folder.path()).map_err(|e| e.to_string())?;
        let kafka = Self { folder, jars, host: host.into(), port, secure, through: setup.through, child };
        kafka.wait_until_up();
        Ok(kafka)
    }

    /// Where clients find it.
    pub fn bootstrap(&self) -> String {
        format!("{}:{}", self.host, if self.through.is_some() { self.secure } else { self.port })
    }

    /// The port where a proxy finds it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients find the proxy before it.
    pub fn through(&self) -> String {
        format!("127.0.0.1:{}", self.through.unwrap())
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients of a secure broker find it.
    pub fn secure_bootstrap(&self) -> String {
        format!("localhost:{}", self.secure)
    }

    /// The certificate to trust, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("broker.pem")
    }

    /// Starts a program of Kafka's jars with one file; its words go to a log beside the broker's.
    pub fn run_with(&self, class: &str, file: &Path) -> Child {
        let log = File::create(self.folder.path().join(format!("{class}.log"))).unwrap();
        Command::new("java")
            .arg("-Xmx512m")
            .args(options())
            .arg("-cp")
            .arg(format!("{}/*", self.jars.display()))
            .arg(class)
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Allows the user `nightjar` something, in the words of `kafka-acls.sh`.
    pub fn allow(&self, words: &[&str]) {
        self.allow_user("nightjar", words);
    }

    /// Allows any user something.
    pub fn allow_user(&self, user: &str, words: &[&str]) {
        let principal = format!("User:{user}");
        let words = [["--add", "--allow-principal", &principal].as_slice(), words].concat();
        self.tool("org.apache.kafka.tools.AclCommand", &words);
    }

    /// Takes a permission of the user `nightjar` back.
    pub fn disallow(&self, words: &[&str]) {
        let words = [["--remove", "--force", "--allow-principal", "User:nightjar"].as_slice(), words].concat();
        self.tool("org.apache.kafka.tools.AclCommand", &words);
    }

    /// Runs one of Kafka's command line tools as the administrator.
    pub fn tool(&self, class: &str, words: &[&str]) {
        let output = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", self.jars.display()))
            .args([class, "--bootstrap-server", &self.bootstrap()])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{class} {words:?}: {}", String::from_utf8_lossy(&output.stdout));
    }

    fn wait_until_up(&self) {
        let watch = Stopwatch::start();
        let asker = self.consumer(true);
        while asker.fetch_metadata(None, Duration::from_secs(2)).is_err() {
            assert!(watch.seconds() < 120.0, "Kafka does not answer; see {}", self.folder.path().display());
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Stops it in its tracks, connections open.
    pub fn freeze(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again with what is on its disk.
    pub fn restart(&mut self) {
        self.kill();
        self.child = run(&self.jars, self.folder.path()).unwrap();
        self.wait_until_up();
    }

    /// A consumer for this broker.
    pub fn consumer(&self, committed: bool) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("group.id", "oracle")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", if committed { "read_committed" } else { "read_uncommitted" })
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
            .create()
            .unwrap()
    }

    /// Everything in the topics that begin with `prefix`, committed or not, to the end.
    pub fn read_all(&self, prefix: &str, committed: bool) -> Vec<Record> {
        let consumer = self.consumer(committed);
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(20)).unwrap();
        let mut assignment = TopicPartitionList::new();
        let mut open = BTreeMap::new();
        for topic in metadata.topics().iter().filter(|t| t.name().starts_with(prefix)) {
            for partition in topic.partitions() {
                assignment.add_partition_offset(topic.name(), partition.id(), Offset::Beginning).unwrap();
            }
            open.insert(topic.name().to_owned(), topic.partitions().len());
        }
        let mut left: usize = open.values().sum();
        consumer.assign(&assignment).unwrap();
        let mut records = Vec::new();
        let watch = Stopwatch::start();
        while left > 0 {
            assert!(watch.seconds() < 300.0, "reading back takes too long");
            match consumer.poll(Duration::from_millis(500)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
                Some(Err(error)) => panic!("reading back: {error}"),
                Some(Ok(message)) => records.push(Record {
                    topic: message.topic().into(),
                    partition: message.partition(),
                    key: message.key().unwrap_or_default().to_vec(),
                    headers: message.headers().map_or(Vec::new(), |headers| {
                        let text = |v: Option<&[u8]>| String::from_utf8(v.unwrap_or_default().to_vec()).unwrap();
                        headers.iter().map(|h| (h.key.to_owned(), text(h.value))).collect()
                    }),
                    payload: message.payload().unwrap_or_default().to_vec(),
                }),
            }
        }
        records
    }
}

/// What could be started, or a line that says why the test does not run.
pub fn or_say<T>(started: Result<T, String>) -> Option<T> {
    match started {
        Ok(kafka) => Some(kafka),
        Err(why) if std::env::var_os("NIGHTJAR_REQUIRE_KAFKA").is_some_and(|v| v == "1") => {
            panic!("no Apache Kafka to test with: {why}")
        }
        Err(why) => {
            println!("not run: no Apache Kafka to test with: {why}");
            None
        }
    }
}

/// Makes the empty storage of the broker whose `server.properties` lies in `folder`.
pub fn format_storage(jars: &Path, folder: &Path) -> Result<(), String> {
    let format = Command::new("java")
        .arg("-cp")
        .arg(format!("{}/*", jars.display()))
        .args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
        .arg(folder.join("server.properties"))
        .args(["--add-scram", &format!("SCRAM-SHA-512=[name=nightjar,password={PASSWORD}]")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|e| e.to_string())?;
    if format.success() { Ok(()) } else { Err(format!("formatting Kafka's storage ended with {format}")) }
}

/// The lines of a broker that sends its clients through a proxy.
fn proxied(port: u16, controller: u16, direct: u16, through: u16) -> String {
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},DIRECT://127.0.0.1:{direct},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{through},DIRECT://127.0.0.1:{direct}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=DIRECT\n"
    )
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.thaw();
        self.kill();
    }
}

/// A record read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Key.
    pub key: Vec<u8>,
    /// Headers, values as text.
    pub headers: Vec<(String, String)>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// Makes a certificate for the broker that is good from `start` (in keytool's words, such as `-2d`)
/// for `days`; gives the PEM beside it for clients to trust.
pub fn make_certificate(folder: &Path, start: &str, days: u32) -> Result<(), String> {
    let _ = fs::remove_file(folder.join("broker.p12"));
    let keytool = |words: &[&str]| {
        let status = Command::new("keytool")
            .current_dir(folder)
            .args(words)
            .args(["-keystore", "broker.p12", "-storepass", "changeit", "-alias", "broker"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|e| format!("keytool: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("keytool {words:?} ended with {status}")) }
    };
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "RSA",
        "-storetype",
        "PKCS12",
        "-startdate",
        start,
        "-validity",
        &days.to_string(),
        "-dname",
        "CN=localhost",
        "-ext",
        "san=dns:localhost,ip:127.0.0.1",
    ])?;
    keytool(&["-exportcert", "-rfc", "-file", "broker.pem"])
}

/// Makes the broker's certificate and gives the lines of a secure broker.
fn security(folder: &Path, port: u16, controller: u16, secure: u16) -> Result<String, String> {
    make_certificate(folder, "-1d", 31)?;
    Ok(format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://localhost:{secure}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\nsasl.enabled.mechanisms=SCRAM-SHA-512\n\
         listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
         ssl.keystore.location={0}/broker.p12\nssl.keystore.password=changeit\nssl.keystore.type=PKCS12\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS\n",
        folder.display()
    ))
}

/// Options of the Java machine. Tests start brokers by the hundred: with the quick compiler, and the classes in an
/// archive that `packaging/install-what-is-missing` makes, a start costs 1.5 s of a processor instead of 4.6 s. Benchmarks
/// (which are no `cfg(test)`) have the compiler that optimises.
fn options() -> Vec<String> {
    let archive = cache().join("classes.jsa");
    let archive = archive.exists().then(|| format!("-XX:SharedArchiveFile={}", archive.display()));
    let quick = cfg!(test).then_some(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    quick.into_iter().flatten().map(str::to_owned).chain(["-Xshare:auto".into()]).chain(archive).collect()
}

/// Starts the broker whose `server.properties` lies in `folder`.
pub fn run(jars: &Path, folder: &Path) -> std::io::Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("broker.log"))?;
    Command::new("java")
        .arg("-Xmx384m")
        .args(options())
        .arg("-cp")
        .arg(format!("{}/*", jars.display()))
        .arg("kafka.Kafka")
        .arg(folder.join("server.properties"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}
