//! What a simulated line and camera do wrong, on request and by a seed: the same seed, the same night.

use std::str::FromStr;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The faults, as `flip=1e-6,drop=1e-7,stall=2s,reset=0.01`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// Probability that a byte has a bit flipped.
    pub flip: f64,
    /// Probability that a byte is left out.
    pub drop: f64,
    /// Probability that a byte comes twice.
    pub repeat: f64,
    /// Once in every frame the camera is silent for so long.
    pub stall: Duration,
    /// Probability that the camera is reset in the middle of a frame.
    pub reset: f64,
    /// Probability that the camera lies about a frame's size.
    pub lie: f64,
    /// Bytes after which the line is cut; 0 never. Connections only.
    pub cut: u64,
    /// The camera never answers.
    pub silent: bool,
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let chance = || value.parse::<f64>().ok().filter(|chance| (0.0..=1.0).contains(chance));
            let seconds = || value.trim_end_matches('s').parse::<f64>().ok().filter(|s| (0.0..=3600.0).contains(s));
            let bytes = || value.parse::<f64>().ok().filter(|bytes| (1.0..=1e15).contains(bytes));
            let known = match name {
                "flip" => chance().map(|chance| faults.flip = chance),
                "drop" => chance().map(|chance| faults.drop = chance),
                "repeat" => chance().map(|chance| faults.repeat = chance),
                "reset" => chance().map(|chance| faults.reset = chance),
                "lie" => chance().map(|chance| faults.lie = chance),
                "stall" => seconds().map(|seconds| faults.stall = Duration::from_secs_f64(seconds)),
                "cut" => bytes().map(|bytes| faults.cut = bytes as u64),
                "silent" => value.is_empty().then(|| faults.silent = true),
                _ => None,
            };
            known.ok_or_else(|| {
                format!(
                    "\"{part}\" is no fault: write flip, drop, repeat, reset or lie = a probability, stall = seconds, \
                     cut = bytes, or silent, separated by commas"
                )
            })?;
        }
        Ok(faults)
    }
}

/// The faults at work.
#[derive(Debug)]
pub struct Mishaps {
    faults: Faults,
    random: ChaCha8Rng,
    /// Bytes until the next byte is touched.
    clean: u64,
    /// Bytes until the line is cut.
    until_cut: u64,
}

impl Mishaps {
    /// The faults, from a seed.
    pub fn new(faults: Faults, seed: u64) -> Self {
        let until_cut = if faults.cut == 0 { u64::MAX } else { faults.cut };
        let mut mishaps = Self { faults, random: ChaCha8Rng::seed_from_u64(seed), clean: 0, until_cut };
        mishaps.clean = mishaps.next_clean();
        mishaps
    }

    /// What was asked for.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What the line makes of `bytes`; `true` when it is cut now.
    pub fn pass(&mut self, bytes: Vec<u8>) -> (Vec<u8>, bool) {
        let length = bytes.len() as u64;
        let cut = self.until_cut <= length;
        self.until_cut = if cut { self.faults.cut } else { self.until_cut - length };
        if self.clean >= length {
            self.clean -= length;
            return (bytes, cut);
        }
        let mut out = Vec::with_capacity(bytes.len() + 8);
        for byte in bytes {
            if self.clean > 0 {
                self.clean -= 1;
                out.push(byte);
                continue;
            }
            self.clean = self.next_clean();
            let all = self.faults.flip + self.faults.drop + self.faults.repeat;
            match self.random.random::<f64>() * all {
                x if x < self.faults.flip => out.push(byte ^ (1 << self.random.random_range(0..8))),
                x if x < self.faults.flip + self.faults.drop => {}
                _ => out.extend_from_slice(&[byte, byte]),
            }
        }
        (out, cut)
    }

    /// Whether something of this probability happens now.
    pub fn happens(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.random.random::<f64>() < chance
    }

    /// A number below `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        self.random.random_range(0..most.max(1))
    }

    /// Bytes between two mishaps: geometric.
    fn next_clean(&mut self) -> u64 {
        let all = self.faults.flip + self.faults.drop + self.faults.repeat;
        if all <= 0.0 {
            return u64::MAX;
        }
        let uniform: f64 = self.random.random_range(f64::MIN_POSITIVE..1.0);
        (uniform.ln() / (1.0 - all.min(0.999)).ln()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written_and_others_are_refused_by_name() {
        let faults: Faults = "flip=1e-6, drop=1e-7,stall=2s,reset=0.01,cut=4e6,silent".parse().unwrap();
        assert_eq!((faults.flip, faults.drop, faults.reset, faults.cut), (1e-6, 1e-7, 0.01, 4_000_000));
        assert!(faults.silent && faults.stall == Duration::from_secs(2));
        for wrong in ["flop=1", "flip", "flip=2", "stall=-1s", "silent=1"] {
            assert!(wrong.parse::<Faults>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn as_many_bytes_are_touched_as_were_asked_for() {
        let mut mishaps = Mishaps::new("flip=1e-3,drop=1e-3".parse().unwrap(), 1);
        let mut length = 0;
        let mut flipped = 0;
        for _ in 0..1000 {
            let (out, cut) = mishaps.pass(vec![0; 1000]);
            length += out.len();
            flipped += out.iter().filter(|byte| **byte != 0).count();
            assert!(!cut);
        }
        assert!((900..1100).contains(&flipped) && (998_900..999_100).contains(&length), "{flipped} {length}");
        let mut clean = Mishaps::new("cut=2500".parse().unwrap(), 1);
        let cuts = (0..100).filter(|_| clean.pass(vec![0; 1000]).1).count();
        assert_eq!(cuts, 33);
    }
}
