//! Recorded frames as the pictures of a simulated camera.

use std::sync::Arc;

use super::link::frame_messages::Begin;
use super::link::{Purpose, plain_begin};
use super::replay::Recorded;
use crate::exposure::FrameKind;
use crate::fits::{Card, FitsError, Value, read_image};

/// Cards that describe the array and not the exposure.
const STRUCTURE: [&str; 14] = [
    "SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "EXTEND", "XTENSION", "PCOUNT", "GCOUNT", "BZERO", "BSCALE",
    "CHECKSUM", "DATASUM", "BLANK",
];

/// A recorded frame as counts.
#[derive(Debug, Clone)]
pub struct Played {
    /// What the readout link says of it.
    pub begin: Begin,
    /// Counts, row by row; what is beyond 16 bits is cut.
    pub counts: Vec<u16>,
}

impl Played {
    /// Reads a recorded frame.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(recorded: &Recorded) -> Result<Self, FitsError> {
        let image = read_image(&recorded.path)?;
        let (height, width) = image.pixels.dim();
        let purpose = match recorded.exposure.kind {
            FrameKind::Light => Purpose::Light,
            FrameKind::Dark => Purpose::Dark,
            FrameKind::Bias => Purpose::Bias,
            FrameKind::Flat => Purpose::Flat,
            FrameKind::Other => Purpose::Other,
        };
        let mut begin = plain_begin(width as u32, height as u32, purpose);
        begin.temperature_c = recorded.exposure.temperature_c;
        let cards = image.header.cards().iter().filter(|card| !STRUCTURE.contains(&card.keyword.as_str()));
        begin.cards = cards.filter_map(line).collect();
        let counts = image.pixels.iter().map(|value| value.round().clamp(0.0, 65_535.0) as u16).collect();
        Ok(Self { begin, counts })
    }

    /// The counts as the link sends them.
    pub fn bytes(&self) -> Arc<[u8]> {
        self.counts.iter().flat_map(|count| count.to_le_bytes()).collect()
    }
}

/// A card without its comment, so that more of them find room.
fn line(card: &Card) -> Option<String> {
    let value = match &card.value {
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => format!("{real:?}"),
        Value::Logical(truth) => if *truth { "T" } else { "F" }.to_owned(),
        Value::Empty => return None,
    };
    let line = format!("{:<8}= {value}\n", card.keyword);
    (card.keyword.len() <= 8 && line.len() <= 81 && line.is_ascii()).then_some(line)
}
