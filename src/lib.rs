//! Nightjar turns a telescope's exposures into alerts in Kafka, on the machine beside the telescope.
//!
//! The flow, and one module for each of its stages:
//!
//! ```text
//! camera ─► calibrate ─► register ─► subtract ─► detect ─► alert ─► spool ─► uplink ─► Kafka
//!                                                     history ┘
//! ```
//!
//! Each stage names only its predecessor's type, and all of them may use [`image`], [`psf`],
//! [`wcs`], [`units`], [`time`], [`exposure`] and [`fits`]. `night` joins the stages and holds no
//! arithmetic. `tests/layers.rs` holds this table.

#![warn(clippy::unwrap_used, clippy::expect_used)]

/// The standard `println!`, but for one thing: where the reader has gone (`nightjar … | head`) the line is
/// left out instead of a panic.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// [`println!`] for stderr.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

pub mod alert;
pub mod archive;
pub mod asteroids;
pub mod calibrate;
pub mod camera;
pub mod catalogue;
pub mod commands;
pub mod detect;
pub mod exposure;
pub mod fits;
pub mod history;
pub mod image;
pub mod night;
pub mod psf;
pub mod register;
pub mod registry;
pub mod service;
pub mod settings;
pub mod sky;
pub mod spool;
pub mod subtract;
pub mod time;
pub mod units;
pub mod uplink;
pub mod wcs;
