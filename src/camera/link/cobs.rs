//! Consistent Overhead Byte Stuffing (Cheshire and Baker, IEEE/ACM Transactions on Networking 7,
//! 1999): any bytes as bytes without zero, one more in 254, so that a zero ends a packet and a
//! receiver that lost its place finds it at the next zero.

/// The byte that ends a packet.
pub const DELIMITER: u8 = 0;
/// Longest run of one code byte.
const RUN: usize = 254;

/// Bytes that `length` bytes become at most, without the delimiter.
pub const fn longest(length: usize) -> usize {
    length + length / RUN + 1
}

/// Appends `bytes`, stuffed, and the delimiter to `out`.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    loop {
        let run = &rest[..rest.len().min(RUN)];
        match run.iter().position(|byte| *byte == DELIMITER) {
            Some(zero) => {
                out.push(zero as u8 + 1);
                out.extend_from_slice(&run[..zero]);
                rest = &rest[zero + 1..];
            }
            None => {
                out.push(run.len() as u8 + 1);
                out.extend_from_slice(run);
                rest = &rest[run.len()..];
                // A full run stands for no zero; a short one is the end.
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
    out.push(DELIMITER);
}

/// Replaces `out` with what `stuffed` (without its delimiter) stands for; `false` where it stands
/// for nothing.
pub fn decode(stuffed: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut rest = stuffed;
    while let Some((&code, tail)) = rest.split_first() {
        let length = usize::from(code).wrapping_sub(1);
        if code == DELIMITER || length > tail.len() {
            return false;
        }
        out.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
        if length < RUN && !rest.is_empty() {
            out.push(DELIMITER);
        }
    }
    !stuffed.is_empty()
}

/// Cuts a stream of bytes at the delimiters and gives the packets back as they were before they
/// were stuffed. It holds one packet at most, whatever arrives.
#[derive(Debug)]
pub struct Splitter {
    longest: usize,
    part: Vec<u8>,
    /// What is in hand is too long: everything up to the next delimiter is noise.
    overlong: bool,
    plain: Vec<u8>,
}

impl Splitter {
    /// For packets of at most `longest` stuffed bytes.
    pub fn new(longest: usize) -> Self {
        Self { longest, part: Vec::with_capacity(longest), overlong: false, plain: Vec::with_capacity(longest) }
    }

    /// Forgets what is in hand: the line was cut.
    pub fn clear(&mut self) {
        self.part.clear();
        self.overlong = false;
    }

    /// Looks for the next packet in `bytes`, which is shortened by what was used: `Some(true)` with a
    /// packet to [`Splitter::take`], `Some(false)` with noise, `None` when more bytes are needed.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<bool> {
        let Some(end) = bytes.iter().position(|byte| *byte == DELIMITER) else {
            self.keep(bytes);
            *bytes = &[];
            return None;
        };
        let (packet, rest) = (&bytes[..end], &bytes[end + 1..]);
        *bytes = rest;
        if self.part.is_empty() && !self.overlong {
            return Some(packet.len() <= self.longest && decode(packet, &mut self.plain));
        }
        self.keep(packet);
        let whole = !std::mem::take(&mut self.overlong) && decode(&self.part, &mut self.plain);
        self.part.clear();
        Some(whole)
    }

    /// The packet that was found; to be given back, so that its room is used again.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }

    /// Takes the room of a packet back.
    pub fn give_back(&mut self, packet: Vec<u8>) {
        self.plain = packet;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.overlong || self.part.len() + bytes.len() > self.longest {
            self.overlong = true;
            self.part.clear();
        } else {
            self.part.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        out
    }

    #[test]
    fn the_examples_of_the_paper_come_out() {
        assert_eq!(stuffed(&[]), [1, 0]);
        assert_eq!(stuffed(&[0]), [1, 1, 0]);
        assert_eq!(stuffed(&[0x45, 0, 0, 0x2c]), [2, 0x45, 1, 2, 0x2c, 0]);
        let run: Vec<u8> = (1..=254).collect();
        assert_eq!(stuffed(&run), [vec![255], run.clone(), vec![0]].concat());
        let longer: Vec<u8> = (1..=255).collect();
        assert_eq!(stuffed(&longer), [vec![255], run, vec![2, 255, 0]].concat());
    }

    #[test]
    fn what_was_stuffed_comes_back_whatever_it_was() {
        let mut seed = 1_u32;
        let mut out = Vec::new();
        for length in (0..600).chain([4096, 4116]) {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if seed >> 28 == 0 { 0 } else { (seed >> 24) as u8 }
                })
                .collect();
            let stuffed = stuffed(&bytes);
            assert!(stuffed.len() <= longest(length) + 1 && !stuffed[..stuffed.len() - 1].contains(&0));
            assert!(decode(&stuffed[..stuffed.len() - 1], &mut out));
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn noise_is_cut_at_the_zeros_and_never_kept_beyond_a_packet() {
        let mut splitter = Splitter::new(8);
        let mut found = Vec::new();
        for chunk in [&[3, 1, 2][..], &[2, 4, 0, 2, 5, 0], &[9; 100], &[9, 9, 0, 2, 6, 0]] {
            let mut bytes = chunk;
            while let Some(whole) = splitter.next(&mut bytes) {
                found.push(whole.then(|| splitter.take()));
            }
            assert!(splitter.part.len() <= 8);
        }
        assert_eq!(found, [Some(vec![1, 2, 0, 4]), Some(vec![5]), None, Some(vec![6])]);
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        let mut out = Vec::new();
        assert!(!decode(&[], &mut out) && !decode(&[5, 1, 2], &mut out) && !decode(&[2, 7, 0], &mut out));
    }
}
