//! From the spool to Kafka: exactly once, in any order, whatever the link does.
//!
//! # The protocol
//!
//! One producer per spool, `transactional.id = nightjar-<uuid of the spool>`. What has been
//! delivered is a [`Cursor`](crate::spool::cursor::Cursor), kept in a compacted topic under the
//! spool's uuid and written in the same transaction as the alerts that it covers: broker and
//! cursor can never disagree, whenever either of us dies.
//!
//! ```text
//! start    init_transactions        fences a zombie, settles the transaction in doubt
//!          read the cursor          read_committed, to the very end
//!          spool.reconcile          what the broker has is not sent again
//! loop     begin ─ alerts ─ wait for every delivery report ─ cursor ─ commit
//!          cursor file durable ─ files to sent/
//! ```
//!
//! `init_transactions` must come before the cursor is read: the commit in doubt may have landed.
//!
//! Transactions are short ([`pace`]): about 3 s of link time, so that a reader of committed
//! records never waits long and a large exposure on a thin link makes progress. The newest unsent
//! exposure goes first (or the oldest, as set): after an outage tonight's alerts go out at once and
//! the backlog follows behind them through the same producer.
//!
//! Whatever goes wrong inside a transaction, brokers that say nothing for a minute included
//! (`silence`), the producer is dropped and the session starts over from the broker's cursor, since
//! the commit may have landed. The same after a commit that succeeded through a disturbed
//! connection: a delayed EndTxn must not act on a later transaction (KAFKA-17754). The new producer
//! has a new epoch, and the brokers refuse what an older one sent; so has the one that follows a
//! kill. Hence nothing need be read back after an unclean start but the cursor: what was noted here
//! as sent and is not in the broker's is told of
//! ([`Finding::Forgotten`](crate::spool::Finding::Forgotten)), and `sent/` still has it.
//!
//! What cannot be survived with a client that takes no new epoch for each transaction (KIP-890 is not in
//! librdkafka 2.12.1): an EndTxn that acts twice while its connection lives. It commits what is open then without
//! its cursor. TCP makes no such copy; the campaign's control does, and finds alerts twice.
//!
//! With [`Delivery::Idempotent`], for clusters that refuse transactions, the same loop runs
//! without the transaction; after a crash at most one window of alerts arrives twice, recognisable
//! by the header `spool`.
//!
//! Every message gets one more header, `spool`: `<uuid> <epoch> <sequence> <number>`, which names
//! it for ever.
//!
//! # Failures
//!
//! [`failure`] sorts them by what they need. Nothing is given up: alerts are held in the spool, and
//! the journal says once, and then ever more rarely, what the operator should do. A single record
//! that the broker refuses is found by sending one record a batch, kept in `dead/` and counted.
//!
//! # How to join
//!
//! ```no_run
//! # use std::{path::Path, sync::Arc, time::Duration};
//! # use nightjar::spool::{Spool, SpoolParameters};
//! # use nightjar::uplink::{Uplink, UplinkParameters};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spool = Arc::new(Spool::open(Path::new("spool"), SpoolParameters::default())?);
//! let parameters = UplinkParameters { brokers: vec!["localhost:9092".into()], ..Default::default() };
//! let uplink = Uplink::start(parameters, spool.clone())?;
//! // … the night calls `spool.append(&exposure, &messages)` for each exposure …
//! println!("{:?}", uplink.status());
//! let all_sent = uplink.stop(Duration::from_secs(20));
//! # Ok(()) }
//! ```
//!
//! A rehearsal takes [`EmbeddedBroker`](embedded::EmbeddedBroker), its `parameters()`, and a
//! [`Follower`](follower::Follower) whose `gate()` goes to [`Uplink::start_gated`].
//!
//! Memory: librdkafka holds at most [`UplinkParameters::buffer_bytes`]; everything else stays on
//! disk until it is sent.

mod broker_cursor;
pub mod certificate;
pub mod check;
mod client;
mod courier;
pub mod embedded;
pub mod failure;
pub mod follower;
mod handle;
pub mod pace;
pub mod quiet;
mod refusals;
pub mod security;
mod session;
mod silence;
mod topics;

use std::time::Duration;

pub use handle::{State, Uplink, UplinkStatus};
pub use security::{Security, TlsParameters};

use crate::spool::Order;

/// What Kafka is asked to promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Transactions.
    #[default]
    ExactlyOnce,
    /// An idempotent producer without transactions.
    Idempotent,
}

/// How topics are made where they are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicParameters {
    /// Partitions of a night's topic.
    pub partitions: i32,
    /// Copies of each partition, of the cursor topic too.
    pub replication: i32,
    /// Days that a night's records are kept.
    pub retention_days: u32,
    /// Leave it to the broker to make topics when they are asked for (rehearsals).
    pub by_broker: bool,
}

impl Default for TopicParameters {
    fn default() -> Self {
        Self { partitions: 16, replication: 3, retention_days: 14, by_broker: false }
    }
}

/// All that the uplink needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct UplinkParameters {
    /// Brokers, `host:port`.
    pub brokers: Vec<String>,
    /// False holds everything in the spool.
    pub publish: bool,
    /// What Kafka is asked to promise.
    pub delivery: Delivery,
    /// Which exposure goes first.
    pub order: Order,
    /// Protection of the connection.
    pub security: Security,
    /// Topics.
    pub topics: TopicParameters,
    /// Compacted topic of the cursors.
    pub cursor_topic: String,
    /// Memory for alerts on their way, bytes [64 MiB].
    pub buffer_bytes: usize,
    /// Largest transaction, bytes [64 MB].
    pub max_transaction_bytes: u64,
    /// After this time the broker aborts a transaction [10 min; brokers allow up to 15].
    pub transaction_timeout: Duration,
    /// Further librdkafka properties, for tests.
    pub extra: Vec<(String, String)>,
}

impl Default for UplinkParameters {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            publish: true,
            delivery: Delivery::ExactlyOnce,
            order: Order::NewestFirst,
            security: Security::Plaintext,
            topics: TopicParameters::default(),
            cursor_topic: "nightjar_cursor".into(),
            buffer_bytes: 64 << 20,
            max_transaction_bytes: 64_000_000,
            transaction_timeout: Duration::from_secs(600),
            extra: Vec::new(),
        }
    }
}

/// Why the uplink cannot be started at all.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// librdkafka refuses the settings.
    #[error("the settings of [uplink] make no Kafka client: {0}")]
    Settings(String),
    /// No thread.
    #[error("no thread for the uplink: {0}")]
    Thread(#[from] std::io::Error),
    /// The embedded broker.
    #[error("the embedded broker: {0}")]
    Embedded(String),
}
