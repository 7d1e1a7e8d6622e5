//! How long a transaction may hear nothing before its producer is given up for a new one.
//!
//! A client can lose sight of its brokers for good: librdkafka 2.12.1 asks only brokers that it knows, and a lone
//! broker that was fenced for a moment by a starved controller is left out of the metadata, hence forgotten. A new
//! producer starts from the brokers in the settings, and to start over from the broker's cursor is always safe.
//!
//! A thin link is silent for as long as a batch takes. So patience grows each time that it ran out, and is never
//! less than some times the longest silence of what went through.

use std::cell::Cell;
use std::time::Duration;

/// Silence that any link may keep.
const LEAST: Duration = Duration::from_secs(60);
/// So many times the longest silence of a transaction that went through.
const MARGIN: u32 = 4;

/// Outlives the producers.
#[derive(Debug)]
pub struct Patience(Cell<Duration>);

impl Default for Patience {
    fn default() -> Self {
        Self(Cell::new(LEAST))
    }
}

impl Patience {
    /// Watches a transaction that begins.
    pub fn begin(&self) -> Silence<'_> {
        Silence { patience: self, heard: Cell::default(), last: Cell::default(), longest: Cell::default() }
    }
}

/// What one transaction heard from the brokers.
#[derive(Debug)]
pub struct Silence<'a> {
    patience: &'a Patience,
    heard: Cell<u64>,
    last: Cell<Duration>,
    longest: Cell<Duration>,
}

impl Silence<'_> {
    /// Whether patience ran out `now` (time since the transaction began), with `reports` delivery reports until now.
    pub fn too_long(&self, reports: u64, now: Duration) -> bool {
        if reports != self.heard.replace(reports) {
            self.longest.set(self.longest.get().max(now.saturating_sub(self.last.replace(now))));
        }
        let patience = self.patience.0.get();
        let over = now.saturating_sub(self.last.get()) > patience;
        if over {
            self.patience.0.set(patience * 2);
        }
        over
    }

    /// The transaction is committed.
    pub fn went_through(&self) {
        self.patience.0.set(LEAST.max(self.longest.get() * MARGIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_minute_without_a_report_is_too_long() {
        let patience = Patience::default();
        let silence = patience.begin();
        assert!(!silence.too_long(0, 59 * S));
        assert!(!silence.too_long(1, 59 * S), "a report came");
        assert!(!silence.too_long(1, 118 * S));
        assert!(silence.too_long(1, 120 * S));
    }

    #[test]
    fn a_link_that_needs_longer_gets_longer_and_keeps_it() {
        let patience = Patience::default();
        assert!(patience.begin().too_long(0, 61 * S));
        let silence = patience.begin();
        assert!(!silence.too_long(0, 100 * S), "twice as long the second time");
        assert!(!silence.too_long(1, 100 * S));
        silence.went_through();
        assert!(!patience.begin().too_long(0, 390 * S), "the next one is as slow");
        let quick = patience.begin();
        quick.too_long(1, S);
        quick.went_through();
        assert!(patience.begin().too_long(0, 61 * S));
    }
}
