//! systemd's watchdog is fed by progress: a stage that hangs is restarted, and the exposure in hand is done
//! after that; a day without frames, without a camera and without a broker is left alone. Time is shrunk by
//! `WatchdogSec=`, on which the stages' deadline depends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod appliance;
    pub mod host;
    pub mod night;
}

use std::time::Duration;

use nightjar::service::events;
use support::appliance::{Appliance, WATCHED};
use support::host::Debian;
use support::night::wait_until;

fn watchdog(appliance: &Appliance, seconds: u32) {
    let text = format!("[Service]\nWatchdogSec={seconds}\n");
    appliance.host.write("/etc/systemd/system/nightjar.service.d/watchdog.conf", &text);
    appliance.host.succeed("systemctl daemon-reload && systemctl restart nightjar");
}

#[test]
fn a_stage_that_hangs_is_restarted_and_its_exposure_is_done() {
    let Some(appliance) = Appliance::configured(Debian::Bookworm, 1, "publish = false", "") else { return };
    let host = &appliance.host;
    watchdog(&appliance, 15);
    // The reference has been listed; now its disk does not answer: a pipe that nobody writes into.
    let listing = host.succeed("ls /var/lib/nightjar/references/*.fits");
    let reference = listing.lines().next().unwrap().trim();
    wait_until("masters and references are listed", || host.times("is ready") == 1);
    std::thread::sleep(Duration::from_secs(3));
    host.succeed(&format!("mv {reference} /root/kept.fits && mkfifo -m 666 {reference}"));
    appliance.drop_in(&appliance.frames[0]);
    wait_until("the stage is told to hang", || {
        !host.journal(&format!("-u nightjar MESSAGE_ID={}", events::STAGE_HUNG)).is_empty()
    });
    host.succeed(&format!("rm {reference} && mv /root/kept.fits {reference}"));
    wait_until("systemd restarts it", || host.property("nightjar", "NRestarts") == "1");
    let journal = host.succeed("journalctl --no-pager -o cat -u nightjar");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    let told = host.journal(&format!("-u nightjar MESSAGE_ID={}", events::STAGE_HUNG));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["NIGHTJAR_STAGE"], "subtract");
    // It is noted beside the frame: five of them close it.
    assert_eq!(host.succeed("cat /var/lib/nightjar/frames/*.hung"), "+");
    wait_until("the exposure is in the spool", || appliance.unsent() == 1);
    assert_eq!(host.property("nightjar", "NRestarts"), "1");
}

#[test]
fn a_quiet_day_without_camera_and_broker_is_left_alone() {
    let Some(appliance) = Appliance::configured(Debian::Bookworm, 1, "brokers = [\"127.0.0.1:9\"]", "") else { return };
    let host = &appliance.host;
    host.succeed(&format!("rmdir {WATCHED}"));
    watchdog(&appliance, 1);
    let pid = appliance.main_pid();
    // Thirty periods: half an hour of the shipped unit.
    std::thread::sleep(Duration::from_secs(30));
    assert_eq!((appliance.main_pid(), host.property("nightjar", "NRestarts").as_str()), (pid, "0"));
    assert_eq!(host.property("nightjar", "SubState"), "running");
    // It said what is missing, each once, and is quiet since.
    let mut said: Vec<String> = host.said().into_iter().skip_while(|line| !line.contains("is ready")).collect();
    assert!(
        said.len() < 6 && said.iter().any(|line| line.contains(WATCHED) && line.contains("create it")),
        "{said:#?}"
    );
    let count = said.len();
    said.sort();
    said.dedup();
    assert_eq!(said.len(), count, "{said:#?}");
}
