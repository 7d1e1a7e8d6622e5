//! `nightjar status`: the running daemon on one screen.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use super::Failure;
use crate::night::status::Status;
use crate::service::clock;
use crate::settings::Settings;
use crate::time::Mjd;

/// A status that is older than this is that of a daemon that no longer runs, seconds.
const STALE_S: f64 = 10.0;
/// How often the screen is drawn again.
const EVERY: Duration = Duration::from_secs(1);

/// Arguments of `nightjar status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nightjar status\n  nightjar status --watch\n  nightjar status --json | jq .spool_alerts\n\n\
    Exit code 0 when the daemon runs, 1 when it does not."
)]
pub struct Args {
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    /// Draw it again every second
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    loop {
        let status = read_status(settings);
        if args.json {
            let status = status?;
            let text = serde_json::to_string_pretty(&status).map_err(|error| Failure::Defect(error.to_string()))?;
            println!("{text}");
            return running(&status);
        }
        if args.watch && std::io::stdout().is_terminal() {
            // Home, and clear to the end of the screen.
            println!("\x1b[H\x1b[J");
        }
        match &status {
            Ok(status) => println!("{}", screen(status, clock::now())),
            Err(failure) if args.watch => println!("{failure}"),
            Err(_) => {}
        }
        if !args.watch {
            return running(&status?);
        }
        std::thread::sleep(EVERY);
    }
}

/// What the daemon has written last.
pub(super) fn read_status(settings: &Settings) -> Result<Status, Failure> {
    let file: &Path = &settings.service.status_file;
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::Input(format!(
            "{shown}: {error}: the daemon does not run; systemctl start nightjar, or name its settings with --config"
        ))
    })?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::Input(format!("{shown}: {error}: it is of another version; restart the daemon with this one"))
    })
}

/// Whether the daemon that wrote it still runs.
pub(super) fn fresh(status: &Status) -> bool {
    status.state != "stopped" && age_s(status, clock::now()).is_some_and(|age| age < STALE_S)
}

fn age_s(status: &Status, now: Mjd) -> Option<f64> {
    status.updated.parse().ok().map(|updated: Mjd| now.seconds_since(updated))
}

fn running(status: &Status) -> Result<(), Failure> {
    match fresh(status) {
        true => Ok(()),
        false => Err(Failure::Input(format!(
            "the daemon does not run: it last wrote at {}; systemctl status nightjar says why",
            status.updated
        ))),
    }
}

/// The screen: a line a subject, what is wrong in words.
fn screen(status: &Status, now: Mjd) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, text: String| lines.push(format!("{name:<12}{text}"));
    let stale = age_s(status, now).is_none_or(|age| age >= STALE_S);
    let state = if stale { format!("DOES NOT RUN since {}", status.updated) } else { status.state.clone() };
    line("nightjar", format!("{} {state}, started {}", status.version, status.started));
    let celsius = status.camera_temperature_c.map_or(String::new(), |celsius| format!(", {celsius:.1} °C"));
    line("camera", format!("{}{}{celsius}", if status.camera_ok { "" } else { "AWAY: " }, status.camera));
    if status.frames_missed > 0 {
        line("", format!("{} exposures missed; the last: {}", status.frames_missed, status.last_missed));
    }
    if status.cadence_skipped > 0 {
        line("", format!("{} exposures of the cadence were not started", status.cadence_skipped));
    }
    for (name, trouble) in
        [("exposures", &status.no_exposures), ("frames", &status.disk_trouble), ("pipeline", &status.held)]
    {
        if !trouble.is_empty() {
            line(name, trouble.clone());
        }
    }
    line(
        "exposures",
        format!(
            "{} done, {} with alerts, {} frames wait; {} candidates, {} alerts",
            status.exposures, status.exposures_with_alerts, status.frames_waiting, status.candidates, status.alerts
        ),
    );
    if !status.last.is_empty() {
        line("last", status.last.clone());
    }
    if let Some(latency) = status.last_latency_s {
        line("", format!("durable {latency:.1} s after the shutter closed"));
    }
    let age = if status.spool_exposures > 0 {
        format!(", the oldest {}", duration(status.backlog_age_s))
    } else {
        String::new()
    };
    line(
        "spool",
        format!(
            "{} exposures, {} alerts, {:.1} MB unsent{age}; {} refused by the broker",
            status.spool_exposures,
            status.spool_alerts,
            status.spool_bytes as f64 / 1e6,
            status.dead
        ),
    );
    line("uplink", format!("{} ({}), {} alerts acknowledged", status.uplink, status.delivery, status.acknowledged));
    if !status.uplink_trouble.is_empty() {
        line("", status.uplink_trouble.clone());
    }
    let nights =
        status.disk_nights.map_or(String::new(), |nights| format!(", about {nights:.0} nights like the fullest"));
    line("disk", format!("{:.1} GB free{nights}", status.disk_free_bytes as f64 / 1e9));
    let clock = match status.clock_synchronised {
        Some(true) => "synchronised",
        Some(false) => "NOT synchronised: start chrony or systemd-timesyncd",
        None => "the kernel does not say whether it is synchronised",
    };
    line("clock", clock.to_owned());
    if let Some(megabytes) = status.peak_rss_mb {
        line("memory", format!("{megabytes:.0} MB at most"));
    }
    lines.join("\n")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_says_what_is_wrong_and_nothing_of_what_is_not() {
        let now: Mjd = "2026-11-24T03:15:22".parse().unwrap();
        let mut status = Status {
            version: "0.1.0".into(),
            state: "ready".into(),
            updated: "2026-11-24T03:15:21".into(),
            camera: "folder /data/camera".into(),
            camera_ok: true,
            uplink: "ok".into(),
            delivery: "exactly-once".into(),
            clock_synchronised: Some(true),
            disk_free_bytes: 2_000_000_000,
            ..Status::default()
        };
        let good = screen(&status, now);
        assert!(good.lines().count() <= 24 && !good.contains("AWAY") && !good.contains("missed"), "{good}");
        assert!(good.contains("nightjar    0.1.0 ready") && good.contains("disk        2.0 GB free"), "{good}");
        status.camera_ok = false;
        (status.frames_missed, status.last_missed) = (2, "frame 413: the camera was reset".into());
        (status.spool_exposures, status.backlog_age_s) = (3, 5400.0);
        status.updated = "2026-11-24T03:14:00".into();
        let bad = screen(&status, now);
        for text in ["DOES NOT RUN", "AWAY: folder", "2 exposures missed; the last: frame 413", "the oldest 90 min"] {
            assert!(bad.contains(text), "{text}\n{bad}");
        }
    }
}
