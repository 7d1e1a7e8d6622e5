//! A night on an installed host: the camera unplugged three times, the broker away half of it, one stage that
//! stalls, one SIGKILL, one reboot. Every exposure of the camera is in the ledger, with alerts or a reason;
//! every alert is on real Kafka once; memory does not grow.
//!
//! Here it takes two minutes. With `NIGHTJAR_CAMPAIGN=1` (`make campaign`) it is two hours at real pace: 160 exposures
//! of 1024×1024, one every 45 s. `NIGHTJAR_NIGHT=80x20` makes 80, one every 20 s.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod appliance;
    pub mod host;
    pub mod kafka;
    pub mod night;
}

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use support::appliance::Appliance;
use support::host::Debian;
use support::kafka::{Kafka, free_ports};
use support::night::{nightjar, succeed};

/// How long the night is.
struct Plan {
    exposures: usize,
    every_s: f64,
    side: u32,
    watchdog_s: Option<u32>,
    long: bool,
}

fn plan() -> Plan {
    let long = std::env::var_os("NIGHTJAR_CAMPAIGN").is_some();
    let (exposures, every_s) = match std::env::var("NIGHTJAR_NIGHT") {
        Ok(text) => text.split_once('x').map(|(n, s)| (n.parse().unwrap(), s.parse().unwrap())).unwrap(),
        Err(_) if long => (160, 45.0),
        Err(_) => (36, 3.0),
    };
    let watchdog_s = (every_s < 20.0).then_some(20);
    Plan { exposures, every_s, side: if long { 1024 } else { 512 }, watchdog_s, long }
}

/// The simulated camera, on the box's network but not in the box: a reboot is none of its business.
struct Camera {
    child: Option<Child>,
    words: Vec<String>,
}

impl Camera {
    fn plug_in(&mut self) {
        let mut command = nightjar();
        command.arg("camera").args(&self.words).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    fn unplug(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.unplug();
    }
}

struct Night {
    plan: Plan,
    appliance: Appliance,
    camera: Camera,
    kafka: Kafka,
}

impl Night {
    /// Waits for this, for at most what `exposures` take and half an hour.
    fn wait(&self, what: &str, exposures: f64, question: impl Fn(&Self) -> bool) {
        let seconds = exposures * self.plan.every_s + 1800.0;
        for _ in 0..(seconds * 2.0) as u64 {
            if question(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("waited {seconds:.0} s for this: {what}\n{:#?}", self.appliance.host.said());
    }

    /// Waits until this part of the night is over.
    fn reach(&self, part: f64) {
        let frames = (self.plan.exposures as f64 * part) as usize;
        let what = format!("{frames} frames are safe");
        self.wait(&what, self.plan.exposures as f64, |night| night.appliance.in_journal() >= frames);
    }

    fn unplug_for_a_while(&mut self) {
        self.camera.unplug();
        std::thread::sleep(Duration::from_secs_f64(1.5 * self.plan.every_s));
        self.camera.plug_in();
    }

    /// The disk of the references does not answer until the watchdog has restarted the daemon.
    fn stall(&self) {
        let host = &self.appliance.host;
        let restarts = host.property("nightjar", "NRestarts");
        host.succeed("cd /var/lib/nightjar/references; mkdir /root/kept; mv *.fits /root/kept/; for f in $(ls /root/kept); do mkfifo -m 666 $f; done");
        let hung = |night: &Self| night.appliance.host.times("has not moved") > 0;
        self.wait("a stage hangs", 40.0, hung);
        host.succeed("cd /var/lib/nightjar/references; rm *.fits; mv /root/kept/* .; rmdir /root/kept");
        self.wait("it is restarted", 20.0, |night| night.appliance.host.property("nightjar", "NRestarts") != restarts);
    }

    /// Resident memory of the daemon at rest, kB: the least within an exposure's time, and within the time after
    /// which freed memory goes back to the system.
    fn memory(&self) -> u64 {
        let resident = || -> u64 {
            let status = self.appliance.host.succeed(&format!("cat /proc/{}/status", self.appliance.main_pid()));
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let samples = (self.plan.every_s.max(12.0) * 2.0) as usize;
        let mut least = u64::MAX;
        for _ in 0..samples {
            least = least.min(resident());
            std::thread::sleep(Duration::from_millis(500));
        }
        least
    }
}

fn begin() -> Option<(Night, support::host::InsideNetwork, tempfile::TempDir)> {
    let plan = plan();
    let appliance = Appliance::installed(Debian::Bookworm, 0)?;
    let network = appliance.host.network();
    let kafka = Kafka::start()?;
    let folder = tempfile::tempdir().unwrap();
    let recorded = folder.path().join("recorded");
    let side = plan.side.to_string();
    let request = ["--exposures", "6", "--fields", "2", "--calibration-frames", "6", "--seed", "8"];
    succeed(
        nightjar().arg("sky").arg("--out").arg(&recorded).args(["--width", &side, "--height", &side]).args(request),
    );
    let appliance = Appliance { night: recorded.clone(), ..appliance };
    appliance.furnish();
    let [port] = free_ports();
    appliance.configure(&format!("brokers = [\"{}\"]\nreplication = 1", kafka.bootstrap()), "");
    let wired = format!("[camera]\nkind = \"serial\"\ndevice = \"tcp://127.0.0.1:{port}\"");
    let settings = appliance.host.succeed("cat /etc/nightjar/nightjar.toml");
    appliance
        .host
        .write("/etc/nightjar/nightjar.toml", &settings.replace("[camera]\nfolder = \"/srv/camera\"", &wired));
    if let Some(seconds) = plan.watchdog_s {
        let text = format!("[Service]\nWatchdogSec={seconds}\n");
        appliance.host.write("/etc/systemd/system/nightjar.service.d/watchdog.conf", &text);
    }
    // The journal outlives the reboot.
    appliance.host.succeed("mkdir -p /var/log/journal; systemctl restart systemd-journald; systemctl daemon-reload");
    let exposure = (plan.every_s * 0.6).min(30.0);
    let words = ["--listen", &format!("tcp://127.0.0.1:{port}"), "--loop", "--every", &plan.every_s.to_string()]
        .map(str::to_owned)
        .into_iter()
        .chain([String::from("--exposure"), exposure.to_string(), recorded.display().to_string()]);
    let camera = Camera { child: None, words: words.collect() };
    Some((Night { plan, appliance, camera, kafka }, network, folder))
}

#[test]
fn every_exposure_of_it_is_accounted_for() {
    let Some((mut night, _network, _folder)) = begin() else { return };
    night.camera.plug_in();
    night.appliance.host.succeed("systemctl restart nightjar");
    night.reach(0.07);
    night.unplug_for_a_while();
    night.reach(0.1);
    night.stall();
    night.reach(0.15);
    night.appliance.host.succeed("systemctl kill --signal=KILL nightjar");
    night.reach(0.2);
    night.appliance.host.reboot();
    // Ten exposures later, in a long night; the process lives until the end, through the outage and what follows.
    night.reach(0.28);
    let early = night.memory();
    night.reach(0.3);
    night.kafka.freeze();
    night.reach(0.45);
    night.unplug_for_a_while();
    night.reach(0.6);
    night.unplug_for_a_while();
    night.reach(0.8);
    night.kafka.thaw();
    night.reach(1.0);
    night.camera.unplug();
    night.wait("every frame is done and sent", night.plan.exposures as f64, |night| {
        let status = night.appliance.host.run("nightjar status --json");
        serde_json::from_str::<serde_json::Value>(&status.said).is_ok_and(|status| {
            status["frames_waiting"] == 0 && status["spool_exposures"] == 0 && status["uplink"] == "ok"
        })
    });
    let late = night.memory();
    night.appliance.host.succeed("systemctl stop nightjar");
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("a-night-of-mishaps.log");
    std::fs::write(&log, night.appliance.host.succeed("journalctl --no-pager -o short -t nightjar")).unwrap();
    println!("its journal: {}", log.display());
    let (exposures, missed, alerts) = accounted_for(&night);

    let growth = late as f64 / early as f64 - 1.0;
    println!(
        "{exposures} exposures, {missed} missed and named, {alerts} alerts on Kafka once; memory {early} kB, at the end {late} kB ({:+.1} %)",
        100.0 * growth
    );
    if night.plan.long {
        assert!(growth < 0.05, "memory grew from {early} to {late} kB");
    }
}

/// When the shutter of a frame opened and closed, unix seconds.
fn shutter(path: &Path) -> (f64, f64) {
    let header = nightjar::fits::read_header(path).unwrap();
    let start: nightjar::time::Mjd = header.text(&["DATE-OBS"]).unwrap().parse().unwrap();
    let open = start.unix_seconds();
    (open, open + header.number(&["EXPTIME"]).unwrap())
}

/// The ledger against the frames, and against Kafka; gives exposures, missed ones and alerts.
fn accounted_for(night: &Night) -> (usize, usize, u64) {
    let host = &night.appliance.host;
    // A copy: SQLite would follow the way into the box back to this machine's own root.
    let copy = night.appliance.folder.path().join("history.sqlite");
    for ending in ["", "-wal"] {
        let from = host.path(&format!("/var/lib/nightjar/history.sqlite{ending}"));
        if from.exists() {
            std::fs::copy(from, format!("{}{ending}", copy.display())).unwrap();
        }
    }
    let ledger = rusqlite::Connection::open(copy).unwrap();
    let mut rows = ledger.prepare("SELECT id, state, reason, alerts FROM exposures").unwrap();
    type Line = (String, String, String, u64);
    let rows: Vec<Line> = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)? as u64)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let frames: Vec<PathBuf> = std::fs::read_dir(host.path("/var/lib/nightjar/frames"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "fits"))
        .collect();
    // Each frame has its row, and each row is closed.
    let names: BTreeSet<String> =
        frames.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let (missed, kept): (Vec<&Line>, Vec<&Line>) = rows.iter().partition(|(id, ..)| id.contains("-missed-"));
    assert_eq!(kept.iter().map(|(id, ..)| id.clone()).collect::<BTreeSet<_>>(), names);
    assert_eq!(names.len(), frames.len());
    for (id, state, reason, alerts) in &rows {
        assert!(state == "done" && (*alerts > 0 || !reason.is_empty()), "{id}: {state}, {alerts} alerts, '{reason}'");
    }
    // The camera numbers its exposures: none is without a row.
    let number = |path: &PathBuf| nightjar::fits::read_header(path).unwrap().number(&["LINKFRM"]).unwrap() as u32;
    let mut numbers: Vec<u32> = frames.iter().map(number).collect();
    numbers.extend(missed.iter().map(|(id, ..)| id.rsplit('-').next().unwrap().parse::<u32>().unwrap()));
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>());

    // One camera: no exposure begins before another has ended, whenever it was read out.
    let mut shutter: Vec<(f64, f64)> = frames.iter().map(|path| shutter(path)).collect();
    shutter.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (before, after) in shutter.iter().zip(&shutter[1..]) {
        assert!(after.0 > before.1 - 0.3, "an exposure of {before:?} and one of {after:?} (unix s) overlap");
    }

    let promised: u64 = kept.iter().map(|(.., alerts)| alerts).sum();
    let records = night.kafka.read_all("nightjar_20", true);
    let candids: BTreeSet<&str> = records
        .iter()
        .flat_map(|record| record.headers.iter().filter(|(name, _)| name == "candid").map(|(_, value)| value.as_str()))
        .collect();
    if records.len() as u64 != promised {
        // Which, and as what they were sent.
        let mut sent: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for record in &records {
            let header = |name: &str| record.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
            sent.entry((header("exposure"), header("candid"))).or_default().insert(header("spool"));
        }
        println!("sent more than once: {:#?}", sent.iter().filter(|(_, names)| names.len() > 1).collect::<Vec<_>>());
        let of_exposure =
            |id: &str| records.iter().filter(|r| r.headers.contains(&("exposure".into(), id.into()))).count();
        for (id, _, _, alerts) in kept.iter().filter(|(id, _, _, alerts)| of_exposure(id) as u64 != *alerts) {
            println!("{id}: {alerts} alerts in the ledger, {} on Kafka", of_exposure(id));
        }
    }
    assert_eq!((records.len() as u64, candids.len() as u64), (promised, promised), "lost or twice");
    assert!(promised > 0);
    (kept.len(), missed.len(), promised)
}
