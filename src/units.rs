//! Units as types.
//!
//! An [`Image`](crate::image::Image) carries the unit of its pixels as a type parameter, so that a
//! frame in ADU cannot be handed to a step that works in electrons. Only calibration converts
//! between them.

/// Analogue-to-digital units: what the camera writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adu;

/// Photo-electrons (e-).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Electrons;

/// Squares of electrons: the unit of a variance plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Electrons2;

/// Electrons per second: the unit of a master dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElectronsPerSecond;

/// A pure number: a normalised flat field, a significance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio;
