//! What is compared with what, what counts as a change, and what an alert says.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[references]`: the deep images that exposures are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct References {
    /// Folder of references. Default "/var/lib/nightjar/references".
    pub folder: PathBuf,
    /// Whether the daemon builds references for fields that have none. Default true.
    pub build: bool,
    /// Good frames of a field that make a reference. Default 15; fewer make a shallower one.
    pub frames_needed: u32,
}

impl Default for References {
    fn default() -> Self {
        Self { folder: "/var/lib/nightjar/references".into(), build: true, frames_needed: 15 }
    }
}

/// `[subtract] method`: how the reference is subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubtractMethod {
    /// The proper subtraction where point-spread functions can be trusted, else a fitted kernel.
    Auto,
    /// The proper subtraction (Zackay, Ofek & Gal-Yam 2016) always.
    Zogy,
    /// A kernel fitted to the images always.
    KernelFit,
}

/// `[subtract]`: how the reference is subtracted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subtract {
    /// "auto", "zogy" or "kernel-fit". Default "auto": the fitted kernel takes over where stars are few or the
    /// point-spread function does not fit them, and the log line says so.
    pub method: SubtractMethod,
}

impl Default for Subtract {
    fn default() -> Self {
        Self { method: SubtractMethod::Auto }
    }
}

/// `[detect]`: what counts as a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detect {
    /// Significance from which a source is a candidate, in standard deviations. Default 5. Each
    /// half below 5 multiplies the false candidates by about ten.
    pub threshold: f64,
}

impl Default for Detect {
    fn default() -> Self {
        Self { threshold: 5.0 }
    }
}

/// `[catalogues]`: what is known already of the sky.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Catalogues {
    /// Star catalogue, made by `nightjar catalogue build`. No default: zero points then come from the reference, and
    /// alerts say nothing of catalogue stars.
    pub stars: Option<PathBuf>,
    /// Orbits of asteroids, the Minor Planet Center's MPCORB.DAT, gzipped or not. No default: alerts then say nothing
    /// of asteroids.
    pub orbits: Option<PathBuf>,
}

/// `[alerts] profile`: how a packet is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One Avro object container file a message, absent values as ZTF's sentinels.
    Ztf,
    /// Confluent wire format with a schema registry, absent values as Avro nulls.
    Registry,
}

/// `[alerts]`: packets and topics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alerts {
    /// Framing of the packets. Default "ztf", which every ZTF broker reads.
    pub profile: Profile,
    /// Address of the schema registry, needed with `profile = "registry"`. Default "".
    pub schema_registry: String,
    /// Name of the systemd credential that holds `user:password` for it. Default "": it asks for none.
    pub registry_credential: String,
    /// Who may see the alerts: 1 public, 2 partnership, 3 private. Default 1.
    pub programid: i32,
    /// Name of the night's topic; `{prefix}`, `{night}` and `{programid}` are filled in. Default
    /// "{prefix}_{night}_programid{programid}".
    pub topic: String,
    /// What `{prefix}` stands for. Default "nightjar".
    pub prefix: String,
    /// Real-bogus network that fills `drb`: `NAME.weights.h5` as Keras writes it (braai, for one),
    /// with `NAME.architecture.json` beside it. No default: `drb` is absent, `rb` is always there.
    pub real_bogus_model: Option<PathBuf>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            profile: Profile::Ztf,
            schema_registry: String::new(),
            registry_credential: String::new(),
            programid: 1,
            topic: "{prefix}_{night}_programid{programid}".into(),
            prefix: "nightjar".into(),
            real_bogus_model: None,
        }
    }
}

/// `[history]`: objects, detections, coverage and the ledger of exposures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The database. Default "/var/lib/nightjar/history.sqlite". It holds the names of objects and
    /// belongs into every backup.
    pub file: PathBuf,
    /// How many days back a packet tells of its object. Default 30, as ZTF.
    pub days: u32,
}

impl Default for History {
    fn default() -> Self {
        Self { file: "/var/lib/nightjar/history.sqlite".into(), days: 30 }
    }
}
