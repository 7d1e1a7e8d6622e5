//! The uplink as the daemon sees it: start, look, hold, stop.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::courier::Courier;
use super::{Delivery, UplinkError, UplinkParameters, client};
use crate::service::clock::Stopwatch;
use crate::spool::Spool;

/// How the uplink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Introducing itself to the broker for the first time.
    #[default]
    Connecting,
    /// Ready, or sending.
    Connected,
    /// The broker is away or refuses; alerts wait.
    Away,
    /// Held on purpose.
    Held,
    /// The thread has ended.
    Stopped,
}

/// The uplink in figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UplinkStatus {
    /// How it is.
    pub state: State,
    /// What Kafka promises now.
    pub delivery: Delivery,
    /// Alerts that the broker committed since the start.
    pub acknowledged_alerts: u64,
    /// Exposures completed since the start.
    pub acknowledged_exposures: u64,
    /// Transactions committed since the start.
    pub transactions: u64,
    /// Producers introduced to the broker since the start: a new one after any doubt.
    pub sessions: u64,
    /// Records that went to `dead/` since the start.
    pub refused: u64,
    /// What the link carries, bytes per second.
    pub rate: f64,
    /// Alerts that wait in the spool.
    pub behind_alerts: u64,
    /// Bytes that wait in the spool.
    pub behind_bytes: u64,
    /// Exposures that wait in the spool.
    pub behind_exposures: u64,
    /// The last trouble, with what to do.
    pub last_error: Option<String>,
}

/// What handle and thread share.
#[derive(Default)]
pub struct Shared {
    control: Mutex<Control>,
    changed: Condvar,
    status: Mutex<UplinkStatus>,
}

#[derive(Default)]
struct Control {
    stop: Option<(Stopwatch, Duration)>,
    hold: Option<String>,
    ended: bool,
    /// Something has been taken from the spool and is not in the status yet.
    delivering: bool,
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the thread should end once nothing waits.
    pub fn finishing(&self) -> bool {
        self.control().stop.is_some()
    }

    /// Whether the thread must end whatever waits.
    pub fn stopped(&self) -> bool {
        self.control().stop.is_some_and(|(watch, within)| watch.elapsed() >= within)
    }

    /// Why nothing is to be sent, where that is so.
    pub fn held(&self) -> Option<String> {
        self.control().hold.clone()
    }

    /// Sleeps, unless a stop is asked for.
    pub fn sleep(&self, time: Duration) {
        let control = self.control();
        let before = control.stop.is_some();
        let _ = self.changed.wait_timeout_while(control, time, |c| c.stop.is_some() == before);
    }

    /// Says whether something is being sent, so that the status lags behind the spool.
    pub fn delivering(&self, busy: bool) {
        self.control().delivering = busy;
    }

    /// Changes the status.
    pub fn note(&self, change: impl FnOnce(&mut UplinkStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The status without what waits.
    pub fn status(&self) -> UplinkStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The running uplink: a thread of its own. Dropping it stops at once; nothing is lost by that.
pub struct Uplink {
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    thread: Option<JoinHandle<()>>,
}

impl Uplink {
    /// Starts sending what is in `spool`.
    pub fn start(parameters: UplinkParameters, spool: Arc<Spool>) -> Result<Self, UplinkError> {
        Self::start_gated(parameters, spool, |_| ())
    }

    /// As [`Uplink::start`], and after each transaction calls `gate` with the number of alerts
    /// committed so far: a rehearsal lets its reader catch up there.
    pub fn start_gated(
        parameters: UplinkParameters,
        spool: Arc<Spool>,
        gate: impl Fn(u64) + Send + 'static,
    ) -> Result<Self, UplinkError> {
        if parameters.publish {
            client::producer(&parameters, spool.uuid(), false).map_err(|e| UplinkError::Settings(e.to_string()))?;
        }
        let shared = Arc::new(Shared::default());
        shared.note(|status| status.delivery = parameters.delivery);
        let courier = Courier::new(parameters, spool.clone(), shared.clone(), Box::new(gate));
        let ends = shared.clone();
        let thread = std::thread::Builder::new().name("uplink".into()).spawn(move || {
            courier.run();
            ends.note(|status| status.state = State::Stopped);
            ends.control().ended = true;
            ends.changed.notify_all();
        })?;
        Ok(Self { shared, spool, thread: Some(thread) })
    }

    /// An uplink without a thread: everything stays in `spool`.
    pub fn held(spool: Arc<Spool>) -> Self {
        let shared = Arc::new(Shared::default());
        shared.note(|status| status.state = State::Stopped);
        shared.control().ended = true;
        Self { shared, spool, thread: None }
    }

    /// The uplink in figures.
    pub fn status(&self) -> UplinkStatus {
        let spool = self.spool.status();
        UplinkStatus {
            behind_alerts: spool.waiting_alerts,
            behind_bytes: spool.waiting_bytes,
            behind_exposures: spool.waiting_exposures,
            ..self.shared.status()
        }
    }

    /// Holds everything in the spool for `reason` (an unsynchronised clock), or lets go again.
    pub fn hold(&self, reason: Option<String>) {
        self.shared.control().hold = reason;
    }

    /// Waits until nothing is unsent and the status says so, or for `timeout`; true when nothing is unsent.
    pub fn drain(&self, timeout: Duration) -> bool {
        let watch = Stopwatch::start();
        loop {
            // In this order: what has left the spool is being delivered until it stands in the status.
            if self.spool.status().waiting_exposures == 0 && !self.shared.control().delivering {
                return true;
            }
            if watch.elapsed() >= timeout || self.shared.control().ended {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends what can be sent within `deadline`, then stops; true when nothing is left unsent.
    pub fn stop(mut self, deadline: Duration) -> bool {
        self.end(deadline);
        self.spool.status().waiting_exposures == 0
    }

    fn end(&mut self, deadline: Duration) {
        self.shared.control().stop = Some((Stopwatch::start(), deadline));
        self.shared.changed.notify_all();
        self.spool.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by its hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}
