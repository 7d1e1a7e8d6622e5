//! The spool alone: processes killed, power cut, disks filled. A writer process fills a spool and
//! says on a pipe what was acknowledged and what was settled; whatever kills it, the spool is then
//! opened and every byte compared: acknowledged and not settled must be there, whole; settled must
//! not come again. Alerts are functions of their names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nightjar::exposure::ExposureId;
use nightjar::spool::{Finding, Order, Spool, SpoolError, SpoolParameters};

use crate::alerts;
use crate::careless_disk::{Care, CarelessDisk};
use crate::loop_disk::LoopDisk;
use crate::row::{Chance, Row, not_run, runs};

const COUNT: u32 = 12;
const BYTES: usize = 3000;
/// Exposures of a writer that is not killed.
const EXPOSURES: u32 = 7;

/// What the writer said.
#[derive(Debug, Default, Clone)]
pub struct Said {
    acknowledged: BTreeSet<String>,
    settling: BTreeSet<String>,
    settled: BTreeSet<String>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        // A line may follow the test harness's own words.
        for (word, names) in [
            ("acknowledged ", &mut self.acknowledged),
            ("settling ", &mut self.settling),
            ("settled ", &mut self.settled),
        ] {
            if let Some((_, name)) = line.split_once(word).filter(|(_, name)| name.ends_with('.')) {
                names.insert(name.trim_end_matches('.').to_owned());
            }
        }
    }
}

fn parameters() -> SpoolParameters {
    SpoolParameters { keep_sent_hours: 0.0 }
}

/// Not a test of its own: fills a spool until it is killed. Every third exposure it settles the
/// newest, as the uplink does.
#[test]
fn writer() {
    let Ok(job) = std::env::var("NIGHTJAR_TEST_WRITER") else { return };
    let (folder, care) = job.rsplit_once(' ').unwrap();
    let (care, limited) = care.strip_suffix("-limited").map_or((care, false), |care| (care, true));
    let care: Care = care.parse().unwrap();
    let mut out = std::io::stdout();
    let mut say = |what: &str, name: &str| {
        out.write_all(format!("{what} {name}.\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    let Ok(spool) = Spool::open_on(Arc::new(CarelessDisk::at(Path::new(folder), care)), parameters()) else { return };
    for n in 0..if limited { EXPOSURES } else { u32::MAX } {
        let name = format!("{}-{n}", spool.epoch());
        if care == Care::AcknowledgeEarly {
            say("acknowledged", &name);
        }
        // What fails is tried once more, as a frame that waits is.
        let messages = alerts::exposure(&name, COUNT, BYTES);
        let append = || spool.append(&ExposureId::from_stored(name.as_str()), &messages);
        match append().or_else(|_| append()) {
            Ok(_) => say("acknowledged", &name),
            Err(_) if limited => continue,
            Err(_) => return,
        }
        if n % 3 == 2 {
            let Some(newest) = spool.next_waiting(Order::NewestFirst, &|_| false) else { continue };
            say("settling", &newest.exposure);
            if spool.settle(&[(newest.sequence, newest.count)], 0).is_err() {
                if limited {
                    continue;
                }
                return;
            }
            say("settled", &newest.exposure);
            let _ = spool.trim(1);
        }
    }
}

/// Runs the writer for a moment, lets `fault` strike, and hears what was said before.
fn write_until(folder: &Path, care: Care, after: Duration, fault: impl FnOnce(), said: &mut Said) {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "spool::writer", "--nocapture", "--test-threads", "1"])
        .env("NIGHTJAR_TEST_WRITER", format!("{} {care:?}", folder.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = writer.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut said = Said::default();
        BufReader::new(out).lines().map_while(Result::ok).for_each(|line| said.hear(&line));
        said
    });
    std::thread::sleep(after);
    fault();
    writer.kill().unwrap();
    writer.wait().unwrap();
    let heard = reader.join().unwrap();
    said.acknowledged.extend(heard.acknowledged);
    said.settling.extend(heard.settling);
    said.settled.extend(heard.settled);
}

/// Lets a writer of a few exposures come to its end, with these further variables.
pub fn write_to_the_end(folder: &Path, variables: &[(&str, String)]) -> Said {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "spool::writer", "--nocapture", "--test-threads", "1"])
        .env("NIGHTJAR_TEST_WRITER", format!("{} Careful-limited", folder.display()))
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let mut said = Said::default();
    String::from_utf8_lossy(&output.stdout).lines().for_each(|line| said.hear(line));
    said
}

/// Compares the spool with what is owed.
pub fn judge(folder: &Path, said: &Said, row: &mut Row) {
    row.runs += 1;
    let mut fault = |count: &mut u64, by: u64, what: String| {
        *count += by;
        row.first.get_or_insert(what);
    };
    let spool = match Spool::open(folder, parameters()) {
        Ok(spool) => spool,
        Err(error) => {
            let owed = said.acknowledged.difference(&said.settling).count() as u64;
            return fault(&mut row.lost, owed * u64::from(COUNT), error.to_string());
        }
    };
    for finding in spool.findings() {
        if !matches!(finding, Finding::Unfinished(_)) {
            fault(&mut row.corrupt, 1, finding.to_string());
        }
    }
    let mut unsent: BTreeMap<String, u32> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(waiting) = spool.next_waiting(Order::OldestFirst, &|s| seen.contains(&s)) {
        seen.insert(waiting.sequence);
        let good = match spool.read(waiting.sequence) {
            Ok(reader) => (0..waiting.count)
                .filter(|n| reader.record(*n).is_ok_and(|m| m == alerts::alert(&waiting.exposure, *n, BYTES)))
                .count() as u32,
            Err(_) => 0,
        };
        if good != COUNT {
            fault(&mut row.corrupt, u64::from(COUNT - good), format!("{} is damaged", waiting.exposure));
        }
        *unsent.entry(waiting.exposure).or_default() += 1;
    }
    for name in &said.acknowledged {
        row.alerts += u64::from(COUNT);
        match unsent.get(name).copied().unwrap_or(0) {
            0 if !said.settling.contains(name) => {
                fault(&mut row.lost, u64::from(COUNT), format!("{name} was acknowledged and is lost"));
            }
            n if n > 1 || (n == 1 && said.settled.contains(name)) => {
                fault(&mut row.doubled, u64::from(COUNT), format!("{name} would be sent again"));
            }
            _ => {}
        }
    }
}

fn sigkill(runs: impl Iterator<Item = u32>, care: Care) -> Row {
    let mut row = Row::default();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut folder = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    for run in runs {
        if run % 40 == 0 {
            (folder, said) = (tempfile::tempdir().unwrap(), Said::default());
        }
        let after = Duration::from_micros(5_000 + chance.below(60_000));
        write_until(folder.path(), care, after, || (), &mut said);
        judge(folder.path(), &said, &mut row);
    }
    row
}

/// Power cuts of a real ext4: the file system is shut down without writing its journal, and
/// mounted again. `None` where this machine has no loop devices for us.
fn power_cut(runs: impl Iterator<Item = u32>, care: Care) -> Option<Row> {
    let mut row = Row::default();
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    let mut disk = LoopDisk::new(192)?;
    let mut said = Said::default();
    for run in runs {
        if run % 20 == 0 {
            disk.format();
            said = Said::default();
        }
        let after = Duration::from_micros(10_000 + chance.below(150_000));
        let folder = disk.folder().join("spool");
        write_until(&folder, care, after, || disk.shut_down(), &mut said);
        disk.mount_again();
        judge(&folder, &said, &mut row);
    }
    Some(row)
}

/// Fills a small ext4 to the brim, with exposures and with other people's files, bytes or inodes.
fn full_disk(runs: impl Iterator<Item = u32>) -> Option<Row> {
    let mut row = Row::default();
    let mut chance = Chance(0x1234_5678_9abc_def1);
    let mut disk = LoopDisk::new(64)?;
    for run in runs {
        disk.format();
        let folder = disk.folder().join("spool");
        let spool = Spool::open(&folder, parameters()).unwrap();
        let mut said = Said::default();
        let mut append = |name: &str, bytes: usize, said: &mut Said| {
            let messages = alerts::exposure(name, COUNT, bytes);
            let reserved = spool.reserve(chance.below(200_000));
            let done = reserved.and_then(|r| spool.commit(r, &ExposureId::from_stored(name), &messages));
            match done {
                Ok(_) => assert!(said.acknowledged.insert(name.into())),
                Err(SpoolError::Full { .. }) => return false,
                Err(error) => panic!("a full disk is no defect: {error}"),
            }
            true
        };
        let ballast = disk.folder().join("ballast");
        if run % 2 == 0 {
            std::fs::write(&ballast, vec![1; 30 << 20]).unwrap();
        } else {
            std::fs::create_dir(&ballast).unwrap();
            for n in 0.. {
                if std::fs::write(ballast.join(n.to_string()), "").is_err() {
                    break;
                }
            }
        }
        let mut n = 0;
        while append(&format!("e{n}"), BYTES, &mut said) {
            n += 1;
        }
        // Somebody makes room: exposures are taken again without a hand.
        let _ = std::fs::remove_file(&ballast);
        let _ = std::fs::remove_dir_all(&ballast);
        assert!(append("after", BYTES, &mut said), "there is room again and nothing is taken");
        drop(spool);
        judge(&folder, &said, &mut row);
    }
    Some(row)
}

#[test]
fn sigkill_at_any_microsecond() {
    sigkill(runs(40, 5000), Care::Careful).assert_clean("SIGKILL of the writer at a random µs");
}

#[test]
fn power_cuts_of_ext4() {
    let title = "power cut: ext4 shut down without its journal";
    match power_cut(runs(10, 1000), Care::Careful) {
        Some(row) => row.assert_clean(title),
        None => not_run(title, "needs root and loop devices"),
    }
}

#[test]
fn a_disk_that_is_full() {
    let title = "full disk: bytes, inodes, in mid-commit";
    match full_disk(runs(4, 200)) {
        Some(row) => row.assert_clean(title),
        None => not_run(title, "needs root and loop devices"),
    }
}

#[test]
fn control_acknowledging_early_is_found_out() {
    let row = sigkill(runs(40, 500), Care::AcknowledgeEarly);
    row.print("control: acknowledged before it is written");
    assert!(row.lost > 0, "{row:?}");
}

#[test]
fn control_without_fsync_is_found_out() {
    let Some(row) = power_cut(runs(10, 40), Care::NoSync) else { return };
    row.print("control: files and folders not synchronised");
    assert!(row.lost + row.corrupt > 0, "{row:?}");
}

#[test]
fn control_without_fsync_of_the_folder_is_found_out() {
    // Rare enough to need many cuts: short runs cannot promise to see it.
    if !crate::row::long() {
        return;
    }
    let Some(row) = power_cut(runs(0, 200), Care::NoFolderSync) else { return };
    row.print("control: folders not synchronised");
    assert!(row.lost + row.corrupt > 0, "{row:?}");
}
