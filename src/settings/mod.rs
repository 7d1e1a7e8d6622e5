//! Settings, read once and whole before the first photon.

/// All settings, checked.
#[derive(Debug, Clone, Default)]
pub struct Settings {}
