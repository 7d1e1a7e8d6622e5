//! The `nightjar` command.

use std::process::ExitCode;

use clap::Parser;
use nightjar::commands::Command;
use nightjar::settings::Settings;

/// Turns a telescope's exposures into alerts in Kafka.
#[derive(Debug, Parser)]
#[command(name = "nightjar", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let line = Line::parse();
    match line.command.run(&Settings::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nightjar: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
