//! Promise: an exposure that the spool acknowledged survives a power cut at any moment, whole; one
//! that it did not acknowledge is whole or absent; nothing that was settled comes back as unsent.
//!
//! A disk in memory is cut at every step of a scenario, with every choice of what survives of the
//! unsynchronised bytes and names, and cut again while the spool recovers.

#[path = "support/simulated_disk.rs"]
mod simulated_disk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nightjar::exposure::ExposureId;
use nightjar::spool::{Finding, Message, Order, Spool, SpoolParameters};
use simulated_disk::{Lies, SimulatedDisk, UNSYNCED};

fn messages(exposure: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message {
            topic: format!("nightjar_20261124_programid{}", i % 2),
            key: format!("NJR{exposure}{i}").into_bytes(),
            headers: vec![("exposure".into(), exposure.as_bytes().to_vec())],
            payload: exposure.bytes().cycle().take(40 + 7 * i).collect(),
        })
        .collect()
}

fn expected() -> BTreeMap<String, Vec<Message>> {
    (1..=4).map(|n| (format!("e{n}"), messages(&format!("e{n}"), n))).collect()
}

/// What the world outside knows when the power fails.
#[derive(Default, Clone)]
struct Known {
    acknowledged: BTreeSet<String>,
    settling: BTreeSet<String>,
    settled: BTreeSet<String>,
}

fn open(disk: &SimulatedDisk) -> Option<Spool> {
    Spool::open_on(Arc::new(disk.clone()), SpoolParameters { keep_sent_hours: 0.0 }).ok()
}

/// An exposure; a restart; another one, sent; a third; all but the last sent and trimmed; a restart; a fourth.
fn scenario(disk: &SimulatedDisk) -> Known {
    let mut known = Known::default();
    let all = expected();
    let append = |spool: &Spool, known: &mut Known, name: &str| {
        if spool.append(&ExposureId::from_stored(name), &all[name]).is_ok() {
            known.acknowledged.insert(name.into());
        }
    };
    let settle = |spool: &Spool, known: &mut Known, name: &str| {
        let Some(sequence) = spool.holds(&ExposureId::from_stored(name)) else { return };
        known.settling.insert(name.into());
        if spool.settle(&[(sequence, all[name].len() as u32)], 0).is_ok() {
            known.settled.insert(name.into());
        }
    };
    let Some(spool) = open(disk) else { return known };
    append(&spool, &mut known, "e1");
    drop(spool);
    let Some(spool) = open(disk) else { return known };
    append(&spool, &mut known, "e2");
    settle(&spool, &mut known, "e2");
    append(&spool, &mut known, "e3");
    settle(&spool, &mut known, "e1");
    let _ = spool.trim(10);
    drop(spool);
    let Some(spool) = open(disk) else { return known };
    append(&spool, &mut known, "e4");
    known
}

/// What is unsent after the power came back, or why the promise is broken.
fn look(disk: &SimulatedDisk, known: &Known) -> Result<(), String> {
    let spool = Spool::open_on(Arc::new(disk.clone()), SpoolParameters::default()).map_err(|e| e.to_string())?;
    if let Some(gap) = spool.findings().iter().find(|f| !matches!(f, Finding::Unfinished(_))) {
        return Err(gap.to_string());
    }
    let mut unsent = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(waiting) = spool.next_waiting(Order::NewestFirst, &|s| seen.contains(&s)) {
        seen.insert(waiting.sequence);
        let reader = spool.read(waiting.sequence).map_err(|e| e.to_string())?;
        let records: Result<Vec<_>, _> = (0..waiting.count).map(|i| reader.record(i)).collect();
        let records = records.map_err(|e| format!("{}: {e}", waiting.exposure))?;
        if unsent.insert(waiting.exposure.clone(), records).is_some() {
            return Err(format!("{} is there twice", waiting.exposure));
        }
    }
    for (name, wanted) in expected() {
        let here = unsent.get(&name);
        if here.is_some_and(|records| *records != wanted) {
            return Err(format!("{name} is not what was written"));
        }
        if known.acknowledged.contains(&name) && !known.settling.contains(&name) && here.is_none() {
            return Err(format!("{name} was acknowledged and is lost"));
        }
        if known.settled.contains(&name) && here.is_some() {
            return Err(format!("{name} was settled and would be sent twice"));
        }
        let again = spool.append(&ExposureId::from_stored(name.as_str()), &wanted);
        if known.acknowledged.contains(&name) && again.is_ok() {
            return Err(format!("{name} was acknowledged and taken a second time"));
        }
    }
    Ok(())
}

fn choices_of_names(pending: usize) -> Vec<u64> {
    match pending {
        0..=5 => (0..1 << pending).collect(),
        _ => (0..=pending.min(62)).map(|kept| (1 << kept) - 1).collect(),
    }
}

/// Cuts the power everywhere; gives how many disks were looked at, and the broken promises.
fn every_power_cut(lies: Lies) -> (usize, Vec<String>) {
    let whole = SimulatedDisk::new(None, lies);
    scenario(&whole);
    let (mut looked, mut broken) = (0, Vec::new());
    for cut in 1..=whole.steps() {
        let disk = SimulatedDisk::new(Some(cut), lies);
        let known = scenario(&disk);
        for unsynced in UNSYNCED {
            for names in choices_of_names(disk.pending_names()) {
                let after = disk.after_power_cut(unsynced, names, None);
                looked += 1;
                if let Err(why) = look(&after, &known) {
                    broken.push(format!("cut at step {cut}, bytes {unsynced:?}, names {names:b}: {why}"));
                }
            }
        }
    }
    (looked, broken)
}

#[test]
fn what_was_acknowledged_is_there_after_any_power_cut() {
    let (looked, broken) = every_power_cut(Lies::default());
    println!("{looked} disks looked at");
    assert!(looked > 500, "the scenario is too short: {looked} disks");
    assert!(broken.is_empty(), "{} of {looked} broken, the first: {}", broken.len(), broken[0]);
}

#[test]
fn a_second_power_cut_during_recovery_changes_nothing() {
    let whole = SimulatedDisk::new(None, Lies::default());
    scenario(&whole);
    for cut in 1..=whole.steps() {
        let disk = SimulatedDisk::new(Some(cut), Lies::default());
        let known = scenario(&disk);
        for (unsynced, names) in [(UNSYNCED[0], 0), (UNSYNCED[1], u64::MAX), (UNSYNCED[3], u64::MAX)] {
            let recovering = disk.after_power_cut(unsynced, names, None);
            drop(open(&recovering));
            for second in 1..=recovering.steps() {
                let disk = disk.after_power_cut(unsynced, names, Some(second));
                drop(open(&disk));
                for (unsynced, names) in [(UNSYNCED[0], 0), (UNSYNCED[1], u64::MAX)] {
                    let after = disk.after_power_cut(unsynced, names, None);
                    look(&after, &known).unwrap_or_else(|why| panic!("cut at {cut}, again at {second}: {why}"));
                }
            }
        }
    }
}

#[test]
fn a_disk_that_lies_about_files_is_found_out_by_this_test() {
    let (_, broken) = every_power_cut(Lies { files: true, folders: false });
    assert!(broken.iter().any(|why| why.contains("e1")), "without fsync something must break");
}

#[test]
fn a_disk_that_lies_about_names_is_found_out_by_this_test() {
    let (_, broken) = every_power_cut(Lies { files: false, folders: true });
    assert!(broken.iter().any(|why| why.contains("lost")), "without fsync of the folder something must be lost");
}

#[test]
fn any_single_failing_write_loses_nothing_that_was_acknowledged() {
    let whole = SimulatedDisk::new(None, Lies::default());
    scenario(&whole);
    for fail in 1..=whole.steps() {
        let disk = SimulatedDisk::failing(fail);
        let known = scenario(&disk);
        let after = disk.after_power_cut(UNSYNCED[0], 0, None);
        look(&after, &known).unwrap_or_else(|why| panic!("step {fail} failed: {why}"));
    }
}
