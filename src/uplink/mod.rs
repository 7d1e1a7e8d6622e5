//! From the spool to Kafka, exactly once.
