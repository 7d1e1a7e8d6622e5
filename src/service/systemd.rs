//! What systemd is told: ready, state, stopping, still alive. Nothing happens where the program was
//! not started by systemd.

use std::time::Duration;

use systemd::daemon;

use super::heart::Work;
use super::{Hearts, Shutdown, events};
use crate::exposure::ExposureId;
use crate::service::shutdown::Phase;

/// The settings are read and the spool is recovered.
pub fn ready(status: &str) {
    tell(&[(daemon::STATE_READY, "1"), (daemon::STATE_STATUS, status)]);
}

/// One line that a person can read in `systemctl status`.
pub fn status(line: &str) {
    tell(&[(daemon::STATE_STATUS, line)]);
}

/// The way to the end has begun.
pub fn stopping(status: &str) {
    tell(&[(daemon::STATE_STOPPING, "1"), (daemon::STATE_STATUS, status)]);
}

/// How long systemd waits for a sign of life (`WatchdogSec=`); `None` without a watchdog.
pub fn watchdog() -> Option<Duration> {
    daemon::watchdog_enabled().ok().filter(|microseconds| *microseconds > 0).map(Duration::from_micros)
}

/// Feeds the watchdog on a thread of its own, for as long as no stage hangs, until the process
/// stops. `note` hears of work that hangs. Without a watchdog (`WatchdogSec=` not set) nothing is started.
pub fn feed_watchdog(
    hearts: Hearts,
    shutdown: Shutdown,
    note: impl Fn(&ExposureId) + Send + 'static,
) -> std::io::Result<()> {
    let Some(period) = watchdog() else { return Ok(()) };
    let pause = period / 3;
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut hangs = false;
        loop {
            match hearts.hung() {
                None => {
                    hangs = false;
                    tell(&[(daemon::STATE_WATCHDOG, "1")]);
                }
                Some(Work { stage, exposure }) if !hangs => {
                    hangs = true;
                    note(&exposure);
                    tracing::error!(
                        message_id = events::STAGE_HUNG,
                        nightjar_stage = stage,
                        nightjar_exposure = %exposure,
                        "{stage} has not moved for {:.0} s: systemd will restart nightjar, and the exposure is done again",
                        hearts.deadline().as_secs_f64()
                    );
                }
                Some(_) => {}
            }
            if shutdown.wait_for(Phase::AtOnce, pause) {
                break;
            }
        }
    })?;
    Ok(())
}

fn tell(state: &[(&str, &str)]) {
    if let Err(error) = daemon::notify(state.iter()) {
        tracing::debug!("systemd could not be told {state:?}: {error}");
    }
}
