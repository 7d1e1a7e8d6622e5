//! What each setting may be: the one table behind every message about a wrong one.

use super::{CameraKind, Fault, Profile, Security, Settings, SettingsError, Trigger};
use crate::exposure::FrameKind;

/// What one key may hold.
pub(super) struct Rule {
    /// `section.key`; `filters` for all of that section.
    pub key: &'static str,
    /// What is allowed, as the end of a sentence that begins with "must be".
    pub allowed: &'static str,
    holds: fn(&Settings) -> bool,
}

const fn rule(key: &'static str, allowed: &'static str, holds: fn(&Settings) -> bool) -> Rule {
    Rule { key, allowed, holds }
}

const FOLDER: &str = "an absolute path of a folder";
const FILE: &str = "an absolute path of a file";
const SECTION: &str = "a FITS section such as \"[25:1048,1:1024]\"";

/// One rule a key, in the order of the file.
const RULES: &[Rule] = &[
    rule("observatory.name", "a text that is not empty", |s| !s.observatory.name.trim().is_empty()),
    rule("observatory.code", "three capital letters A-Z, such as \"NJR\"", |s| {
        s.observatory.code.len() == 3 && s.observatory.code.bytes().all(|b| b.is_ascii_uppercase())
    }),
    rule("observatory.longitude_deg", "degrees from -180 to 360, east positive", |s| {
        (-180.0..=360.0).contains(&s.observatory.longitude_deg)
    }),
    rule("observatory.latitude_deg", "degrees from -90 to 90, north positive", |s| {
        (-90.0..=90.0).contains(&s.observatory.latitude_deg)
    }),
    rule("observatory.elevation_m", "metres above the sea from -500 to 10000", |s| {
        (-500.0..=10_000.0).contains(&s.observatory.elevation_m)
    }),
    rule("observatory.publisher", "a text that is not empty", |s| !s.observatory.publisher.trim().is_empty()),
    rule("camera.kind", "\"folder\", \"serial\", \"sg4\" or \"replay\"", |_| true),
    rule("camera.folder", FOLDER, |s| s.camera.folder.as_ref().is_none_or(|f| f.is_absolute())),
    rule("camera.consume", "true or false", |_| true),
    rule("camera.device", "a device such as \"/dev/nightjar-camera\", or \"tcp://HOST:PORT\"", |s| {
        s.camera.device.starts_with('/') || s.camera.device.starts_with("tcp://")
    }),
    rule("camera.baud", "a speed from 1200 to 12000000 baud", |s| (1200..=12_000_000).contains(&s.camera.baud)),
    rule("camera.trigger", "\"external\" or \"cadence\"", |_| true),
    rule("camera.cadence_s", "seconds from 0.1 to 86400", |s| (0.1..=86_400.0).contains(&s.camera.cadence_s)),
    rule("camera.exposure_s", "seconds above 0, at most 86400", |s| {
        s.camera.exposure_s > 0.0 && s.camera.exposure_s <= 86_400.0
    }),
    rule("camera.shutter_latency_s", "seconds from 0 to 60", |s| (0.0..=60.0).contains(&s.camera.shutter_latency_s)),
    rule("telescope.pointing_command", "a command line, or \"\" for none", |_| true),
    rule("telescope.fields", FILE, |s| s.telescope.fields.is_absolute()),
    rule("detector.rcid", "a number from 0 to 99", |s| s.detector.rcid <= 99),
    rule("detector.image_type", "\"light\", \"bias\", \"dark\" or \"flat\"", |s| {
        s.detector.image_type.as_deref().is_none_or(|kind| FrameKind::from_keyword(kind) != FrameKind::Other)
    }),
    rule("detector.exposure_s", "seconds from 0 to 86400", |s| {
        s.detector.exposure_s.is_none_or(|seconds| (0.0..=86_400.0).contains(&seconds))
    }),
    rule("detector.filter", "a name that is not empty", |s| {
        s.detector.filter.as_deref().is_none_or(|name| !name.trim().is_empty())
    }),
    rule("detector.gain", "electrons per ADU above 0", |s| positive(s.detector.gain)),
    rule("detector.read_noise", "electrons above 0", |s| positive(s.detector.read_noise)),
    rule("detector.saturation", "ADU above 0", |s| positive(s.detector.saturation)),
    rule("detector.pixel_scale_arcsec", "arcseconds above 0", |s| positive(s.detector.pixel_scale_arcsec)),
    rule("detector.overscan", SECTION, |s| s.detector.overscan.as_deref().is_none_or(is_section)),
    rule("detector.trim", SECTION, |s| s.detector.trim.as_deref().is_none_or(is_section)),
    rule(
        "detector.amplifiers",
        "a list of tables with data, overscan (FITS sections), gain, read_noise, saturation (above 0)",
        |s| {
            s.detector.amplifiers.iter().all(|a| {
                is_section(&a.data)
                    && a.overscan.as_deref().is_none_or(is_section)
                    && [a.gain, a.read_noise, a.saturation].into_iter().all(positive)
            })
        },
    ),
    rule("frames.folder", FOLDER, |s| s.frames.folder.is_absolute()),
    rule("frames.keep_nights", "a whole number of nights from 0 to 3650", |s| s.frames.keep_nights <= 3650),
    rule("calibration.masters", FOLDER, |s| s.calibration.masters.is_absolute()),
    rule("references.folder", FOLDER, |s| s.references.folder.is_absolute()),
    rule("references.build", "true or false", |_| true),
    rule("references.frames_needed", "a whole number of frames from 3 to 1000", |s| {
        (3..=1000).contains(&s.references.frames_needed)
    }),
    rule("filters", "names with numbers from 1 up: g = 1, r = 2, i = 3, others from 10", |s| {
        s.filters.values().all(|fid| (1..=9999).contains(fid))
    }),
    rule("subtract.method", "\"auto\", \"zogy\" or \"kernel-fit\"", |_| true),
    rule("detect.threshold", "a number of standard deviations from 3 to 100", |s| {
        (3.0..=100.0).contains(&s.detect.threshold)
    }),
    rule("catalogues.stars", FILE, |s| s.catalogues.stars.as_ref().is_none_or(|f| f.is_absolute())),
    rule("catalogues.orbits", FILE, |s| s.catalogues.orbits.as_ref().is_none_or(|f| f.is_absolute())),
    rule("alerts.profile", "\"ztf\" or \"registry\"", |_| true),
    rule(
        "alerts.schema_registry",
        "the address of a schema registry, http:// or https://, needed with profile = \"registry\"",
        |s| {
            let address = &s.alerts.schema_registry;
            let none = address.is_empty() && s.alerts.profile == Profile::Ztf;
            none || address.starts_with("http://") || address.starts_with("https://")
        },
    ),
    rule("alerts.registry_credential", "the name of a systemd credential, or \"\"", |s| {
        is_name(&s.alerts.registry_credential)
    }),
    rule("alerts.programid", "1 (public), 2 (partnership) or 3 (private)", |s| (1..=3).contains(&s.alerts.programid)),
    rule(
        "alerts.topic",
        "a name of letters, digits, '.', '_' and '-' with {night} in it; {prefix} and {programid} are filled in too",
        |s| {
            let filled = ["{prefix}", "{programid}"].iter().fold(s.alerts.topic.clone(), |t, word| t.replace(word, ""));
            s.alerts.topic.contains("{night}") && is_topic(&filled.replace("{night}", "20261124"))
        },
    ),
    rule("alerts.prefix", "letters, digits, '.', '_' and '-'", |s| is_topic(&s.alerts.prefix)),
    rule("alerts.real_bogus_model", FILE, |s| s.alerts.real_bogus_model.as_ref().is_none_or(|f| f.is_absolute())),
    rule("history.file", FILE, |s| s.history.file.is_absolute()),
    rule("history.days", "a whole number of days from 1 to 3650", |s| (1..=3650).contains(&s.history.days)),
    rule("spool.folder", FOLDER, |s| s.spool.folder.is_absolute()),
    rule("spool.keep_sent_hours", "a whole number of hours from 0 to 8760", |s| s.spool.keep_sent_hours <= 8760),
    rule("uplink.brokers", "a list of \"host:port\"", |s| s.uplink.brokers.iter().all(|b| is_host_port(b))),
    rule("uplink.publish", "true or false", |_| true),
    rule("uplink.delivery", "\"exactly-once\" or \"idempotent\"", |_| true),
    rule("uplink.drain", "\"newest-first\" or \"oldest-first\"", |_| true),
    rule("uplink.security", "\"plaintext\", \"tls\" or \"sasl_tls\"", |_| true),
    rule("uplink.ca_file", FILE, |s| s.uplink.ca_file.as_ref().is_none_or(|f| f.is_absolute())),
    rule("uplink.certificate_file", FILE, |s| s.uplink.certificate_file.as_ref().is_none_or(|f| f.is_absolute())),
    rule("uplink.key_credential", "the name of a systemd credential, or \"\"", |s| is_name(&s.uplink.key_credential)),
    rule("uplink.sasl_mechanism", "\"SCRAM-SHA-512\", \"SCRAM-SHA-256\" or \"PLAIN\"", |s| {
        ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"].contains(&s.uplink.sasl_mechanism.as_str())
    }),
    rule("uplink.sasl_username", "a user name, not empty with security = \"sasl_tls\"", |s| {
        s.uplink.security != Security::SaslTls || !s.uplink.sasl_username.is_empty()
    }),
    rule(
        "uplink.password_credential",
        "the name of a systemd credential, not empty with security = \"sasl_tls\"",
        |s| {
            let name = &s.uplink.password_credential;
            is_name(name) && (s.uplink.security != Security::SaslTls || !name.is_empty())
        },
    ),
    rule("uplink.partitions", "a whole number from 1 to 1000", |s| (1..=1000).contains(&s.uplink.partitions)),
    rule("uplink.replication", "a whole number from 1 to 10", |s| (1..=10).contains(&s.uplink.replication)),
    rule("uplink.retention_days", "a whole number of days from 1 to 3650", |s| {
        (1..=3650).contains(&s.uplink.retention_days)
    }),
    rule("uplink.buffer_mb", "a whole number of MB from 8 to 2000", |s| (8..=2000).contains(&s.uplink.buffer_mb)),
    rule("uplink.cursor_topic", "letters, digits, '.', '_' and '-'", |s| is_topic(&s.uplink.cursor_topic)),
    rule("metrics.listen", "an address such as \"127.0.0.1:9184\", or \"\" for off", |s| {
        s.metrics.listen.is_empty() || s.metrics.listen.parse::<std::net::SocketAddr>().is_ok()
    }),
    rule("service.threads", "a whole number from 0 (all cores) to 1024", |s| s.service.threads <= 1024),
    rule("service.require_synchronised_clock", "true or false", |_| true),
    rule("service.status_file", FILE, |s| s.service.status_file.is_absolute()),
];

/// The rules that do not hold.
pub(super) fn broken(settings: &Settings) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(|rule| !(rule.holds)(settings))
}

/// What the key may hold.
pub(super) fn allowed(section: &str, key: &str) -> &'static str {
    let path = format!("{section}.{key}");
    let rule = RULES.iter().find(|rule| rule.key == path || rule.key == section);
    rule.map_or("a value of another type", |rule| rule.allowed)
}

/// What only the daemon needs: a camera, a broker, letters of its own.
pub(super) fn check_for_run(settings: &Settings) -> Result<(), SettingsError> {
    let mut faults = Vec::new();
    let mut fault = |key: &str, value: &str, allowed: &str| {
        let (key, value, origin) = (key.into(), value.into(), String::new());
        faults.push(Fault { key, value, origin, allowed: allowed.into() });
    };
    match (settings.camera.kind, &settings.camera.folder) {
        (CameraKind::Folder, None) => {
            fault("camera.folder", "", "is not set; name the folder into which the camera's program writes FITS files");
        }
        (CameraKind::Replay, None) => fault("camera.folder", "", "is not set; name the folder of the recorded night"),
        _ => {}
    }
    let wired = matches!(settings.camera.kind, CameraKind::Serial | CameraKind::Sg4);
    match settings.camera.trigger {
        Trigger::Cadence if !wired => {
            let allowed =
                "must be \"external\" with this camera.kind: only a camera on a wire takes exposures on command";
            fault("camera.trigger", "\"cadence\"", allowed);
        }
        Trigger::External if settings.camera.kind == CameraKind::Sg4 => {
            let allowed = "must be \"cadence\" with camera.kind = \"sg4\": these cameras expose on command alone";
            fault("camera.trigger", "\"external\"", allowed);
        }
        _ => {}
    }
    if settings.observatory.code == "ZTF" {
        let allowed = "must be letters of your own: those of ZTF would collide with real objects in every broker";
        fault("observatory.code", "\"ZTF\"", allowed);
    }
    if settings.uplink.publish && settings.uplink.brokers.is_empty() {
        let allowed = "must name a broker, such as [\"localhost:9092\"], or set uplink.publish = false to hold alerts";
        fault("uplink.brokers", "[]", allowed);
    }
    if faults.is_empty() { Ok(()) } else { Err(SettingsError { faults }) }
}

fn positive(number: Option<f64>) -> bool {
    number.is_none_or(|x| x.is_finite() && x > 0.0)
}

/// `[x0:x1,y0:y1]`, counted from 1.
fn is_section(text: &str) -> bool {
    let Some(inner) = text.trim().strip_prefix('[').and_then(|t| t.strip_suffix(']')) else { return false };
    let range = |part: &str| {
        let ends = part.split_once(':').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
        ends.is_some_and(|(first, last): (u32, u32)| first >= 1 && last >= first)
    };
    inner.split_once(',').is_some_and(|(x, y)| range(x) && range(y))
}

/// What Kafka takes as the name of a topic (or a part of one).
fn is_topic(name: &str) -> bool {
    (1..=249).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn is_name(text: &str) -> bool {
    !text.contains('/') && text != "." && text != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_rule_and_every_rule_a_key() {
        let tree = serde_json::to_value(Settings::default()).unwrap();
        let mut keys: Vec<String> = Vec::new();
        for (section, content) in tree.as_object().unwrap() {
            match section.as_str() {
                "filters" => keys.push("filters".into()),
                _ => keys.extend(content.as_object().unwrap().keys().map(|key| format!("{section}.{key}"))),
            }
        }
        let mut rules: Vec<String> = RULES.iter().map(|rule| rule.key.to_owned()).collect();
        keys.sort();
        rules.sort();
        assert_eq!(keys, rules);
    }

    #[test]
    fn the_defaults_break_no_rule() {
        assert_eq!(broken(&Settings::default()).map(|rule| rule.key).collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
