//! What systemd hears and sees: ready, a line that a person can read, the watchdog fed through a quiet
//! time, stopping; and the exit code that says whether to start again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod night;
    pub mod site;
}

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::night::{nightjar, wait_until};
use support::site::Site;

#[test]
fn ready_status_watchdog_and_stopping_arrive_in_this_order() {
    let site = Site::new(1, "publish = false");
    let path = site.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut command = nightjar();
    command.arg("run").arg("--config").arg(site.path("nightjar.toml")).stderr(Stdio::null());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
    let mut daemon = command.spawn().unwrap();
    let mut heard: Vec<String> = Vec::new();
    let listen = |heard: &mut Vec<String>| {
        let mut bytes = [0; 4096];
        while let Ok(length) = socket.recv(&mut bytes) {
            heard.extend(String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned));
        }
    };
    let count = |heard: &[String], wanted: &str| heard.iter().filter(|line| line.starts_with(wanted)).count();
    // Nothing arrives from the camera, and the watchdog is fed all the same.
    wait_until("the watchdog is fed five times", || {
        listen(&mut heard);
        count(&heard, "WATCHDOG=1") >= 5
    });
    site.drop_in(&site.frames[0]);
    wait_until("the line tells of the exposure", || {
        listen(&mut heard);
        heard.iter().any(|line| line.starts_with("STATUS=exposure ") && line.contains("uplink held"))
    });
    kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    listen(&mut heard);
    let place = |wanted: &str| heard.iter().position(|line| line.starts_with(wanted)).unwrap();
    assert!(place("READY=1") < place("WATCHDOG=1") && place("WATCHDOG=1") < place("STOPPING=1"), "{heard:?}");
    assert_eq!((count(&heard, "READY=1"), count(&heard, "STOPPING=1")), (1, 1));
}

#[test]
fn wrong_settings_are_78_with_a_line_each_and_a_disk_in_the_way_is_75() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("nightjar.toml");
    let run = |text: &str| {
        std::fs::write(&settings, text).unwrap();
        let output = nightjar().arg("run").arg("--config").arg(&settings).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let five = "[camera]\nbaud = 3\ncadence_s = -1\n[detect]\nthreshold = 1\n[uplink]\npartitions = 0\n[service]\nthreads = 5000\n";
    let (code, said) = run(five);
    assert_eq!((code, said.lines().count()), (Some(78), 5), "{said}");
    assert!(said.lines().all(|line| line.contains("must be")), "{said}");

    // A file where the spool's folder should be.
    let root = folder.path().display();
    std::fs::write(folder.path().join("spool"), "").unwrap();
    std::fs::create_dir(folder.path().join("watched")).unwrap();
    let (code, said) = run(&format!(
        "[camera]\nfolder = \"{root}/watched\"\n[spool]\nfolder = \"{root}/spool\"\n[frames]\nfolder = \"{root}/frames\"\n\
         [history]\nfile = \"{root}/history.sqlite\"\n[uplink]\npublish = false\n"
    ));
    assert_eq!(code, Some(75), "{said}");

    // A trigger that this camera does not have.
    let (code, said) =
        run(&format!("[camera]\nfolder = \"{root}/watched\"\ntrigger = \"cadence\"\n[uplink]\npublish = false\n"));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("only a camera on a wire"), "{said}");
}
