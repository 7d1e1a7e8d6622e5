//! The fault campaign: faults by the thousand, and oracles that know what is owed.
//!
//! Here each row runs for seconds. `make campaign` runs the same with `NIGHTJAR_CAMPAIGN=1`, which
//! makes the rows long, and prints the table. Rows that this machine cannot run say so. The
//! controls break the protocol on purpose and must be found out, else a row proves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "../support/alerts.rs"]
mod alerts;
mod backlog;
mod brokers;
mod calls;
#[path = "../support/careless_disk.rs"]
mod careless_disk;
mod careless_uplink;
mod changes;
#[path = "../support/cluster.rs"]
mod cluster;
mod controls;
mod flips;
#[path = "../support/kafka.rs"]
mod kafka;
mod kills;
#[path = "../support/loop_disk.rs"]
mod loop_disk;
mod network;
mod oracle;
mod protocol;
mod proxy;
mod row;
mod sender;
#[path = "../support/simulated_disk.rs"]
mod simulated_disk;
mod spool;
mod zombies;
