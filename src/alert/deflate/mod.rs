//! Deflate (RFC 1951) for pictures of noise, in gzip (RFC 1952).
//!
//! The low bytes of a measured float32 are noise: a search for repetitions finds none, and is most of
//! what a general compressor does. Here a picture is Huffman codes of its bytes and runs of equal
//! pixels, which is what the padding, the pixels off the frame and saturated cores are:
//!
//! ```text
//! gzip header │ block: the FITS header, repetitions of the last byte and of the last card │ block: pixels │ CRC-32, length
//!             └────────────── one for the three pictures of a packet ─────────────┘
//! ```
//!
//! On real pictures that is within 1 % of the size that zlib reaches at its highest level. What is
//! written is ordinary deflate: any decoder reads it.

mod codes;

use codes::{Bits, Code, code_lengths, codes};

/// Longest code: four of them and seven waiting bits fit into a word of 64.
const LONGEST_CODE: u32 = 14;
/// Longest code of a code length (RFC 1951, 3.2.7).
const LONGEST_LENGTH_CODE: u32 = 7;
/// Literals, end of block, lengths.
const SYMBOLS: usize = 286;
/// Symbol that ends a block.
const END: usize = 256;
/// Longest repetition, bytes.
const LONGEST_MATCH: usize = 258;
/// Bytes of a pixel.
const PIXEL: usize = 4;
/// Most equal pixels in one repetition.
const LONGEST_RUN: usize = LONGEST_MATCH / PIXEL;
/// Bytes of a FITS card.
const CARD: usize = 80;
/// The order in which the lengths of the length codes are sent (RFC 1951, 3.2.7).
const LENGTH_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// First length of each length symbol from 257 on, and its extra bits (RFC 1951, 3.2.5).
const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
/// gzip, deflate, no name, no time, fastest, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// A distance with its symbol and extra bits; the two of a block have codes of one bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Distance {
    symbol: usize,
    extra: u32,
    extra_bits: u32,
}

const LAST_BYTE: Distance = Distance { symbol: 0, extra: 0, extra_bits: 0 };
const LAST_PIXEL: Distance = Distance { symbol: 3, extra: 0, extra_bits: 0 };
/// 80 = 65 + 15, five extra bits.
const LAST_CARD: Distance = Distance { symbol: 12, extra: 15, extra_bits: 5 };

/// A piece of a block.
#[derive(Debug, Clone, Copy)]
enum Token {
    Literal(u8),
    /// So many bytes again; from the nearer or (`true`) the farther of the block's distances.
    Repeat(usize, bool),
}

/// The gzipped beginning of a file, to which several endings can be joined.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    bits: Bits,
    bytes: Vec<u8>,
}

/// The room that a compressor works in; one a thread.
pub(super) struct Deflate {
    counts: [u32; SYMBOLS],
    lengths: [u8; SYMBOLS],
    codes: [Code; SYMBOLS],
    by_count: Vec<u32>,
    runs: Vec<(u32, u32)>,
}

impl Deflate {
    pub fn new() -> Self {
        Self {
            counts: [0; SYMBOLS],
            lengths: [0; SYMBOLS],
            codes: [Code::default(); SYMBOLS],
            by_count: Vec::with_capacity(SYMBOLS),
            runs: Vec::new(),
        }
    }

    /// The beginning of a gzip file: these cards of 80 bytes.
    pub fn beginning(&mut self, cards: &[u8]) -> Beginning {
        let mut bits = Bits { bytes: Vec::with_capacity(cards.len()), ..Bits::default() };
        bits.bytes.extend_from_slice(&GZIP_HEADER);
        let tokens = tokens_of(cards);
        self.counts.fill(0);
        for token in &tokens {
            self.counts[match token {
                Token::Literal(byte) => usize::from(*byte),
                Token::Repeat(length, _) => length_symbol(*length).0,
            }] += 1;
        }
        self.open(&mut bits, false, [LAST_BYTE, LAST_CARD]);
        for token in tokens {
            match token {
                Token::Literal(byte) => self.symbol(&mut bits, usize::from(byte)),
                Token::Repeat(length, far) => {
                    self.repeat(&mut bits, length, u64::from(far), if far { LAST_CARD } else { LAST_BYTE });
                }
            }
        }
        self.symbol(&mut bits, END);
        Beginning { bits, bytes: cards.to_vec() }
    }

    /// A whole gzip file: `beginning`, then `pixels` of four bytes.
    pub fn file(&mut self, beginning: &Beginning, pixels: &[[u8; PIXEL]]) -> Vec<u8> {
        self.count_pixels(pixels);
        let mut bits = beginning.bits.clone();
        let block = self.open(&mut bits, true, [LAST_BYTE, LAST_PIXEL]);
        bits.bytes.reserve_exact(block / 8 + 32);
        let mut at = 0;
        for index in 0..self.runs.len() {
            let (from, length) = (self.runs[index].0 as usize, self.runs[index].1 as usize);
            self.literals(&mut bits, &pixels[at..from]);
            self.repeat(&mut bits, length * PIXEL, 1, LAST_PIXEL);
            at = from + length;
        }
        self.literals(&mut bits, &pixels[at..]);
        self.symbol(&mut bits, END);
        bits.align();
        let mut crc = libdeflater::Crc::new();
        crc.update(&beginning.bytes);
        crc.update(pixels.as_flattened());
        bits.bytes.extend_from_slice(&crc.sum().to_le_bytes());
        let length = (beginning.bytes.len() + pixels.len() * PIXEL) as u32;
        bits.bytes.extend_from_slice(&length.to_le_bytes());
        bits.bytes
    }

    /// Finds the runs of equal pixels, and how often each symbol is wanted.
    fn count_pixels(&mut self, pixels: &[[u8; PIXEL]]) {
        self.counts.fill(0);
        self.runs.clear();
        // One table a byte of the pixel: neighbouring bytes never wait for one another.
        let mut tables = [[0u32; 256]; PIXEL];
        let mut at = 0;
        while at < pixels.len() {
            let pixel = pixels[at];
            if at > 0 && pixel == pixels[at - 1] {
                let most = (pixels.len() - at).min(LONGEST_RUN);
                let length = pixels[at..at + most].iter().take_while(|other| **other == pixel).count();
                self.counts[length_symbol(length * PIXEL).0] += 1;
                self.runs.push((at as u32, length as u32));
                at += length;
            } else {
                tables[0][usize::from(pixel[0])] += 1;
                tables[1][usize::from(pixel[1])] += 1;
                tables[2][usize::from(pixel[2])] += 1;
                tables[3][usize::from(pixel[3])] += 1;
                at += 1;
            }
        }
        for table in &tables {
            for (sum, count) in self.counts.iter_mut().zip(table) {
                *sum += count;
            }
        }
    }

    /// Makes the codes of `counts` and writes a block's header with them; how many bits the symbols
    /// of the block take.
    fn open(&mut self, bits: &mut Bits, last: bool, distances: [Distance; 2]) -> usize {
        self.counts[END] = 1;
        code_lengths(&self.counts, LONGEST_CODE, &mut self.lengths, &mut self.by_count);
        codes(&self.lengths, &mut self.codes);
        bits.put(u64::from(last), 1);
        bits.put(2, 2);
        let literals = 1 + self.lengths.iter().rposition(|length| *length > 0).unwrap_or(END).max(END);
        let mut sent = [0u8; SYMBOLS + 30];
        sent[..literals].copy_from_slice(&self.lengths[..literals]);
        let far = distances[1].symbol;
        sent[literals + distances[0].symbol] = 1;
        sent[literals + far] = 1;
        self.code_table(bits, &sent[..=literals + far], literals, far + 1);
        let extra = |symbol: usize| symbol.checked_sub(257).map_or(0, |s| usize::from(LENGTHS[s].1) + 6);
        (0..SYMBOLS).map(|s| self.counts[s] as usize * (usize::from(self.lengths[s]) + extra(s))).sum()
    }

    /// The table of code lengths, itself coded (RFC 1951, 3.2.7).
    fn code_table(&mut self, bits: &mut Bits, sent: &[u8], literals: usize, distances: usize) {
        let mut pieces: Vec<(u8, u8)> = Vec::with_capacity(sent.len());
        let mut rest = sent;
        while let Some(&first) = rest.first() {
            let same = rest.iter().take_while(|length| **length == first).count();
            let taken = match (first, same) {
                (0, 11..) => {
                    let taken = same.min(138);
                    pieces.push((18, (taken - 11) as u8));
                    taken
                }
                (0, 3..) => {
                    pieces.push((17, (same - 3) as u8));
                    same
                }
                (_, 4..) => {
                    let again = (same - 1).min(6);
                    pieces.extend([(first, 0), (16, (again - 3) as u8)]);
                    again + 1
                }
                _ => {
                    pieces.push((first, 0));
                    1
                }
            };
            rest = &rest[taken..];
        }
        let mut counts = [0u32; 19];
        for (symbol, _) in &pieces {
            counts[usize::from(*symbol)] += 1;
        }
        let (mut lengths, mut table) = ([0u8; 19], [Code::default(); 19]);
        code_lengths(&counts, LONGEST_LENGTH_CODE, &mut lengths, &mut self.by_count);
        codes(&lengths, &mut table);
        let sent_lengths = 1 + LENGTH_ORDER.iter().rposition(|s| lengths[*s] > 0).unwrap_or(3).max(3);
        bits.put((literals - 257) as u64, 5);
        bits.put((distances - 1) as u64, 5);
        bits.put((sent_lengths - 4) as u64, 4);
        for symbol in &LENGTH_ORDER[..sent_lengths] {
            bits.put(u64::from(lengths[*symbol]), 3);
        }
        for (symbol, extra) in pieces {
            let code = table[usize::from(symbol)];
            bits.put(u64::from(code.bits), u32::from(code.length));
            let extra_bits = [2, 3, 7].get(usize::from(symbol).wrapping_sub(16)).copied().unwrap_or(0);
            bits.put(u64::from(extra), extra_bits);
        }
    }

    #[inline]
    fn symbol(&self, bits: &mut Bits, symbol: usize) {
        let code = self.codes[symbol];
        bits.put(u64::from(code.bits), u32::from(code.length));
    }

    fn repeat(&self, bits: &mut Bits, length: usize, distance_code: u64, distance: Distance) {
        let (symbol, extra, extra_bits) = length_symbol(length);
        self.symbol(bits, symbol);
        bits.put(extra, extra_bits);
        bits.put(distance_code, 1);
        bits.put(u64::from(distance.extra), distance.extra_bits);
    }

    /// Pixels byte by byte: the loop in which the time goes.
    fn literals(&self, bits: &mut Bits, pixels: &[[u8; PIXEL]]) {
        const AT_ONCE: usize = 64;
        let Some(codes) = self.codes.first_chunk::<256>() else { return };
        let (mut waiting, mut count) = (bits.waiting, bits.count);
        for chunk in pixels.chunks(AT_ONCE) {
            // Each pixel is at most 56 bits; eight bytes are written, and those that count are kept.
            let mut room = [0u8; AT_ONCE * 8 + 8];
            let mut end = 0;
            for pixel in chunk {
                let (a, b) = (codes[usize::from(pixel[0])], codes[usize::from(pixel[1])]);
                let (c, d) = (codes[usize::from(pixel[2])], codes[usize::from(pixel[3])]);
                let first = u64::from(a.bits) | u64::from(b.bits) << a.length;
                let second = u64::from(c.bits) | u64::from(d.bits) << c.length;
                let front = u32::from(a.length) + u32::from(b.length);
                waiting |= (first | second << front) << count;
                count += front + u32::from(c.length) + u32::from(d.length);
                if let Some(to) = room[end..].first_chunk_mut::<8>() {
                    *to = waiting.to_le_bytes();
                }
                let whole = count / 8;
                end += whole as usize;
                waiting >>= 8 * whole;
                count %= 8;
            }
            bits.bytes.extend_from_slice(&room[..end]);
        }
        (bits.waiting, bits.count) = (waiting, count);
    }
}

/// Cards as literals and repetitions of the last byte or of the last card.
fn tokens_of(cards: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(cards.len() / 3);
    let mut at = 0;
    while at < cards.len() {
        let again = |distance: usize| {
            let Some(from) = at.checked_sub(distance) else { return 0 };
            cards[at..].iter().zip(&cards[from..]).take(LONGEST_MATCH).take_while(|(a, b)| a == b).count()
        };
        let (near, far) = (again(1), again(CARD));
        let longest = near.max(far);
        if longest < 3 {
            tokens.push(Token::Literal(cards[at]));
            at += 1;
        } else {
            tokens.push(Token::Repeat(longest, far > near));
            at += longest;
        }
    }
    tokens
}

/// The symbol of a length from 3 to 258, its extra bits and how many.
fn length_symbol(length: usize) -> (usize, u64, u32) {
    let index = LENGTHS.partition_point(|(first, _)| usize::from(*first) <= length).saturating_sub(1);
    let (first, extra_bits) = LENGTHS[index];
    (257 + index, (length - usize::from(first)) as u64, u32::from(extra_bits))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn inflated(file: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(file).read_to_end(&mut plain).unwrap();
        let mut again = vec![0; plain.len()];
        let length = libdeflater::Decompressor::new().gzip_decompress(file, &mut again).unwrap();
        assert_eq!(again[..length], plain);
        plain
    }

    /// Bytes that are rare, common, equal to the last, or all the same.
    fn pixels() -> impl Strategy<Value = Vec<[u8; PIXEL]>> {
        let noise = any::<[u8; PIXEL]>();
        let steep = any::<u32>().prop_map(|x| [x.leading_zeros() as u8, 0x41, x.trailing_zeros() as u8, 7]);
        let piece = prop_oneof![
            (noise, 1..400usize).prop_map(|(pixel, n)| vec![pixel; n]),
            prop::collection::vec(noise, 0..300),
            prop::collection::vec(steep, 0..1000),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn two_decoders_give_back_what_was_compressed(pixels in pixels(), cards in prop::collection::vec(0x20..0x7fu8, 0..1000)) {
            let mut deflate = Deflate::new();
            let beginning = deflate.beginning(&cards);
            for _ in 0..2 {
                let plain = inflated(&deflate.file(&beginning, &pixels));
                prop_assert!(plain == [&cards[..], pixels.as_flattened()].concat());
            }
        }
    }
}
