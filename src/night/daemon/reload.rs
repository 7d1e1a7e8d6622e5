//! SIGHUP: what can change without losing a frame is read again, and what cannot is named.
//!
//! In force at once: the uplink, masters, references, detection, the plan (cadence, exposure, pointing
//! command) and how long things are kept. Everything else needs a restart and says so.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Daemon;
use crate::night::values;
use crate::service::{credentials, events};
use crate::settings::Settings;
use crate::uplink::{Uplink, UplinkParameters};

/// Sections and keys that take effect without a restart.
const AT_ONCE: [&str; 10] = [
    "uplink.",
    "calibration.",
    "references.",
    "detect.",
    "subtract.",
    "telescope.pointing_command",
    "camera.cadence_s",
    "camera.exposure_s",
    "frames.keep_nights",
    "service.require_synchronised_clock",
];

/// The keys whose values differ, `section.key`.
fn changed(old: &Settings, new: &Settings) -> Vec<String> {
    let tree = |settings: &Settings| serde_json::to_value(settings).unwrap_or_default();
    let (old, new) = (tree(old), tree(new));
    let mut keys = Vec::new();
    for (section, content) in new.as_object().into_iter().flatten() {
        for (key, value) in content.as_object().into_iter().flatten() {
            if old[section].get(key) != Some(value) {
                keys.push(format!("{section}.{key}"));
            }
        }
    }
    keys
}

fn takes_effect_at_once(key: &str) -> bool {
    AT_ONCE.iter().any(|part| key == *part || (part.ends_with('.') && key.starts_with(part)))
}

impl Daemon {
    /// Reads the settings again; gives the uplink that is in force from now on.
    pub(super) fn reload_settings(&self, uplink: Uplink) -> Uplink {
        self.reload.store(true, Ordering::Relaxed);
        let old = self.settings();
        let read = Settings::load(old.file.as_deref()).and_then(|new| new.check_for_run().map(|()| new));
        let new = match read {
            Ok(new) => new,
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::error!(message_id = events::SETTINGS_WRONG, "{line}");
                }
                tracing::error!("the settings in use stay in use; masters and references are read again");
                return uplink;
            }
        };
        let now: Vec<_> = changed(&old, &new).into_iter().filter(|key| takes_effect_at_once(key)).collect();
        // Against what the process began with: a second reload does not make a restart superfluous.
        let later: Vec<_> =
            changed(&self.began_with, &new).into_iter().filter(|key| !takes_effect_at_once(key)).collect();
        let listed = |keys: &[String], none: &str| if keys.is_empty() { none.to_owned() } else { keys.join(", ") };
        tracing::info!(
            message_id = events::RELOADED,
            "reloaded: masters, references and {} are in force; restart for: {}",
            listed(&now, "no changed setting"),
            listed(&later, "nothing")
        );
        let new = Arc::new(new);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
        if now.iter().any(|key| key.starts_with("uplink.")) { self.restart_uplink(uplink, &old, &new) } else { uplink }
    }

    /// One producer after the other: two at a time would fence each other off.
    fn restart_uplink(&self, uplink: Uplink, old: &Settings, new: &Settings) -> Uplink {
        let parameters = match parameters(new) {
            Ok(parameters) => parameters,
            Err(reason) => {
                tracing::error!("{reason}; the uplink goes on as before");
                return uplink;
            }
        };
        uplink.stop(Duration::ZERO);
        let spool = self.night.keeping().spool();
        match Uplink::start(parameters, spool.clone()) {
            Ok(uplink) => uplink,
            Err(error) => {
                tracing::error!("{error}; the uplink goes on as before");
                let before = UplinkParameters { publish: false, ..UplinkParameters::default() };
                let before = parameters_or(old, before);
                Uplink::start(before, spool.clone()).unwrap_or_else(|error| {
                    tracing::error!("{error}; alerts are held in the spool until nightjar is started again");
                    Uplink::held(spool.clone())
                })
            }
        }
    }
}

fn parameters(settings: &Settings) -> Result<UplinkParameters, String> {
    let mut parameters = values::uplink_values(settings);
    let folder = credentials::folder();
    parameters.security = values::security(settings, folder.as_deref()).map_err(|error| error.to_string())?;
    Ok(parameters)
}

fn parameters_or(settings: &Settings, otherwise: UplinkParameters) -> UplinkParameters {
    parameters(settings).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_effect_at_once_or_is_named_as_needing_a_restart() {
        let (old, mut new) = (Settings::default(), Settings::default());
        new.uplink.publish = false;
        new.camera.cadence_s = 60.0;
        new.spool.folder = "/data/spool".into();
        let keys = changed(&old, &new);
        assert_eq!(keys, ["camera.cadence_s", "spool.folder", "uplink.publish"]);
        let at_once: Vec<bool> = keys.iter().map(|key| takes_effect_at_once(key)).collect();
        assert_eq!(at_once, [true, false, true]);
    }
}
