//! What the payloads of packets hold that are not about pixels. The layouts are in the documentation of [`super`].

use super::LONGEST_PAYLOAD;

/// A temperature that nobody knows.
const NO_TEMPERATURE: i16 = i16::MAX;

/// Reads fixed fields one after the other; runs dry instead of failing.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.bytes().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub fn celsius(&mut self) -> Option<Option<f64>> {
        let hundredths = self.bytes().map(i16::from_le_bytes)?;
        Some((hundredths != NO_TEMPERATURE).then(|| f64::from(hundredths) / 100.0))
    }

    /// What is left, as text; what is no UTF-8 is replaced.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

pub(super) fn celsius(temperature: Option<f64>) -> [u8; 2] {
    let hundredths = temperature.map_or(NO_TEMPERATURE, |celsius| (celsius * 100.0).round() as i16);
    hundredths.to_le_bytes()
}

pub(super) fn with_text(mut fixed: Vec<u8>, text: &str) -> Vec<u8> {
    let room = LONGEST_PAYLOAD - fixed.len();
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    fixed.extend_from_slice(&text.as_bytes()[..end]);
    fixed
}

/// What a camera is: the payload of `CAPS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    /// Pixels a row, overscan included.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bits a pixel, at most 16.
    pub bits: u8,
    /// Whether it takes exposures on command.
    pub exposes: bool,
    /// Frames that its memory holds.
    pub memory: u16,
    /// Longest payload of a block that it can send, bytes.
    pub block_bytes: u16,
    /// Frames that wait for the host.
    pub waiting: u16,
    /// Highest speed, baud; 0 where speed has no meaning.
    pub baud: u32,
    /// Name and version of the firmware.
    pub firmware: String,
}

impl Caps {
    /// From the payload; `None` when it is too short.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        Some(Self {
            width: fields.u32()?,
            height: fields.u32()?,
            bits: fields.u8()?,
            exposes: fields.u8()? & 1 == 1,
            memory: fields.u16()?,
            block_bytes: fields.u16()?,
            waiting: fields.u16()?,
            baud: fields.u32()?,
            firmware: fields.text(),
        })
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.width.to_le_bytes());
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&[self.bits, u8::from(self.exposes)]);
        out.extend_from_slice(&self.memory.to_le_bytes());
        out.extend_from_slice(&self.block_bytes.to_le_bytes());
        out.extend_from_slice(&self.waiting.to_le_bytes());
        out.extend_from_slice(&self.baud.to_le_bytes());
        with_text(out, &self.firmware)
    }
}

/// A step of the change of speed: the payload of `BAUD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baud {
    /// Which step.
    pub step: BaudStep,
    /// The speed that it is about.
    pub baud: u32,
}

/// The steps of a change of speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BaudStep {
    /// Host: let us change to this.
    Propose = 0,
    /// Camera: I do, now.
    Accept = 1,
    /// Camera: I cannot.
    Refuse = 2,
    /// Host, at the new speed: do you hear this? Camera: I do.
    Test = 3,
    /// Host: then we stay; camera: we stay.
    Confirm = 4,
}

/// What follows in a `TEST`: every byte, so that a line that loses some values is found out.
fn pattern() -> impl Iterator<Item = u8> {
    0..=u8::MAX
}

impl Baud {
    /// From the payload; `None` when it is no step, or a test whose pattern is not whole.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let step = match fields.u8()? {
            0 => BaudStep::Propose,
            1 => BaudStep::Accept,
            2 => BaudStep::Refuse,
            3 => BaudStep::Test,
            4 => BaudStep::Confirm,
            _ => return None,
        };
        let baud = fields.u32()?;
        let whole = step != BaudStep::Test || pattern().eq(fields.0.iter().copied());
        whole.then_some(Self { step, baud })
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![self.step as u8];
        out.extend_from_slice(&self.baud.to_le_bytes());
        if self.step == BaudStep::Test {
            out.extend(pattern());
        }
        out
    }
}

/// Settings of the camera: the payload of `CONFIG`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Payload of a block, bytes, even.
    pub block_bytes: u16,
    /// Temperature to be held; `None` leaves it.
    pub setpoint_c: Option<f64>,
}

impl Config {
    /// From the payload; `None` when it is too short.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        Some(Self { block_bytes: fields.u16()?, setpoint_c: fields.celsius()? })
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        [self.block_bytes.to_le_bytes(), celsius(self.setpoint_c)].concat()
    }
}

/// What the camera does: the payload of `STATUS`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Status {
    /// What it does with the frame of the packet.
    pub activity: Activity,
    /// Frames that wait for the host.
    pub waiting: u16,
    /// Time until it is done with what it does, ms.
    pub remaining_ms: u32,
    /// Temperature of the detector.
    pub temperature_c: Option<f64>,
}

/// What a camera does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Activity {
    /// Nothing.
    #[default]
    Idle = 0,
    /// The shutter is open.
    Exposing = 1,
    /// The detector is read into its memory.
    Reading = 2,
}

impl Status {
    /// From the payload; `None` when it is too short.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let activity = match fields.u8()? {
            1 => Activity::Exposing,
            2 => Activity::Reading,
            _ => Activity::Idle,
        };
        let _reserved = fields.u8()?;
        Some(Self { activity, waiting: fields.u16()?, remaining_ms: fields.u32()?, temperature_c: fields.celsius()? })
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![self.activity as u8, 0];
        out.extend_from_slice(&self.waiting.to_le_bytes());
        out.extend_from_slice(&self.remaining_ms.to_le_bytes());
        out.extend_from_slice(&celsius(self.temperature_c));
        out
    }
}

/// What the camera cannot do: the payload of `ERROR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// 1 no such frame, 2 busy, 3 not possible, 4 hardware.
    pub code: u16,
    /// In words.
    pub text: String,
}

/// Codes of `ERROR`.
pub mod code {
    /// The frame is not in the camera's memory.
    pub const NO_SUCH_FRAME: u16 = 1;
    /// The camera is exposing, or its memory is full.
    pub const BUSY: u16 = 2;
    /// The camera has no such thing.
    pub const NOT_POSSIBLE: u16 = 3;
    /// Something in the camera is broken.
    pub const HARDWARE: u16 = 4;
}

impl Refused {
    /// From the payload; `None` when it is too short.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        Some(Self { code: fields.u16()?, text: fields.text() })
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        with_text(self.code.to_le_bytes().to_vec(), &self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_comes_back() {
        let caps = Caps {
            width: 9,
            height: 8,
            bits: 16,
            exposes: true,
            memory: 2,
            firmware: "é 1.0".into(),
            ..Caps::default()
        };
        assert_eq!(Caps::read(&caps.write()), Some(caps));
        for step in [BaudStep::Propose, BaudStep::Accept, BaudStep::Refuse, BaudStep::Test, BaudStep::Confirm] {
            let baud = Baud { step, baud: 921_600 };
            assert_eq!(Baud::read(&baud.write()), Some(baud));
        }
        let config = Config { block_bytes: 1024, setpoint_c: None };
        assert_eq!(Config::read(&config.write()), Some(config));
        let status = Status { activity: Activity::Reading, waiting: 1, remaining_ms: 20, temperature_c: Some(-19.99) };
        assert_eq!(Status::read(&status.write()), Some(status));
        let refused = Refused { code: code::BUSY, text: "busy".into() };
        assert_eq!(Refused::read(&refused.write()), Some(refused));
    }

    #[test]
    fn a_test_of_the_speed_that_is_not_whole_is_none() {
        let mut test = Baud { step: BaudStep::Test, baud: 1 }.write();
        test[9] ^= 1;
        assert_eq!(Baud::read(&test), None);
    }

    #[test]
    fn the_bytes_of_a_status_are_these() {
        let status = Status { activity: Activity::Exposing, waiting: 2, remaining_ms: 29_500, temperature_c: None };
        assert_eq!(status.write(), [1, 0, 2, 0, 0x3c, 0x73, 0, 0, 0xff, 0x7f]);
    }
}
