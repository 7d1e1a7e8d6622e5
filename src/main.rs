//! The `nightjar` command.
#![warn(clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;

use clap::Parser;
use nightjar::commands::{Failure, Line};
use nightjar::service::log;
use nightjar::service::memory::{ImagePages, few_arenas};
use nightjar::settings::Settings;

#[global_allocator]
static ALLOCATOR: ImagePages = ImagePages::new();

fn main() -> ExitCode {
    few_arenas();
    let line = Line::parse();
    log::start();
    let settings = Settings::load(line.config.as_deref());
    let result = match settings {
        Ok(settings) => line.command.run(&settings),
        Err(_) if line.command.leaves_faults_to_the_daemon() => Ok(()),
        Err(error) => Err(Failure::from(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::last_words(&failure.to_string(), failure.exit_code());
            ExitCode::from(failure.exit_code())
        }
    }
}
