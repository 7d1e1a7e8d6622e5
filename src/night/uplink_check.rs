//! What `nightjar check` asks about spool, clock and uplink, from the settings.

use uuid::Uuid;

use super::values;
use crate::service::clock;
use crate::service::credentials;
use crate::service::finding::Finding;
use crate::settings::Settings;
use crate::spool::disk::Disk;
use crate::spool::inspect::{self, Place};
use crate::spool::store::Store;
use crate::time::NightName;
use crate::uplink::check::{self, Asked};

/// Bytes of an exposure's alerts where the spool holds none to go by.
const EXPOSURE: u64 = 60_000_000;
/// A long night, seconds.
const NIGHT_S: f64 = 10.0 * 3600.0;

/// Findings about the disk of the spool, the clock, and everything on the way to Kafka.
pub fn findings(settings: &Settings) -> Vec<Finding> {
    let (uuid, mut findings) = spool(settings);
    let required = settings.service.require_synchronised_clock;
    findings.push(check::clock(clock::synchronised(), required));
    let mut parameters = values::uplink_values(settings);
    match values::security(settings, credentials::folder().as_deref()) {
        Ok(security) => parameters.security = security,
        Err(error) => {
            let remedy = "run the check as the service does: `systemd-run` with the unit's LoadCredential=";
            findings.push(Finding::fault("credentials", error.to_string(), remedy));
            return findings;
        }
    }
    if parameters.publish && parameters.brokers.is_empty() {
        let text = "[uplink] brokers names none";
        findings.push(Finding::fault("broker", text, "name the cluster's brokers, or set publish = false"));
        return findings;
    }
    let now = clock::now();
    let night = NightName::of(now, settings.observatory.longitude_deg);
    let topic = values::bare_alert_parameters(settings).topic_of(night);
    let asked = Asked {
        prefix: &settings.alerts.prefix,
        topic: &topic,
        user: &settings.uplink.sasl_username,
        name: &uuid.to_string(),
        now_s: now.unix_seconds() as i64,
    };
    findings.extend(check::cluster(&parameters, &asked));
    findings.extend(registry(settings));
    findings
}

/// Whether the schema registry answers, with the registry profile.
fn registry(settings: &Settings) -> Option<Finding> {
    let client = match values::registry_client(settings, credentials::folder().as_deref()) {
        Ok(client) => client?,
        Err(error) => {
            let remedy = "run the check as the service does: `systemd-run` with the unit's LoadCredential=";
            return Some(Finding::fault("registry", error.to_string(), remedy));
        }
    };
    Some(match client.subjects() {
        Ok(count) => Finding::ok("registry", format!("{} answers, {count} subjects", client.address())),
        Err(error) => Finding::fault(
            "registry",
            error.to_string(),
            "exposures wait in the frame journal until the schema has a number",
        ),
    })
}

/// The spool's uuid (nil where there is none yet), and what is to be said of its disk and contents.
fn spool(settings: &Settings) -> (Uuid, Vec<Finding>) {
    let folder = &settings.spool.folder;
    let disk = Disk::at(folder);
    let mut findings = Vec::new();
    let (mut uuid, mut mean) = (Uuid::nil(), EXPOSURE);
    match inspect::look(&disk) {
        Ok(look) => {
            uuid = look.identity.uuid;
            let whole = || look.at(Place::Ready).chain(look.at(Place::Sent));
            mean = whole().map(|seen| seen.bytes).sum::<u64>().checked_div(whole().count() as u64).unwrap_or(EXPOSURE);
            if !look.dead.is_empty() {
                let text = format!("{} alerts were refused by the broker and are kept in dead/", look.dead.len());
                findings.push(Finding::warning(
                    "spool",
                    text,
                    "`nightjar spool status --json` says why; `nightjar spool retry` sends them again",
                ));
            }
            if !look.quarantined.is_empty() {
                let text = format!("{} damaged files are kept in quarantine/", look.quarantined.len());
                findings.push(Finding::warning("spool", text, "check the disk (smartctl, dmesg)"));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            let text = format!("{} cannot be read ({error})", folder.display());
            findings.push(Finding::fault("spool", text, "check the disk, and that the user nightjar owns the folder"));
        }
    }
    let existing = folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(folder);
    let a_night = (mean as f64 * NIGHT_S / settings.camera.cadence_s.max(1.0)) as u64;
    match Disk::at(existing).room() {
        Ok(room) => findings.push(check::disk(&folder.display().to_string(), room.free_bytes, a_night)),
        Err(error) => {
            let text = format!("the room in {} cannot be measured ({error})", existing.display());
            findings.push(Finding::fault("disk", text, "check the disk"));
        }
    }
    (uuid, findings)
}
