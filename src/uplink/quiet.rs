//! Says the same thing ever more rarely: at once, after 1 min, 10 min, 1 h, then every 6 h; and a
//! link that comes and goes is one trouble, not one each time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::failure::Class;

const MINUTE: u64 = 60;
/// After this time without trouble the next one is a new one.
const CALM: Duration = Duration::from_secs(10 * MINUTE);

/// Decides whether a failure is worth a journal line.
#[derive(Debug, Default)]
pub struct Quiet {
    /// What was said of each kind of trouble since the last calm: from when on, and how often.
    said: BTreeMap<Class, (Duration, u32)>,
    /// Since when there is trouble without a break.
    since: Option<Duration>,
    /// Whether a line told of it.
    told: bool,
    well_since: Option<Duration>,
}

impl Quiet {
    /// Whether to say that `class` is the trouble `now` (time since any fixed moment).
    pub fn worth_saying(&mut self, class: Class, now: Duration) -> bool {
        if self.well_since.take().is_some_and(|well| now.saturating_sub(well) >= CALM) {
            self.said.clear();
        }
        self.since.get_or_insert(now);
        let (start, said) = self.said.entry(class).or_insert((now, 0));
        let due = match *said {
            0 => 0,
            1 => MINUTE,
            2 => 10 * MINUTE,
            3 => 60 * MINUTE,
            n => 60 * MINUTE * (1 + 6 * (u64::from(n) - 3)),
        };
        let worth = now.saturating_sub(*start) >= Duration::from_secs(due);
        *said += u32::from(worth);
        self.told |= worth;
        worth
    }

    /// All is well; gives how long it was not, where a line told of that.
    pub fn recovered(&mut self, now: Duration) -> Option<Duration> {
        let since = self.since.take()?;
        self.well_since = Some(now);
        std::mem::take(&mut self.told).then(|| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_without_a_broker_is_four_lines_and_one_when_it_is_back() {
        let mut quiet = Quiet::default();
        let lines = (0..=3600).filter(|s| quiet.worth_saying(Class::Transport, Duration::from_secs(*s))).count();
        assert_eq!(lines, 4);
        assert_eq!(quiet.recovered(Duration::from_secs(3700)), Some(Duration::from_secs(3700)));
        assert_eq!(quiet.recovered(Duration::from_secs(3800)), None);
    }

    #[test]
    fn another_reason_is_said_at_once() {
        let mut quiet = Quiet::default();
        assert!(quiet.worth_saying(Class::Transport, Duration::ZERO));
        assert!(!quiet.worth_saying(Class::Transport, Duration::from_secs(5)));
        assert!(quiet.worth_saying(Class::Authentication, Duration::from_secs(6)));
        assert!(!quiet.worth_saying(Class::Authentication, Duration::from_secs(7)));
    }

    #[test]
    fn a_link_that_flaps_for_an_hour_is_fewer_than_ten_lines() {
        let mut quiet = Quiet::default();
        let mut lines = 0;
        for second in 0..3600 {
            let now = Duration::from_secs(second);
            match second % 20 {
                0..10 => lines += usize::from(quiet.worth_saying(Class::Transport, now)),
                _ => lines += usize::from(quiet.recovered(now).is_some()),
            }
        }
        assert!((4..10).contains(&lines), "{lines}");
        quiet.recovered(Duration::from_secs(3600));
        assert!(quiet.worth_saying(Class::Transport, Duration::from_secs(4300)), "another evening, another trouble");
    }

    #[test]
    fn two_reasons_in_turns_do_not_fill_the_journal() {
        let mut quiet = Quiet::default();
        let classes = [Class::Transport, Class::Other];
        let said = (0..3600).filter(|s| quiet.worth_saying(classes[s % 2], Duration::from_secs(*s as u64))).count();
        assert!(said < 9, "{said}");
    }
}
