//! The one place that asks the host for the time.
//!
//! Astronomical times come from frames; the host's clock serves timers ([`Stopwatch`]) and people
//! ([`now`]). Whether that clock can be trusted is the kernel's word ([`synchronised`]).
#![allow(clippy::disallowed_methods, reason = "this is the module that the lint sends everybody to")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::Mjd;

/// The host's time, UTC.
pub fn now() -> Mjd {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Mjd::from_unix_seconds(since.as_secs_f64())
}

/// Measures elapsed time; steps of the host's clock do not touch it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since it was started.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Seconds since it was started.
    pub fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    /// Seconds since it was started or last asked; starts again.
    pub fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.0).as_secs_f64();
        self.0 = now;
        seconds
    }
}

/// Whether the host's clock is synchronised: the kernel's word, and where it does not let us ask (in the
/// service's sandbox) that of systemd-timedated, which is the kernel's too. `None` where neither tells.
pub fn synchronised() -> Option<bool> {
    kernel().or_else(super::timedate::synchronised)
}

/// `adjtimex(2)`: not `TIME_ERROR` and not `STA_UNSYNC`; `None` where it is forbidden.
fn kernel() -> Option<bool> {
    use nix::libc;
    // SAFETY: `timex` is plain integers, for which all zeros is a value; with `modes` zero the call
    // only reads.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut timex), timex.status)
    };
    (state >= 0).then_some(state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_lives_in_this_century() {
        assert!((60_000.0..96_000.0).contains(&now().0));
    }

    #[test]
    fn laps_add_up_to_the_whole() {
        let whole = Stopwatch::start();
        let mut laps = Stopwatch::start();
        let sum = laps.lap() + laps.lap();
        assert!(sum <= whole.seconds());
    }
}
