//! The readout link: a camera's frames over any serial line or TCP connection, for microcontroller
//! and FPGA readouts. This text is the protocol; both ends are in this folder, without I/O and clock.
//!
//! A frame that is still in the camera's memory survives noise, unplugging and a host that starts
//! again. The host tells the camera to forget a frame only when it is on disk.
//!
//! # Bytes
//!
//! 8 data bits, no parity, one stop bit, no flow control; [`INITIAL_BAUD`] after power-up and after
//! a line was cut. Everything is little-endian. A packet is stuffed by COBS ([`cobs`]) and ends in a
//! zero byte; a receiver that lost its place finds it at the next zero, and ignores what it cannot
//! read. Inside:
//!
//! ```text
//!  0     1     2        4            8            12           16                16+n      20+n
//!  +-----+-----+--------+------------+------------+------------+--- payload -----+----------+
//!  | ver | type| seq    | session    | frame      | block      | n <= 4096       | CRC-32C  |
//!  | u8  | u8  | u16    | u32        | u32        | u32        |                 | u32      |
//!  +-----+-----+--------+------------+------------+------------+-----------------+----------+
//! ```
//!
//! | field | means |
//! | --- | --- |
//! | ver | 1 |
//! | seq | counts the sender's packets; for whoever looks for losses |
//! | session | the camera's: another number at every power-up, never 0. The host sends 0 until it knows it |
//! | frame | number of the frame. Numbers grow by one and never return, see below |
//! | block | number of the block, counted from 0 |
//! | CRC-32C | Castagnoli (iSCSI, RFC 3720), of everything before it |
//!
//! # Packets
//!
//! | type | from | frame, block | payload |
//! | --- | --- | --- | --- |
//! | 1 `HELLO` | host | highest frame that it knows | its name, UTF-8 |
//! | 2 `CAPS` | camera | highest frame it has taken | width u32, height u32, bits u8, flags u8 (1: exposes on command), frames its memory holds u16, longest block u16, frames that wait u16, highest baud u32 (0: speed has no meaning), firmware UTF-8 |
//! | 3 `BAUD` | both | | step u8 (0 propose, 1 accept, 2 refuse, 3 test, 4 confirm), baud u32; in a test the bytes 0 to 255 follow |
//! | 4 `CONFIG` | both | | payload of a block u16 (even), setpoint i16 (0.01 °C; 32767: leave it) |
//! | 5 `EXPOSE` | host | its number | open-shutter time u64 (µs), purpose u8 (0 light, 1 dark, 2 bias, 3 flat, 4 as its cards say) |
//! | 6 `STATUS` | camera | frame in work, or the last one | doing u8 (0 nothing, 1 exposing, 2 reading), 0 u8, frames that wait u16, ms until it is done u32, temperature i16 (0.01 °C; 32767 unknown) |
//! | 7 `FRAME_BEGIN` | camera | its number | 52 bytes and cards, below |
//! | 8 `BLOCK` | camera | its number, the block's | pixels, u16 each, row by row; the last block may be shorter |
//! | 9 `FRAME_END` | camera | its number, blocks that it has | CRC-32C of their bytes u32 |
//! | 10 `NAK` | host | frame, first block of the map | u32: send everything from this block on; then a bitmap: bit k of byte j asks for block `block` + 8 j + k |
//! | 11 `CREDIT` | host | frame, first block not to be sent yet | |
//! | 12 `RELEASE` | both | frame | host: this frame and all before it are on disk; camera: they are forgotten |
//! | 13 `ABORT` | host | frame | end the exposure now, keep what the detector has |
//! | 14 `PING` | host | | |
//! | 15 `ERROR` | camera | frame | code u16 (1 no such frame, 2 busy, 3 not possible, 4 hardware), text UTF-8 |
//!
//! `FRAME_BEGIN`:
//!
//! ```text
//!  0     4      8    9       10          12    13  14           16         20      28       36        52
//!  +-----+------+----+-------+-----------+-----+---+------------+----------+-------+--------+---------+------+
//!  |width|height|bits|purpose|block bytes|clock| 0 |temperature | gain     | open  | close  |overscan | cards|
//!  | u32 | u32  | u8 | u8    | u16       | u8  |   |i16 0.01 °C |u32 0.001 | u64 us| u64 us |4 x u32  | UTF-8|
//!  +-----+------+----+-------+-----------+-----+---+------------+----------+-------+--------+---------+------+
//! ```
//!
//! `clock` 1: `open` and `close` are UTC since 1970-01-01. `clock` 0, for a camera without a clock:
//! they are ages at the moment at which the packet is sent. Gain is in e-/ADU (0: unknown). Overscan
//! is first column, column after the last, first row, row after the last (all 0: none). Cards are
//! lines `KEYWORD = value / comment` of a FITS header, each at most 80 characters.
//!
//! # How it goes
//!
//! ```text
//!   host                                   camera
//!   HELLO (frame = highest known)   ──►
//!                                   ◄──    CAPS (session, highest)
//!   [BAUD propose ──► ◄── accept; both change; test ──► ◄── test; confirm ──► ◄── confirm]
//!   CONFIG                          ──►
//!                                   ◄──    CONFIG (in force)
//!   EXPOSE 413                      ──►    (or the camera exposes by itself)
//!                                   ◄──    STATUS exposing
//!                                   ◄──    FRAME_BEGIN 413, every second until somebody wants it
//!   CREDIT 413 up to 64             ──►
//!                                   ◄──    BLOCK 413 0, 1, 2, …
//!   CREDIT 413 up to 80             ──►
//!                                   ◄──    … BLOCK 413 511, FRAME_END 413
//!   NAK 413 {17, 204}               ──►
//!                                   ◄──    BLOCK 413 17, 204, FRAME_END 413
//!   (the frame is on disk)
//!   RELEASE 413                     ──►
//!                                   ◄──    RELEASE 413, FRAME_BEGIN 414 …
//! ```
//!
//! Rules of the camera:
//!
//! 1. It answers `HELLO` with `CAPS` and sends nothing before the first one. It gives out numbers only
//!    after it: the next is one more than the larger of its own highest and the host's. A camera that
//!    keeps its highest number in permanent memory lets the host count what a reset cost.
//! 2. A packet of another session is answered with `CAPS`: so the host learns of a reset.
//! 3. `EXPOSE` of a number that it has given out already is answered with `STATUS` and changes nothing.
//! 4. It offers its oldest frame and no other. It sends blocks in order below the limit of the last
//!    `CREDIT`, blocks asked for again before new ones, and `FRAME_END` when it has no more to send.
//! 5. On `NAK` it goes back to the block that the payload names, when it is beyond it.
//! 6. On `HELLO` it forgets credit and what was asked for again, and offers its oldest frame anew. It
//!    keeps every frame until `RELEASE`.
//! 7. After `BAUD` accept it changes its speed, and back again [`BAUD_FALLBACK`] later unless confirmed.
//! 8. When its line was cut and is there again (USB), it goes back to the initial speed and waits for
//!    `HELLO`.
//!
//! Rules of the host:
//!
//! 1. It repeats what is not answered within [`ANSWER`] (a block: three of them at the line's speed),
//!    and begins with `HELLO` again when nothing was heard for [`SILENCE`], by turns at the initial
//!    and at the agreed speed.
//! 2. It takes every packet twice without harm.
//! 3. A gap in the numbers, a camera that was reset, an exposure without an answer or an image: the
//!    frames are named as missed ([`Lost`]).
//! 4. A frame of which half has come and no more will come is given out with the missing pixels named;
//!    with less it is missed.
//! 5. Memory: one frame on its way, of the size that it was told may be; one packet.

pub mod camera;
pub mod cobs;
pub mod device;
pub mod frame_messages;
pub mod host;
pub mod image;
pub mod messages;
pub mod packet;

use std::ops::Range;
use std::time::Duration;

pub use camera::Camera;
pub use device::{CameraParameters, Picture, Wish, plain_begin};
pub use frame_messages::{Begin, Expose, Purpose, Shutter};
pub use host::{Host, HostParameters};
pub use messages::{Activity, Caps, Status};
pub use packet::LONGEST_PAYLOAD;

/// Speed after power-up, baud.
pub const INITIAL_BAUD: u32 = 115_200;
/// After this time without an answer something is said again.
pub const ANSWER: Duration = Duration::from_millis(500);
/// How often a step is repeated before it has failed.
pub const REPEATS: u32 = 3;
/// After so many calls without an answer the line is given up for a while.
pub const PATIENCE: u32 = 10;
/// How often a camera that has nothing to say is asked.
pub const PING_EVERY: Duration = Duration::from_secs(2);
/// After this time without a packet the camera is away.
pub const SILENCE: Duration = Duration::from_secs(6);
/// How often the rest of a frame is asked for in vain before it is given up.
pub const STALLS: u32 = 20;
/// Blocks that may be on their way.
pub const WINDOW: u32 = 64;
/// How often a frame is offered that nobody wants.
pub const ANNOUNCE: Duration = Duration::from_secs(1);
/// When the camera goes back to the initial speed unless the host has confirmed the new one.
pub const BAUD_FALLBACK: Duration = Duration::from_millis(2500);

/// A frame that has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The camera's session.
    pub session: u32,
    /// Its number.
    pub frame: u32,
    /// What the camera said of it.
    pub begin: Begin,
    /// When it said so, by the clock of the arguments.
    pub begun: Duration,
    /// Pixels, row by row.
    pub pixels: Vec<u16>,
    /// Numbers of pixels that never came.
    pub missing: Vec<Range<usize>>,
}

/// Why a frame is missed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The camera was reset, and its memory is gone.
    #[error("the camera was reset before it was read; look at its power supply")]
    Reset,
    /// A gap in the numbers.
    #[error("the camera took it while nobody listened, or was reset; nothing of it came")]
    NeverSeen,
    /// `EXPOSE` was never answered.
    #[error("the camera did not answer the command to expose; look at the cable")]
    Unanswered,
    /// The exposure ended without an image.
    #[error("the exposure ended without an image; look at the camera")]
    NoImage,
    /// The camera said why.
    #[error("the camera refused it: {0}")]
    Refused(String),
    /// The camera has it no longer.
    #[error("the camera forgot it before it was read; give its firmware more memory or a faster line")]
    Forgotten,
    /// Blocks stopped coming although the camera answers.
    #[error("its blocks stopped coming although the camera answers; report it to the firmware's author")]
    Stalled,
    /// Every block is right and the whole is not, again and again.
    #[error("its checksum stays wrong although every block is right; report it to the firmware's author")]
    Checksum,
    /// A size that cannot be.
    #[error("its size or block length cannot be; report it to the firmware's author")]
    Impossible,
}

/// What happened on the host's side.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The camera answers.
    Up,
    /// It has not answered for a while; calling goes on.
    Silent,
    /// It was reset.
    Reset,
    /// The line is to be set to this speed, once what was written is out.
    SetBaud(u32),
    /// A frame has come; [`Host::release`] it when it is on disk.
    Frame(Box<Received>),
    /// Frames that will not come.
    Missed {
        /// The first.
        first: u32,
        /// The last.
        last: u32,
        /// Why.
        why: Lost,
    },
    /// What the camera does.
    Status {
        /// The frame in work, or the last one.
        frame: u32,
        /// The rest.
        status: Status,
    },
    /// Something that the operator should know, one sentence.
    Trouble(String),
}

/// What went by on the host's side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received.
    pub bytes: u64,
    /// Whole packets.
    pub packets: u64,
    /// Packets that noise destroyed.
    pub damaged: u64,
    /// Blocks of the frame in hand.
    pub blocks: u64,
    /// Blocks of no frame in hand.
    pub stray: u64,
    /// Blocks that were asked for again.
    pub asked_again: u64,
    /// Times at which a frame stopped coming.
    pub stalls: u64,
    /// Frames given out.
    pub frames: u64,
}
