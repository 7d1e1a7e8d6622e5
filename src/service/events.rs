//! The kinds of event that have an entry in the journal's catalogue (`journalctl -x` explains them).
//!
//! The entries are in `systemd/nightjar.catalog`. An event carries its kind as the field
//! `message_id` (systemd.journal-fields(7)).

/// The daemon is ready.
pub const STARTED: &str = "d235290547d740b6a1f920b28c5352a7";
/// The daemon has stopped in order.
pub const STOPPED: &str = "caadd1cbbb2e4962aa0855d2dd044b13";
/// An exposure's alerts are durable.
pub const EXPOSURE_DONE: &str = "fb5dae273960405ab5f68b065a478a32";
/// An exposure makes no alerts, and why.
pub const EXPOSURE_WITHOUT_ALERTS: &str = "50fc32b7e61248a28adf8dde2bc0b390";
/// An exposure cannot be processed now and waits on disk.
pub const EXPOSURE_WAITS: &str = "0f5e013552244ad391049f73314c824d";
/// There are no references.
pub const REFERENCE_MISSING: &str = "f5d3208463fe45dc9fc807f0db2cefbc";
/// There are no masters.
pub const MASTERS_MISSING: &str = "7120313303784a4ebdfdaea1e5c558cb";
/// The camera's frames cannot be had.
pub const CAMERA_LOST: &str = "63970a90f3814721bc1627eecc805c4c";
/// The camera is back.
pub const CAMERA_BACK: &str = "2cf4cc7d2ea746418f2181058bdb8e47";
/// The host's clock is not synchronised.
pub const CLOCK_UNSYNCHRONISED: &str = "6ef0040a9e3b47eea8aacfee37ec5da1";
/// A stage does not move.
pub const STAGE_HUNG: &str = "e35569f82cf245d79a68c30082fa1adb";
/// The settings are wrong.
pub const SETTINGS_WRONG: &str = "eb2f0434f4c849b5b5828f8813a1d0e8";
/// An exposure did not come from the camera.
pub const EXPOSURE_MISSED: &str = "23ffab835f0e4be1bfaace6ad032fe59";
/// Exposures are not started, and why.
pub const NO_EXPOSURES: &str = "7f93d2d92eea455596c553ba632fef45";
/// Masters were made of the night's calibration frames.
pub const MASTERS_MADE: &str = "dcff7cd319f447ba9a7be1b574a44f76";
/// Settings, masters and references were read again.
pub const RELOADED: &str = "f2be5a604ad24df28c6fe0d9f59b3602";
/// The disk takes no frames.
pub const FRAMES_REFUSED: &str = "9d1f4f0a5c5e4f0f8f7d3c0b6a2e4d17";
/// The disk takes frames again.
pub const FRAMES_TAKEN: &str = "5b7e0c8d2f9a4c6cb0a1d94e8c3f7a62";
/// A defect of the program.
pub const DEFECT: &str = "4a1c0f4f3e5b4b52a3e0f5c1d7b6e921";

/// All kinds, by name.
pub const ALL: &[(&str, &str)] = &[
    ("STARTED", STARTED),
    ("STOPPED", STOPPED),
    ("EXPOSURE_DONE", EXPOSURE_DONE),
    ("EXPOSURE_WITHOUT_ALERTS", EXPOSURE_WITHOUT_ALERTS),
    ("EXPOSURE_WAITS", EXPOSURE_WAITS),
    ("REFERENCE_MISSING", REFERENCE_MISSING),
    ("MASTERS_MISSING", MASTERS_MISSING),
    ("CAMERA_LOST", CAMERA_LOST),
    ("CAMERA_BACK", CAMERA_BACK),
    ("CLOCK_UNSYNCHRONISED", CLOCK_UNSYNCHRONISED),
    ("STAGE_HUNG", STAGE_HUNG),
    ("SETTINGS_WRONG", SETTINGS_WRONG),
    ("EXPOSURE_MISSED", EXPOSURE_MISSED),
    ("NO_EXPOSURES", NO_EXPOSURES),
    ("MASTERS_MADE", MASTERS_MADE),
    ("RELOADED", RELOADED),
    ("FRAMES_REFUSED", FRAMES_REFUSED),
    ("FRAMES_TAKEN", FRAMES_TAKEN),
    ("DEFECT", DEFECT),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_event_is_explained_once_and_nothing_else_is() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/nightjar.catalog");
        let catalogue = std::fs::read_to_string(path).unwrap();
        let mut explained: Vec<&str> = catalogue.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let mut kinds: Vec<&str> = ALL.iter().map(|(_, id)| *id).collect();
        explained.sort_unstable();
        kinds.sort_unstable();
        assert_eq!(kinds, explained);
        assert!(kinds.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }
}
