//! `nightjar spool`: looks into the disk buffer and acts on it, while the daemon runs or not.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Failure;
use crate::settings::Settings;
use crate::spool::disk::Disk;
use crate::spool::inspect::{self, Again, Look, Place, Seen};
use crate::spool::pressure;
use crate::spool::segment::{ReadError, SegmentReader};
use crate::spool::store::Store;
use crate::spool::{Aside, Spool, SpoolError, SpoolParameters};

/// Arguments of `nightjar spool`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nightjar spool status
  nightjar spool list --all
  nightjar spool verify
  nightjar spool export --out /media/usb
  nightjar spool retry")]
pub struct Args {
    /// The spool's folder, instead of [spool] folder
    #[arg(long, global = true, value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// How much is unsent, kept, refused and damaged
    #[command(after_help = "Example:\n  nightjar spool status --json | jq .unsent.alerts")]
    Status {
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// The exposures, one a line
    #[command(after_help = "Example:\n  nightjar spool list --all")]
    List {
        /// Sent ones too
        #[arg(long)]
        all: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Read every byte and name what is damaged
    #[command(after_help = "Example:\n  nightjar spool verify")]
    Verify,
    /// Write the unsent and the refused alerts as files, one an alert, for a disk that travels by car
    #[command(after_help = "Example:\n  nightjar spool export --out /media/usb")]
    Export {
        /// Where to; one folder an exposure is made there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Sent ones too, as far as they are kept
        #[arg(long)]
        all: bool,
    },
    /// Send again what the broker refused
    #[command(after_help = "Examples:\n  nightjar spool retry\n  nightjar spool retry --sent")]
    Retry {
        /// Send again everything that was sent and is kept: only for a cluster that lost it
        #[arg(long)]
        sent: bool,
    },
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let folder = args.folder.as_deref().unwrap_or(&settings.spool.folder);
    let disk = Disk::at(folder);
    let seen = inspect::look(&disk).map_err(|error| no_spool(folder, &error))?;
    let text = match &args.action {
        Action::Status { json: true } => format!("{:#}\n", status_json(folder, &seen)),
        Action::Status { json: false } => status(folder, &seen),
        Action::List { all, json } => list(&seen, *all, *json),
        Action::Verify => return verify(&disk, &seen),
        Action::Export { out, all } => export(&disk, &seen, out, *all)?,
        Action::Retry { sent } => retry(folder, &disk, &seen, *sent, settings)?,
    };
    print(&text)
}

fn no_spool(folder: &Path, error: &io::Error) -> Failure {
    let folder = folder.display();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::Input(format!(
            "there is no spool in {folder}; name its folder with --folder or [spool] folder (the daemon makes it)"
        )),
        io::ErrorKind::PermissionDenied => {
            Failure::Input(format!("{folder} may not be read by this user; try `sudo -u nightjar nightjar spool …`"))
        }
        _ => Failure::TryAgain(format!("{folder}: {error}; check the disk")),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::TryAgain(error.to_string())),
        _ => Ok(()),
    }
}

/// Exposures, alerts that are not settled, and bytes of a place.
fn sums(look: &Look, place: Place) -> (usize, u64, u64) {
    let alerts = look.at(place).map(|seen| u64::from(seen.count - seen.settled.min(seen.count))).sum();
    (look.at(place).count(), alerts, look.at(place).map(|seen| seen.bytes).sum())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn status(folder: &Path, look: &Look) -> String {
    let (unsent, alerts, bytes) = sums(look, Place::Ready);
    let (kept, _, kept_bytes) = sums(look, Place::Sent);
    let oldest = look.at(Place::Ready).next().map_or(String::new(), |seen| format!("; oldest {}", seen.exposure));
    format!(
        "spool    {} ({}, opened {} times)\n\
         unsent   {unsent} exposures, {alerts} alerts, {}{oldest}\n\
         sent     {kept} exposures kept, {}\n\
         refused  {} alerts in dead/\n\
         damaged  {} files in quarantine/\n\
         disk     {:.0} % used, {} free\n",
        folder.display(),
        look.identity.uuid,
        look.identity.opened,
        megabytes(bytes),
        megabytes(kept_bytes),
        look.dead.len(),
        look.quarantined.len(),
        pressure::used(&look.room) * 100.0,
        megabytes(look.room.free_bytes),
    )
}

fn status_json(folder: &Path, look: &Look) -> serde_json::Value {
    let (unsent, alerts, bytes) = sums(look, Place::Ready);
    let (kept, _, kept_bytes) = sums(look, Place::Sent);
    json!({
        "folder": folder,
        "uuid": look.identity.uuid,
        "opened": look.identity.opened,
        "unsent": {
            "exposures": unsent, "alerts": alerts, "bytes": bytes,
            "oldest": look.at(Place::Ready).next().map(|seen| &seen.exposure),
        },
        "sent": { "exposures": kept, "bytes": kept_bytes },
        "refused": look.dead.iter().map(|d| json!({
            "sequence": d.at.sequence, "alert": d.at.number, "reason": d.reason,
        })).collect::<Vec<_>>(),
        "damaged": look.quarantined,
        "disk": { "used": pressure::used(&look.room), "free_bytes": look.room.free_bytes },
    })
}

fn state(seen: &Seen) -> &'static str {
    match seen.place {
        Place::Ready if seen.settled > 0 => "sending",
        Place::Ready => "unsent",
        Place::Sent => "sent",
        Place::Trimmed => "trimmed",
    }
}

fn list(look: &Look, all: bool, json: bool) -> String {
    let mut text = String::new();
    if !json {
        text.push_str(&format!("{:>12}  {:<24} {:>7} {:>7} {:>12}  state\n", "number", "exposure", "alerts", "sent", "bytes"));
    }
    for seen in look.exposures.values().filter(|seen| all || seen.place == Place::Ready) {
        let Seen { sequence, exposure, count, settled, bytes, .. } = seen;
        let state = state(seen);
        let line = if json {
            json!({ "sequence": sequence, "exposure": exposure, "alerts": count, "sent": settled, "bytes": bytes, "state": state })
                .to_string()
        } else {
            format!("{sequence:>12}  {exposure:<24} {count:>7} {settled:>7} {bytes:>12}  {state}")
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn verify(store: &dyn Store, look: &Look) -> Result<(), Failure> {
    let mut damaged = 0;
    for seen in look.exposures.values() {
        let faults = inspect::verify(store, seen)
            .map_err(|error| Failure::TryAgain(format!("reading exposure number {}: {error}", seen.sequence)))?;
        damaged += usize::from(!faults.is_empty());
        for fault in faults {
            print(&format!("{:>12}  {} ({}): {fault}\n", seen.sequence, seen.exposure, state(seen)))?;
        }
    }
    let beside = inspect::verify_beside(store, look).map_err(|error| Failure::TryAgain(format!("reading: {error}")))?;
    for (file, fault) in &beside {
        print(&format!("{file}: {fault}\n"))?;
    }
    damaged += beside.len();
    for file in &look.quarantined {
        print(&format!("quarantine/{file}: was damaged when it was read\n"))?;
    }
    match damaged + look.quarantined.len() {
        0 => print(&format!("{} exposures, every byte as it was written\n", look.exposures.len())),
        n => Err(Failure::Input(format!("{n} files are damaged; what is undamaged in them is sent; check the disk"))),
    }
}

fn export(store: &dyn Store, look: &Look, out: &Path, all: bool) -> Result<String, Failure> {
    let failed = |path: &Path, error: io::Error| Failure::TryAgain(format!("{}: {error}", path.display()));
    let (mut files, mut exposures, mut refused) = (0_u64, 0_u64, 0_u64);
    let wanted = |seen: &&Seen| seen.place == Place::Ready || (all && seen.place == Place::Sent);
    for seen in look.exposures.values().filter(wanted) {
        let segment = match inspect::open(store, seen.sequence) {
            Ok(segment) => segment,
            Err(error) => {
                eprintln!("nightjar: exposure number {} is left out: {error}", seen.sequence);
                continue;
            }
        };
        let folder = out.join(&segment.head().exposure);
        fs::create_dir_all(&folder).map_err(|e| failed(&folder, e))?;
        for number in 0..segment.head().count {
            match segment.record(number) {
                Ok(message) => {
                    let path = folder.join(format!("{:012}-{number:05}.avro", seen.sequence));
                    fs::write(&path, &message.payload).map_err(|e| failed(&path, e))?;
                    files += 1;
                }
                Err(ReadError::Io(error)) => return Err(Failure::TryAgain(format!("reading: {error}"))),
                Err(ReadError::Damage(damage)) => {
                    eprintln!("nightjar: alert {number} of {} is left out: {damage}", seen.exposure);
                }
            }
        }
        exposures += 1;
    }
    for dead in &look.dead {
        let record = SegmentReader::open(store, &format!("dead/{}.seg", dead.at.stem())).and_then(|s| s.record(0));
        match record {
            Ok(message) => {
                let path = out.join("refused").join(format!("{}.avro", dead.at.stem()));
                fs::create_dir_all(out.join("refused")).map_err(|e| failed(&path, e))?;
                fs::write(&path, &message.payload).map_err(|e| failed(&path, e))?;
                refused += 1;
            }
            Err(error) => eprintln!("nightjar: refused alert {} is left out: {error}", dead.at.stem()),
        }
    }
    if exposures + refused > 0 {
        // The disk is pulled out soon.
        fs::File::open(out).and_then(|folder| Ok(nix::unistd::syncfs(&folder)?)).map_err(|e| failed(out, e))?;
    }
    let of_dead = if refused > 0 { format!(" and {refused} refused ones") } else { String::new() };
    Ok(format!("{files} alerts of {exposures} exposures{of_dead} written to {} and synchronised\n", out.display()))
}

fn retry(folder: &Path, disk: &Disk, look: &Look, sent: bool, settings: &Settings) -> Result<String, Failure> {
    let what: Vec<Again> = if sent {
        look.at(Place::Sent).map(|seen| Again::Sent(seen.sequence)).collect()
    } else {
        look.dead.iter().map(|d| d.at).map(|at: Aside| Again::Dead(at)).collect()
    };
    if what.is_empty() {
        return Ok("nothing to send again\n".into());
    }
    let parameters = SpoolParameters { keep_sent_hours: f64::from(settings.spool.keep_sent_hours) };
    let now = match Spool::open(folder, parameters) {
        Ok(spool) => {
            what.iter().try_for_each(|w| spool.retry(*w).map(|_| ())).map_err(|e| Failure::TryAgain(e.to_string()))?;
            "are among the unsent again and go out when the daemon runs"
        }
        Err(SpoolError::Locked(_)) => {
            what.iter()
                .try_for_each(|w| inspect::ask_to_retry(disk, *w))
                .map_err(|e| Failure::TryAgain(format!("{}: {e}", folder.display())))?;
            "are sent again by the running daemon within seconds"
        }
        Err(error) => return Err(Failure::TryAgain(error.to_string())),
    };
    Ok(format!("{} {} {now}\n", what.len(), if sent { "exposures" } else { "alerts" }))
}
