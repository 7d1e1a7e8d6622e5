//! Bits flipped, bytes zeroed and files cut, in every class of file that the spool keeps: nothing
//! damaged may pass for sound, nothing unsent for sent, and nothing may panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use nightjar::exposure::ExposureId;
use nightjar::spool::cursor::Cursor;
use nightjar::spool::inspect;
use nightjar::spool::store::{Store, read_small};
use nightjar::spool::{Aside, Message, Order, Spool, SpoolError, SpoolParameters};

use crate::alerts;
use crate::row::{Chance, Row, runs};
use crate::simulated_disk::{Lies, SimulatedDisk, Unsynced};

const FILES: [&str; 7] = [
    "ready/000000000003.seg",
    "ready/000000000004.seg",
    "cursor",
    "spool.json",
    "sent/000000000001.seg",
    "dead/000000000003-00001.seg",
    "delivery",
];

fn messages(name: &str) -> Vec<Message> {
    alerts::exposure(name, 5, 60)
}

/// Four exposures: two sent, one half sent with a refused record, one unsent.
fn sound() -> SimulatedDisk {
    let disk = SimulatedDisk::new(None, Lies::default());
    let spool = Spool::open_on(Arc::new(disk.clone()), SpoolParameters::default()).unwrap();
    for name in ["e1", "e2", "e3", "e4"] {
        spool.append(&ExposureId::from_stored(name), &messages(name)).unwrap();
    }
    spool.note_delivery("exactly-once").unwrap();
    spool.settle(&[(1, 5), (2, 5)], 0).unwrap();
    spool.bury(Aside { sequence: 3, number: 1 }, &messages("e3")[1], "too large").unwrap();
    spool.settle(&[(3, 2)], 0).unwrap();
    drop(spool);
    disk
}

fn damage(bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    let length = bytes.len() as u64;
    match chance.below(10) {
        0 => damaged.truncate(chance.below(length) as usize),
        1 => {
            let (at, more) = (chance.below(length) as usize, 1 + chance.below(64) as usize);
            let end = damaged.len().min(at + more);
            damaged[at..end].fill(0);
        }
        flips => {
            for _ in 0..flips.div_ceil(3) {
                let at = chance.below(length) as usize;
                damaged[at] ^= 1 << chance.below(8);
            }
        }
    }
    damaged
}

/// Whether the damage is none: the file still says the same, or is a sent exposure cut to its head.
fn harmless(name: &str, bytes: &[u8], damaged: &[u8]) -> bool {
    match name {
        "delivery" => true,
        "cursor" => Cursor::decode_file(damaged) == Cursor::decode_file(bytes),
        "spool.json" => {
            let read = |bytes: &[u8]| {
                let json: serde_json::Value = serde_json::from_slice(bytes).ok()?;
                Some((json["uuid"].as_str()?.to_lowercase(), json["opened"].as_u64()?, json["format"].as_u64()?))
            };
            read(damaged) == read(bytes)
        }
        _ => name.starts_with("sent/") && bytes.starts_with(damaged),
    }
}

/// What is wrong with a spool whose `file` was damaged, if anything.
fn fault(disk: &SimulatedDisk, file: &str, harmless: bool) -> Result<(), String> {
    // `nightjar spool verify` names the damage before anything is put in order.
    let noticed = match inspect::look(disk) {
        Err(_) => true,
        Ok(look) => {
            let beside = inspect::verify_beside(disk, &look).map_err(|e| e.to_string())?;
            let inside = look.exposures.values().any(|seen| inspect::verify(disk, seen).is_ok_and(|f| !f.is_empty()));
            !beside.is_empty() || inside || look.exposures.values().any(|seen| seen.exposure.is_empty())
        }
    };
    if !noticed && !harmless {
        return Err(format!("damage of {file} is not noticed"));
    }
    let spool = match Spool::open_on(Arc::new(disk.clone()), SpoolParameters::default()) {
        Ok(spool) => spool,
        Err(SpoolError::Newer { .. }) => return Ok(()),
        Err(error) => return Err(format!("it does not open: {error}")),
    };
    let mut waiting = BTreeMap::new();
    while let Some(next) = spool.next_waiting(Order::OldestFirst, &|s| waiting.contains_key(&s)) {
        waiting.insert(next.sequence, next);
    }
    let named = |name: &str| spool.findings().iter().any(|finding| finding.to_string().contains(name));
    for (sequence, name) in [(3, "e3"), (4, "e4")] {
        let file = format!("{sequence:012}.seg");
        let Some(here) = waiting.get(&sequence) else {
            if named(&file) || named(name) {
                continue;
            }
            return Err(format!("{name} was not sent and does not wait"));
        };
        let reader = spool.read(sequence).map_err(|e| e.to_string())?;
        for (number, wanted) in messages(name).iter().enumerate().skip(here.settled as usize) {
            if let Ok(message) = reader.record(number as u32)
                && message != *wanted
            {
                return Err(format!("record {number} of {name} is read and is wrong"));
            }
        }
        if here.settled > if sequence == 3 { 2 } else { 0 } {
            return Err(format!("{} records of {name} pass for sent", here.settled));
        }
    }
    Ok(())
}

#[test]
fn flipped_bits_and_cut_files_are_noticed_and_cost_only_what_they_touch() {
    let sound = sound();
    let files: Vec<(&str, Vec<u8>)> =
        FILES.iter().map(|name| (*name, read_small(&sound, name, 1 << 20).unwrap().unwrap())).collect();
    let (mut row, mut chance) = (Row::default(), Chance(0xfeed_f00d_1234_4321));
    for _ in runs(20_000, 1_000_000) {
        let (name, bytes) = chance.one_of(&files);
        let damaged = damage(bytes, &mut chance);
        if damaged == *bytes {
            continue;
        }
        let disk = sound.after_power_cut(Unsynced::Kept, u64::MAX, None);
        let mut file = disk.create(name, 0).unwrap();
        file.append(&damaged).unwrap();
        file.finish().unwrap();
        row.runs += 1;
        row.alerts += 8;
        if let Err(why) = fault(&disk, name, harmless(name, bytes, &damaged)) {
            row.corrupt += 1;
            row.first.get_or_insert(format!("{name}: {why}"));
        }
    }
    row.assert_clean("bits flipped, bytes zeroed, files cut, in every class of file");
}
