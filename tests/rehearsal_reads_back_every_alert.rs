//! Promise: a rehearsal on the embedded broker reads back every alert that was committed, though
//! the broker keeps only 5 MiB a partition.

#[path = "support/alerts.rs"]
mod alerts;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nightjar::exposure::ExposureId;
use nightjar::spool::{Spool, SpoolParameters};
use nightjar::uplink::embedded::EmbeddedBroker;
use nightjar::uplink::follower::{Followed, Follower};
use nightjar::uplink::{State, Uplink};

#[allow(clippy::type_complexity, reason = "what is compared, spelled out")]
#[test]
fn every_alert_of_a_rehearsal_is_read_back_once() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(folder.path(), SpoolParameters::default()).unwrap());
    let broker = EmbeddedBroker::start().unwrap();
    broker.create_topic(alerts::TOPIC).unwrap();
    let got = Arc::new(Mutex::new(Vec::new()));
    let sink = got.clone();
    let follower = Follower::start(&broker.parameters(), "^nightjar_2.*", spool.uuid(), move |received| {
        sink.lock().unwrap().push(received.clone());
    })
    .unwrap();
    assert!(follower.wait_until_subscribed(Duration::from_secs(30)));
    let uplink = Uplink::start_gated(broker.parameters(), spool.clone(), follower.gate()).unwrap();
    // 60 MB through partitions of 5 MiB.
    for n in 1..=10 {
        let name = format!("e{n:05}");
        spool.append(&ExposureId::from_stored(name.as_str()), &alerts::exposure(&name, 100, 60_000)).unwrap();
    }
    assert!(uplink.drain(Duration::from_secs(120)), "{:?}", uplink.status());
    assert!(follower.wait_for(1000, Duration::from_secs(30)));
    assert_eq!(uplink.status().state, State::Connected);
    assert_eq!(uplink.status().acknowledged_alerts, 1000);
    let Followed { alerts: read, repeated, by_sequence, .. } = follower.finish();
    assert_eq!((read, repeated), (1000, 0));
    assert!(by_sequence.values().all(|n| *n == 100) && by_sequence.len() == 10);
    let got = got.lock().unwrap();
    let records: Vec<(Vec<(String, String)>, &[u8], &[u8])> = got
        .iter()
        .map(|r| {
            let text = |v: &[u8]| String::from_utf8(v.to_vec()).unwrap();
            let headers = r.headers.iter().map(|(n, v)| (n.clone(), text(v))).collect();
            (headers, r.key.as_slice(), r.payload.as_slice())
        })
        .collect();
    let counts = alerts::tally(records.iter().map(|(h, k, p)| (h.as_slice(), *k, *p)), 60_000);
    assert!(counts.len() == 1000 && counts.values().all(|n| *n == 1));
}
