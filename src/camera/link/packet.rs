//! A packet: header, payload, CRC. The layout is in the documentation of [`super`].

use super::cobs;

/// Version of the protocol that this file speaks.
pub const VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER: usize = 16;
/// Longest payload, bytes.
pub const LONGEST_PAYLOAD: usize = 4096;
/// Bytes of the CRC at the end.
const CRC: usize = 4;
/// Longest packet as it is sent, without the delimiter.
pub const LONGEST_STUFFED: usize = cobs::longest(HEADER + LONGEST_PAYLOAD + CRC);

/// What a packet is for. The numbers are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Host: who is there?
    Hello = 1,
    /// Camera: who I am, and in which session.
    Caps = 2,
    /// Both: another speed.
    Baud = 3,
    /// Host: settings; camera: those in force.
    Config = 4,
    /// Host: take this exposure.
    Expose = 5,
    /// Camera: what I am doing.
    Status = 6,
    /// Camera: a frame is ready, and this is it.
    FrameBegin = 7,
    /// Camera: pixels.
    Block = 8,
    /// Camera: that was the last block.
    FrameEnd = 9,
    /// Host: these blocks are missing.
    Nak = 10,
    /// Host: send up to this block.
    Credit = 11,
    /// Host: the frame is on disk; camera: it is forgotten.
    Release = 12,
    /// Host: end the exposure and keep what was read.
    Abort = 13,
    /// Host: say something.
    Ping = 14,
    /// Camera: that cannot be.
    Error = 15,
}

const KINDS: [Kind; 15] = [
    Kind::Hello,
    Kind::Caps,
    Kind::Baud,
    Kind::Config,
    Kind::Expose,
    Kind::Status,
    Kind::FrameBegin,
    Kind::Block,
    Kind::FrameEnd,
    Kind::Nak,
    Kind::Credit,
    Kind::Release,
    Kind::Abort,
    Kind::Ping,
    Kind::Error,
];

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is for.
    pub kind: Kind,
    /// Counts the sender's packets.
    pub sequence: u16,
    /// The camera's session; 0 where the sender does not know it.
    pub session: u32,
    /// Number of the frame.
    pub frame: u32,
    /// Number of the block.
    pub block: u32,
    /// The rest.
    pub payload: &'a [u8],
}

/// Why bytes between two delimiters are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Shorter than a header and its CRC, or longer than a packet may be.
    #[error("its length is none of a packet")]
    Length,
    /// The CRC is another one.
    #[error("its checksum is wrong")]
    Checksum,
    /// A version that this program does not speak.
    #[error("it is of version {0} of the protocol, this program speaks version {VERSION}")]
    Version(u8),
    /// A type that does not exist.
    #[error("its type {0} does not exist")]
    Type(u8),
}

impl Packet<'_> {
    /// Appends the packet as it goes over the line, delimiter included. A payload that is too long is
    /// cut: no caller makes one.
    pub fn write(&self, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        let payload = &self.payload[..self.payload.len().min(LONGEST_PAYLOAD)];
        scratch.clear();
        scratch.extend_from_slice(&[VERSION, self.kind as u8]);
        scratch.extend_from_slice(&self.sequence.to_le_bytes());
        scratch.extend_from_slice(&self.session.to_le_bytes());
        scratch.extend_from_slice(&self.frame.to_le_bytes());
        scratch.extend_from_slice(&self.block.to_le_bytes());
        scratch.extend_from_slice(payload);
        scratch.extend_from_slice(&crc32c::crc32c(scratch).to_le_bytes());
        cobs::encode(scratch, out);
    }
}

/// Reads the packet that unstuffed `bytes` hold.
///
/// # Errors
///
/// When they hold none, and why.
pub fn read(bytes: &[u8]) -> Result<Packet<'_>, Damage> {
    let (Some((body, crc)), true) = (bytes.split_last_chunk::<CRC>(), bytes.len() <= HEADER + LONGEST_PAYLOAD + CRC)
    else {
        return Err(Damage::Length);
    };
    let Some((header, payload)) = body.split_first_chunk::<HEADER>() else { return Err(Damage::Length) };
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(Damage::Checksum);
    }
    if header[0] != VERSION {
        return Err(Damage::Version(header[0]));
    }
    let kind = KINDS.into_iter().find(|kind| *kind as u8 == header[1]).ok_or(Damage::Type(header[1]))?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Ok(Packet {
        kind,
        sequence: u16::from_le_bytes([header[2], header[3]]),
        session: word(4),
        frame: word(8),
        block: word(12),
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(packet: &Packet<'_>) -> Vec<u8> {
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        packet.write(&mut scratch, &mut out);
        out
    }

    const CREDIT: Packet<'static> =
        Packet { kind: Kind::Credit, sequence: 258, session: 0x1122_3344, frame: 7, block: 64, payload: &[] };

    #[test]
    fn the_bytes_on_the_wire_are_these() {
        assert_eq!(
            written(&CREDIT),
            [0x0a, 1, 11, 2, 1, 0x44, 0x33, 0x22, 0x11, 7, 1, 1, 2, 64, 1, 1, 5, 0x66, 0xac, 0xd2, 0x14, 0]
        );
        let block = Packet { kind: Kind::Block, payload: &[0x34, 0x12, 0, 0xff], ..CREDIT };
        assert_eq!(
            written(&block),
            [
                0x0a, 1, 8, 2, 1, 0x44, 0x33, 0x22, 0x11, 7, 1, 1, 2, 64, 1, 1, 3, 0x34, 0x12, 6, 0xff, 0xf8, 0xe2,
                0xaf, 0xee, 0
            ]
        );
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let payload: Vec<u8> = (0..=255).collect();
        let packet = Packet { payload: &payload, ..CREDIT };
        let good = written(&packet);
        let mut plain = Vec::new();
        assert!(cobs::decode(&good[..good.len() - 1], &mut plain));
        assert_eq!(read(&plain), Ok(packet));
        for bit in 0..(good.len() - 1) * 8 {
            let mut bad = good[..good.len() - 1].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!cobs::decode(&bad, &mut plain) || read(&plain).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_packet_says_why() {
        assert_eq!(read(&[]), Err(Damage::Length));
        assert_eq!(read(&[1; 19]), Err(Damage::Length));
        assert_eq!(read(&[1; 20]), Err(Damage::Checksum));
        assert_eq!(read(&vec![1; HEADER + LONGEST_PAYLOAD + CRC + 1]), Err(Damage::Length));
        let with = |version: u8, kind: u8| {
            let mut body = vec![version, kind];
            body.extend_from_slice(&[0; 14]);
            let crc = crc32c::crc32c(&body);
            body.extend_from_slice(&crc.to_le_bytes());
            body
        };
        assert_eq!(read(&with(2, 1)), Err(Damage::Version(2)));
        assert_eq!(read(&with(1, 99)), Err(Damage::Type(99)));
    }
}
