//! An embedded Kafka broker for rehearsals.
//!
//! It runs in this process and speaks Kafka on loopback to any client. It is librdkafka's own mock
//! cluster, so know its limits: each partition keeps 5 MiB and drops older records in silence, which
//! is why a rehearsal follows transaction by transaction ([`super::follower`]); it does not
//! recognise repeated requests, and `read_committed` shows aborted and open records. It proves
//! nothing about durability or exactly-once: tests of those run on real Apache Kafka.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::{TopicParameters, UplinkError, UplinkParameters};

/// Partitions of a topic that a rehearsal makes.
pub const PARTITIONS: i32 = 16;

/// A broker that lives as long as this value.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts one on a free loopback port.
    pub fn start() -> Result<Self, UplinkError> {
        let cluster = MockCluster::new(1).map_err(|error| UplinkError::Embedded(error.to_string()))?;
        Ok(Self { cluster })
    }

    /// Where clients find it, `127.0.0.1:port`.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Makes a topic with [`PARTITIONS`]; else it is made with 4 when it is first asked for.
    pub fn create_topic(&self, topic: &str) -> Result<(), UplinkError> {
        self.cluster.create_topic(topic, PARTITIONS, 1).map_err(|error| UplinkError::Embedded(error.to_string()))
    }

    /// Parameters for an uplink to it: transactions small enough that a gated follower sees every
    /// record before the broker drops it.
    pub fn parameters(&self) -> UplinkParameters {
        UplinkParameters {
            brokers: vec![self.bootstrap_servers()],
            topics: TopicParameters { partitions: PARTITIONS, replication: 1, by_broker: true, ..Default::default() },
            max_transaction_bytes: 4_000_000,
            ..Default::default()
        }
    }
}
