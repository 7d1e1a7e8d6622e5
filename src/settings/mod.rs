//! Settings: read once and whole, before the first photon, into plain structs.
//!
//! They come from one TOML file; the environment overrides any key (`NIGHTJAR__UPLINK__BROKERS`
//! for `[uplink] brokers`, lists separated by commas). Each field's documentation gives unit,
//! default and consequence; `config/nightjar.toml` shows them all. A key that does not exist is
//! refused, since a misspelt one would be a default in silence. All faults are reported together,
//! one line each, with the key, the value and what is allowed.
//!
//! Only `commands` and `night` see [`Settings`]; the stages get values.

mod delivery;
mod instance;
mod read;
mod rules;
mod science;
mod site;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use delivery::{Delivery, Drain, Metrics, Security, Service, Spool, Uplink};
pub use read::{Fault, SettingsError};
pub use science::{Alerts, Catalogues, Detect, History, Profile, References, Subtract, SubtractMethod};
pub use site::{AmplifierSettings, Calibration, Camera, CameraKind, Detector, Frames, Observatory, Telescope, Trigger};

/// Where the settings are looked for when no file is named.
pub const DEFAULT_FILE: &str = "/etc/nightjar/nightjar.toml";

/// All settings, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Who sends the alerts and from where.
    pub observatory: Observatory,
    /// Where frames come from.
    pub camera: Camera,
    /// Where the telescope points.
    pub telescope: Telescope,
    /// What is used where headers lack it.
    pub detector: Detector,
    /// The frame journal.
    pub frames: Frames,
    /// The masters.
    pub calibration: Calibration,
    /// The deep images that exposures are compared with.
    pub references: References,
    /// The camera's filter names and their `fid` (ZTF: 1 g, 2 r, 3 i; others from 10 up). Default
    /// g = 1, r = 2, i = 3; what the file gives is added to these.
    pub filters: BTreeMap<String, i32>,
    /// How the reference is subtracted.
    pub subtract: Subtract,
    /// What counts as a change.
    pub detect: Detect,
    /// Stars and orbits that are known already.
    pub catalogues: Catalogues,
    /// Packets and topics.
    pub alerts: Alerts,
    /// Objects, detections, coverage and ledger.
    pub history: History,
    /// The disk buffer.
    pub spool: Spool,
    /// The Kafka cluster.
    pub uplink: Uplink,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// The process itself.
    pub service: Service,
    /// The file that they were read from, for reading them again; `None` where there was none.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            observatory: Observatory::default(),
            camera: Camera::default(),
            telescope: Telescope::default(),
            detector: Detector::default(),
            frames: Frames::default(),
            calibration: Calibration::default(),
            references: References::default(),
            filters: BTreeMap::from([("g".into(), 1), ("r".into(), 2), ("i".into(), 3)]),
            subtract: Subtract::default(),
            detect: Detect::default(),
            catalogues: Catalogues::default(),
            alerts: Alerts::default(),
            history: History::default(),
            spool: Spool::default(),
            uplink: Uplink::default(),
            metrics: Metrics::default(),
            service: Service::default(),
            file: None,
        }
    }
}

impl Settings {
    /// Reads `file`, or [`DEFAULT_FILE`] when none is named and it is there, and the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        let default = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| default.exists().then_some(default));
        let mut settings = read::read(file, None, instance::defaults(file))?;
        settings.file = file.map(Path::to_owned);
        Ok(settings)
    }

    /// Reads `file` and, in place of the environment, these variables.
    pub fn load_with(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        read::read(file, Some(variables.into_iter().collect()), instance::defaults(file))
    }

    /// The NAME of `nightjar@NAME.service`, whose settings these are; `None` for the one detector of a
    /// host, and for a file that is somewhere else.
    pub fn instance(&self) -> Option<&str> {
        instance::name_of(self.file.as_deref()?)
    }

    /// What the daemon needs beyond what a rehearsal does; all faults at once.
    pub fn check_for_run(&self) -> Result<(), SettingsError> {
        rules::check_for_run(self)
    }
}
