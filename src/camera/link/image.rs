//! A frame while it comes: pixels, and which blocks are there.

use super::frame_messages::Begin;

/// A frame's blocks, as far as they have come.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// What the camera said of it.
    pub begin: Begin,
    /// When it said so.
    pub begun: std::time::Duration,
    bytes: Vec<u8>,
    there: Vec<bool>,
    received: usize,
    /// One more than the highest block that has come.
    reached: usize,
    /// Blocks that the camera has, as its `FRAME_END` said: fewer than the image where it was cut short.
    sent: Option<(usize, u32)>,
}

impl Incoming {
    /// Room for the frame; `None` when it cannot be: no pixels, more than `most_bytes`, or blocks of
    /// an odd or impossible length.
    pub fn new(begin: Begin, most_bytes: u64) -> Option<Self> {
        let bytes = begin.bytes();
        let length = usize::from(begin.block_bytes);
        let possible = (1..=most_bytes).contains(&bytes)
            && (2..=super::LONGEST_PAYLOAD).contains(&length)
            && length.is_multiple_of(2)
            && (1..=16).contains(&begin.bits);
        let blocks = usize::try_from(begin.blocks()).ok()?;
        let bytes = usize::try_from(bytes).ok()?;
        possible.then(|| Self {
            begin,
            begun: std::time::Duration::ZERO,
            bytes: vec![0; bytes],
            there: vec![false; blocks],
            received: 0,
            reached: 0,
            sent: None,
        })
    }

    /// Takes a block; `false` where it is none of this frame. One that is there already changes
    /// nothing.
    pub fn put(&mut self, number: u32, payload: &[u8]) -> bool {
        let number = number as usize;
        let Some(there) = self.there.get_mut(number) else { return false };
        let start = number * usize::from(self.begin.block_bytes);
        let end = (start + usize::from(self.begin.block_bytes)).min(self.bytes.len());
        if payload.len() != end - start {
            return false;
        }
        self.reached = self.reached.max(number + 1);
        if !*there {
            *there = true;
            self.received += 1;
            self.bytes[start..end].copy_from_slice(payload);
        }
        true
    }

    /// The camera says how many blocks it has, and the CRC-32C of their bytes.
    pub fn end(&mut self, blocks: u32, crc: u32) {
        self.sent = Some(((blocks as usize).min(self.there.len()), crc));
    }

    /// Blocks that have come.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Blocks of the whole image.
    pub fn blocks(&self) -> usize {
        self.there.len()
    }

    /// One more than the highest block that has come.
    pub fn reached(&self) -> u32 {
        self.reached as u32
    }

    /// Blocks that are missing below the highest that has come, at most `most` of them.
    pub fn missing(&self, most: usize) -> Vec<u32> {
        let gaps = self.there[..self.reached].iter().enumerate().filter(|(_, there)| !**there);
        gaps.map(|(number, _)| number as u32).take(most).collect()
    }

    /// Whether every block that the camera has is there.
    pub fn is_whole(&self) -> bool {
        self.sent.is_some_and(|(blocks, _)| self.there[..blocks].iter().all(|there| *there))
    }

    /// Whether the bytes are those that the camera sent.
    pub fn agrees(&self) -> bool {
        self.sent.is_some_and(|(blocks, crc)| {
            let end = (blocks * usize::from(self.begin.block_bytes)).min(self.bytes.len());
            crc32c::crc32c(&self.bytes[..end]) == crc
        })
    }

    /// Forgets every block.
    pub fn start_over(&mut self) {
        self.there.fill(false);
        (self.received, self.reached, self.sent) = (0, 0, None);
    }

    /// The pixels, row by row, and the pixels that never came as ranges of their numbers.
    pub fn finish(self) -> (Begin, Vec<u16>, Vec<std::ops::Range<usize>>) {
        let per_block = usize::from(self.begin.block_bytes) / 2;
        let pixels: Vec<u16> = self.bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        let mut missing: Vec<std::ops::Range<usize>> = Vec::new();
        for number in self.there.iter().enumerate().filter(|(_, there)| !**there).map(|(number, _)| number) {
            let range = number * per_block..((number + 1) * per_block).min(pixels.len());
            match missing.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => missing.push(range),
            }
        }
        (self.begin, pixels, missing)
    }
}

/// The block field and the payload of a `NAK` that asks for `blocks` and everything from `onwards` on.
/// Blocks that do not fit are left for another one.
pub fn nak(blocks: &[u32], onwards: u32) -> (u32, Vec<u8>) {
    let first = blocks.first().copied().unwrap_or(0);
    let mut bytes = onwards.to_le_bytes().to_vec();
    for offset in blocks.iter().map(|block| (block - first) as usize) {
        let at = 4 + offset / 8;
        if at >= super::LONGEST_PAYLOAD {
            break;
        }
        if bytes.len() <= at {
            bytes.resize(at + 1, 0);
        }
        bytes[at] |= 1 << (offset % 8);
    }
    (first, bytes)
}

/// What a `NAK` asks for: everything from the first on, and these blocks.
pub fn asked(first: u32, payload: &[u8]) -> Option<(u32, impl Iterator<Item = u32>)> {
    let (onwards, bitmap) = payload.split_first_chunk::<4>()?;
    let bits = bitmap
        .iter()
        .enumerate()
        .flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at as u32 * 8 + bit));
    Some((u32::from_le_bytes(*onwards), bits.map_while(move |offset| first.checked_add(offset))))
}

#[cfg(test)]
mod tests {
    use super::super::frame_messages::{Purpose, Shutter};
    use super::*;

    fn begin(width: u32, height: u32) -> Begin {
        Begin {
            width,
            height,
            bits: 16,
            purpose: Purpose::Light,
            block_bytes: 8,
            shutter: Shutter::Ago { open_us: 2, close_us: 1 },
            gain_milli: 0,
            overscan: None,
            temperature_c: None,
            cards: String::new(),
        }
    }

    #[test]
    fn blocks_in_any_order_make_the_frame_and_gaps_are_named_as_pixels() {
        let mut frame = Incoming::new(begin(5, 3), 1000).unwrap();
        assert_eq!(frame.blocks(), 4);
        assert!(frame.put(3, &[13, 0, 14, 0, 15, 0]) && frame.put(0, &[1, 0, 2, 0, 3, 0, 4, 0]));
        assert!(!frame.put(4, &[0; 8]) && !frame.put(1, &[0; 7]), "no such block, no such length");
        assert_eq!(frame.missing(9), [1, 2]);
        assert!(frame.put(1, &[5, 0, 6, 0, 7, 0, 8, 0]) && frame.put(1, &[9; 8]), "a twin changes nothing");
        let (_, pixels, missing) = frame.finish();
        assert_eq!(pixels, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 13, 14, 15]);
        assert_eq!(missing, vec![8..12; 1]);
    }

    #[test]
    fn impossible_geometry_takes_no_memory() {
        for (width, height) in [(0, 5), (5, 0), (1_000_000_000, 1), (u32::MAX, u32::MAX)] {
            assert!(Incoming::new(begin(width, height), 1000).is_none());
        }
        for block_bytes in [0, 7, 5000] {
            assert!(Incoming::new(Begin { block_bytes, ..begin(5, 3) }, 1000).is_none());
        }
        assert!(Incoming::new(Begin { bits: 17, ..begin(5, 3) }, 1000).is_none());
    }

    #[test]
    fn a_nak_names_the_blocks_that_went_in() {
        assert_eq!(nak(&[7, 8, 15, 24], 64), (7, vec![64, 0, 0, 0, 0b0000_0011, 0b0000_0001, 0b0000_0010]));
        assert_eq!(nak(&[], 64), (0, vec![64, 0, 0, 0]));
        let blocks = [7, 8, 15, 24, 40_000];
        let (first, bytes) = nak(&blocks, 3);
        let (onwards, named) = asked(first, &bytes).unwrap();
        assert_eq!(
            (onwards, named.collect::<Vec<_>>()),
            (3, blocks[..4].to_vec()),
            "what does not fit is for the next"
        );
        assert_eq!(asked(u32::MAX, &[0, 0, 0, 0, 255]).unwrap().1.collect::<Vec<_>>(), [u32::MAX]);
        assert!(asked(0, &[1, 2]).is_none());
    }
}
