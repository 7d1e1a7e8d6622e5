//! A telescope's host in a box: the package installed, masters and references in place, a watched folder,
//! and frames to come.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part; one that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use super::host::{Debian, Host, package};
use super::night::{frames_of_kind, nightjar, small_night, succeed};

/// The folder that the camera's program fills, as an administrator would choose it.
pub const WATCHED: &str = "/srv/camera";
/// The settings file of the package.
pub const SETTINGS: &str = "/etc/nightjar/nightjar.toml";

/// A host with the package.
pub struct Appliance {
    /// The host.
    pub host: Host,
    /// The night's light frames, which the camera has not brought yet.
    pub frames: Vec<PathBuf>,
    /// The recorded night, on this machine.
    pub night: PathBuf,
    /// Where the night and its masters lie.
    pub folder: tempfile::TempDir,
}

impl Appliance {
    /// A host on which the package is installed and nothing is configured; its camera has so many exposures.
    pub fn installed(debian: Debian, exposures: usize) -> Option<Self> {
        Self::installed_from(debian, exposures, &package("0.1.0-1"))
    }

    /// As [`Appliance::installed`], from any package.
    pub fn installed_from(debian: Debian, exposures: usize, from: &Path) -> Option<Self> {
        let host = Host::boot(debian)?;
        let folder = tempfile::tempdir().unwrap();
        let night = small_night(folder.path(), exposures.max(1));
        host.install(from);
        host.succeed(&format!("install -d -m 755 {WATCHED}"));
        let frames = frames_of_kind(&night, "light");
        Some(Self { host, frames, night, folder })
    }

    /// As [`Appliance::installed`], with masters, references and settings; `uplink` stands under
    /// `[uplink]`, `more` after it. Not started.
    pub fn configured(debian: Debian, exposures: usize, uplink: &str, more: &str) -> Option<Self> {
        let appliance = Self::installed(debian, exposures)?;
        appliance.furnish();
        appliance.configure(uplink, more);
        Some(appliance)
    }

    /// Puts masters and references where the daemon looks for them.
    pub fn furnish(&self) {
        let masters = self.folder.path().join("masters");
        fs::create_dir_all(&masters).unwrap();
        for kind in ["bias", "dark", "flat"] {
            let frames = frames_of_kind(&self.night, kind);
            let mut command = nightjar();
            command.arg("master").arg(kind).args(&frames).arg("-o").arg(masters.join(format!("{kind}.fits")));
            if kind != "bias" {
                command.arg("--masters").arg(&masters);
            }
            succeed(&mut command);
        }
        self.host.put(&masters, "/var/lib/nightjar/");
        self.host.put(&self.night.join("references"), "/var/lib/nightjar/");
        self.host.succeed("chown -R nightjar:nightjar /var/lib/nightjar");
    }

    /// Writes the settings.
    pub fn configure(&self, uplink: &str, more: &str) {
        let text = format!(
            "[observatory]\ncode = \"TST\"\n[camera]\nfolder = \"{WATCHED}\"\n[uplink]\n{uplink}\n\
             [service]\nrequire_synchronised_clock = false\n{more}"
        );
        self.host.write(SETTINGS, &text);
    }

    /// A frame arrives in the watched folder, as rsync brings it.
    pub fn drop_in(&self, frame: &Path) {
        let name = frame.file_name().unwrap().to_string_lossy();
        let folder = self.host.path(WATCHED);
        fs::copy(frame, folder.join(format!(".{name}.a7B3x"))).unwrap();
        fs::rename(folder.join(format!(".{name}.a7B3x")), folder.join(&*name)).unwrap();
    }

    /// Files of a folder of the box whose names end so.
    pub fn files(&self, inside: &str, ending: &str) -> usize {
        let entries = fs::read_dir(self.host.path(inside)).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(ending)).count()
    }

    /// Frames that are safe in the frame journal.
    pub fn in_journal(&self) -> usize {
        self.files("/var/lib/nightjar/frames", ".fits")
    }

    /// Exposures whose alerts are in the spool and not sent.
    pub fn unsent(&self) -> usize {
        self.files("/var/lib/nightjar/spool/ready", ".seg")
    }

    /// The daemon's process.
    pub fn main_pid(&self) -> String {
        self.host.property("nightjar", "MainPID")
    }
}
