//! Protocols of the uplink that are broken on purpose. Each must turn its row red.

use std::time::Duration;

use crate::careless_uplink::Flaw;
use crate::kafka::Kafka;
use crate::oracle::Oracle;
use crate::protocol::broker_behind_a_proxy;
use crate::proxy::{Fate, Request};
use crate::row::{Chance, Row, runs};
use crate::sender::{BYTES, COUNT, Job, Sender};

/// A sender that is killed again and again.
fn killed(flaw: Flaw, rounds: impl Iterator<Item = u32>) -> Option<Row> {
    let kafka = Kafka::start()?;
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "");
    (job.flaw, job.every_ms) = (Some(flaw), 20);
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let (mut row, mut chance) = (Row::default(), Chance(0xc0ff_ee00_dead_beef));
    for round in rounds {
        row.runs = round + 1;
        job.name = format!("c{round}");
        let mut sender = Sender::start(&job);
        sender.wait(30.0, |s| s.acknowledged().len() > 3);
        // Long enough that it sends, whatever the machine does besides.
        std::thread::sleep(chance.ms(2500, 4000));
        oracle.owe(&sender.kill());
    }
    job.name = "last".into();
    let mut sender = Sender::start(&job);
    sender.wait(30.0, |s| !s.acknowledged().is_empty());
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(30.0, &mut row);
    row.runs -= 1;
    Some(row)
}

/// A sender that is killed while its EndTxn is under way.
fn killed_in_commit(flaw: Flaw, rounds: impl Iterator<Item = u32>) -> Option<Row> {
    let (proxy, kafka) = broker_behind_a_proxy()?;
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("spool"), &kafka.through(), "");
    job.flaw = Some(flaw);
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let mut row = Row::default();
    for round in rounds {
        row.runs = round + 1;
        job.name = format!("c{round}");
        let mut sender = Sender::start(&job);
        assert!(sender.wait(60.0, |s| s.acknowledged().len() > 8), "{:?}", sender.troubles());
        let before = proxy.struck();
        proxy.plan(Request::EndTxn, Fate::RequestHeld(Duration::from_millis(1200)));
        assert!(sender.wait(60.0, |_| proxy.struck() > before), "{:?}", sender.troubles());
        oracle.owe(&sender.kill());
    }
    job.name = "last".into();
    let mut sender = Sender::start(&job);
    sender.wait(30.0, |s| !s.acknowledged().is_empty());
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(30.0, &mut row);
    row.runs -= 1;
    Some(row)
}

#[test]
fn control_a_cursor_outside_the_transaction_is_found_out() {
    let Some(row) = killed(Flaw::CursorOutside, runs(5, 20)) else { return };
    row.print("control: cursor outside the transaction");
    assert!(row.doubled > 0, "{row:?}");
}

#[test]
fn control_a_cursor_read_before_init_is_found_out() {
    let Some(row) = killed_in_commit(Flaw::CursorBeforeInit, runs(3, 10)) else { return };
    row.print("control: cursor read before init_transactions");
    assert!(row.doubled > 0, "{row:?}");
}

/// Without a flaw the double passes what finds the flawed ones out.
#[test]
fn control_the_double_itself_is_sound() {
    let Some(row) = killed_in_commit(Flaw::Nothing, runs(3, 10)) else { return };
    row.assert_clean("control of the controls: the double without a flaw");
}

#[test]
fn control_delivery_errors_ignored_are_found_out() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "i");
    job.flaw = Some(Flaw::DeliveryIgnored);
    let mut sender = Sender::start(&job);
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    assert!(sender.wait(60.0, |s| s.acknowledged().len() > 10));
    let mut row = Row::default();
    for round in runs(1, 10) {
        row.runs = round;
        kafka.freeze();
        std::thread::sleep(Duration::from_secs(2));
        kafka.thaw();
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(sender.finish());
    oracle.owe(&sender.names());
    oracle.check(10.0, &mut row);
    row.print("control: delivery errors ignored");
    assert!(row.lost > 0, "{row:?}");
}
