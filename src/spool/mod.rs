//! The disk buffer: finished Kafka messages, one file an exposure, all or nothing.
//!
//! An exposure's alerts are on disk, file and name synchronised, before the exposure counts as
//! done; the uplink takes them from there when the link lets it. The pattern is first-in
//! first-out by exposure, so one file each is the whole data structure: what is written is written
//! once, and what is sent is freed at once.
//!
//! # The folder
//!
//! ```text
//! spool/
//!   LOCK            held (flock) by the one process that writes
//!   spool.json      {"format":1,"uuid":"…","opened":12,"check":CRC of "1 … 12"}
//!   cursor          what the broker has committed, and which numbers were given: a line of JSON and
//!                   its CRC (see [`cursor`])
//!   delivery        what Kafka was last asked to promise: exactly-once, or idempotent
//!   reserve.bin     8 MiB that are given back when even the cursor finds no room
//!   ready/          unsent: 000000000412.seg; unfinished: 3.tmp
//!   sent/           sent, kept for a while; a trimmed one keeps its head, so that a repeated
//!                   exposure is still recognised
//!   dead/           single records that the broker refuses: 000000000412-00017.seg and .txt (why);
//!                   .retry asks to send it again
//!   quarantine/     damaged records as they were found: 000000000412-00017.bin
//! ```
//!
//! # A segment
//!
//! All numbers are little-endian, all checksums CRC-32C (Castagnoli). Every byte is covered by one.
//!
//! ```text
//! head, 64 bytes, then the names
//!    0  8  magic "NIGHTJAR"           40  8  sequence number, from 1
//!    8  2  format, 1                  48  4  number of records
//!   10  2  length of exposure name    52  4  number of topics
//!   12  4  length of all names        56  4  CRC of the names
//!   16 16  uuid of the spool          60  4  CRC of bytes 0..60
//!   32  8  epoch
//!   64  …  exposure name, then for each topic: 2 length, name
//! record, for each alert, 20 bytes, then key, headers, payload
//!    0  4  length of the record       12  4  number in the segment, from 0
//!    4  2  number of the topic        16  4  CRC of the whole record but these 4 bytes
//!    6  2  length of the key          20  …  key
//!    8  4  length of the headers       …  …  each header: 2 length of name, 4 length of value, name, value
//!                                      …  …  payload, to the end of the record
//! footer
//!    0  8n offset of each record from the start of the file
//!    …  …  head and names once more
//!  -32  4  number of records          -16  4  length of head and names
//!  -28  4  CRC of the records' CRCs   -12  4  CRC of the footer up to here
//!  -24  8  length of the file          -8  8  magic "RAJTHGIN"
//! ```
//!
//! The head stands at both ends and the index beside the lengths, so that one damaged place costs
//! at most the records it touches. Lengths are bounded before anything is allocated.
//!
//! A record is the finished Kafka message; the uplink never encodes again. There is no timestamp
//! of ours in it: the topic stamps on arrival, because a wrong host clock would wedge the uplink
//! (Kafka 4 refuses records more than an hour ahead), and a late backlog would expire early.
//!
//! # Commit
//!
//! 1. [`Spool::reserve`] preallocates `ready/<n>.tmp`: a full disk is found before the work is done.
//! 2. [`Spool::commit`] writes records and footer, cuts the file to size and synchronises it,
//! 3. renames `.tmp` to `.seg`,
//! 4. synchronises the folder. Then, and only then, the exposure is done.
//! 5. The number is noted in `cursor`. Should that fail, the exposure is safe all the same.
//!
//! A file whose synchronising failed is never trusted again: the exposure is written once more to
//! a new one, and when that fails too, no further exposure is taken, while the uplink goes on.
//!
//! After the broker's commit: `cursor` durable, then the file moves to `sent/`, then (48 h later, or
//! when the disk needs it) it is trimmed. A file that reappears in `ready/` after a power cut is
//! recognised by the cursor.
//!
//! # Who is who
//!
//! A segment is named by (uuid, epoch, sequence). Each opening of the spool begins a new [`Epoch`],
//! partly random, so that a spool restored from a snapshot, or a copy that runs beside it, cannot give a name that its
//! other life gave. What was sent is kept by these names, here and at the broker, and the names never change:
//! lives meet at the broker's cursor, and each sends only what no other has sent. See [`cursor`].
//!
//! No number is given twice. The next one is one more than the largest that any file, set aside or
//! not, or the cursor knows of; the cursor is written after each exposure and counts only numbers
//! whose exposure is durable. So the loss of any file, of the youngest too, shows as a gap in the
//! sequence, which is counted and named, and a number that was never given does not. The cursor
//! goes to the broker with each transaction: a disk that lost both file and cursor is told of its loss
//! by the broker. Numbers are not leased ahead: a lease would leave holes after each kill that
//! look like losses, and two openings differ by their epoch anyway.

mod aside;
mod buffer;
pub mod cursor;
pub mod disk;
pub mod format;
mod identity;
pub mod inspect;
pub mod pressure;
mod recovery;
mod retry;
mod room;
pub mod segment;
mod settling;
mod status;
pub mod store;

pub use aside::Aside;
pub use buffer::{Order, Receipt, Reservation, Spool, SpoolParameters, Waiting};
pub use identity::Epoch;
pub use recovery::Finding;
pub use status::SpoolStatus;

/// A finished Kafka message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Key; decides the partition.
    pub key: Vec<u8>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// Why the spool did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process writes here.
    #[error("the spool {0} is in use by another nightjar; stop that one first (`systemctl status nightjar`)")]
    Locked(String),
    /// The operating system said no.
    #[error("the spool {place}: {doing}: {source}; check the disk and the folder's owner")]
    Io {
        /// The folder.
        place: String,
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not enough room for another exposure.
    #[error(
        "no room for another exposure in {place}: {free_mb} MB are free, {needed_mb} MB are needed; free some space or let the uplink drain, exposures wait as raw frames until then"
    )]
    Full {
        /// The folder.
        place: String,
        /// Free, MB.
        free_mb: u64,
        /// Needed, MB.
        needed_mb: u64,
    },
    /// The exposure is here already: its alerts are safe.
    #[error("the alerts of exposure {exposure} are in the spool already, as number {sequence}; nothing was added")]
    Twin {
        /// The exposure.
        exposure: String,
        /// Its sequence number.
        sequence: u64,
    },
    /// Two writes in a row failed; nothing more is taken until a restart.
    #[error("the spool takes no more exposures because the disk failed twice ({0}); replace the disk, then restart")]
    Refusing(String),
    /// A message that cannot be stored.
    #[error("message {number} of exposure {exposure} cannot be stored: {why}")]
    Message {
        /// The exposure.
        exposure: String,
        /// Number of the message, from 0.
        number: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// The identity of the spool is unreadable.
    #[error(
        "{place}/spool.json is unreadable ({why}) and no exposure tells the spool's uuid; restore it from a backup, or move the folder away to begin a new spool"
    )]
    Identity {
        /// The folder.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Written by a newer program.
    #[error("{file}: {damage}")]
    Newer {
        /// The file.
        file: String,
        /// What it says.
        damage: format::Damage,
    },
    /// A segment that is not there, or is not readable at all.
    #[error("segment {sequence} of {place} cannot be read: {why}")]
    Segment {
        /// The folder.
        place: String,
        /// Which.
        sequence: u64,
        /// What is wrong.
        why: String,
    },
}

/// A result of the spool.
pub type Result<T, E = SpoolError> = std::result::Result<T, E>;
