//! A small synthetic night and the program that runs it.
#![allow(dead_code, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The program, without anything of this environment in its settings.
pub fn nightjar() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightjar"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NIGHTJAR__")) {
        command.env_remove(name);
    }
    command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

/// Runs it and gives what it printed; fails with its own words when it fails.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, both(&output));
    output
}

/// Standard output and error.
pub fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A night of `exposures` raw frames of 512×512 in one field, with calibration frames and references.
pub fn small_night(folder: &Path, exposures: usize) -> PathBuf {
    night_of(folder, (512, 512), exposures)
}

/// As [`small_night`], with frames of any width and height.
pub fn night_of(folder: &Path, (width, height): (usize, usize), exposures: usize) -> PathBuf {
    let night = folder.join("frames");
    let request = ["--fields", "1", "--calibration-frames", "6", "--seed", "5"];
    let numbers = [("--width", width), ("--height", height), ("--exposures", exposures)];
    let numbers = numbers.into_iter().flat_map(|(word, number)| [word.to_owned(), number.to_string()]);
    succeed(nightjar().arg("sky").arg("--out").arg(&night).args(request).args(numbers));
    night
}

/// The raw frames of a night that were taken for this ("light", "bias", …), by name.
pub fn frames_of_kind(night: &Path, kind: &str) -> Vec<PathBuf> {
    let is_of_kind = |path: &PathBuf| {
        let header = nightjar::fits::read_header(path);
        header.is_ok_and(|header| header.text(&["IMAGETYP"]).is_some_and(|value| value.to_lowercase().contains(kind)))
    };
    let entries = std::fs::read_dir(night).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file() && is_of_kind(path)).collect();
    files.sort();
    files
}

/// Asks `question` again and again, for at most two minutes.
pub fn wait_until(what: &str, mut question: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if question() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("waited two minutes for this: {what}");
}

/// A daemon with folders of its own; killed when the test ends without having stopped it.
pub struct Daemon {
    pub child: Child,
    pub log: PathBuf,
}

impl Daemon {
    /// Starts `nightjar run` with the settings file.
    pub fn start(settings: &Path, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = nightjar();
        command.arg("run").arg("--config").arg(settings).stderr(file).stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for the end and gives the exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often it has said this.
    pub fn times(&self, text: &str) -> usize {
        self.said().matches(text).count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
