//! Promise: a damaged byte is always noticed, costs at most the records it touches, and no damage,
//! however malicious, makes the spool read wrong messages, panic, or take memory without bound.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "support/simulated_disk.rs"]
mod simulated_disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nightjar::exposure::ExposureId;
use nightjar::spool::disk::Disk;
use nightjar::spool::format::{self, Footer, Head};
use nightjar::spool::inspect::{self, Place};
use nightjar::spool::segment::{self, SegmentReader};
use nightjar::spool::store::{Store, Writing};
use nightjar::spool::{Epoch, Finding, Message, Order, Spool, SpoolError, SpoolParameters};
use proptest::prelude::*;
use simulated_disk::{Lies, SimulatedDisk};

fn golden_messages() -> Vec<Message> {
    let exposure = b"20261124-031522.120".to_vec();
    let message = |topic: &str, key: &str, headers: Vec<(String, Vec<u8>)>, payload: Vec<u8>| Message {
        topic: format!("nightjar_20261124_programid{topic}"),
        key: key.into(),
        headers,
        payload,
    };
    vec![
        message(
            "1",
            "NJR26aaaaaaa",
            vec![("exposure".into(), exposure), ("version".into(), b"0.1.0".to_vec())],
            b"Obj\x01 first".to_vec(),
        ),
        message("2", "NJR26aaaaaab", vec![], vec![]),
        message("1", "", vec![("empty".into(), vec![])], (0..=255).collect()),
    ]
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/spool")
}

#[derive(Default)]
struct Bytes(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Writing for Bytes {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_released_format_still_opens() {
    let mut seen = 0;
    for entry in fs::read_dir(testdata()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".seg") {
            continue;
        }
        let reader = SegmentReader::open(&Disk::at(&testdata()), &name).unwrap();
        assert_eq!(reader.verify().unwrap(), Vec::<String>::new());
        let messages: Vec<Message> = (0..reader.head().count).map(|n| reader.record(n).unwrap()).collect();
        assert_eq!(messages, golden_messages(), "{name}");
        assert_eq!((reader.head().sequence, reader.head().epoch.to_string().as_str()), (412, "12-9f3a77c1"));
        seen += 1;
    }
    assert_eq!(seen, usize::from(format::VERSION));
}

#[test]
fn what_is_written_is_the_golden_bytes() {
    let golden = fs::read(testdata().join("format-1.seg")).unwrap();
    let head = Head::decode(&golden).unwrap();
    let (head, topics) =
        segment::head_for(head.spool, Epoch(12 << 32 | 0x9f3a77c1), 412, "20261124-031522.120", &golden_messages());
    let mut out = Bytes::default();
    let written = segment::write(&mut out, &head, &topics, &golden_messages()).unwrap();
    let bytes = out.0.lock().unwrap().clone();
    assert_eq!(written, bytes.len() as u64);
    assert!(bytes == golden, "the writer no longer makes format {}", format::VERSION);
}

/// A spool with one exposure, its file open to damage.
struct Patient {
    folder: tempfile::TempDir,
    file: PathBuf,
    bytes: Vec<u8>,
}

fn patient() -> Patient {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), SpoolParameters::default()).unwrap();
    let receipt = spool.append(&ExposureId::from_stored("e1"), &golden_messages()).unwrap();
    let file = folder.path().join("ready").join(segment::file_name(receipt.sequence));
    let bytes = fs::read(&file).unwrap();
    Patient { folder, file, bytes }
}

/// What can still be read: the right messages, by number. Wrong ones are a failure of the promise.
fn readable(folder: &Path) -> Result<Vec<u32>, SpoolError> {
    let spool = Spool::open(folder, SpoolParameters::default())?;
    let Some(waiting) = spool.next_waiting(Order::NewestFirst, &|_| false) else { return Ok(Vec::new()) };
    let reader = spool.read(waiting.sequence)?;
    let golden = golden_messages();
    Ok((0..waiting.count)
        .filter(|number| match reader.record(*number) {
            Ok(message) => {
                assert_eq!(message, golden[*number as usize], "a damaged record was taken for a good one");
                true
            }
            Err(_) => false,
        })
        .collect())
}

#[test]
fn any_flipped_bit_is_noticed_and_costs_at_most_the_record_it_is_in() {
    let patient = patient();
    let store = Disk::at(patient.folder.path());
    let offsets = {
        let reader = store.open("ready/000000000001.seg").unwrap();
        segment::read_footer(&*reader).unwrap().offsets
    };
    let end =
        patient.bytes.len() - Footer { offsets: offsets.clone(), checks: 0, head: head_of(&patient) }.encode(0).len();
    for at in 0..patient.bytes.len() {
        let mut bytes = patient.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&patient.file, &bytes).unwrap();
        let seen = inspect::look(&store).unwrap();
        let faults = inspect::verify(&store, &seen.exposures[&1]).unwrap();
        assert!(!faults.is_empty(), "byte {at} was flipped and not noticed");
        let touched = offsets.iter().rposition(|o| *o as usize <= at).filter(|_| at < end);
        let expected: Vec<u32> = (0..3).filter(|n| Some(*n as usize) != touched).collect();
        assert_eq!(readable(patient.folder.path()).unwrap(), expected, "byte {at}");
    }
}

fn head_of(patient: &Patient) -> Head {
    Head::decode(&patient.bytes).unwrap()
}

#[test]
fn a_file_cut_anywhere_gives_what_is_whole_in_it() {
    let patient = patient();
    for length in 0..patient.bytes.len() {
        fs::write(&patient.file, &patient.bytes[..length]).unwrap();
        let numbers = readable(patient.folder.path()).unwrap();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32), "cut at {length}: {numbers:?}");
        // What could not be read at all was set aside: put the file back for the next cut.
        let _ = fs::remove_file(patient.folder.path().join("quarantine/000000000001.seg"));
        let _ = fs::remove_file(patient.folder.path().join("cursor"));
    }
}

#[test]
fn a_file_that_is_no_segment_is_set_aside_and_named() {
    let patient = patient();
    fs::write(&patient.file, vec![0; 4096]).unwrap();
    let spool = Spool::open(patient.folder.path(), SpoolParameters::default()).unwrap();
    assert!(matches!(spool.findings(), [Finding::Unreadable { .. }]), "{:?}", spool.findings());
    assert_eq!(spool.status().waiting_exposures, 0);
    assert!(patient.folder.path().join("quarantine/000000000001.seg").exists());
    assert_eq!(inspect::look(&Disk::at(patient.folder.path())).unwrap().quarantined, ["000000000001.seg"]);
}

#[test]
fn a_segment_of_another_spool_is_not_sent() {
    let patient = patient();
    let other = tempfile::tempdir().unwrap();
    drop(Spool::open(other.path(), SpoolParameters::default()).unwrap());
    fs::copy(&patient.file, other.path().join("ready/000000000001.seg")).unwrap();
    let spool = Spool::open(other.path(), SpoolParameters::default()).unwrap();
    assert!(spool.findings()[0].to_string().contains("number 1 of spool"), "{:?}", spool.findings());
    assert_eq!(spool.status().waiting_exposures, 0);
}

#[test]
fn a_newer_format_is_refused_politely_and_left_alone() {
    let patient = patient();
    let mut bytes = patient.bytes.clone();
    bytes[8] = 2;
    let check = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&check);
    fs::write(&patient.file, &bytes).unwrap();
    let error = Spool::open(patient.folder.path(), SpoolParameters::default()).err().unwrap();
    assert!(error.to_string().contains("newer version of nightjar"), "{error}");
    assert_eq!(fs::read(&patient.file).unwrap(), bytes);
}

#[test]
fn a_missing_number_is_named_and_never_skipped_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), SpoolParameters::default()).unwrap();
    for name in ["e1", "e2", "e3"] {
        spool.append(&ExposureId::from_stored(name), &golden_messages()).unwrap();
    }
    drop(spool);
    fs::remove_file(folder.path().join("ready/000000000002.seg")).unwrap();
    let spool = Spool::open(folder.path(), SpoolParameters::default()).unwrap();
    assert_eq!(spool.findings(), [Finding::Gap { first: 2, last: 2 }]);
    assert_eq!(spool.status().missing, 1);
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Spool::open(folder.path(), SpoolParameters::default()).unwrap();
    let second = Spool::open(folder.path(), SpoolParameters::default());
    assert!(matches!(second, Err(SpoolError::Locked(_))));
}

#[test]
fn a_lost_spool_json_is_found_again_in_the_segments() {
    let patient = patient();
    let uuid = head_of(&patient).spool;
    for damage in [None, Some("{")] {
        let file = patient.folder.path().join("spool.json");
        fs::remove_file(&file).unwrap();
        if let Some(text) = damage {
            fs::write(&file, text).unwrap();
        }
        let spool = Spool::open(patient.folder.path(), SpoolParameters::default()).unwrap();
        assert_eq!(spool.uuid(), uuid);
        assert_eq!(spool.findings(), [Finding::Identity(uuid)]);
    }
}

#[test]
fn a_repeated_exposure_is_recognised_even_when_it_was_sent_and_trimmed() {
    // A disk with room: the spool trims earlier where there is little.
    let disk = SimulatedDisk::new(None, Lies::default());
    let id = ExposureId::from_stored("e1");
    let spool = Spool::open_on(Arc::new(disk.clone()), SpoolParameters { keep_sent_hours: 1.0 }).unwrap();
    let receipt = spool.append(&id, &golden_messages()).unwrap();
    spool.settle(&[(receipt.sequence, 3)], 1000).unwrap();
    let whole = spool.status().sent_bytes;
    spool.trim(1000 + 3599).unwrap();
    assert_eq!(spool.status().sent_bytes, whole);
    spool.trim(1000 + 3600).unwrap();
    assert!(spool.status().sent_bytes < whole / 2 && spool.status().sent_exposures == 0);
    drop(spool);
    let spool = Spool::open_on(Arc::new(disk.clone()), SpoolParameters::default()).unwrap();
    assert!(matches!(spool.append(&id, &golden_messages()), Err(SpoolError::Twin { sequence: 1, .. })));
    let look = inspect::look(&disk).unwrap();
    assert_eq!(look.exposures[&1].place, Place::Trimmed);
}

#[test]
fn what_is_refused_can_be_sent_again_once() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), SpoolParameters::default()).unwrap();
    spool.append(&ExposureId::from_stored("e1"), &golden_messages()).unwrap();
    let at = nightjar::spool::Aside { sequence: 1, number: 2 };
    spool.bury(at, &golden_messages()[2], "too large").unwrap();
    spool.settle(&[(1, 3)], 0).unwrap();
    let store = Disk::at(folder.path());
    assert_eq!(inspect::look(&store).unwrap().dead[0].reason, "too large");
    inspect::ask_to_retry(&store, inspect::Again::Dead(at)).unwrap();
    assert_eq!(spool.retry_what_was_asked_for().unwrap(), 1);
    assert_eq!(spool.retry_what_was_asked_for().unwrap(), 0);
    let waiting = spool.next_waiting(Order::NewestFirst, &|_| false).unwrap();
    assert_eq!(spool.read(waiting.sequence).unwrap().record(0).unwrap(), golden_messages()[2]);
    assert_eq!((waiting.count, spool.status().dead), (1, 0));
    assert!(inspect::look(&store).unwrap().dead.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_at_all_are_an_error_or_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Head::decode(&bytes);
        let _ = Footer::decode(&bytes, bytes.len() as u64);
        let _ = format::decode_record(&bytes, 0, &["t".to_owned()]);
    }

    /// Damage whose checksums were made to fit: lengths are still held in bounds.
    #[test]
    fn a_forged_record_is_an_error_or_a_message(
        mut bytes in proptest::collection::vec(any::<u8>(), 20..300),
        key in 0_u16..400,
        headers in 0_u32..400,
    ) {
        let length = (bytes.len() as u32).to_le_bytes();
        bytes[0..4].copy_from_slice(&length);
        bytes[4..6].copy_from_slice(&[0, 0]);
        bytes[6..8].copy_from_slice(&key.to_le_bytes());
        bytes[8..12].copy_from_slice(&headers.to_le_bytes());
        bytes[12..16].copy_from_slice(&[0; 4]);
        let check = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..]);
        bytes[16..20].copy_from_slice(&check.to_le_bytes());
        if let Ok((message, _)) = format::decode_record(&bytes, 0, &["t".to_owned()]) {
            prop_assert!(message.key.len() + message.payload.len() <= bytes.len());
        }
    }

    #[test]
    fn any_message_reads_back_as_it_was_written(
        key in proptest::collection::vec(any::<u8>(), 0..50),
        payload in proptest::collection::vec(any::<u8>(), 0..2000),
        headers in proptest::collection::vec(("[a-z]{0,12}", proptest::collection::vec(any::<u8>(), 0..40)), 0..5),
    ) {
        let message = Message { topic: "t".into(), key, headers, payload };
        let mut bytes = Vec::new();
        let check = format::encode_record(&mut bytes, 7, 0, &message);
        prop_assert_eq!(bytes.len(), format::record_length(&message));
        prop_assert_eq!(format::decode_record(&bytes, 7, &["t".to_owned()]).unwrap(), (message, check));
    }
}
