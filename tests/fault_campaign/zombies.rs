//! Two that believe to be the same: a sender that is stopped while a copy of its spool sends, and
//! goes on afterwards; and a spool that is put back from a snapshot.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::kafka::Kafka;
use crate::oracle::Oracle;
use crate::row::{Chance, Row, runs};
use crate::sender::{BYTES, COUNT, Job, Sender};

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_stopped_sender_whose_copy_sent_meanwhile_goes_on() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "z");
    let mut sender = Sender::start(&job);
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let (mut row, mut chance) = (Row::default(), Chance(0x0b0e_0b0e_0b0e_0b0e));
    assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    for run in runs(3, 100) {
        std::thread::sleep(chance.ms(200, 1200));
        sender.signal(Signal::SIGSTOP);
        // On the same spool nobody else is let in.
        let second = Sender::start(&Job { name: format!("s{run}"), ..job.clone() });
        assert!(second.wait(20.0, |s| s.refused().is_some()), "a second process was let into the spool");
        drop(second);
        let copied = folder.path().join(format!("copy{run}"));
        copy(&job.spool, &copied);
        let mut other = Sender::start(&Job { spool: copied.clone(), name: format!("o{run}"), ..job.clone() });
        assert!(other.wait(60.0, |s| s.sessions() > 0 && s.acknowledged().len() > 2), "{:?}", other.troubles());
        std::thread::sleep(chance.ms(0, 800));
        if run % 2 == 0 {
            assert!(other.finish(), "{:?}", other.troubles());
            oracle.owe(&other.names());
            sender.signal(Signal::SIGCONT);
        } else {
            // Both at once, each fencing the other.
            sender.signal(Signal::SIGCONT);
            std::thread::sleep(chance.ms(300, 1500));
            assert!(other.finish(), "{:?}", other.troubles());
            oracle.owe(&other.names());
        }
        std::thread::sleep(chance.ms(100, 600));
        oracle.owe(&sender.names());
        oracle.check(120.0, &mut row);
        std::fs::remove_dir_all(&copied).unwrap();
    }
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(60.0, &mut row);
    row.runs -= 1;
    row.assert_clean("zombies: SIGSTOP, a copy of the spool sends, SIGCONT");
}

#[test]
fn a_spool_that_is_put_back_from_a_snapshot_goes_on() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "");
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let (mut row, mut chance) = (Row::default(), Chance(0x5a5a_1234_0000_ffff));
    let snapshot = folder.path().join("snapshot");
    for run in runs(3, 100) {
        job.name = format!("r{run}");
        let mut sender = Sender::start(&job);
        assert!(sender.wait(60.0, |s| s.sessions() > 0 && s.acknowledged().len() > 3), "{:?}", sender.troubles());
        sender.signal(Signal::SIGSTOP);
        copy(&job.spool, &snapshot);
        sender.signal(Signal::SIGCONT);
        std::thread::sleep(chance.ms(200, 1500));
        assert!(sender.finish(), "{:?}", sender.troubles());
        oracle.owe(&sender.names());
        std::fs::remove_dir_all(&job.spool).unwrap();
        std::fs::rename(&snapshot, &job.spool).unwrap();
        oracle.check(60.0, &mut row);
    }
    row.assert_clean("a spool put back from a snapshot");
}
