//! How alerts are kept and sent, and how the daemon runs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[spool]`: the disk buffer between the pipeline and Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spool {
    /// Where alerts lie until Kafka has them. Default "/var/lib/nightjar/spool". About 60 MB for
    /// 1,000 alerts.
    pub folder: PathBuf,
    /// For how many hours a sent exposure is kept, so that it can be read back. Default 48; less
    /// when the disk needs the room.
    pub keep_sent_hours: u32,
}

impl Default for Spool {
    fn default() -> Self {
        Self { folder: "/var/lib/nightjar/spool".into(), keep_sent_hours: 48 }
    }
}

/// `[uplink] delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Kafka transactions: a `read_committed` reader sees every alert once.
    ExactlyOnce,
    /// For clusters that refuse transactions: an alert may arrive twice after a crash.
    Idempotent,
}

/// `[uplink] drain`: in which order a backlog is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drain {
    /// Tonight's alerts at once, the backlog in the gaps.
    NewestFirst,
    /// In the order of the exposures.
    OldestFirst,
}

/// `[uplink] security`: how the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Neither encrypted nor authenticated.
    Plaintext,
    /// TLS, with a client certificate where one is given.
    Tls,
    /// TLS with a user name and password.
    SaslTls,
}

/// `[uplink]`: the Kafka cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uplink {
    /// Brokers, `host:port`. Default none: `run` needs one while `publish` is true.
    pub brokers: Vec<String>,
    /// Whether alerts are sent. Default true. With false everything is held in the spool, for
    /// commissioning: an alert cannot be called back.
    pub publish: bool,
    /// What Kafka is asked to promise. Default "exactly-once".
    pub delivery: Delivery,
    /// Order in which a backlog is sent. Default "newest-first".
    pub drain: Drain,
    /// Protection of the connection. Default "plaintext".
    pub security: Security,
    /// Certificates of the authorities to trust, PEM. No default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Certificate of this client, PEM. No default: none is shown.
    pub certificate_file: Option<PathBuf>,
    /// Name of the systemd credential that holds the private key, PEM. Default "".
    pub key_credential: String,
    /// SASL mechanism. Default "SCRAM-SHA-512".
    pub sasl_mechanism: String,
    /// SASL user. Default "".
    pub sasl_username: String,
    /// Name of the systemd credential that holds the password. Default "".
    pub password_credential: String,
    /// Partitions of a night's topic where Nightjar makes it. Default 16.
    pub partitions: i32,
    /// Copies of each partition where Nightjar makes the topic. Default 3: the cluster needs as
    /// many brokers.
    pub replication: i32,
    /// Days after which Kafka drops a night's topic's records. Default 14.
    pub retention_days: u32,
    /// Compacted topic in which the position is kept. Default "nightjar_cursor".
    pub cursor_topic: String,
    /// Memory for alerts on their way, MB. Default 64. What waits stays on disk.
    pub buffer_mb: u32,
}

impl Default for Uplink {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            publish: true,
            delivery: Delivery::ExactlyOnce,
            drain: Drain::NewestFirst,
            security: Security::Plaintext,
            ca_file: None,
            certificate_file: None,
            key_credential: String::new(),
            sasl_mechanism: "SCRAM-SHA-512".into(),
            sasl_username: String::new(),
            password_credential: String::new(),
            partitions: 16,
            replication: 3,
            retention_days: 14,
            cursor_topic: "nightjar_cursor".into(),
            buffer_mb: 64,
        }
    }
}

/// `[metrics]`: figures for Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Address to listen on, such as "127.0.0.1:9184". Default "": off.
    pub listen: String,
}

/// `[service]`: the process itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Threads of the pipeline. Default 0: one a core.
    pub threads: usize,
    /// Whether alerts are held while the host's clock is not synchronised. Default true.
    pub require_synchronised_clock: bool,
    /// Where the daemon's state is written for `nightjar status`. Default
    /// "/run/nightjar/status.json".
    pub status_file: PathBuf,
}

impl Default for Service {
    fn default() -> Self {
        Self { threads: 0, require_synchronised_clock: true, status_file: "/run/nightjar/status.json".into() }
    }
}
