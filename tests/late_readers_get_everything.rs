//! Promise: a reader that joins two nights late gets both; it goes on where it left off, begins at a time or once
//! more from the beginning, and after being killed leaves nothing out. The reader is the package's example.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/downstream.rs"]
mod downstream;
#[path = "support/kafka.rs"]
mod kafka;
mod packets;

use downstream::{PREFIX, script, send, uplink_to, visits, write};
use kafka::Kafka;
use nightjar::history::History;
use nightjar::service::clock;

#[test]
fn a_reader_begins_wherever_it_likes_and_misses_nothing() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::in_memory().unwrap();
    let mut between = String::new();
    for date in ["2026-11-24", "2026-11-25"] {
        let night = visits(&mut history, date, 4, 40);
        // Between the nights, by the clock that the broker goes by.
        std::thread::sleep(std::time::Duration::from_secs(1));
        between = clock::now().to_string();
        std::thread::sleep(std::time::Duration::from_secs(1));
        send(&folder.path().join(format!("spool{date}")), uplink_to(kafka.bootstrap(), 3), &night);
        write(&folder.path().join("alerts").join(date), &night);
    }
    let alerts = folder.path().join("alerts");
    let words = [&kafka.bootstrap(), PREFIX, alerts.to_str().unwrap(), &between];
    let Some((content, text)) = script("filters/late_readers.py", &words) else { return };
    assert!(content && text.contains("two nights late: 320 of 320"), "{text}");
}
