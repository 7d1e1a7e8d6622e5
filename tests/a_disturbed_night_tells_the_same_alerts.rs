//! Promise, from outside: a night whose daemon is killed every second or so, and whose broker hangs,
//! dies and comes back, gives a reader of committed messages what an undisturbed night gives,
//! `candid` for `candid`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod kafka;
    pub mod night;
    pub mod site;
}

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::kafka::Kafka;
use support::night::{Daemon, wait_until};
use support::site::Site;

const EXPOSURES: usize = 5;

fn site(kafka: &Kafka, prefix: &str) -> Site {
    let uplink = format!("brokers = [\"{}\"]\nreplication = 1\npartitions = 4", kafka.bootstrap());
    Site::new(EXPOSURES, &format!("{uplink}\n[alerts]\nprefix = \"{prefix}\""))
}

/// How often each `candid` stands in the night's topic.
fn candids(kafka: &Kafka, prefix: &str) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for record in kafka.read_all(&format!("{prefix}_2"), true) {
        let (_, candid) = record.headers.iter().find(|(name, _)| name == "candid").unwrap();
        *counts.entry(candid.clone()).or_default() += 1;
    }
    counts
}

fn wait_until_sent(site: &Site, daemon: &Daemon) {
    let files = |folder: &str| {
        let entries = std::fs::read_dir(site.path(folder)).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "seg")).count()
    };
    wait_until("all exposures are sent", || {
        assert!(!daemon.said().contains("is damaged"), "{}", daemon.said());
        files("spool/sent") == EXPOSURES && files("spool/ready") == 0
    });
}

#[test]
fn kills_and_broken_brokers_change_no_candid() {
    let Some(mut kafka) = Kafka::start() else { return };
    let quiet = site(&kafka, "quiet");
    let mut daemon = quiet.start();
    for frame in &quiet.frames {
        quiet.drop_in(frame);
    }
    wait_until_sent(&quiet, &daemon);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());

    let rough = site(&kafka, "rough");
    let mut killed = 0;
    for round in 0..14_u64 {
        let mut daemon = rough.start();
        if let Some(frame) = rough.frames.get(round as usize / 2).filter(|_| round % 2 == 0) {
            rough.drop_in(frame);
        }
        std::thread::sleep(Duration::from_millis(900 + round * 331 % 700));
        match round {
            3 => kafka.freeze(),
            5 => kafka.thaw(),
            8 => kafka.kill(),
            11 => kafka.restart(),
            _ => {}
        }
        daemon.signal(Signal::SIGKILL);
        daemon.exit_code();
        killed += 1;
    }
    let ready = "is ready";
    let before = std::fs::read_to_string(rough.path("log")).unwrap().matches(ready).count();
    let mut daemon = rough.start();
    // All may have been sent before: a signal must not come earlier than who listens to it.
    wait_until("the daemon is ready", || daemon.times(ready) > before);
    wait_until_sent(&rough, &daemon);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());

    let (wanted, got) = (candids(&kafka, "quiet"), candids(&kafka, "rough"));
    println!("{} alerts of {EXPOSURES} exposures, {killed} kills", wanted.len());
    assert!(wanted.len() >= EXPOSURES && wanted.values().all(|n| *n == 1));
    assert_eq!(got, wanted, "what arrived is not what an undisturbed night tells");
}
