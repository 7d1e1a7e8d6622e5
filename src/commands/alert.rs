//! `nightjar alert`.

use super::Failure;
use crate::settings::Settings;

/// Arguments of `nightjar alert`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args, _settings: &Settings) -> Result<(), Failure> {
    Err(Failure::Defect("not built yet".into()))
}
