//! Promise: while the broker is away alerts wait in the spool, the journal says so once with what
//! to do, memory and disk stay as they are, and stopping is not held up. That an hour makes four
//! lines, and one when it is over, a flapping link fewer than ten, `uplink::quiet` holds in tests of
//! its own, with a clock in hand.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "support/alerts.rs"]
mod alerts;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nightjar::exposure::ExposureId;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::{Spool, SpoolParameters};
use nightjar::uplink::{State, Uplink, UplinkParameters};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broker_that_is_not_there_costs_one_line_and_no_alert() {
    let lines = Lines::default();
    let sink = lines.clone();
    tracing_subscriber::fmt().with_writer(move || sink.clone()).with_ansi(false).init();
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default()).unwrap());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let parameters = UplinkParameters { brokers: vec![nobody.to_string()], ..Default::default() };
    let uplink = Uplink::start(parameters, spool.clone()).unwrap();
    for n in 1..=5 {
        let name = format!("e{n}");
        spool.append(&ExposureId::from_stored(name.as_str()), &alerts::exposure(&name, 10, 1000)).unwrap();
    }
    let watch = Stopwatch::start();
    while uplink.status().last_error.is_none() && watch.seconds() < 120.0 {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(3));
    let status = uplink.status();
    assert_eq!((status.state, status.behind_alerts, status.behind_exposures), (State::Away, 50, 5));
    assert!(!uplink.drain(Duration::from_millis(50)));
    assert!(!uplink.stop(Duration::from_millis(500)), "nothing can have been sent");
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    // Every line, whoever says it (librdkafka's own words are not among them), but for those of the
    // other test and of how full this machine's disk is.
    let of_others = |line: &&str| line.contains("held in the spool on purpose") || line.contains(": disk of ");
    let said: Vec<&str> = text.lines().filter(|line| !of_others(line)).collect();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("uplink is away"), "{}", said[0]);
    assert!(said[0].contains(&format!("check the link and the brokers {nobody}")), "{}", said[0]);
    assert!(said[0].contains("none is lost"), "{}", said[0]);
    assert_eq!(spool.status().waiting_alerts, 50);
}

#[test]
fn what_is_held_on_purpose_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default()).unwrap());
    let uplink = Uplink::start(UplinkParameters { publish: false, ..Default::default() }, spool.clone()).unwrap();
    spool.append(&ExposureId::from_stored("e1"), &alerts::exposure("e1", 10, 1000)).unwrap();
    let watch = Stopwatch::start();
    while uplink.status().state != State::Held && watch.seconds() < 60.0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(uplink.status().state, State::Held);
    assert!(!uplink.stop(Duration::from_secs(60)), "held alerts stay unsent, and stopping does not wait for them");
}
