//! SIGTERM ends the exposure in hand or leaves it to the frame journal; SIGKILL leaves it there; the
//! next start finishes it, and no exposure is in the spool twice. No broker is needed for this:
//! everything is held in the spool.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod night;
}

use std::path::{Path, PathBuf};

use nightjar::spool::{Order, Spool, SpoolParameters};
use nix::sys::signal::Signal;
use support::night::{Daemon, light_frames, nightjar, small_night, succeed, wait_until};

/// A daemon's folders, with masters and references of the night.
struct Site {
    folder: tempfile::TempDir,
    settings: PathBuf,
    frames: Vec<PathBuf>,
}

impl Site {
    fn new(exposures: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let night = small_night(folder.path(), exposures);
        let root = folder.path().display();
        for name in ["watched", "masters"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for kind in ["bias", "dark", "flat"] {
            let mut frames: Vec<PathBuf> =
                std::fs::read_dir(&night).unwrap().map(|entry| entry.unwrap().path()).collect();
            frames.retain(|path| path.is_file() && is_of_kind(path, kind));
            frames.sort();
            let master = folder.path().join(format!("masters/{kind}.fits"));
            let mut command = nightjar();
            command.arg("master").arg(kind).args(&frames).arg("-o").arg(&master);
            if kind != "bias" {
                command.arg("--masters").arg(folder.path().join("masters"));
            }
            succeed(&mut command);
        }
        let settings = folder.path().join("nightjar.toml");
        let text = format!(
            "[camera]\nfolder = \"{root}/watched\"\n[frames]\nfolder = \"{root}/journal\"\n\
             [calibration]\nmasters = \"{root}/masters\"\n[references]\nfolder = \"{}/references\"\n\
             [history]\nfile = \"{root}/history.sqlite\"\n[spool]\nfolder = \"{root}/spool\"\n\
             [uplink]\npublish = false\n[service]\nstatus_file = \"{root}/status.json\"\n",
            night.display()
        );
        std::fs::write(&settings, text).unwrap();
        let frames = light_frames(&night);
        Self { folder, settings, frames }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> Daemon {
        Daemon::start(&self.settings, &self.path("log"))
    }

    /// A frame arrives, as rsync brings it.
    fn drop_in(&self, frame: &Path) {
        let name = frame.file_name().unwrap().to_string_lossy();
        let unfinished = self.path("watched").join(format!(".{name}.a7B3x"));
        std::fs::copy(frame, &unfinished).unwrap();
        std::fs::rename(unfinished, self.path("watched").join(&*name)).unwrap();
    }

    fn in_journal(&self) -> usize {
        let entries = std::fs::read_dir(self.path("journal")).into_iter().flatten();
        entries.filter(|entry| entry.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|x| x == "fits"))).count()
    }

    /// The names of the exposures in the spool.
    fn spooled(&self) -> Vec<String> {
        let spool = Spool::open(&self.path("spool"), SpoolParameters::default()).unwrap();
        let mut names = Vec::new();
        let mut seen = Vec::new();
        while let Some(waiting) = spool.next_waiting(Order::OldestFirst, &|sequence| seen.contains(&sequence)) {
            seen.push(waiting.sequence);
            names.push(waiting.exposure);
        }
        names
    }
}

fn is_of_kind(path: &Path, kind: &str) -> bool {
    let header = nightjar::fits::read_header(path).unwrap();
    header.text(&["IMAGETYP"]).is_some_and(|value| value.to_lowercase().contains(kind))
}

#[test]
fn sigterm_in_mid_exposure_exits_0_and_the_next_start_finishes() {
    let site = Site::new(3);
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    for frame in &site.frames {
        site.drop_in(frame);
    }
    wait_until("every frame is in the journal", || site.in_journal() == 3);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());
    let done = daemon.times("alerts in");
    assert!(done < 3, "all were done before the signal came: nothing is shown\n{}", daemon.said());

    let mut again = site.start();
    wait_until("every exposure is done", || again.times("alerts in") == 3);
    again.signal(Signal::SIGTERM);
    assert_eq!(again.exit_code(), Some(0));
    let mut names = site.spooled();
    names.sort();
    assert_eq!(names.len(), 3, "{}", again.said());
    names.dedup();
    assert_eq!(names.len(), 3, "no exposure is there twice");
}

#[test]
fn sigkill_at_any_moment_loses_no_exposure_and_doubles_none() {
    let site = Site::new(3);
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    for frame in &site.frames {
        site.drop_in(frame);
    }
    // Killed after the first frame is safe, after the first exposure is done, and while it starts again.
    wait_until("a frame is in the journal", || site.in_journal() >= 1);
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();
    let mut daemon = site.start();
    wait_until("an exposure is done", || daemon.times("alerts in") >= 1);
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();
    let mut daemon = site.start();
    wait_until("it is ready for the third time", || daemon.times("is ready") == 3);
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();

    let mut daemon = site.start();
    let spooled = || std::fs::read_dir(site.path("spool/ready")).unwrap().count();
    wait_until("three exposures are in the spool", || spooled() == 3 && daemon.times("frames wait") < 100);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let mut names = site.spooled();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3, "{}", daemon.said());
}

#[test]
fn a_second_sigterm_stops_at_once_and_the_next_start_finishes() {
    let site = Site::new(1);
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    site.drop_in(&site.frames[0]);
    wait_until("the frame is in the journal", || site.in_journal() == 1);
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());
    let mut again = site.start();
    wait_until("the exposure is in the spool", || {
        std::fs::read_dir(site.path("spool/ready")).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.path().extension().is_some_and(|ending| ending == "seg"))
        })
    });
    again.signal(Signal::SIGTERM);
    assert_eq!(again.exit_code(), Some(0));
    assert_eq!(site.spooled().len(), 1);
}
