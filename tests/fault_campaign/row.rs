//! A row of the campaign's table, and the same "chance" in every run.

use nightjar::service::clock::Stopwatch;

/// Whether this is the long run.
pub fn long() -> bool {
    std::env::var_os("NIGHTJAR_CAMPAIGN").is_some()
}

/// How often: `short` in the tests; in the long run `aim`, or as often as `NIGHTJAR_CAMPAIGN_RUNS`
/// and `NIGHTJAR_CAMPAIGN_SECONDS` for each row allow.
pub fn runs(short: u32, aim: u32) -> impl Iterator<Item = u32> {
    let limit = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok()).filter(|_| long());
    let most = limit("NIGHTJAR_CAMPAIGN_RUNS").unwrap_or(u32::MAX);
    let seconds = limit("NIGHTJAR_CAMPAIGN_SECONDS").map_or(f64::MAX, f64::from);
    let watch = Stopwatch::start();
    (0..if long() { aim.min(most) } else { short }).take_while(move |_| watch.seconds() < seconds)
}

/// A row of the table.
#[derive(Debug, Default)]
pub struct Row {
    pub runs: u32,
    pub alerts: u64,
    pub lost: u64,
    pub doubled: u64,
    pub corrupt: u64,
    pub first: Option<String>,
}

impl Row {
    /// Whether every promise was kept.
    pub fn clean(&self) -> bool {
        self.lost + self.doubled + self.corrupt == 0
    }

    /// Prints it as a line of the table.
    pub fn print(&self, fault: &str) {
        let Self { runs, alerts, lost, doubled, corrupt, .. } = self;
        println!("| {fault} | {runs} | {alerts} | {lost} | {doubled} | {corrupt} |");
    }

    /// Prints it and fails when a promise was broken.
    pub fn assert_clean(&self, fault: &str) {
        self.print(fault);
        assert!(self.clean(), "{fault}: {self:?}");
    }
}

/// Says that a row could not be run, in the table and for the test.
pub fn not_run(fault: &str, why: &str) {
    println!("| {fault} | not run: {why} | | | | |");
}

/// The same "chance" in every run.
pub struct Chance(pub u64);

impl Chance {
    /// A number from 0 up to `end`, not included.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Milliseconds from `least` to `most`.
    pub fn ms(&mut self, least: u64, most: u64) -> std::time::Duration {
        std::time::Duration::from_millis(least + self.below(most - least + 1))
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}
