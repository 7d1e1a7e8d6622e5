//! librdkafka clients: their properties, and what they report through callbacks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;
use uuid::Uuid;

use super::failure::{Class, classify};
use super::{Delivery, UplinkParameters};

/// Largest request of the client and largest record that Nightjar's topics take, bytes.
pub const MAX_MESSAGE: usize = 4 << 20;

/// A failure with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it needs.
    pub class: Class,
    /// What was said.
    pub text: String,
}

impl Fault {
    /// From any error of rdkafka, with what was being done.
    pub fn new(doing: &str, error: &KafkaError) -> Self {
        let class = error.rdkafka_error_code().map_or(Class::Other, classify);
        Self { class, text: format!("{doing}: {error}") }
    }
}

/// What a client reports; read by the thread that uses it.
#[derive(Debug, Default)]
pub struct Watch {
    /// Good delivery reports: all, and by topic.
    delivered: AtomicU64,
    by_topic: Mutex<BTreeMap<String, u64>>,
    disturbed: AtomicBool,
    failed: Mutex<Vec<(usize, Code)>>,
    last: Mutex<Option<Fault>>,
}

impl Watch {
    /// Forgets the delivery reports, before a transaction.
    pub fn reset(&self) {
        self.delivered.store(0, Ordering::Relaxed);
        self.by_topic.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Good delivery reports since [`Watch::reset`].
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Those of a topic.
    pub fn delivered_to(&self, topic: &str) -> u64 {
        self.by_topic.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied().unwrap_or(0)
    }

    /// Whether a connection ever had trouble: the client repeats nothing of the kind within 30 s, so
    /// what was once seen is never forgotten.
    pub fn disturbed(&self) -> bool {
        self.disturbed.load(Ordering::Relaxed)
    }

    /// Forgets disturbances: the producer has a new epoch, and nothing of an older one can act.
    pub fn settle(&self) {
        self.disturbed.store(false, Ordering::Relaxed);
    }

    /// A connection that never came about carried no request that could act later.
    fn note_disturbance(&self, message: &str) {
        const BEFORE_UP: [&str; 6] = [
            "state INIT",
            "state DOWN",
            "state TRY_CONNECT",
            "state CONNECT",
            "state SSL_HANDSHAKE",
            "state APIVERSION",
        ];
        if !BEFORE_UP.iter().any(|state| message.contains(state)) {
            self.disturbed.store(true, Ordering::Relaxed);
        }
    }

    /// Bad delivery reports since [`Watch::reset`]: which message, and why.
    pub fn failed(&self) -> Vec<(usize, Code)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last trouble that the client told of; taken.
    pub fn take_last(&self) -> Option<Fault> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Watch {
    /// A connection that breaks under requests in flight, and a request without an answer, are
    /// told in the log alone (librdkafka 2.12.1, `rd_kafka_broker_set_error`); the broker's closing
    /// of an idle one is below the level that is logged.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(facility, "FAIL" | "REQTMOUT" | "REQERR") {
            self.note_disturbance(message);
        }
        tracing::debug!(target: "nightjar::librdkafka", "{level:?} {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let class = error.rdkafka_error_code().map_or(Class::Other, classify);
        tracing::debug!(target: "nightjar::librdkafka", "{error}: {reason}");
        self.note_disturbance(reason);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows the reason and must not hide it.
        let summary = error.rdkafka_error_code() == Some(Code::AllBrokersDown);
        let graver = class != Class::Transport && class != Class::Other;
        if graver || last.as_ref().is_none_or(|known| known.class == class && !summary) {
            *last = Some(Fault { class, text: reason.to_owned() });
        }
    }
}

impl ConsumerContext for Watch {}

impl ProducerContext for Watch {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        match result {
            Ok(message) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                let mut by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
                match by_topic.get_mut(message.topic()) {
                    Some(count) => *count += 1,
                    None => _ = by_topic.insert(message.topic().to_owned(), 1),
                }
            }
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, code));
            }
        }
    }
}

fn base(parameters: &UplinkParameters) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", parameters.brokers.join(","))
        .set("client.id", "nightjar")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "5000")
        .set("socket.keepalive.enable", "true")
        .set("allow.auto.create.topics", parameters.topics.by_broker.to_string());
    for (name, value) in parameters.security.properties() {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

fn with_extra(mut config: ClientConfig, parameters: &UplinkParameters) -> ClientConfig {
    for (name, value) in &parameters.extra {
        config.set(name, value);
    }
    config
}

/// The producer of the spool `uuid`; `singly` sends one record a batch, to find the one that is
/// refused.
pub fn producer(parameters: &UplinkParameters, uuid: Uuid, singly: bool) -> Result<BaseProducer<Watch>, KafkaError> {
    named_producer(parameters, &format!("nightjar-{uuid}"), singly)
}

/// As [`producer`], with any transactional id.
pub fn named_producer(
    parameters: &UplinkParameters,
    transactional_id: &str,
    singly: bool,
) -> Result<BaseProducer<Watch>, KafkaError> {
    let mut config = base(parameters);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.codec", "zstd")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("batch.num.messages", if singly { "1" } else { "10000" })
        .set("message.max.bytes", MAX_MESSAGE.to_string())
        .set("queue.buffering.max.kbytes", (parameters.buffer_bytes >> 10).max(1024).to_string())
        .set("queue.buffering.max.messages", "100000");
    match parameters.delivery {
        Delivery::ExactlyOnce => {
            let timeout = parameters.transaction_timeout.as_millis();
            config
                .set("transactional.id", transactional_id)
                .set("transaction.timeout.ms", timeout.to_string())
                .set("message.timeout.ms", timeout.to_string());
        }
        // Never give a message up: the spool would not notice for minutes, the broker's memory of
        // the sequence lasts a day.
        Delivery::Idempotent => {
            config.set("message.timeout.ms", "0");
        }
    }
    with_extra(config, parameters).create_with_context(Watch::default())
}

/// Why the open transaction can only be aborted, where that is so. librdkafka tells it to whoever
/// asks for the next transaction, which in an open one changes nothing and else fails by `State`;
/// messages of a failed transaction get no delivery report.
pub fn transaction_error(producer: &BaseProducer<Watch>) -> Option<KafkaError> {
    match producer.begin_transaction() {
        Err(KafkaError::Transaction(error)) if error.code() != Code::State => Some(KafkaError::Transaction(error)),
        _ => None,
    }
}

/// A consumer that is assigned by hand. `committed` hides what is open or aborted.
pub fn reader(parameters: &UplinkParameters, committed: bool) -> Result<BaseConsumer<Watch>, KafkaError> {
    let mut config = base(parameters);
    config
        .set("group.id", "nightjar")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // A flipped digit of a cursor would pass for exposures that were sent.
        .set("check.crcs", "true")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", if committed { "read_committed" } else { "read_uncommitted" })
        .set("fetch.wait.max.ms", "100");
    config.create_with_context(Watch::default())
}

/// Any client's configuration, for administration.
pub fn administration(parameters: &UplinkParameters) -> ClientConfig {
    base(parameters)
}

/// How long one call into librdkafka may block, so that stopping is never far.
pub const SLICE: Duration = Duration::from_secs(1);
