//! What happened on the host's side.

use std::time::Duration;

/// Why an exposure is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The command was never answered.
    #[error("the camera did not answer the command to expose; look at the cable")]
    Unanswered,
    /// It stopped reporting.
    #[error("the camera fell silent during the exposure; look at its power supply and the cable")]
    Silent,
    /// The blocks did not come.
    #[error("a block of the image did not come right in ten tries; set a lower [camera] baud or look at the cable")]
    Transfer,
}

/// An image that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The number of the exposure, counted by the host.
    pub number: u32,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row.
    pub pixels: Vec<u16>,
    /// Whether it was a light exposure.
    pub light: bool,
    /// When the command to expose was answered, by the clock of the arguments.
    pub opened: Duration,
    /// Open-shutter time.
    pub exposure: Duration,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The camera answers.
    Up,
    /// It does not answer; asking goes on.
    Silent,
    /// The line is to be set to this speed, once what was written is out.
    SetBaud(u32),
    /// An image has come.
    Frame(Box<Received>),
    /// An exposure without an image.
    Missed {
        /// Its number.
        number: u32,
        /// Why.
        why: Lost,
    },
    /// Something that the operator should know, one sentence.
    Trouble(String),
}
