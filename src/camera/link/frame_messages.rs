//! What the payloads hold that are about frames: what is asked for, and what is offered. The layouts
//! are in the documentation of [`super`].

use super::LONGEST_PAYLOAD;
use super::messages::{Fields, celsius, with_text};

/// What a frame is for, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Purpose {
    /// The sky.
    #[default]
    Light = 0,
    /// Shutter closed.
    Dark = 1,
    /// No exposure.
    Bias = 2,
    /// Uniform light.
    Flat = 3,
    /// Whatever its header says.
    Other = 4,
}

impl Purpose {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Light,
            1 => Self::Dark,
            2 => Self::Bias,
            3 => Self::Flat,
            _ => Self::Other,
        }
    }
}

/// An exposure that is asked for: the payload of `EXPOSE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expose {
    /// Open-shutter time, µs.
    pub exposure_us: u64,
    /// What it is for.
    pub purpose: Purpose,
}

impl Expose {
    /// From the payload; `None` when it is too short.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        Some(Self { exposure_us: fields.u64()?, purpose: Purpose::of(fields.u8()?) })
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        let mut out = self.exposure_us.to_le_bytes().to_vec();
        out.push(self.purpose as u8);
        out
    }
}

/// When the shutter was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutter {
    /// By the camera's clock: µs since 1970-01-01, UTC.
    Utc {
        /// Opened.
        open_us: u64,
        /// Closed.
        close_us: u64,
    },
    /// For a camera without a clock: µs before this packet was sent.
    Ago {
        /// Opened.
        open_us: u64,
        /// Closed.
        close_us: u64,
    },
}

/// A frame that is ready: the payload of `FRAME_BEGIN`.
#[derive(Debug, Clone, PartialEq)]
pub struct Begin {
    /// Pixels a row, overscan included.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bits a pixel, at most 16.
    pub bits: u8,
    /// What it is for.
    pub purpose: Purpose,
    /// Payload of its blocks, bytes.
    pub block_bytes: u16,
    /// When the shutter was open.
    pub shutter: Shutter,
    /// Thousandths of an electron per ADU; 0 where nobody knows.
    pub gain_milli: u32,
    /// Overscan: first column, column after the last, first row, row after the last; `None` for none.
    pub overscan: Option<[u32; 4]>,
    /// Temperature of the detector.
    pub temperature_c: Option<f64>,
    /// Cards of a FITS header, a line each.
    pub cards: String,
}

impl Begin {
    /// From the payload; `None` when it is too short.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let (width, height) = (fields.u32()?, fields.u32()?);
        let (bits, purpose) = (fields.u8()?, Purpose::of(fields.u8()?));
        let block_bytes = fields.u16()?;
        let has_clock = fields.u8()? == 1;
        let _reserved = fields.u8()?;
        let temperature_c = fields.celsius()?;
        let gain_milli = fields.u32()?;
        let (open_us, close_us) = (fields.u64()?, fields.u64()?);
        let overscan = [fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?];
        Some(Self {
            width,
            height,
            bits,
            purpose,
            block_bytes,
            shutter: if has_clock { Shutter::Utc { open_us, close_us } } else { Shutter::Ago { open_us, close_us } },
            gain_milli,
            overscan: (overscan != [0; 4]).then_some(overscan),
            temperature_c,
            cards: fields.text(),
        })
    }

    /// The payload; cards that find no room are left out.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.width.to_le_bytes());
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&[self.bits, self.purpose as u8]);
        out.extend_from_slice(&self.block_bytes.to_le_bytes());
        let (clock, open_us, close_us) = match self.shutter {
            Shutter::Utc { open_us, close_us } => (1, open_us, close_us),
            Shutter::Ago { open_us, close_us } => (0, open_us, close_us),
        };
        out.extend_from_slice(&[clock, 0]);
        out.extend_from_slice(&celsius(self.temperature_c));
        out.extend_from_slice(&self.gain_milli.to_le_bytes());
        out.extend_from_slice(&open_us.to_le_bytes());
        out.extend_from_slice(&close_us.to_le_bytes());
        for edge in self.overscan.unwrap_or_default() {
            out.extend_from_slice(&edge.to_le_bytes());
        }
        let room = LONGEST_PAYLOAD - out.len();
        let mut cards = String::new();
        for card in self.cards.lines() {
            if cards.len() + card.len() < room {
                cards.push_str(card);
                cards.push('\n');
            }
        }
        with_text(out, &cards)
    }

    /// Bytes of the whole image.
    pub fn bytes(&self) -> u64 {
        (u64::from(self.width) * u64::from(self.height)).saturating_mul(2)
    }

    /// Blocks of the whole image.
    pub fn blocks(&self) -> u64 {
        self.bytes().div_ceil(u64::from(self.block_bytes.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Begin {
        Begin {
            width: 1024,
            height: 1026,
            bits: 16,
            purpose: Purpose::Light,
            block_bytes: 4096,
            shutter: Shutter::Ago { open_us: 31_000_000, close_us: 1_000_000 },
            gain_milli: 6200,
            overscan: Some([0, 24, 0, 1026]),
            temperature_c: Some(-20.5),
            cards: "FILTER  = 'r'\nOBJECT  = '512'\n".into(),
        }
    }

    #[test]
    fn every_payload_comes_back() {
        let expose = Expose { exposure_us: 30_000_000, purpose: Purpose::Flat };
        assert_eq!(Expose::read(&expose.write()), Some(expose));
        assert_eq!(Begin::read(&begin().write()), Some(begin()));
    }

    #[test]
    fn the_bytes_of_a_frame_begin_are_these() {
        let fixed: [u8; 54] = [
            0, 4, 0, 0, 2, 4, 0, 0, 16, 0, 0, 16, 0, 0, 0xfe, 0xf7, 0x38, 0x18, 0, 0, 0xc0, 0x05, 0xd9, 1, 0, 0, 0, 0,
            0x40, 0x42, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, b'F', b'I',
        ];
        assert_eq!(begin().write()[..54], fixed);
    }

    #[test]
    fn short_payloads_are_nothing_and_long_cards_find_their_end() {
        for length in 0..52 {
            assert_eq!(Begin::read(&begin().write()[..length]), None);
        }
        let long = Begin { cards: "COMMENT x\n".repeat(1000), ..begin() };
        let payload = long.write();
        assert!(payload.len() <= LONGEST_PAYLOAD);
        assert!(Begin::read(&payload).is_some_and(|read| read.cards.ends_with("COMMENT x\n")));
    }
}
