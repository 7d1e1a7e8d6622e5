//! The simulated camera as a process, and a daemon that reads it.
#![allow(dead_code, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::night::{Daemon, nightjar, wait_until};
use super::site::Site;

/// `nightjar camera`, killed when the test ends.
pub struct Camera {
    child: Child,
    log: PathBuf,
}

impl Camera {
    /// Starts it with these arguments.
    pub fn start(site: &Site, arguments: &[&str]) -> Self {
        let log = site.path("camera.log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = nightjar();
        command.arg("camera").arg(site.path("frames")).args(arguments).stderr(file).stdout(Stdio::null());
        let before = std::fs::read_to_string(&log).unwrap_or_default().matches("camera at ").count();
        let camera = Self { child: command.spawn().unwrap(), log };
        wait_until("the camera listens", || camera.said().matches("camera at ").count() > before);
        camera
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where it listens, after `--listen tcp://127.0.0.1:0`.
    pub fn address(&self) -> String {
        let said = self.said();
        said.rsplit("camera at ").next().unwrap().split(',').next().unwrap().to_owned()
    }

    /// Pulls the plug.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the site's daemon with this in place of its `[camera]`, and with more settings at the end.
pub fn start_with(site: &Site, camera: &str, more: &str) -> Daemon {
    let settings = site.path("nightjar.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    let start = text.find("[camera]").unwrap();
    let end = text.find("[frames]").unwrap();
    let text = format!("{}[camera]\n{camera}\n{}{more}\n", &text[..start], &text[end..]);
    std::fs::write(&settings, text).unwrap();
    site.start()
}

/// Numbers of the frames in the journal, in the order of the exposures, each with its file.
pub fn numbers(site: &Site) -> Vec<(u32, PathBuf)> {
    let number = |path: &Path| nightjar::fits::read_header(path).ok()?.number(&["LINKFRM"]).map(|number| number as u32);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(site.path("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "fits"));
    files.sort();
    files.into_iter().filter_map(|path| Some((number(&path)?, path))).collect()
}
