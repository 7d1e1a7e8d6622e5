//! A backlog of 40 GB: memory stays where it was, and the start is quick. Alerts of zeros in files
//! with holes take little of the disk; the sender cannot tell.

use std::any::Any;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nightjar::exposure::ExposureId;
use nightjar::service::clock::Stopwatch;
use nightjar::spool::disk::Disk;
use nightjar::spool::store::{Entry, Reading, Room, Store, Writing};
use nightjar::spool::{Message, Spool, SpoolParameters};

use crate::alerts;
use crate::kafka::Kafka;
use crate::row::{Row, long};
use crate::sender::{Job, Sender};

/// A folder whose new files have holes where zeros were written.
struct SparseDisk {
    disk: Disk,
    root: PathBuf,
}

struct Sparse {
    file: File,
    length: u64,
}

impl Writing for Sparse {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(4096) {
            if piece.iter().all(|b| *b == 0) {
                self.file.seek(SeekFrom::Current(piece.len() as i64))?;
            } else {
                self.file.write_all(piece)?;
            }
            self.length += piece.len() as u64;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.file.set_len(self.length)
    }
}

impl Store for SparseDisk {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.make_folder(folder)
    }
    fn create(&self, name: &str, _bytes: u64) -> io::Result<Box<dyn Writing>> {
        Ok(Box::new(Sparse { file: File::create(self.root.join(name))?, length: 0 }))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn Reading>> {
        self.disk.open(name)
    }
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.disk.cut(name, bytes)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_folder(&self, _folder: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.disk.list(folder)
    }
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.disk.lock(name)
    }
    fn room(&self) -> io::Result<Room> {
        // Whatever the disk of this test says: nothing is trimmed, nothing refused.
        Ok(Room { total_bytes: 1 << 50, free_bytes: 1 << 49, total_files: 0, free_files: 0 })
    }
    fn place(&self) -> String {
        self.disk.place()
    }
}

/// Resident memory of a process and its highest so far, MB.
fn memory(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    (field("VmRSS:").unwrap_or(0.0) / 1024.0, field("VmHWM:").unwrap_or(0.0) / 1024.0)
}

fn fill(folder: &Path, exposures: u32) -> u64 {
    let store = SparseDisk { disk: Disk::at(folder), root: folder.to_owned() };
    let spool = Spool::open_on(Arc::new(store), SpoolParameters { keep_sent_hours: 0.0 }).unwrap();
    let zeros = |number: u32| Message {
        topic: alerts::TOPIC.into(),
        key: format!("NJR26zeros{number}").into_bytes(),
        headers: Vec::new(),
        payload: vec![0; 60_000],
    };
    let messages: Vec<Message> = (0..1000).map(zeros).collect();
    (0..exposures).map(|n| spool.append(&ExposureId::from_stored(format!("x{n}")), &messages).unwrap().bytes).sum()
}

#[test]
fn memory_does_not_follow_the_backlog() {
    let Some(kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let job = |name: &str| {
        let mut job = Job::new(&folder.path().join(name), &kafka.bootstrap(), name);
        (job.backlog, job.most_transaction_bytes, job.transaction_timeout_s) = (0, 64_000_000, 600);
        job
    };
    // What a sender takes that has nothing to send.
    let idle = Sender::start(&job("idle"));
    assert!(idle.wait(60.0, |s| s.sessions() > 0), "{:?}", idle.troubles());
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (_, before) = memory(idle.pid());
    drop(idle);

    let exposures = if long() { 680 } else { 12 };
    let bytes = fill(&folder.path().join("full"), exposures);
    let sender = Sender::start(&job("full"));
    assert!(sender.wait(120.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    let opened = sender.opened_s().unwrap();
    let watch = Stopwatch::start();
    let unsent = || std::fs::read_dir(folder.path().join("full/ready")).unwrap().count();
    let patience = if long() { 900.0 } else { 60.0 };
    while unsent() > 0 && watch.seconds() < patience {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let (now, highest) = memory(sender.pid());
    println!(
        "backlog of {:.1} GB in {exposures} exposures: opened in {opened:.3} s; {} of them sent in {:.0} s; memory {before:.0} MB idle, {now:.0} MB now, {highest:.0} MB at most",
        bytes as f64 / 1e9,
        exposures as usize - unsent(),
        watch.seconds()
    );
    let row = Row { runs: 1, alerts: u64::from(exposures) * 1000, ..Row::default() };
    row.print("backlog of 40 GB (0.7 GB in the tests): memory flat");
    assert!(highest - before < 64.0 + 50.0, "memory grew by {:.0} MB", highest - before);
    if !long() {
        assert_eq!(unsent(), 0, "{:?}", sender.troubles());
    }
}
