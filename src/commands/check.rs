//! `nightjar check`: proves before the night that everything is there.

use super::Failure;
use super::status::{fresh, read_status};
use crate::night::{site_check, uplink_check};
use crate::service::{Finding, Severity};
use crate::settings::Settings;

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
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
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
