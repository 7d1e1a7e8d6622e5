//! How large the next transaction may be: what the link carried lately, times three seconds.

/// Seconds of link time that a transaction should take.
pub const TARGET_S: f64 = 3.0;
/// The first transaction, bytes.
pub const FIRST: u64 = 1_000_000;
/// The smallest budget, bytes; one record goes whatever its size.
pub const LEAST: u64 = 32_000;

/// Sizes transactions by measured throughput.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    most: u64,
    budget: u64,
    rate: f64,
}

impl Pace {
    /// Begins carefully; never more than `most` bytes.
    pub fn new(most: u64) -> Self {
        Self { most, budget: FIRST.min(most), rate: 0.0 }
    }

    /// Bytes that the next transaction may hold.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// What the link carried in the last transactions, bytes per second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Learns that `bytes` took `seconds`. A transaction much smaller than its budget says little
    /// about the link (it was all there was) and may only raise the rate.
    pub fn learn(&mut self, bytes: u64, seconds: f64) {
        let rate = bytes as f64 / seconds.max(1e-3);
        if bytes * 2 < self.budget && rate < self.rate {
            return;
        }
        // A full transaction on a link that became thin says all at once; otherwise the mean moves by halves.
        let fresh = self.rate == 0.0 || rate < self.rate / 4.0;
        self.rate = if fresh { rate } else { 0.5 * self.rate + 0.5 * rate };
        let wanted = (self.rate * TARGET_S) as u64;
        self.budget = wanted.clamp(self.budget / 4, self.budget * 16).clamp(LEAST.min(self.most), self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle_on(bytes_per_s: f64) -> u64 {
        let mut pace = Pace::new(64_000_000);
        for _ in 0..20 {
            pace.learn(pace.budget(), 0.01 + pace.budget() as f64 / bytes_per_s);
        }
        pace.budget()
    }

    #[test]
    fn a_transaction_takes_about_three_seconds_on_any_link() {
        for rate in [125_000.0, 2_500_000.0] {
            let seconds = settle_on(rate) as f64 / rate;
            assert!((2.0..5.0).contains(&seconds), "{rate} B/s: {seconds} s");
        }
        assert_eq!(settle_on(1e9), 64_000_000);
    }

    #[test]
    fn a_link_that_became_thin_is_noticed_at_once() {
        let mut pace = Pace::new(64_000_000);
        for _ in 0..10 {
            pace.learn(pace.budget(), pace.budget() as f64 / 1e8);
        }
        for _ in 0..6 {
            pace.learn(pace.budget(), pace.budget() as f64 / 125_000.0);
        }
        assert!(pace.budget() < 5_000_000, "{}", pace.budget());
    }

    #[test]
    fn small_remainders_do_not_make_the_link_look_slow() {
        let mut pace = Pace::new(64_000_000);
        pace.learn(1_000_000, 0.1);
        let before = pace.budget();
        pace.learn(50_000, 0.1);
        assert_eq!(pace.budget(), before);
    }
}
