//! A Debian host in a box: a tree with its own systemd, booted on this machine by systemd-nspawn, with
//! the package in it.
//!
//! Where this machine cannot do that (no root, no namespaces, no tree) a test says "not run" and
//! passes, unless `NIGHTJAR_REQUIRE_SYSTEMD=1`, which makes it fail.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses its part; one that cannot go on fails"
)]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The releases of Debian that the package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debian {
    /// 12.
    Bookworm,
    /// 13.
    Trixie,
}

impl Debian {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// A booted host; switched off when dropped.
pub struct Host {
    name: String,
    room: tempfile::TempDir,
    nspawn: Child,
    said: PathBuf,
    /// Its process 1, as this machine numbers it.
    leader: i32,
}

/// How a command in the box ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Standard output and error.
    pub said: String,
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("nightjar")
}

impl Host {
    /// Boots it, or says why this test does not run.
    pub fn boot(debian: Debian) -> Option<Self> {
        match Self::try_boot(debian) {
            Ok(host) => Some(host),
            Err(why) if std::env::var_os("NIGHTJAR_REQUIRE_SYSTEMD").is_some_and(|v| v == "1") => {
                panic!("no Debian {} can be booted to test in: {why}", debian.name())
            }
            Err(why) => {
                println!("not run: no Debian {} can be booted to test in: {why}", debian.name());
                None
            }
        }
    }

    fn try_boot(debian: Debian) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            return Err("only root may; run the tests as root".into());
        }
        let tree = cache().join(format!("box-{}", debian.name()));
        if !tree.join("complete").exists() {
            return Err(format!("{} is not there; packaging/install-what-is-missing test makes it", tree.display()));
        }
        let room = tempfile::tempdir().map_err(|e| e.to_string())?;
        let name = format!("nightjar-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let said = room.path().with_extension("said");
        let log = File::create(&said).map_err(|e| e.to_string())?;
        let nspawn = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/host/boot"))
            .arg(&name)
            .args([tree.join("root").as_path(), room.path()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut host = Self { name, room, nspawn, said, leader: 0 };
        host.wait_until_up(Duration::from_secs(60))?;
        Ok(host)
    }

    /// Waits for its systemd, and for everything that starts with it.
    fn wait_until_up(&mut self, time: Duration) -> Result<(), String> {
        let before = self.leader;
        for _ in 0..time.as_millis() / 50 {
            if let Ok(Some(status)) = self.nspawn.try_wait() {
                let said = fs::read_to_string(&self.said).unwrap_or_default();
                return Err(format!("systemd-nspawn ended with {status}: {}", said.trim()));
            }
            // The shell's child is systemd-nspawn, and its child is the box's process 1.
            let box_leader =
                child(self.nspawn.id() as i32, "systemd-nspawn").and_then(|nspawn| child(nspawn, "systemd"));
            if let Some(leader) = box_leader.filter(|leader| *leader != before) {
                self.leader = leader;
                if self.path("/run/dbus/system_bus_socket").exists() {
                    self.write("/etc/hosts", "127.0.0.1 localhost\n");
                    let state = self.run("systemctl is-system-running --wait");
                    return match state.said.trim() {
                        "running" => Ok(()),
                        _ => Err(format!("{} after boot: {}", state.said.trim(), self.run("systemctl --failed").said)),
                    };
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("not up after {time:?}: {}", fs::read_to_string(&self.said).unwrap_or_default()))
    }

    /// A path of the box, as this machine sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader))
    }

    /// Runs a line of shell in the box, as root.
    pub fn run(&self, line: &str) -> Ended {
        let output = self.shell(line).output().unwrap();
        Ended { code: output.status.code().unwrap_or(-1), said: both(&output) }
    }

    /// As [`Host::run`]; fails when the line fails. Gives what it said.
    pub fn succeed(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, 0, "{line}\n{}", ended.said);
        ended.said
    }

    /// Runs a line as an ordinary user of the box, at home.
    pub fn run_as_user(&self, line: &str) -> Ended {
        self.run(&format!("runuser -l observer -c {}", quoted(line)))
    }

    /// Starts a line of shell in the box and lets it run.
    pub fn start(&self, line: &str) -> Running {
        let child = self.shell(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Running { child }
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"]);
        command.args(["sh", "-c", line]).stdin(Stdio::null());
        command
    }

    /// Copies a file or folder of this machine into the box.
    pub fn put(&self, from: &Path, inside: &str) {
        let to = self.path(inside);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let copied = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
        assert!(copied.success(), "{} to {inside}", from.display());
    }

    /// Writes a file in the box.
    pub fn write(&self, inside: &str, text: &str) {
        let to = self.path(inside);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, text).unwrap();
    }

    /// Installs a package over whatever version is there, without any network. Settings that were edited stay: the
    /// answer that dpkg proposes.
    pub fn install(&self, package: &Path) -> String {
        let name = package.file_name().unwrap().to_string_lossy().into_owned();
        self.put(package, &format!("/opt/{name}"));
        let words = "-y --allow-downgrades -o Dpkg::Options::=--force-confold";
        self.succeed(&format!("DEBIAN_FRONTEND=noninteractive apt-get install {words} /opt/{name} 2>&1"))
    }

    /// The journal's records of the unit since boot, newest last, as journald gives them to machines;
    /// `matches` are further words for journalctl.
    pub fn journal(&self, matches: &str) -> Vec<serde_json::Value> {
        let text = self.succeed(&format!("journalctl -b --no-pager -o json {matches}"));
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The sentences that nightjar has said since the box was booted.
    pub fn said(&self) -> Vec<String> {
        let records = self.journal("-t nightjar");
        records.iter().map(|record| record["MESSAGE"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// How many of these sentences hold `text`.
    pub fn times(&self, text: &str) -> usize {
        self.said().iter().filter(|line| line.contains(text)).count()
    }

    /// A property of a unit, as `systemctl show` gives it.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.succeed(&format!("systemctl show --value -p {name} {unit}")).trim().to_owned()
    }

    /// Reboots it: what is on its disks stays, what is in memory goes.
    pub fn reboot(&mut self) {
        let before = self.leader;
        self.run("systemctl reboot");
        for _ in 0..600 {
            if !Path::new(&format!("/proc/{before}")).exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.wait_until_up(Duration::from_secs(60)).unwrap();
    }

    /// Moves this thread into the box's network until the guard is dropped: programs started and
    /// clients made in the meantime are on the box's loopback.
    pub fn network(&self) -> InsideNetwork {
        let before = File::open("/proc/thread-self/ns/net").unwrap();
        enter(&File::open(format!("/proc/{}/ns/net", self.nspawn.id())).unwrap());
        InsideNetwork { before }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let nspawn = Pid::from_raw(self.nspawn.id() as i32);
        // Before systemd is up it has no ears; a second request switches off for good.
        for _ in 0..3 {
            let _ = kill(nspawn, Signal::SIGTERM);
            for _ in 0..200 {
                if matches!(self.nspawn.try_wait(), Ok(Some(_)) | Err(_)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let _ = fs::remove_file(&self.said);
        for hierarchy in ["unified", "systemd", "."] {
            let _ = Command::new("find")
                .arg(format!("/sys/fs/cgroup/{hierarchy}/{}", self.name))
                .args(["-depth", "-type", "d", "-delete"])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// The child of a process, where it is that program already.
fn child(parent: i32, program: &str) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let pid = children.split_whitespace().next()?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == &program[..program.len().min(15)]).then_some(pid)
}

/// This thread is on the box's network while it lives.
pub struct InsideNetwork {
    before: File,
}

impl Drop for InsideNetwork {
    fn drop(&mut self) {
        enter(&self.before);
    }
}

fn enter(namespace: &File) {
    // SAFETY: a system call on an open descriptor; it touches no memory of ours.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "setns: {}", std::io::Error::last_os_error());
}

/// A program in the box; killed when dropped.
pub struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The Debian package of the program under test, under this version; made once for all tests by
/// `packaging/deb` out of the program that cargo has built for them. It differs from that of
/// `make deb` in the optimisation of the program alone.
pub fn package(version: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    let _turn = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_nightjar"));
    let profile = if program.parent().unwrap().ends_with("release") { "release" } else { "dev" };
    let package = folder.join(format!("nightjar_{version}_{profile}.deb"));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let age = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let parts =
        ["systemd", "config", "packaging", "packaging/debian", "packaging/examples", "packaging/manual", "Cargo.toml"];
    let files = parts.iter().flat_map(|part| {
        let path = repository.join(part);
        let inside: Vec<PathBuf> =
            fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
        if inside.is_empty() { vec![path] } else { inside }
    });
    let newest = files.chain([program.to_owned()]).filter_map(|path| age(&path)).max();
    if age(&package).is_some() && age(&package) > newest {
        return package;
    }
    let made = Command::new(repository.join("packaging/deb"))
        .args(["--of-profile", profile, "--version", version, "--to"])
        .arg(&package)
        .env("CARGO_TARGET_DIR", program.parent().unwrap().parent().unwrap())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "packaging/deb: {}", both(&made));
    package
}
