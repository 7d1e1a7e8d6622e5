//! The process as a service: clock, log, shutdown, what systemd is told, the status file.
//!
//! Only this module and `commands` know that the program runs under systemd; the stages log with
//! [`tracing`] and get the time as an argument.

pub mod clock;
pub mod command;
pub mod credentials;
pub mod defect;
pub mod disk;
pub mod events;
pub mod finding;
pub mod heart;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod shutdown;
pub mod status_file;
pub mod systemd;
mod timedate;

pub use clock::Stopwatch;
pub use finding::{Finding, Severity};
pub use heart::Hearts;
pub use shutdown::Shutdown;
