//! `nightjar simulate`: a recorded night through the whole pipeline.

use std::path::{Path, PathBuf};

use super::Failure;
use super::progress::Progress;
use crate::camera::replay::{Pace, RecordedNight};
use crate::exposure::FrameKind;
use crate::night::leavings::{ExposureSummary, Leavings, Summary};
use crate::night::rehearsal::{Broker, Rehearsed, RehearsalError, probe, rehearse};
use crate::night::science::{Science, ScienceError};
use crate::night::values;
use crate::settings::Settings;

/// Arguments of `nightjar simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar sky --out night && nightjar simulate night --out run\n\n\
    NIGHT holds raw FITS frames of any names; references/ and masters/ may lie inside. Without masters/ the\n\
    night's own bias, dark and flat frames are combined first. Left under --out: candidates.csv, alerts/,\n\
    difference/, summary.json.")]
pub struct Args {
    /// Folder of the recorded night
    night: PathBuf,
    /// Folder for the results; without it only the table is printed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How fast: max, real, or a factor such as 10x
    #[arg(long, default_value = "max", value_name = "max|real|10x")]
    speed: Pace,
    /// Where the alerts go: a broker of this process, or a Kafka broker
    #[arg(long, default_value = "embedded", value_name = "embedded|HOST:PORT", value_parser = broker)]
    broker: Broker,
}

fn broker(text: &str) -> Result<Broker, String> {
    let is_address = |text: &str| {
        text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
    };
    match text {
        "embedded" => Ok(Broker::Embedded),
        address if is_address(address) => Ok(Broker::At(address.to_owned())),
        _ => Err("write embedded, or the host and port of a broker, such as localhost:9092".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let fallbacks = values::header_fallbacks(settings);
    let night = RecordedNight::read(&args.night, settings.observatory.longitude_deg, &fallbacks).map_err(Failure::input)?;
    let lights = night.of_kind(FrameKind::Light).count();
    for (_, reason) in &night.unusable {
        eprintln!("left out: {reason}");
    }
    if lights == 0 {
        let folder = args.night.display();
        return Err(Failure::Input(format!(
            "{folder}: none of its {} frames is a light frame; let the camera write IMAGETYP = 'light', or set image_type in [detector]",
            night.frames.len()
        )));
    }
    if let Broker::At(address) = &args.broker {
        probe(address)?;
    }
    let scratch = Scratch::new(args.out.as_deref());
    let leavings = Leavings::begin(&scratch.folder).map_err(Failure::input)?;
    let science = Science::of_night(&night, settings, &|line| eprintln!("{line}"))?;

    let mut progress = Progress::new(lights, "exposures");
    let mut report = |outcome: &crate::night::outcome::Outcome| progress.step(&outcome.to_string());
    let rehearsed = rehearse(&night, science, settings, args.speed, &args.broker, leavings, &mut report);
    progress.finish();
    let rehearsed = rehearsed?;
    print_table(&rehearsed.summary);
    rehearsed.references.iter().for_each(|line| eprintln!("{line}"));
    tell(&rehearsed, args.out.as_deref())
}

/// The folder of the results, or one that goes when the command ends.
struct Scratch {
    folder: PathBuf,
    remove: bool,
}

impl Scratch {
    fn new(out: Option<&Path>) -> Self {
        let temporary = || std::env::temp_dir().join(format!("nightjar-simulate-{}", std::process::id()));
        Self { folder: out.map_or_else(temporary, Path::to_owned), remove: out.is_none() }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.remove {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// The closing table, one line an exposure.
fn print_table(summary: &Summary) {
    println!(
        "{:<20} {:<10} {:<6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>7} {:>7} {:>7} {:>7}",
        "exposure", "field", "filter", "read", "calib", "regis", "subtr", "detec", "alert", "spool", "total", "candid", "alerts", "acked"
    );
    for exposure in &summary.exposures {
        println!("{}", line(exposure));
        if let Some(reason) = &exposure.reason {
            println!("  no alerts: {reason}");
        }
        for warning in &exposure.warnings {
            println!("  note: {warning}");
        }
    }
    let totals = &summary.totals;
    println!(
        "{} exposures, {} alerts durable, {} acknowledged, in {:.1} s; peak memory {}",
        totals.exposures,
        totals.alerts,
        totals.acknowledged,
        totals.seconds,
        totals.peak_rss_mb.map_or_else(|| "not known".to_owned(), |mb| format!("{mb:.0} MB"))
    );
}

fn line(exposure: &ExposureSummary) -> String {
    let s = &exposure.seconds;
    format!(
        "{:<20} {:<10} {:<6} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>7.2} {:>7} {:>7} {:>7}",
        exposure.exposure.as_str(),
        exposure.field,
        exposure.filter,
        s.read,
        s.calibrate,
        s.register,
        s.subtract,
        s.detect,
        s.alert,
        s.spool,
        s.total(),
        exposure.candidates,
        exposure.alerts,
        exposure.acknowledged
    )
}

/// What the operator is left with.
fn tell(rehearsed: &Rehearsed, out: Option<&Path>) -> Result<(), Failure> {
    let verdict = rehearsed.verdict();
    if let Ok(sentence) = &verdict {
        println!("{sentence}");
    }
    if let Some(out) = out {
        println!("results in {}", out.display());
    }
    verdict.map(|_| ()).map_err(Failure::TryAgain)
}

impl From<RehearsalError> for Failure {
    fn from(error: RehearsalError) -> Self {
        match error {
            RehearsalError::Leavings(_) => Self::Input(error.to_string()),
            _ => Self::TryAgain(error.to_string()),
        }
    }
}

impl From<ScienceError> for Failure {
    fn from(error: ScienceError) -> Self {
        Self::Input(error.to_string())
    }
}
