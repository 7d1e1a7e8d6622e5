//! Lost, late and repeated requests and replies, by a proxy that knows the protocol.

use std::time::Duration;

use crate::kafka::{Kafka, free_ports};
use crate::oracle::Oracle;
use crate::proxy::{Fate, Proxy, Request};
use crate::row::{Chance, Row, long, not_run, runs};
use crate::sender::{BYTES, COUNT, Job, Sender};

fn fates(chance: &mut Chance) -> [Fate; 6] {
    [
        Fate::ReplyLost,
        Fate::ReplyLate(chance.ms(100, 3000)),
        Fate::RequestLost,
        Fate::RequestLate(chance.ms(10, 2000)),
        Fate::RequestTwice(chance.ms(10, 2000)),
        Fate::ReplyTwice,
    ]
}

/// A broker whose every client but the oracle's goes through the proxy.
pub fn broker_behind_a_proxy() -> Option<(Proxy, Kafka)> {
    let [through] = free_ports();
    let kafka = Kafka::start_behind(through)?;
    Some((Proxy::start(through, kafka.port()), kafka))
}

#[test]
fn replies_and_requests_that_are_lost_late_or_repeated() {
    let title = "EndTxn, Produce, InitProducerId, AddPartitionsToTxn: lost, late, repeated";
    let Some((proxy, kafka)) = broker_behind_a_proxy() else { return };
    let folder = tempfile::tempdir().unwrap();
    let job = Job::new(&folder.path().join("spool"), &kafka.through(), "p");
    let mut sender = Sender::start(&job);
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let (mut row, mut chance) = (Row::default(), Chance(0x7777_1234_abcd_0001));
    assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    for run in runs(24, 500) {
        let run = run as usize;
        let request = Request::ALL[run % Request::ALL.len()];
        let fate = fates(&mut chance)[run / Request::ALL.len() % 6];
        let before = proxy.struck();
        proxy.plan(request, fate);
        if request == Request::InitProducerId {
            // A new producer is introduced when the sender starts again: in the middle of its work.
            oracle.owe(&sender.kill());
            sender = Sender::start(&Job { name: format!("p{run}"), ..job.clone() });
        }
        assert!(sender.wait(60.0, |_| proxy.struck() > before), "no {request:?} in a minute: {:?}", sender.troubles());
        std::thread::sleep(chance.ms(0, 400));
        oracle.owe(&sender.names());
        oracle.check(120.0, &mut row);
    }
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(60.0, &mut row);
    row.runs -= 1;
    row.assert_clean(title);
}

/// An EndTxn that comes again while the producer goes on with the same epoch ends the transaction that is open then,
/// with its alerts and without its cursor. TCP brings a request once, so that only a client's own repetition can do
/// it, on a connection that broke: Nightjar takes a new epoch then. Here a proxy does it behind the client's back.
#[test]
fn control_a_request_that_acts_again_unnoticed_is_found_out() {
    let title = "control: EndTxn acts again and the client notices nothing (no TCP does that)";
    if !long() {
        return not_run(title, "in the long run only");
    }
    let Some((proxy, kafka)) = broker_behind_a_proxy() else { return };
    let folder = tempfile::tempdir().unwrap();
    let sender = Sender::start(&Job::new(&folder.path().join("spool"), &kafka.through(), "c"));
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let (mut row, mut chance) = (Row::default(), Chance(0x0bad_0e4d_7788_1234));
    assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    for _ in runs(0, 150) {
        let before = proxy.struck();
        proxy.plan(Request::EndTxn, Fate::RequestCopied(chance.ms(10, 600)));
        assert!(sender.wait(60.0, |_| proxy.struck() > before), "{:?}", sender.troubles());
        std::thread::sleep(chance.ms(0, 400));
        oracle.owe(&sender.names());
        oracle.check(120.0, &mut row);
    }
    row.print(title);
    assert!(row.doubled > 0, "the campaign would not notice KAFKA-17754: {row:?}");
}

/// KAFKA-17754: after a connection that broke inside a transaction, a new producer epoch.
#[test]
fn a_broken_connection_inside_a_transaction_costs_the_producer_its_epoch() {
    let Some((proxy, kafka)) = broker_behind_a_proxy() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::start(&Job::new(&folder.path().join("spool"), &kafka.through(), "k"));
    assert!(sender.wait(60.0, |s| s.sessions() == 1 && s.acknowledged().len() > 5), "{:?}", sender.troubles());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sender.sessions(), 1, "an undisturbed producer is kept");
    for (n, request) in [Request::Produce, Request::EndTxn].into_iter().enumerate() {
        let before = sender.sessions();
        proxy.plan(request, Fate::ReplyLost);
        assert!(sender.wait(60.0, |s| s.sessions() > before), "{n}: {:?}", sender.troubles());
    }
    assert!(sender.finish(), "{:?}", sender.troubles());
}

/// 20 s without a reply in the middle of a transaction: how long does a reader of committed records wait?
#[test]
fn a_reader_waits_no_longer_than_the_reply_is_late() {
    let Some((proxy, kafka)) = broker_behind_a_proxy() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::start(&Job::new(&folder.path().join("spool"), &kafka.through(), "w"));
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    let silence = Duration::from_secs(if long() { 20 } else { 5 });
    let before = proxy.struck();
    proxy.plan(Request::EndTxn, Fate::ReplyLate(silence));
    assert!(sender.wait(60.0, |_| proxy.struck() > before));
    std::thread::sleep(silence + Duration::from_secs(1));
    let acknowledged = sender.acknowledged();
    let mut row = Row::default();
    oracle.owe(&acknowledged.keys().cloned().collect());
    oracle.check(60.0, &mut row);
    row.assert_clean("a reply that comes 20 s late (5 s in the tests) while a reader follows");
    let wait = acknowledged.iter().map(|(name, ms)| (oracle.complete[name] - ms) as f64 / 1000.0).fold(0.0, f64::max);
    println!("the longest that an exposure took to reach the reader: {wait:.1} s, with {silence:?} of silence");
    assert!(sender.finish(), "{:?}", sender.troubles());
}
