//! A telescope's computer in a folder: settings, masters, references, and frames to come.
#![allow(dead_code, clippy::unwrap_used, reason = "a test that cannot go on fails, and uses its part")]

use std::path::{Path, PathBuf};

use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Order, Spool, SpoolParameters};

use super::night::{Daemon, frames_of_kind, night_of, nightjar, succeed};

/// A daemon's folders, with masters and references of the night.
pub struct Site {
    folder: tempfile::TempDir,
    settings: PathBuf,
    /// The night's light frames, which the camera has not brought yet.
    pub frames: Vec<PathBuf>,
}

impl Site {
    /// A site whose night has so many exposures; `uplink` is what stands under `[uplink]`.
    pub fn new(exposures: usize, uplink: &str) -> Self {
        Self::with_frames((512, 512), exposures, uplink)
    }

    /// As [`Site::new`], with frames of any width and height.
    pub fn with_frames(size: (usize, usize), exposures: usize, uplink: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let night = night_of(folder.path(), size, exposures);
        let root = folder.path().display();
        for name in ["watched", "masters"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for kind in ["bias", "dark", "flat"] {
            let frames = frames_of_kind(&night, kind);
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
             [uplink]\n{uplink}\n[service]\nrequire_synchronised_clock = false\nstatus_file = \"{root}/status.json\"\n",
            night.display()
        );
        std::fs::write(&settings, text).unwrap();
        let frames = frames_of_kind(&night, "light");
        Self { folder, settings, frames }
    }

    /// A file or folder of the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a wired camera at this device in the place of the watched folder.
    pub fn wire(&self, device: &str) {
        let text = std::fs::read_to_string(&self.settings).unwrap();
        let (camera, rest) = text.split_once("[frames]").unwrap();
        assert!(camera.starts_with("[camera]"));
        let wired = format!("[camera]\nkind = \"serial\"\ndevice = \"{device}\"\n[frames]{rest}");
        std::fs::write(&self.settings, wired).unwrap();
    }

    /// Starts the daemon.
    pub fn start(&self) -> Daemon {
        Daemon::start(&self.settings, &self.path("log"))
    }

    /// A frame arrives, as rsync brings it.
    pub fn drop_in(&self, frame: &Path) {
        self.drop_in_and_time(frame);
    }

    /// The same; gives the time since the file has its name.
    pub fn drop_in_and_time(&self, frame: &Path) -> Stopwatch {
        let name = frame.file_name().unwrap().to_string_lossy();
        let unfinished = self.path("watched").join(format!(".{name}.a7B3x"));
        std::fs::copy(frame, &unfinished).unwrap();
        std::fs::rename(unfinished, self.path("watched").join(&*name)).unwrap();
        Stopwatch::start()
    }

    /// Frames that are safe in the frame journal.
    pub fn in_journal(&self) -> usize {
        let entries = std::fs::read_dir(self.path("journal")).into_iter().flatten();
        entries.filter(|entry| entry.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|x| x == "fits"))).count()
    }

    /// The names of the unsent exposures in the spool; the daemon must have stopped.
    pub fn spooled(&self) -> Vec<String> {
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
