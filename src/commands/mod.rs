//! The commands of the program, one file each.
//!
//! A command's `run` takes its arguments and the checked settings and returns; what goes to another
//! program it prints on stdout, everything else on stderr.

mod broker;
mod camera_line;
mod progress;

use std::path::PathBuf;

use crate::settings::{Settings, SettingsError};

/// Turns a telescope's exposures into alerts in Kafka.
#[derive(Debug, clap::Parser)]
#[command(name = "nightjar", version)]
pub struct Line {
    /// Settings file [default: /etc/nightjar/nightjar.toml where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Why a command did not succeed. The message says what the operator does next.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The settings are wrong: exit 78 (`EX_CONFIG`); restarting does not help.
    #[error("{0}")]
    Settings(String),
    /// Disk, device or network: exit 75 (`EX_TEMPFAIL`); try again.
    #[error("{0}")]
    TryAgain(String),
    /// A defect of the program: exit 70 (`EX_SOFTWARE`).
    #[error("{0}")]
    Defect(String),
    /// What was asked for cannot be done with this input: exit 1.
    #[error("{0}")]
    Input(String),
}

impl Failure {
    /// Any error about the input.
    pub fn input(error: impl std::fmt::Display) -> Self {
        Self::Input(error.to_string())
    }

    /// The exit code (sysexits.h).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => 78,
            Self::TryAgain(_) => 75,
            Self::Defect(_) => 70,
            Self::Input(_) => 1,
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error.to_string())
    }
}

macro_rules! commands {
    ($($(#[$doc:meta])* $variant:ident => $module:ident),* $(,)?) => {
        $(pub mod $module;)*

        /// The command and its arguments.
        #[derive(Debug, clap::Subcommand)]
        pub enum Command {
            $($(#[$doc])* $variant($module::Args),)*
        }

        impl Command {
            /// Whether wrong settings are not this command's to tell: the unit asks whether a camera is named
            /// before it starts the daemon, which tells every fault, with the exit code that systemd knows.
            pub fn leaves_faults_to_the_daemon(&self) -> bool {
                matches!(self, Self::Check(args) if args.configured)
            }

            /// Runs the command.
            pub fn run(&self, settings: &Settings) -> Result<(), Failure> {
                match self {
                    $(Self::$variant(args) => $module::run(args, settings),)*
                }
            }
        }
    };
}

commands! {
    /// The daemon: what the systemd unit starts
    Run => run,
    /// Run a recorded night through the whole pipeline
    Simulate => simulate,
    /// Subtract one calibrated image from another and list what changed
    Difference => difference,
    /// Calibrate one raw frame
    Calibrate => calibrate,
    /// Combine frames into a master bias, dark or flat
    Master => master,
    /// Build a deep reference from calibrated frames
    Reference => reference,
    /// Make a star catalogue of the tables that surveys publish
    Catalogue => catalogue,
    /// Show alert packets
    Alert => alert,
    /// Look into the disk buffer
    Spool => spool,
    /// Keep the alerts of Kafka's topics as Avro files
    Archive => archive,
    /// Make the history again from an archive
    History => history,
    /// The running daemon on one screen
    Status => status,
    /// Prove settings, camera, masters, references, disk and broker before the night
    Check => check,
    /// Simulate a camera that plays recorded exposures over a wire
    Camera => camera,
    /// Synthesise a recorded night with a truth table
    Sky => sky,
    /// Print what a shell needs to complete this command line
    #[command(hide = true)]
    Completions => completions,
}
