//! The `nightjar` command.
#![warn(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nightjar::commands::{Command, Failure};
use nightjar::service::log;
use nightjar::service::memory::ImagePages;
use nightjar::settings::Settings;

#[global_allocator]
static ALLOCATOR: ImagePages = ImagePages::new();

/// Turns a telescope's exposures into alerts in Kafka.
#[derive(Debug, Parser)]
#[command(name = "nightjar", version)]
struct Line {
    /// Settings file [default: /etc/nightjar/nightjar.toml where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let line = Line::parse();
    log::start();
    let settings = Settings::load(line.config.as_deref());
    let result = settings.map_err(Failure::from).and_then(|settings| line.command.run(&settings));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::last_words(&failure.to_string(), failure.exit_code());
            ExitCode::from(failure.exit_code())
        }
    }
}
