//! `nightjar run` and `nightjar camera` with a real line between them: frames become alerts through
//! noise, cut lines and resets; what is lost is named; SG-4 cameras over a pseudo-terminal; exposures
//! on command; masters made of the night's own calibration frames.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod night;
    pub mod site;
    pub mod wire;
}

use nightjar::fits::read_image;
use nix::sys::signal::Signal;
use support::night::{frames_of_kind, nightjar, succeed, wait_until};
use support::site::Site;
use support::wire::{Camera, numbers, start_with};

/// Nothing is sent, and no broker is needed.
const HELD: &str = "publish = false";

#[test]
fn a_night_over_a_bad_line_with_resets_and_a_camera_that_is_unplugged() {
    let site = Site::new(3, HELD);
    let listen = ["--listen", "tcp://127.0.0.1:0", "--every", "0.5", "--exposure", "0.1", "--loop"];
    let faults = ["--faults", "flip=1.6e-5,cut=1.5e6,reset=0.15", "--seed", "4"];
    let camera = Camera::start(&site, &[&listen[..], &faults].concat());
    let address = camera.address();
    let mut daemon = start_with(&site, &format!("kind = \"serial\"\ndevice = \"{address}\""), "");
    wait_until("eight frames are safe", || site.in_journal() >= 8);
    camera.kill();
    wait_until("the daemon says that the camera is away", || daemon.times("the line is gone") >= 1);
    let listen = ["--listen", &address, "--every", "0.5", "--exposure", "0.1", "--loop"];
    let camera = Camera::start(&site, &listen);
    let before = site.in_journal();
    wait_until("frames come again", || site.in_journal() >= before + 3);
    assert!(daemon.times("the camera is back") >= 1, "{}", daemon.said());
    wait_until("a frame became alerts", || daemon.times("alerts in") >= 3);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());

    let frames = numbers(&site);
    let taken: Vec<u32> = frames.iter().map(|(number, _)| *number).collect();
    assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice: {taken:?}");
    // What is not there was named.
    let said = daemon.said();
    for number in (1..*taken.last().unwrap()).filter(|number| !taken.contains(number)) {
        let named = said.lines().filter(|line| line.contains(": missed: ")).any(|line| {
            let words: Vec<u32> = line.split([' ', ':']).filter_map(|word| word.parse().ok()).collect();
            matches!(words.as_slice(), [first, last, ..] if line.contains("frames") && (*first..=*last).contains(&number))
                || words.first() == Some(&number)
        });
        assert!(named, "frame {number} is neither there nor named\n{said}");
    }
    // Every pixel of every frame is that of a recorded one, in their order, unless it is marked as missing.
    let recorded: Vec<_> = site.frames.iter().map(|path| read_image(path).unwrap().pixels).collect();
    for (number, path) in &frames {
        let image = read_image(path).unwrap();
        if image.header.get("NMISSING").is_none() {
            let same = recorded.iter().any(|other| other.iter().zip(&image.pixels).all(|(a, b)| a.round() == *b));
            assert!(same, "frame {number} has other pixels");
        }
    }
    drop(camera);
}

#[test]
fn an_sg4_on_a_pseudo_terminal_exposes_at_the_cadence_where_the_telescope_points() {
    let site = Site::new(1, HELD);
    let link = site.path("sg4");
    let path = link.to_str().unwrap();
    let faults = ["--faults", "flip=1e-5,drop=5e-6", "--seed", "2", "--loop"];
    let camera = Camera::start(&site, &[&["--pty", path, "--protocol", "sg4"][..], &faults].concat());
    let pointing = "echo '{\"ra\": 10.5, \"dec\": 41.25, \"roof\": \"open\", \"tracking\": true, \"filter\": \"r\"}'";
    let settings = format!(
        "kind = \"sg4\"\ndevice = \"{path}\"\ntrigger = \"cadence\"\ncadence_s = 20\nexposure_s = 1.5\n\
         [telescope]\npointing_command = '''{pointing}'''"
    );
    let mut daemon = start_with(&site, &settings, "");
    wait_until("two frames are safe", || site.in_journal() >= 2);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());
    let recorded = read_image(&site.frames[0]).unwrap().pixels;
    for (number, path) in numbers(&site) {
        let image = read_image(&path).unwrap();
        assert_eq!(image.pixels.dim(), (480, 640));
        let wrong = image.pixels.indexed_iter().filter(|((y, x), value)| {
            let there = recorded.get((*y, *x)).map_or(0.0, |value| value.round());
            there != **value
        });
        assert_eq!(wrong.count(), 0, "frame {number}");
        assert_eq!(image.header.number(&["RA"]), Some(10.5));
        assert_eq!((image.header.number(&["EXPTIME"]), image.header.text(&["FILTER"])), (Some(1.5), Some("r".into())));
    }
    assert!(camera.said().contains("frame 0"));
}

#[test]
fn a_camera_that_never_answers_is_said_once_and_hangs_nothing() {
    let site = Site::new(1, HELD);
    let link = site.path("dead");
    let path = link.to_str().unwrap();
    let _camera = Camera::start(&site, &["--pty", path, "--protocol", "sg4", "--faults", "silent"]);
    let settings =
        format!("kind = \"sg4\"\ndevice = \"{path}\"\ntrigger = \"cadence\"\ncadence_s = 2\nexposure_s = 0.1");
    let mut daemon = start_with(&site, &settings, "");
    wait_until("it says that the camera does not answer", || daemon.times("does not answer") >= 1);
    wait_until("exposures that were not started are counted", || {
        let status = std::fs::read_to_string(site.path("status.json")).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        status["cadence_skipped"].as_u64().is_some_and(|count| count >= 3) && status["camera_ok"] == false
    });
    assert_eq!(daemon.times("does not answer"), 1, "{}", daemon.said());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_first_night_without_masters_makes_them_of_its_own_frames() {
    let site = Site::new(2, HELD);
    for kind in ["bias", "dark", "flat"] {
        std::fs::remove_file(site.path(&format!("masters/{kind}.fits"))).unwrap();
    }
    let mut daemon = site.start();
    wait_until("it says that there are none", || daemon.times("holds no masters") == 1);
    for kind in ["bias", "dark", "flat", "light"] {
        frames_of_kind(&site.path("frames"), kind).iter().for_each(|frame| site.drop_in(frame));
    }
    wait_until("both exposures are done", || daemon.times("alerts in") == 2);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());
    let made = std::fs::read_dir(site.path("masters")).unwrap().count();
    assert!(made >= 3, "{made} masters\n{}", daemon.said());
    assert_eq!(daemon.times("master bias: made from"), 1, "{}", daemon.said());
}

#[test]
fn status_check_and_figures_tell_what_the_daemon_does() {
    let site = Site::new(1, HELD);
    let settings = format!("folder = \"{}\"", site.path("watched").display());
    let mut daemon = start_with(&site, &settings, "[metrics]\nlisten = \"127.0.0.1:19184\"");
    site.drop_in(&site.frames[0]);
    wait_until("the exposure is done", || daemon.times("alerts in") == 1);
    let config = site.path("nightjar.toml");
    wait_until("the status tells of it", || {
        std::fs::read_to_string(site.path("status.json")).is_ok_and(|text| text.contains("\"exposures\": 1"))
    });
    let screen = succeed(nightjar().arg("status").arg("--config").arg(&config));
    let screen = String::from_utf8(screen.stdout).unwrap();
    assert!(screen.contains("exposures   1 done, 1 with alerts") && screen.contains("uplink      held"), "{screen}");
    let json = succeed(nightjar().args(["status", "--json"]).arg("--config").arg(&config));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["alerts"].as_u64().unwrap() > 0 && json["disk_free_bytes"].as_u64().unwrap() > 0, "{json}");

    let check = succeed(nightjar().args(["check", "--json"]).arg("--config").arg(&config));
    let findings: Vec<nightjar::service::Finding> = serde_json::from_slice(&check.stdout).unwrap();
    let subjects: Vec<&str> = findings.iter().map(|finding| finding.subject.as_str()).collect();
    for subject in ["settings", "camera", "masters", "references", "uplink"] {
        assert!(subjects.contains(&subject), "{subject} is not among {subjects:?}");
    }

    let text = fetch("127.0.0.1:19184", "/metrics");
    assert!(
        text.contains("nightjar_exposures_total 1\n") && text.contains("nightjar_uplink_state{state=\"held\"} 1"),
        "{text}"
    );
    assert!(text.contains("nightjar_stage_seconds_count{stage=\"subtract\"} 1"), "{text}");
    assert!(fetch("127.0.0.1:19184", "/").starts_with("HTTP/1.1 404"));

    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    // A check without a daemon, and with a folder that is gone.
    std::fs::remove_dir_all(site.path("watched")).unwrap();
    let output = nightjar().arg("check").arg("--config").arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line.starts_with("FAULT") && line.contains("camera")), "{said}");
    let output = nightjar().arg("status").arg("--config").arg(&config).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(1),
        "a stale status is no running daemon after ten seconds, a stopped one is said"
    );
}

#[test]
fn sighup_takes_what_can_change_and_names_what_cannot() {
    let site = Site::new(1, HELD);
    let mut daemon = site.start();
    wait_until("the daemon is ready", || daemon.times("is ready") == 1);
    let settings = site.path("nightjar.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    let change = |more: &str| {
        let changed = format!("publish = false\ndrain = \"oldest-first\"\n[detect]\nthreshold = 6.0\n{more}");
        std::fs::write(&settings, text.replace("publish = false", &changed)).unwrap();
    };
    change("[old]");
    daemon.signal(Signal::SIGHUP);
    wait_until("the wrong section is named", || daemon.times("there is no such section") == 1);
    change("[metrics]\nlisten = \"127.0.0.1:19185\"");
    daemon.signal(Signal::SIGHUP);
    wait_until("it says what is in force and what is not", || {
        daemon.times("detect.threshold, uplink.drain are in force; restart for: metrics.listen") == 1
    });
    site.drop_in(&site.frames[0]);
    wait_until("an exposure is done by the new settings", || daemon.times("alerts in") == 1);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.said());
}

fn fetch(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
