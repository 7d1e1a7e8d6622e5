//! `nightjar completions`: the command line for shells to complete; the package is made with it.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Failure, Line};
use crate::settings::Settings;

/// Arguments of `nightjar completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar completions bash >/etc/bash_completion.d/nightjar")]
pub struct Args {
    /// Which shell
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args, _settings: &Settings) -> Result<(), Failure> {
    clap_complete::generate(args.shell, &mut Line::command(), "nightjar", &mut std::io::stdout());
    Ok(())
}
