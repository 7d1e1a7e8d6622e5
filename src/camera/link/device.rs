//! What a camera is made of, and what its protocol wants of the rest of it.

use std::sync::Arc;
use std::time::Duration;

use super::frame_messages::{Begin, Expose, Purpose, Shutter};
use super::messages::Caps;

/// What a camera is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraParameters {
    /// Another number at every power-up.
    pub session: u32,
    /// Highest number that a frame has had; 0 for a camera without a memory that outlives it.
    pub highest: u32,
    /// What it says of itself.
    pub caps: Caps,
    /// Time from shutter close until the frame is in its memory.
    pub readout: Duration,
}

/// A picture that the camera took.
#[derive(Debug, Clone)]
pub struct Picture {
    /// All but the shutter's times, which the camera knows, and the length of blocks, which the host sets.
    pub begin: Begin,
    /// Pixels, little-endian.
    pub bytes: Arc<[u8]>,
    /// When the shutter was open by a clock of the camera's own: µs since 1970, UTC.
    pub utc_us: Option<(u64, u64)>,
}

/// What the camera's protocol wants of the rest of the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Change the line's speed.
    SetBaud(u32),
    /// The shutter opens for this frame.
    Open {
        /// Its number.
        frame: u32,
        /// What was asked for.
        expose: Expose,
    },
    /// The frame is read out: give its picture to [`super::Camera::store`].
    Read {
        /// Its number.
        frame: u32,
    },
    /// The host has the frame.
    Forget {
        /// Its number.
        frame: u32,
    },
}

/// A light frame of `width` × `height` pixels without anything else known of it.
pub fn plain_begin(width: u32, height: u32, purpose: Purpose) -> Begin {
    Begin {
        width,
        height,
        bits: 16,
        purpose,
        block_bytes: 0,
        shutter: Shutter::Ago { open_us: 0, close_us: 0 },
        gain_milli: 0,
        overscan: None,
        temperature_c: None,
        cards: String::new(),
    }
}
