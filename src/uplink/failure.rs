//! Failures, sorted by what they need; a pure function of librdkafka's code.

use rdkafka::types::RDKafkaErrorCode as Code;

/// What a failure needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The link or the brokers are away: wait.
    Transport,
    /// User name, password or certificate are refused.
    Authentication,
    /// TLS cannot be set up.
    Tls,
    /// A permission on a topic is missing.
    TopicPermission,
    /// The permission on the transactional id is missing.
    TransactionPermission,
    /// A permission on the cluster is missing.
    ClusterPermission,
    /// The topic is not there.
    UnknownTopic,
    /// Too few replicas are in sync, or the cluster refuses the replication asked for.
    Replicas,
    /// One record is refused for what it is.
    Record,
    /// Another producer with our name took over.
    Fenced,
    /// The brokers forgot the producer, as they do after days without it, or ended its transaction.
    Forgotten,
    /// Another spool's transaction is open in the cursor topic.
    OthersOpen,
    /// The cluster has no transactions.
    NoTransactions,
    /// The cluster allows only shorter transactions.
    TransactionTime,
    /// Anything else.
    Other,
}

/// Sorts a code.
pub fn classify(code: Code) -> Class {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::NetworkException
        | Code::BrokerNotAvailable
        | Code::LeaderNotAvailable
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::NotCoordinator
        | Code::ConcurrentTransactions
        | Code::ThrottlingQuotaExceeded => Class::Transport,
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => Class::Authentication,
        Code::SSL => Class::Tls,
        Code::TopicAuthorizationFailed => Class::TopicPermission,
        Code::TransactionalIdAuthorizationFailed => Class::TransactionPermission,
        Code::ClusterAuthorizationFailed => Class::ClusterPermission,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Class::UnknownTopic,
        Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::ISRInsufficient
        | Code::InvalidReplicationFactor => Class::Replicas,
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidMessage => Class::Record,
        Code::ProducerFenced | Code::Fenced | Code::TransactionCoordinatorFenced => Class::Fenced,
        Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::OutOfOrderSequenceNumber => Class::Forgotten,
        Code::UnsupportedFeature | Code::UnsupportedVersion => Class::NoTransactions,
        Code::InvalidTransactionTimeout => Class::TransactionTime,
        _ => Class::Other,
    }
}

impl Class {
    /// What the operator should do; ends a journal line.
    pub fn advice(self, brokers: &str) -> String {
        match self {
            Self::Transport => format!("check the link and the brokers {brokers}"),
            Self::Authentication => {
                "the broker refuses the login: check [uplink] sasl_username and the password credential, or the client certificate".into()
            }
            Self::Tls => {
                "TLS cannot be set up: check [uplink] ca_file and the certificates, their dates and host names".into()
            }
            Self::TopicPermission => {
                "the account needs Write, Describe and Create on the alert topics and also Read on the cursor topic: ask who runs the cluster".into()
            }
            Self::TransactionPermission => {
                "the account needs Write and Describe on the transactional id `nightjar-`: ask who runs the cluster".into()
            }
            Self::ClusterPermission => {
                "the account needs IdempotentWrite, or Create, on the cluster: ask who runs the cluster".into()
            }
            Self::UnknownTopic => {
                "a topic, or the brokers that hold it, are missing: if this lasts, make the topic, or allow the account to (Create)".into()
            }
            Self::Replicas => {
                "too few brokers are in sync for the topic's replication: ask who runs the cluster; [uplink] replication must not exceed the number of brokers".into()
            }
            Self::Record => {
                "the topic refuses every alert as too large: raise its max.message.bytes to 4194304".into()
            }
            Self::Fenced => {
                "another producer uses this spool's name: never run two hosts from one copied spool".into()
            }
            Self::Forgotten => {
                "the brokers know this producer no longer, which is usual after days without a link: a new one is made, nothing needs to be done".into()
            }
            Self::OthersOpen => {
                "another host is in the middle of a transaction: it ends by itself within 10 min, nothing needs to be done".into()
            }
            Self::NoTransactions => {
                "the cluster offers no transactions: set [uplink] delivery = \"idempotent\", then an alert may arrive twice after a crash".into()
            }
            Self::TransactionTime => {
                "the brokers allow only shorter transactions: ask who runs the cluster to set transaction.max.timeout.ms to 600000 or more".into()
            }
            Self::Other => "see `nightjar check`".into(),
        }
    }

    /// Longest pause between two attempts, seconds: short where only the link is awaited.
    pub fn longest_pause_s(self) -> f64 {
        match self {
            Self::Transport | Self::Fenced | Self::Forgotten | Self::OthersOpen => 5.0,
            _ => 60.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_needs_patience_is_told_from_what_needs_a_person() {
        assert_eq!(classify(Code::AllBrokersDown), Class::Transport);
        assert_eq!(classify(Code::SaslAuthenticationFailed), Class::Authentication);
        assert_eq!(classify(Code::MessageSizeTooLarge), Class::Record);
        assert_eq!(classify(Code::ProducerFenced), Class::Fenced);
        assert!(Class::Transport.advice("kafka:9092").contains("kafka:9092"));
    }
}
