//! `nightjar history`: acts on the history database while the daemon does not run.

use std::path::PathBuf;

use super::Failure;
use crate::archive::{self, ArchiveError};
use crate::history::History;
use crate::settings::Settings;

/// Arguments of `nightjar history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  nightjar history rebuild --from /archive/alerts")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make the history again from the archive: names and places of objects, detections, the sky that was covered
    #[command(after_help = "Examples:
  sudo -u nightjar nightjar history rebuild --from /archive/alerts
  nightjar history rebuild --from /archive/alerts --out /tmp/history.sqlite

Exposures that made no alerts do not come back. Several folders of one archive are given one after the other.")]
    Rebuild {
        /// The archive's folder
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Where to; not there yet [default: [history] file]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The detector whose history it is, where the archive holds several
        #[arg(long)]
        rcid: Option<i32>,
    },
}

/// Runs the command.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let Action::Rebuild { from, out, rcid } = &args.action;
    let out = out.as_ref().unwrap_or(&settings.history.file);
    if out.exists() {
        return Err(Failure::Input(format!(
            "{0} is there already and is not touched; stop the daemon and move it away first (mv {0} {0}.before), or name another file with --out",
            out.display()
        )));
    }
    if !from.is_dir() {
        return Err(Failure::Input(format!("{} is no folder; name the folder of an archive", from.display())));
    }
    // Under another name until it is whole: a daemon must not take up half a history.
    let mut unfinished = out.clone().into_os_string();
    unfinished.push(".rebuilt");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(|error| failed(&unfinished, &error))?;
    }
    let mut history = History::open(&unfinished).map_err(|error| Failure::TryAgain(error.to_string()))?.history;
    let done = archive::rebuild(from, &mut history, *rcid);
    let done = match done.and_then(|done| history.close().map(|()| done).map_err(ArchiveError::from)) {
        Ok(done) => done,
        Err(error) => {
            let _ = std::fs::remove_file(&unfinished);
            return Err(error.into());
        }
    };
    std::fs::rename(&unfinished, out).map_err(|error| failed(out, &error))?;
    println!(
        "{}: {} objects, {} detections, {} exposures, the frame of {} of them known",
        out.display(),
        done.objects,
        done.detections,
        done.exposures,
        done.frames
    );
    Ok(())
}

fn failed(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::TryAgain(format!("{}: {error}; look at the folder's owner and free space", path.display()))
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Asked(_) | ArchiveError::Taken(_) => Self::Input(error.to_string()),
            other => Self::TryAgain(other.to_string()),
        }
    }
}
