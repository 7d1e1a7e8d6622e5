//! Promise: a filter in Python, as a scientist writes it, sends on what plain Python finds in the files of the
//! night, each alert once, however often it is killed; and whatever is wrong with a filter ends in one sentence.
//!
//! `NIGHTJAR_CAMPAIGN=1` kills it fifty times.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/downstream.rs"]
mod downstream;
#[path = "support/kafka.rs"]
mod kafka;
mod packets;

use downstream::{kills, script, send, uplink_to, visits, write};
use kafka::Kafka;
use nightjar::history::History;

const TOPIC: &str = "njr_20261124_programid1";

#[test]
fn what_passes_is_sent_on_once_through_kills_and_a_careless_program_is_found_out() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let night = visits(&mut History::in_memory().unwrap(), "2026-11-24", 12, 60);
    let count = write(&folder.path().join("alerts"), &night);
    send(&folder.path().join("spool"), uplink_to(kafka.bootstrap(), 4), &night);
    assert_eq!(kafka.read_all(TOPIC, true).len(), count);
    let alerts = folder.path().join("alerts");
    let words = [&kafka.bootstrap(), TOPIC, alerts.to_str().unwrap(), kills()];
    let Some((content, text)) = script("filters/campaign.py", &words) else { return };
    assert!(content, "{text}");
    let (content, text) = script("filters/campaign.py", &[&words[..3], &["12", "flawed"]].concat()).unwrap();
    assert!(!content && text.contains("wanted"), "positions outside of the transaction were not found out: {text}");
}

#[test]
fn whatever_is_wrong_with_a_filter_ends_in_one_sentence_and_files_are_judged_as_topics_are() {
    let folder = tempfile::tempdir().unwrap();
    let night = visits(&mut History::in_memory().unwrap(), "2026-11-24", 2, 40);
    write(folder.path(), &night);
    let Some((content, text)) = script("filters/sentences.py", &[folder.path().to_str().unwrap()]) else { return };
    assert!(content, "{text}");
}

#[test]
fn what_fails_goes_to_the_dead_letters_and_a_group_shares_the_work() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let night = visits(&mut History::in_memory().unwrap(), "2026-11-24", 6, 50);
    write(&folder.path().join("alerts"), &night);
    send(&folder.path().join("spool"), uplink_to(kafka.bootstrap(), 4), &night);
    let alerts = folder.path().join("alerts");
    let words = [&kafka.bootstrap(), TOPIC, alerts.to_str().unwrap()];
    let Some((content, text)) = script("filters/group.py", &words) else { return };
    assert!(content, "{text}");
}
