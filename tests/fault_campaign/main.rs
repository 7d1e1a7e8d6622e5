//! The fault campaign: faults by the thousand, and oracles that know what is owed.
//!
//! Here each row runs for seconds. `make campaign` (`packaging/campaign`) runs the same with
//! `NIGHTJAR_CAMPAIGN=1`, which makes the rows long, and prints the table. Rows that this machine
//! cannot run say so. The controls break the protocol on purpose and must be found out, else a row
//! proves nothing.
//!
//! | module | what is done to Nightjar | its controls |
//! | --- | --- | --- |
//! | `spool` | SIGKILL of the writer at any µs, power cuts of an ext4, full disks | acknowledged early; nothing synchronised; folders not synchronised |
//! | `calls` | every system call of the writer fails once, or for ever | |
//! | `flips` | bits flipped, bytes zeroed, files cut | |
//! | `kills` | SIGKILL of the sender in mid-transaction, the broker killed besides | cursor outside the transaction |
//! | `network` | drop, reset, one way, loss, 1 Mbit/s, flapping, unplugged; thin link; backlog; two outages; silence before a reader | |
//! | `brokers` | three brokers hang, die, hand over, restart in turn | delivery errors ignored |
//! | `protocol` | requests and replies lost, late, repeated | cursor read before `init_transactions`; a request that acts again unnoticed |
//! | `changes` | topic, limit, permission, password, certificate changed; identities that expire | |
//! | `zombies` | a stopped sender whose copy goes on; a snapshot put back | |
//! | `backlog` | 40 GB wait | |
//!
//! The oracle of the whole way is a process with a consumer of its own (`oracle`), which is told what
//! the spool acknowledged and reads committed records: each alert is a function of its exposure's
//! name and its number, so every byte, count and order is compared. The oracle of the spool alone
//! opens it after the fault and compares every unsent byte (`spool::judge`).
//!
//! Power is cut in two ways. An ext4 is shut down without writing its journal
//! (`EXT4_IOC_SHUTDOWN`), as often as wanted: that is what this file system really does. A disk in memory
//! (`tests/spool_survives_power_cuts.rs`, `tests/spool_keeps_its_word_over_many_openings.rs`) is cut at each step and
//! keeps any choice of what was not synchronised, as POSIX allows: more than any one file system does.
//! Replaying a log of a block device's writes would lie between the two: it finds orders that ext4
//! makes possible, and those are a part of what the disk in memory is made to do.
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
