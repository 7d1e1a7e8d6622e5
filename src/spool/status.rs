//! What the spool says of itself.

use uuid::Uuid;

use super::Epoch;
use super::pressure::Pressure;

/// The spool in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct SpoolStatus {
    /// Name of the spool.
    pub uuid: Uuid,
    /// This opening.
    pub epoch: Epoch,
    /// Unsent exposures.
    pub waiting_exposures: u64,
    /// Unsent alerts.
    pub waiting_alerts: u64,
    /// Bytes of the unsent exposures.
    pub waiting_bytes: u64,
    /// Name of the exposure that waits longest.
    pub oldest: Option<String>,
    /// Sent exposures that are kept.
    pub sent_exposures: u64,
    /// Bytes that they take.
    pub sent_bytes: u64,
    /// Records refused by the broker, in `dead/`.
    pub dead: u64,
    /// Damaged records and files, in `quarantine/`.
    pub quarantined: u64,
    /// Exposures that the disk lost.
    pub missing: u64,
    /// How full the disk is.
    pub pressure: Pressure,
    /// Bytes that may still be written, as last measured.
    pub free_bytes: Option<u64>,
    /// Hours until the disk is full at the rate of the last hours; `None` while it does not fill.
    pub hours_left: Option<f64>,
    /// Why no exposure is taken, where that is so.
    pub refusing: Option<String>,
}
