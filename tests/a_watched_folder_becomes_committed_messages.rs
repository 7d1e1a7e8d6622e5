//! Files that are dropped into the watched folder come out as committed messages of the night's
//! topic on real Apache Kafka, each alert once, through SIGTERM in mid-exposure and SIGKILL.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod beside;
    pub mod kafka;
    pub mod night;
    pub mod site;
}

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use rdkafka::consumer::Consumer;
use support::kafka::Kafka;
use support::night::wait_until;
use support::site::Site;

#[test]
fn what_is_dropped_in_comes_out_once_in_the_nights_topic() {
    let Some(kafka) = Kafka::start() else { return };
    let site = Site::new(4, &format!("brokers = [\"{}\"]\nreplication = 1", kafka.bootstrap()));
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    for frame in &site.frames[..2] {
        site.drop_in(frame);
    }
    wait_until("two frames are in the journal", || site.in_journal() == 2);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());

    let mut daemon = site.start();
    site.drop_in(&site.frames[2]);
    wait_until("three exposures are done", || daemon.times("alerts in") == 3);
    site.drop_in(&site.frames[3]);
    wait_until("four frames are in the journal", || site.in_journal() == 4);
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();

    let mut daemon = site.start();
    let waiting = || std::fs::read_dir(site.path("spool/ready")).unwrap().count();
    let sent = || std::fs::read_dir(site.path("spool/sent")).unwrap().count();
    wait_until("all four exposures are sent", || sent() == 4 && waiting() == 0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());

    let records = kafka.read_all("nightjar_20261124", true);
    let of_header = |name: &str| -> BTreeSet<&str> {
        let headers = records.iter().flat_map(|record| &record.headers);
        headers.filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    let (exposures, alerts) = (of_header("exposure"), of_header("candid"));
    assert_eq!(exposures.len(), 4, "{exposures:?}");
    assert_eq!(alerts.len(), records.len(), "no alert is there twice");
    assert!(records.len() >= 4 && records.iter().all(|record| record.topic == "nightjar_20261124_programid1"));
    assert!(records.iter().all(|record| record.payload.starts_with(b"Obj\x01")));

    let consumer = kafka.consumer(true);
    let metadata = consumer.fetch_metadata(Some("nightjar_20261124_programid1"), Duration::from_secs(20)).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 16);
}
