//! `nightjar run`.

use super::Failure;
use crate::settings::Settings;

/// Arguments of `nightjar run`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args, settings: &Settings) -> Result<(), Failure> {
    settings.check_for_run()?;
    Err(Failure::Defect("not built yet".into()))
}
