//! `nightjar check`: proves before the night that everything is there.

use std::path::Path;

use super::Failure;
use super::status::{fresh, read_status};
use crate::night::{site_check, uplink_check};
use crate::service::{Finding, Severity};
use crate::settings::{CameraKind, DEFAULT_FILE, Settings};

/// Arguments of `nightjar check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nightjar check\n  nightjar check --json | jq '.[] | select(.severity == \"fault\")'\n\n\
    Exit code 0 when nothing stands in the night's way (warnings may), 1 when something does, 78 when the settings\n\
    are wrong. Run it as the service runs, inside its sandbox:\n  \
    systemd-run --wait --pipe -p User=nightjar -p SupplementaryGroups=dialout -p ProtectSystem=strict \\\n    \
    -p ReadWritePaths=/var/lib/nightjar nightjar check"
)]
pub struct Args {
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    /// Only say whether a camera is named, and what to edit where none is; the unit asks this before it starts
    #[arg(long, conflicts_with = "json")]
    pub(super) configured: bool,
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    if args.configured {
        return if has_camera(settings) { Ok(()) } else { Err(Failure::Input(what_to_edit(settings))) };
    }
    settings.check_for_run()?;
    let running = read_status(settings).ok().filter(fresh);
    let origin = settings.file.as_ref().map_or("built-in defaults".into(), |file| file.display().to_string());
    let mut findings = vec![Finding::ok("settings", format!("{origin}: every key is right"))];
    findings.extend(site_check::findings(settings, running.as_ref()));
    findings.extend(uplink_check::findings(settings));
    let count = |severity: Severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (faults, warnings) = (count(Severity::Fault), count(Severity::Warning));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings).map_err(|error| Failure::Defect(error.to_string()))?);
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    match (faults, warnings) {
        (0, 0) => Ok(()),
        (0, _) => {
            eprintln!("nightjar: {warnings} warnings; the night can begin");
            Ok(())
        }
        _ => Err(Failure::Input(format!("{faults} faults and {warnings} warnings: do what the lines above say"))),
    }
}

/// Whether somebody has said where frames come from. Everything else has a default, or a line of its own.
fn has_camera(settings: &Settings) -> bool {
    let is_folder = matches!(settings.camera.kind, CameraKind::Folder | CameraKind::Replay);
    !is_folder || settings.camera.folder.is_some()
}

/// What a new installation needs, in order, a line each.
fn what_to_edit(settings: &Settings) -> String {
    let file = settings.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE)).display().to_string();
    let (unit, option) = match settings.instance() {
        Some(name) => (format!("nightjar@{name}"), format!(" --config {file}")),
        None => ("nightjar".to_owned(), String::new()),
    };
    let state = settings.spool.folder.parent().unwrap_or(Path::new("/var/lib/nightjar")).display().to_string();
    [
        format!("nothing is started: no camera is named yet. Edit {file}, in this order:"),
        "1. [observatory] code (three letters of your own), longitude_deg, latitude_deg".into(),
        "2. [camera] folder, into which the camera's program writes FITS files; or kind = \"serial\" and device".into(),
        "3. [uplink] brokers; or publish = false, which holds every alert on disk until you trust them".into(),
        format!("then put masters into {state}/masters and references into {state}/references, or let the nights make them,"),
        format!("prove it: nightjar check{option}; and start it: systemctl restart {unit}"),
        "a rehearsal before that, as any user: nightjar sky --out night && nightjar simulate night --out run".into(),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_installation_is_told_what_to_edit_and_a_wired_camera_needs_no_folder() {
        let mut settings = Settings::default();
        assert!(!has_camera(&settings));
        let lines = what_to_edit(&settings);
        for (line, part) in lines.lines().skip(1).zip(["[observatory]", "[camera]", "[uplink]", "masters", "check"]) {
            assert!(line.contains(part), "{lines}");
        }
        settings.camera.kind = CameraKind::Serial;
        assert!(has_camera(&settings));
    }
}
