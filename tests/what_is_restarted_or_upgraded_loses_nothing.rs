//! On an installed host: SIGKILL, a second SIGTERM, a reboot and an upgrade of the package in
//! mid-exposure lose no exposure and double none; SIGHUP takes what can change and loses nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod appliance;
    pub mod host;
    pub mod night;
}

use std::path::PathBuf;

use nightjar::service::events;
use support::appliance::{Appliance, SETTINGS};
use support::host::{Debian, package};
use support::night::wait_until;

const HELD: &str = "publish = false";

/// Every exposure of the night is in the spool once, and nothing else is.
fn nothing_is_lost(appliance: &Appliance) {
    let host = &appliance.host;
    wait_until("every exposure is in the spool", || appliance.unsent() == appliance.frames.len());
    let listing = host.succeed("runuser -u nightjar -- nightjar spool list --json");
    let mut names: Vec<String> = listing
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|line| line["exposure"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!((names.len(), count), (appliance.frames.len(), appliance.frames.len()), "{listing}");
    host.succeed("runuser -u nightjar -- nightjar spool verify");
}

/// Drops every frame in, and waits until all are safe and one is in work.
fn in_mid_exposure(appliance: &Appliance) {
    for frame in &appliance.frames {
        appliance.drop_in(frame);
    }
    wait_until("every frame is in the journal", || appliance.in_journal() == appliance.frames.len());
}

#[test]
fn sigkill_and_a_second_sigterm() {
    let Some(appliance) = Appliance::configured(Debian::Bookworm, 3, HELD, "") else { return };
    let host = &appliance.host;
    host.succeed("systemctl restart nightjar");
    in_mid_exposure(&appliance);
    let before = appliance.main_pid();
    host.succeed("systemctl kill --signal=KILL nightjar");
    wait_until("systemd restarts it", || !["0", &before].contains(&appliance.main_pid().as_str()));
    assert_eq!(host.property("nightjar", "NRestarts"), "1");
    wait_until("it is ready again", || host.times("is ready") == 2);
    // The second signal comes while the first is being followed.
    host.succeed("systemctl kill --signal=TERM nightjar; systemctl kill --signal=TERM nightjar || true");
    wait_until("it has stopped", || host.property("nightjar", "ActiveState") == "inactive");
    assert_eq!(host.property("nightjar", "ExecMainStatus"), "0");
    assert!(appliance.unsent() < 3, "all were done before the signal came: nothing is shown");
    host.succeed("systemctl start nightjar");
    nothing_is_lost(&appliance);
}

#[test]
fn sighup_takes_what_can_change_and_names_what_cannot() {
    let Some(appliance) = Appliance::configured(Debian::Bookworm, 2, HELD, "") else { return };
    let host = &appliance.host;
    host.succeed("systemctl restart nightjar");
    let before = appliance.main_pid();
    in_mid_exposure(&appliance);
    appliance.configure(HELD, "threads = 1\n[detect]\nthreshold = 5.5\n");
    host.succeed("systemctl reload nightjar");
    let reloaded = || host.journal(&format!("-u nightjar MESSAGE_ID={}", events::RELOADED));
    wait_until("it says so", || reloaded().len() == 1);
    let line = reloaded()[0]["MESSAGE"].as_str().unwrap().to_owned();
    assert!(line.contains("detect.threshold are in force") && line.contains("restart for: service.threads"), "{line}");
    // A file that is wrong changes nothing and stops nothing.
    host.write(SETTINGS, "[detect]\nthreshold = \"low\"\n");
    host.succeed("systemctl reload nightjar");
    wait_until("the fault is told", || host.times("detect.threshold = \"low\"") == 1);
    appliance.configure(HELD, "");
    nothing_is_lost(&appliance);
    assert_eq!(appliance.main_pid(), before);
}

/// What is upgraded: the package of an earlier commit, where `NIGHTJAR_EARLIER_PACKAGE` names one
/// (`packaging/upgrade-from`), else that of this one.
fn earlier_package() -> PathBuf {
    std::env::var_os("NIGHTJAR_EARLIER_PACKAGE").map_or_else(|| package("0.1.0-1"), PathBuf::from)
}

fn upgrade(debian: Debian) {
    let earlier = earlier_package();
    let Some(appliance) = Appliance::installed_from(debian, 3, &earlier) else { return };
    appliance.furnish();
    appliance.configure(HELD, "");
    let host = &appliance.host;
    let edited = host.succeed(&format!("cat {SETTINGS}"));
    host.succeed("systemctl restart nightjar");
    let before = appliance.main_pid();
    in_mid_exposure(&appliance);
    let said = host.install(&package("0.1.1-1"));
    // It was restarted, in order, and the settings are those of the administrator.
    assert_ne!(appliance.main_pid(), before, "{said}");
    assert_eq!(host.property("nightjar", "SubState"), "running");
    assert_eq!(host.journal(&format!("-u nightjar MESSAGE_ID={}", events::STOPPED)).len(), 1);
    assert_eq!(host.succeed(&format!("cat {SETTINGS}")), edited);
    let killed = host.succeed("journalctl --no-pager -o cat -u nightjar");
    assert!(!killed.contains("SIGKILL") && !killed.contains("timed out"), "{killed}");
    nothing_is_lost(&appliance);
    // And back again: the same formats.
    host.install(&earlier);
    wait_until("it runs", || host.property("nightjar", "SubState") == "running");
    nothing_is_lost(&appliance);
}

#[test]
fn an_upgrade_and_a_downgrade_on_debian_12() {
    upgrade(Debian::Bookworm);
}

#[test]
fn an_upgrade_and_a_downgrade_on_debian_13() {
    upgrade(Debian::Trixie);
}

#[test]
fn a_reboot_in_the_night_goes_on_unattended() {
    let Some(mut appliance) = Appliance::configured(Debian::Bookworm, 3, HELD, "") else { return };
    appliance.host.succeed("systemctl restart nightjar");
    for frame in &appliance.frames[..2] {
        appliance.drop_in(frame);
    }
    wait_until("two frames are in the journal", || appliance.in_journal() == 2);
    appliance.host.reboot();
    wait_until("it runs by itself", || appliance.host.property("nightjar", "SubState") == "running");
    appliance.drop_in(&appliance.frames[2]);
    nothing_is_lost(&appliance);
}
