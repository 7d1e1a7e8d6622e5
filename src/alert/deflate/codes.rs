//! Huffman codes from counts, and the bits that are sent.

use super::SYMBOLS;

/// Bits, the lowest first.
#[derive(Debug, Clone, Default)]
pub struct Bits {
    pub bytes: Vec<u8>,
    pub waiting: u64,
    pub count: u32,
}

impl Bits {
    /// Appends up to 57 bits.
    #[inline]
    pub fn put(&mut self, value: u64, count: u32) {
        self.waiting |= value << self.count;
        self.count += count;
        self.flush();
    }

    /// Moves whole bytes out.
    #[inline]
    fn flush(&mut self) {
        let whole = (self.count / 8) as usize;
        self.bytes.extend_from_slice(&self.waiting.to_le_bytes()[..whole]);
        self.waiting = self.waiting.checked_shr(8 * whole as u32).unwrap_or(0);
        self.count %= 8;
    }

    /// Ends at a whole byte.
    pub fn align(&mut self) {
        self.put(0, (8 - self.count % 8) % 8);
    }
}

/// Codes of a block: bits (already reversed, as they are sent) and how many.
#[derive(Debug, Clone, Copy, Default)]
pub struct Code {
    pub bits: u16,
    pub length: u16,
}

/// Lengths of the codes of symbols that occur `counts` times, none longer than `longest`.
///
/// Minimum redundancy (Moffat & Katajainen 1995, WADS, 393), then what is too long is cut to
/// `longest` and room made for it by lengthening the longest of the shorter codes. `counts` of up to
/// four million.
pub fn code_lengths(counts: &[u32], longest: u32, lengths: &mut [u8], by_count: &mut Vec<u32>) {
    lengths.fill(0);
    by_count.clear();
    // Count and symbol in one number, which sorts faster than a pair.
    by_count.extend(
        (0..).zip(counts).filter(|(_, count)| **count > 0).map(|(symbol, count): (u32, _)| count << 9 | symbol),
    );
    by_count.sort_unstable();
    let n = by_count.len();
    if n < 2 {
        by_count.iter().for_each(|both| lengths[(both & 0x1ff) as usize] = 1);
        return;
    }
    // Weights, then parents, then depths of the inner nodes, in one array.
    let mut a = [0u32; SYMBOLS];
    for (weight, both) in a.iter_mut().zip(by_count.iter()) {
        *weight = both >> 9;
    }
    let (mut root, mut leaf) = (0, 0);
    for next in 0..n - 1 {
        let mut take = |next: usize, a: &mut [u32; SYMBOLS]| {
            if leaf >= n || (root < next && a[root] < a[leaf]) {
                let weight = a[root];
                a[root] = next as u32;
                root += 1;
                weight
            } else {
                leaf += 1;
                a[leaf - 1]
            }
        };
        let first = take(next, &mut a);
        let second = take(next, &mut a);
        a[next] = first + second;
    }
    a[n - 2] = 0;
    for next in (0..n - 2).rev() {
        a[next] = a[a[next] as usize] + 1;
    }
    // How many codes have each length.
    let mut of_length = [0u32; 33];
    let (mut available, mut depth, mut inner) = (1usize, 0usize, n - 1);
    while available > 0 {
        let used = a[..inner].iter().rev().take_while(|d| **d as usize == depth).count();
        inner -= used;
        of_length[depth.min(longest as usize)] += (available - used) as u32;
        available = 2 * used;
        depth += 1;
    }
    let mut kraft: u32 = (1..=longest).map(|length| of_length[length as usize] << (longest - length)).sum();
    while kraft > 1 << longest {
        of_length[longest as usize] -= 1;
        if let Some(shorter) = (1..longest as usize).rev().find(|length| of_length[*length] > 0) {
            of_length[shorter] -= 1;
            of_length[shorter + 1] += 2;
        }
        kraft -= 1;
    }
    let mut rarest_first = by_count.iter();
    for length in (1..=longest as usize).rev() {
        for both in rarest_first.by_ref().take(of_length[length] as usize) {
            lengths[(both & 0x1ff) as usize] = length as u8;
        }
    }
}

/// Canonical codes (RFC 1951, 3.2.2), bits reversed.
pub fn codes(lengths: &[u8], codes: &mut [Code]) {
    let mut next = [0u32; 16];
    let mut of_length = [0u32; 16];
    lengths.iter().filter(|length| **length > 0).for_each(|length| of_length[usize::from(*length)] += 1);
    for length in 1..16 {
        next[length] = (next[length - 1] + of_length[length - 1]) << 1;
    }
    for (code, length) in codes.iter_mut().zip(lengths) {
        *code = Code::default();
        if *length > 0 {
            let value = &mut next[usize::from(*length)];
            *code = Code { bits: (*value as u16).reverse_bits() >> (16 - length), length: u16::from(*length) };
            *value += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits that `counts` take with codes of up to `longest` bits, which must fill the tree exactly.
    fn bits(counts: &[u32], longest: u32) -> u64 {
        let mut lengths = vec![0; counts.len()];
        code_lengths(counts, longest, &mut lengths, &mut Vec::new());
        let used = || lengths.iter().zip(counts).filter(|(_, count)| **count > 0);
        assert!(used().all(|(length, _)| (1..=longest).contains(&u32::from(*length))));
        assert!(lengths.iter().zip(counts).all(|(length, count)| *count > 0 || *length == 0));
        assert_eq!(used().map(|(length, _)| 1u64 << (longest - u32::from(*length))).sum::<u64>(), 1 << longest);
        used().map(|(length, count)| u64::from(*length) * u64::from(*count)).sum()
    }

    #[test]
    fn codes_are_the_shortest_and_fill_the_tree() {
        // Five, of which Huffman's tree is known; counts like Fibonacci's want a code for every length.
        assert_eq!(bits(&[15, 0, 7, 6, 6, 5], 14), 15 + 3 * (7 + 6 + 6 + 5));
        assert_eq!(bits(&[1; 256], 14), 8 * 256);
        let mut counts = vec![1u32, 1];
        while counts.len() < 30 {
            counts.push(counts[counts.len() - 1] + counts[counts.len() - 2]);
        }
        let (free, cut, tight) = (bits(&counts, 29), bits(&counts, 14), bits(&counts, 5));
        assert!(free < cut && cut < tight, "{free} {cut} {tight}");
        assert!((cut as f64) < 1.01 * free as f64, "{free} {cut}");
    }
}
