//! The disk buffer: finished Kafka messages, one file an exposure.
