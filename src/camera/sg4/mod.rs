//! SBIG SG-4 and AllSky-340 cameras, which send their pixels over RS-232: the published serial
//! protocol, both ends without I/O and clock.
//!
//! # Bytes
//!
//! 8 data bits, no parity, one stop bit; 9600 baud at power-up. A command is a letter with its
//! arguments and a checksum byte: the XOR of the command's bytes, each inverted and without its
//! highest bit ([`checksum`]). The camera answers every command with the checksum that it computed;
//! when that is another one, it has not heard the command as it was meant and does not carry it out.
//!
//! | command | answer after the checksum | means |
//! | --- | --- | --- |
//! | `E` | `O` | is somebody there? |
//! | `B0` … `B6` | `S` at the new speed | 9600, 19200, 38400, 57600, 115200, 230400, 460800 baud |
//! | `T` e₂ e₁ e₀ binning type | `E` about every 150 ms while exposing, `R` reading, `D` done | exposure in units of 100 µs, highest byte first, at most 0x63FFFF; binning 0 full, 2 for 2×2; type 0 dark, 1 light |
//! | `X` | blocks | transfer |
//! | `A` | | end the exposure, keep the partial image |
//!
//! After `B` the host sends `Test` at the new speed, the camera answers `TestOk`, the host says `k`;
//! without it the camera falls back. A block is 4096 pixels (1024 with 2×2 binning), little-endian
//! u16, and the XOR of its bytes; the host answers `K` for the next one, `R` to have it again, `S`
//! to stop. 640×480 pixels are 75 blocks.
//!
//! The camera numbers nothing: the host counts the exposures that it commands.
//!
//! One XOR byte a block finds every single flipped bit, but not two in the same place of two bytes:
//! that is the protocol's, and only a cleaner line helps.

pub mod camera;
mod events;
mod host;

pub use camera::{Picture, Sg4Camera, Wish};
pub use events::{Event, Lost, Received};
pub use host::Sg4Host;

/// Speed after power-up, baud.
pub const INITIAL_BAUD: u32 = 9600;
/// Speeds by the digit of the command `B`.
pub const BAUDS: [u32; 7] = [9600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800];
/// Longest exposure, in units of 100 µs.
pub const LONGEST: u32 = 0x63_FFFF;
/// Pixels a row without binning.
pub const WIDTH: usize = 640;
/// Rows without binning.
pub const HEIGHT: usize = 480;
/// What the host says at a new speed, and what the camera answers.
const TEST: &[u8] = b"Test";
const TEST_OK: &[u8] = b"TestOk";

/// How pixels are added up before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binning {
    /// Each as it is.
    #[default]
    Full,
    /// Two by two.
    Two,
}

impl Binning {
    /// Pixels a row, and rows.
    pub fn size(self) -> (usize, usize) {
        match self {
            Self::Full => (WIDTH, HEIGHT),
            Self::Two => (WIDTH / 2, HEIGHT / 2),
        }
    }

    /// Pixels of a block.
    pub fn block(self) -> usize {
        match self {
            Self::Full => 4096,
            Self::Two => 1024,
        }
    }

    /// Blocks of an image.
    pub fn blocks(self) -> usize {
        let (width, height) = self.size();
        (width * height).div_ceil(self.block())
    }

    fn number(self) -> u8 {
        match self {
            Self::Full => 0,
            Self::Two => 2,
        }
    }
}

/// The checksum of a command.
pub fn checksum(command: &[u8]) -> u8 {
    command.iter().fold(0, |sum, byte| sum ^ (!byte & 0x7f))
}

/// A command with its checksum.
pub fn command(command: &[u8]) -> Vec<u8> {
    let mut bytes = command.to_vec();
    bytes.push(checksum(command));
    bytes
}

/// The command for an exposure of so many units of 100 µs.
pub fn take_command(units: u32, binning: Binning, light: bool) -> Vec<u8> {
    let [_, high, middle, low] = units.min(LONGEST).to_be_bytes();
    vec![b'T', high, middle, low, binning.number(), u8::from(light)]
}

/// The XOR of a block's bytes.
fn block_checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_the_commands_are_those_of_the_published_protocol() {
        // Computed with the reference client's own function (XOR of ~byte & 0x7F).
        assert_eq!(command(b"E"), [0x45, 0x3a]);
        assert_eq!(command(b"X"), [0x58, 0x27]);
        assert_eq!(command(b"B6"), [0x42, 0x36, 0x74]);
        // A second, light, full frame: 10,000 units are 0x002710.
        let take = take_command(10_000, Binning::Full, true);
        assert_eq!(command(&take), [0x54, 0x00, 0x27, 0x10, 0x00, 0x01, 0x62]);
        assert_eq!(take_command(u32::MAX, Binning::Two, false), [0x54, 0x63, 0xff, 0xff, 2, 0]);
    }

    #[test]
    fn both_ways_of_reading_are_75_blocks() {
        assert_eq!((Binning::Full.blocks(), Binning::Two.blocks()), (75, 75));
    }
}
