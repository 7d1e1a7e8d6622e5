//! An object keeps its name, whatever is run again and whatever breaks.
#![allow(clippy::unwrap_used)]

mod packets;

use nightjar::alert::{Alert, upper_limit};
use nightjar::detect::Detections;
use nightjar::exposure::ExposureId;
use nightjar::history::{History, Outcome, Past, Question, backup_path};
use packets::{CODE, candidate, detections, parameters, sky, three_visits};

/// A night's step with the tests' parameters.
fn night(history: &mut History, seen: &Detections) -> (Vec<Past>, Vec<Alert>) {
    packets::night(history, seen, &parameters())
}

#[test]
fn an_object_seen_in_three_visits_carries_one_name() {
    let mut history = History::in_memory().unwrap();
    let visits = three_visits();
    let found: Vec<(Vec<Past>, Vec<Alert>)> = visits.iter().map(|visit| night(&mut history, visit)).collect();
    let a: Vec<&Past> = vec![&found[0].0[0], &found[1].0[1], &found[2].0[0]];
    assert!(a.iter().all(|past| past.object_id == a[0].object_id));
    assert_eq!(found[1].0[0].object_id, found[2].0[1].object_id);
    assert_ne!(a[0].object_id, found[1].0[0].object_id);
    assert_eq!(a.iter().map(|past| past.detections).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(a.iter().map(|past| past.coverages).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(a[2].first_jd, visits[0].exposure.start.jd());
    assert_eq!(a[2].last_jd, visits[2].exposure.start.jd());
}

#[test]
fn earlier_detections_come_back_as_they_were_and_epochs_without_one_as_upper_limits() {
    let mut history = History::in_memory().unwrap();
    let visits = three_visits();
    let (_, first) = night(&mut history, &visits[0]);
    let (second, alerts) = night(&mut history, &visits[1]);
    let (third, _) = night(&mut history, &visits[2]);
    let seen = first.iter().find(|alert| alert.object_id == second[1].object_id).unwrap();
    assert_eq!(*second[1].epochs[0], seen.sighting.detection);
    // b was not there on the first visit, which covered its place.
    let b = &third[1].epochs;
    assert_eq!(b.len(), 2);
    assert_eq!(*b[0], upper_limit(&visits[0], &parameters()));
    assert_eq!(b[0].candid, None);
    assert_eq!(b[0].diffmaglim, Some(20.4));
    assert_eq!(b[1].candid, alerts.iter().find(|alert| alert.object_id == third[1].object_id).map(|a| a.candid));
}

#[test]
fn a_second_run_writes_the_same_alerts_and_doubles_nothing() {
    let mut history = History::in_memory().unwrap();
    let visits = three_visits();
    let first: Vec<_> = visits.iter().map(|visit| night(&mut history, visit)).collect();
    let again: Vec<_> = visits.iter().map(|visit| night(&mut history, visit)).collect();
    let mut fresh = History::in_memory().unwrap();
    let anew: Vec<_> = visits.iter().map(|visit| night(&mut fresh, visit)).collect();
    for ((one, two), three) in first.iter().zip(&again).zip(&anew) {
        assert_eq!(one.0, two.0);
        assert_eq!(one.0, three.0);
        for ((a, b), c) in one.1.iter().zip(&two.1).zip(&three.1) {
            assert_eq!(a.payload, b.payload);
            assert_eq!(a.payload, c.payload);
        }
    }
}

#[test]
fn a_run_that_died_before_it_recorded_gives_the_same_names_the_next_time() {
    let mut history = History::in_memory().unwrap();
    let visit = &three_visits()[0];
    let places: Vec<(f64, f64)> = visit.accepted().map(|c| (c.ra, c.dec)).collect();
    let question = Question::about(&visit.exposure, CODE, 30.0);
    let died = history.look_up(&places, &question).unwrap();
    assert_eq!(died, night(&mut history, visit).0);
}

#[test]
fn three_places_in_a_row_get_the_names_of_a_second_run_too() {
    // The middle one comes first and takes the outer ones, which are 2.6 arcsec apart.
    let visit =
        || detections("2026-11-24T03:00:00", [0.0, 1.3, -1.3].map(|by| candidate(500.0 + by, 500.0, 4000.0)).into());
    let mut history = History::in_memory().unwrap();
    let first = night(&mut history, &visit()).0;
    assert_eq!(first[0].object_id, first[1].object_id);
    assert_eq!(first[0].object_id, first[2].object_id);
    assert_eq!(night(&mut history, &visit()).0, first);
}

#[test]
fn neighbours_beyond_the_radius_have_names_of_their_own() {
    let mut history = History::in_memory().unwrap();
    let visit = detections(
        "2026-11-24T03:00:00",
        (0..40).map(|i| candidate(500.0 + 1.7 * f64::from(i), 500.0, 4000.0)).collect(),
    );
    let mut names: Vec<String> = night(&mut history, &visit).0.into_iter().map(|past| past.object_id).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 40);
}

#[test]
fn the_past_is_what_began_before_and_within_the_days_asked_for() {
    let mut history = History::in_memory().unwrap();
    let place = (1500.3, 1200.8);
    let visit = |start: &str| detections(start, vec![candidate(place.0, place.1, 4000.0)]);
    let starts = ["2026-10-01T03:00:00", "2026-11-20T03:00:00", "2026-11-24T03:00:00"];
    // The newest is run first.
    for start in starts.iter().rev() {
        night(&mut history, &visit(start));
    }
    let last = visit(starts[2]);
    let past = &history.look_up(&[sky(place.0, place.1)], &Question::about(&last.exposure, CODE, 30.0)).unwrap()[0];
    assert_eq!((past.epochs.len(), past.detections, past.coverages), (1, 3, 3));
    let first = visit(starts[0]);
    let past = &history.look_up(&[sky(place.0, place.1)], &Question::about(&first.exposure, CODE, 30.0)).unwrap()[0];
    assert_eq!((past.epochs.len(), past.detections, past.coverages), (0, 1, 1));
}

#[test]
fn an_exposure_beside_the_place_is_no_upper_limit() {
    let mut history = History::in_memory().unwrap();
    night(&mut history, &three_visits()[0]);
    let later = three_visits().remove(2);
    let beside = [sky(3072.0 + 30.0, 1500.0)];
    let past = &history.look_up(&beside, &Question::about(&later.exposure, CODE, 30.0)).unwrap()[0];
    assert_eq!((past.epochs.len(), past.coverages), (0, 1));
}

#[test]
fn the_ledger_knows_what_became_of_every_exposure() {
    let mut history = History::in_memory().unwrap();
    let [first, second, third] = &three_visits()[..] else { panic!() };
    let waits = Outcome::Deferred { reason: "no reference of field M31".into() };
    history.record(&first.exposure, &waits, None).unwrap();
    history.record(&second.exposure, &Outcome::Done { spool: None, reason: "focus frame".into() }, None).unwrap();
    assert_eq!(history.deferred().unwrap().len(), 1);
    assert_eq!(history.ledger(&third.exposure.id).unwrap(), None);
    night(&mut history, first);
    assert!(history.deferred().unwrap().is_empty());
    let entry = history.ledger(&first.exposure.id).unwrap().unwrap();
    assert_eq!((entry.alerts, entry.outcome), (2, Outcome::Done { spool: Some(1), reason: String::new() }));
}

/// Overwrites the middle of a file.
fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[100..middle].fill(0x5A);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_history_is_moved_aside_and_restored_from_its_backup() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.sqlite");
    let visits = three_visits();
    let before = {
        let opened = History::open(&path).unwrap();
        assert_eq!(opened.notice, None);
        let mut history = opened.history;
        let before = night(&mut history, &visits[0]).0;
        assert_eq!(history.back_up().unwrap(), backup_path(&path));
        before
    };
    damage(&path);
    let opened = History::open(&path).unwrap();
    let notice = opened.notice.unwrap();
    assert!(notice.contains("damaged-1") && notice.contains("20261124-030000"), "{notice}");
    assert!(!notice.contains('\n'));
    assert!(folder.path().join("history.sqlite.damaged-1").exists());
    let mut history = opened.history;
    let after = night(&mut history, &visits[1]).0;
    assert_eq!(after[1].object_id, before[0].object_id);
    drop(history);
    assert_eq!(History::open(&path).unwrap().notice, None);
}

#[test]
fn a_damaged_history_without_a_backup_begins_anew_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.sqlite");
    std::fs::write(&path, vec![0x5A; 40_000]).unwrap();
    let opened = History::open(&path).unwrap();
    assert!(opened.notice.unwrap().contains("begins anew"));
    let names: Vec<String> =
        night(&mut { opened.history }, &three_visits()[0]).0.into_iter().map(|past| past.object_id).collect();
    let mut other = History::in_memory().unwrap();
    let same: Vec<String> = night(&mut other, &three_visits()[0]).0.into_iter().map(|past| past.object_id).collect();
    assert_eq!(names, same);
}

#[test]
fn another_programs_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.sqlite");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE cats (name TEXT); PRAGMA user_version = 5;").unwrap();
    drop(other);
    let message = History::open(&path).unwrap_err().to_string();
    assert!(message.contains("another program"), "{message}");
    assert!(path.exists());
}

#[test]
fn every_format_that_was_released_opens_and_keeps_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.sqlite");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/history/format-1.sqlite"), &path).unwrap();
    let opened = History::open(&path).unwrap();
    assert_eq!(opened.notice, None);
    let history = opened.history;
    let second = ExposureId::from_stored("20261124-200045");
    assert_eq!(history.ledger(&second).unwrap().unwrap().alerts, 24);
    let later = ExposureId::from_stored("20261124-210000");
    let question = Question { exposure: &later, jd: 2_461_369.4, days: 30.0, code: CODE, year: 2026 };
    let past = history.look_up(&[(46.438_672_869, 53.202_318_391)], &question).unwrap().remove(0);
    assert_eq!((past.object_id.as_str(), past.detections, past.epochs.len()), ("NJR26lyauujv", 3, 2));
}
