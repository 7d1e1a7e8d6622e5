//! `nightjar run`: the daemon.

use super::Failure;
use crate::night::daemon::{self, DaemonError};
use crate::settings::Settings;

/// Arguments of `nightjar run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar run --config /etc/nightjar/nightjar.toml\n\n\
    SIGTERM finishes the exposure in hand and sends what can be sent; a second one stops at once, and nothing is\n\
    lost either way. SIGHUP reads masters and references again. Usually systemd does this: systemctl start nightjar")]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args, settings: &Settings) -> Result<(), Failure> {
    settings.check_for_run()?;
    daemon::run(settings).map_err(Failure::from)
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error.is_of_the_settings() {
            true => Self::Settings(error.to_string()),
            false => Self::TryAgain(error.to_string()),
        }
    }
}
