//! Says the same thing ever more rarely: at once, after 1 min, 10 min, 1 h, then every 6 h.

use std::time::Duration;

use super::failure::Class;

const MINUTE: u64 = 60;

/// Decides whether a failure is worth a journal line.
#[derive(Debug, Default)]
pub struct Quiet {
    since: Option<(Class, Duration)>,
    said: u32,
}

impl Quiet {
    /// Whether to say that `class` is the trouble `now` (time since any fixed moment).
    pub fn worth_saying(&mut self, class: Class, now: Duration) -> bool {
        let start = match self.since {
            Some((known, start)) if known == class => start,
            Some((_, start)) => {
                self.since = Some((class, start));
                self.said = self.said.max(1);
                return true;
            }
            None => {
                self.since = Some((class, now));
                self.said = 0;
                now
            }
        };
        let due = match self.said {
            0 => 0,
            1 => MINUTE,
            2 => 10 * MINUTE,
            3 => 60 * MINUTE,
            n => 60 * MINUTE * (1 + 6 * (u64::from(n) - 3)),
        };
        let worth = now.saturating_sub(start) >= Duration::from_secs(due);
        self.said += u32::from(worth);
        worth
    }

    /// All is well; gives how long it was not.
    pub fn recovered(&mut self, now: Duration) -> Option<Duration> {
        self.said = 0;
        self.since.take().map(|(_, start)| now.saturating_sub(start))
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
}
