//! One way to stop.
//!
//! The first request (SIGTERM, SIGINT) ends the exposure in hand or leaves it to the frame journal,
//! lets the uplink drain until a deadline, and returns from `main`. The second stops at once. In
//! neither is anything lost: what is not done is done at the next start.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

/// How far the stopping has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nobody asked.
    Running,
    /// Finish what is in hand.
    Finish,
    /// Stop at once.
    AtOnce,
}

/// Who asked the service for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// A handle on the stopping of the whole process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<u32>,
    changed: Condvar,
}

impl Shutdown {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to finish; asked again, to stop at once.
    pub fn request(&self) {
        *self.requests() += 1;
        self.shared.changed.notify_all();
    }

    /// How far the stopping has gone.
    pub fn phase(&self) -> Phase {
        match *self.requests() {
            0 => Phase::Running,
            1 => Phase::Finish,
            _ => Phase::AtOnce,
        }
    }

    /// Whether somebody asked to stop.
    pub fn is_requested(&self) -> bool {
        self.phase() > Phase::Running
    }

    /// Sleeps for `time`, or until `phase` is reached; says whether it was.
    pub fn wait_for(&self, phase: Phase, time: Duration) -> bool {
        let requests = phase as u32;
        let guard = self.requests();
        let waited = self.shared.changed.wait_timeout_while(guard, time, |count| *count < requests);
        *waited.unwrap_or_else(PoisonError::into_inner).0 >= requests
    }

    /// Sleeps for `time`, or until somebody asks to stop; says whether somebody did.
    pub fn sleep(&self, time: Duration) -> bool {
        self.wait_for(Phase::Finish, time)
    }

    fn requests(&self) -> MutexGuard<'_, u32> {
        // A count is whole whatever a thread died of.
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes SIGTERM, SIGINT and SIGHUP away from every thread that is started later and gives them,
/// one by one, to `handle` on a thread of their own. Call it before the first other thread.
pub fn catch_signals(mut handle: impl FnMut(Request) + Send + 'static) -> std::io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            handle(if signal == Signal::SIGHUP { Request::Reload } else { Request::Stop });
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_finishes_and_the_second_stops_at_once() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        assert_eq!(shutdown.phase(), Phase::Running);
        assert!(!shutdown.sleep(Duration::from_millis(1)));
        other.request();
        assert_eq!(shutdown.phase(), Phase::Finish);
        assert!(shutdown.sleep(Duration::from_secs(3600)), "a sleeper wakes at once");
        assert!(!shutdown.wait_for(Phase::AtOnce, Duration::from_millis(1)));
        other.request();
        assert!(shutdown.wait_for(Phase::AtOnce, Duration::from_secs(3600)));
    }
}
