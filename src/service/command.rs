//! Runs a program of the observatory and takes what it prints, with a deadline.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::clock::Stopwatch;

/// Most that a program may print, bytes.
const MOST: u64 = 64 << 10;
/// How often it is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Why a program gave nothing. The message goes on from the program's name.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be started.
    #[error("cannot be started ({0}); correct the command")]
    Start(std::io::Error),
    /// It took too long and was ended.
    #[error("did not end within {} s and was stopped; make it answer sooner", .0.as_secs_f64())]
    Late(Duration),
    /// It said that it failed.
    #[error("failed ({status}): {said}")]
    Failed {
        /// How it ended.
        status: String,
        /// The end of what it said on standard error.
        said: String,
    },
}

/// Runs `line` with `/bin/sh -c` in a process group of its own, which is killed at the deadline, and
/// gives what it printed on standard output.
///
/// # Errors
///
/// When it cannot be started, fails or is late.
pub fn output(line: &str, deadline: Duration) -> Result<String, CommandError> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(CommandError::Start)?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let watch = Stopwatch::start();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if watch.elapsed() < deadline => std::thread::sleep(LOOK),
            _ => {
                let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
                let _ = child.wait();
                return Err(CommandError::Late(deadline));
            }
        }
    };
    // Whoever holds the pipes beyond the end of the command is of its group and no longer needed.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if status.success() {
        return Ok(out);
    }
    let said = err.lines().last().unwrap_or("it said nothing").to_owned();
    Err(CommandError::Failed { status: status.to_string(), said })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(MOST).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_prints_is_taken_and_its_failure_told() {
        assert_eq!(output("echo '{}'", Duration::from_secs(20)).unwrap(), "{}\n");
        let error = output("echo no mount >&2; exit 3", Duration::from_secs(20)).unwrap_err().to_string();
        assert!(error.contains("no mount") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_stopped_with_all_its_children() {
        let watch = Stopwatch::start();
        let error = output("sleep 300 & sleep 300", Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, CommandError::Late(_)));
        assert!(watch.elapsed() < Duration::from_secs(60));
    }
}
