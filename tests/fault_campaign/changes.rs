//! What people do to a cluster while a night is on: a topic deleted, a limit lowered, a permission
//! taken back, a password changed, a certificate that ends. Each is waited out; afterwards
//! everything arrives once, and nothing went to `dead/`.

use std::fs;
use std::path::Path;

use crate::alerts;
use crate::kafka::{self, Kafka};
use crate::oracle::Oracle;
use crate::row::{Row, runs};
use crate::sender::{BYTES, COUNT, Job, Sender};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const WRITE_ALERTS: [&str; 6] =
    ["--operation", "Write", "--topic", "nightjar_2", "--resource-pattern-type", "prefixed"];

struct Scene {
    kafka: Kafka,
    _folder: tempfile::TempDir,
    job: Job,
    sender: Sender,
    oracle: Oracle,
    row: Row,
}

impl Scene {
    fn new(name: &str) -> Option<Self> {
        let kafka = Kafka::start_secure()?;
        let folder = tempfile::tempdir().unwrap();
        // A certificate that has ended lies ready; the sender trusts both.
        let place = kafka.folder();
        fs::copy(place.join("broker.p12"), place.join("good.p12")).unwrap();
        let good = fs::read(kafka.ca_file()).unwrap();
        kafka::make_certificate(place, "-10d", 5).unwrap();
        fs::copy(place.join("broker.p12"), place.join("ended.p12")).unwrap();
        fs::write(folder.path().join("ca.pem"), [good, fs::read(kafka.ca_file()).unwrap()].concat()).unwrap();
        fs::copy(place.join("good.p12"), place.join("broker.p12")).unwrap();
        for words in [
            "--operation Write --operation Describe --transactional-id nightjar- --resource-pattern-type prefixed",
            "--operation Read --operation Write --operation Describe --operation Create --topic nightjar_cursor",
            "--operation Describe --operation Create --topic nightjar_2 --resource-pattern-type prefixed",
        ] {
            kafka.allow(&words.split(' ').collect::<Vec<_>>());
        }
        kafka.allow(&WRITE_ALERTS);
        let mut job = Job::new(&folder.path().join("spool"), &kafka.secure_bootstrap(), name);
        job.login = Some((folder.path().join("ca.pem"), kafka::PASSWORD.into()));
        job.backlog = 100;
        let sender = Sender::start(&job);
        assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
        let oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
        Some(Self { kafka, _folder: folder, job, sender, oracle, row: Row::default() })
    }

    /// Waits until the sender complains of this, and forgets older complaints.
    fn complaint(&self, before: usize, of: &str) {
        let heard = self.sender.wait(90.0, |s| s.troubles().iter().skip(before).any(|t| t.contains(of)));
        assert!(heard, "no complaint of {of:?}: {:?}", &self.sender.troubles()[before..]);
    }

    fn check(&mut self) {
        self.oracle.owe(&self.sender.names());
        self.oracle.check(150.0, &mut self.row);
        let dead = fs::read_dir(self.job.spool.join("dead")).unwrap().count();
        assert_eq!(dead, 0, "nothing is the alerts' fault here");
    }

    fn set_certificate(&mut self, file: &str) {
        let place = self.kafka.folder().to_owned();
        fs::copy(place.join(file), place.join("broker.p12")).unwrap();
        self.kafka.restart();
    }

    fn end(mut self, title: &str) {
        assert!(self.sender.finish(), "{:?}", self.sender.troubles());
        self.oracle.owe(&self.sender.names());
        self.oracle.check(60.0, &mut self.row);
        self.row.runs -= 1;
        self.row.assert_clean(title);
    }
}

#[test]
fn a_topic_that_is_deleted_is_made_again() {
    let Some(mut scene) = Scene::new("t") else { return };
    for _ in runs(1, 20) {
        // What a person deletes with the topic is gone; what is unsent must not be.
        scene.sender.pause();
        scene.check();
        scene.row.runs -= 1;
        scene.kafka.tool(TOPICS, &["--delete", "--topic", alerts::TOPIC]);
        scene.oracle.read_afresh();
        scene.sender.go_on();
        let before = scene.sender.acknowledged().len();
        assert!(scene.sender.wait(30.0, |s| s.acknowledged().len() > before + 5));
        scene.check();
    }
    scene.end("a topic deleted and made again");
}

#[test]
fn a_limit_that_is_lowered_holds_the_alerts_and_buries_none() {
    let Some(mut scene) = Scene::new("m") else { return };
    assert!(scene.sender.wait(60.0, |s| s.acknowledged().len() > 10));
    let entity = ["--alter", "--entity-type", "topics", "--entity-name", alerts::TOPIC];
    for _ in runs(1, 20) {
        let before = scene.sender.troubles().len();
        scene.kafka.tool(CONFIGS, &[entity.as_slice(), &["--add-config", "max.message.bytes=1000"]].concat());
        scene.complaint(before, "every alert is refused");
        scene.kafka.tool(CONFIGS, &[entity.as_slice(), &["--add-config", "max.message.bytes=4194304"]].concat());
        scene.check();
    }
    scene.end("max.message.bytes lowered and raised again");
}

#[test]
fn a_permission_that_is_taken_back_is_named_and_waited_for() {
    let Some(mut scene) = Scene::new("a") else { return };
    assert!(scene.sender.wait(60.0, |s| s.acknowledged().len() > 10));
    for _ in runs(1, 20) {
        let before = scene.sender.troubles().len();
        scene.kafka.disallow(&WRITE_ALERTS);
        scene.complaint(before, "Write, Describe and Create on the alert topics");
        scene.kafka.allow(&WRITE_ALERTS);
        scene.check();
    }
    scene.end("a permission taken back and given again");
}

#[test]
fn a_password_that_is_changed_is_asked_for() {
    let Some(mut scene) = Scene::new("w") else { return };
    for run in runs(1, 20) {
        let before = scene.sender.troubles().len();
        let password = format!("rotated-{run}");
        let config = format!("SCRAM-SHA-512=[password={password}]");
        let words = ["--alter", "--entity-type", "users", "--entity-name", "nightjar", "--add-config", &config];
        scene.kafka.tool(CONFIGS, &words);
        // Connections that are open stay so; a broker that starts again asks.
        scene.kafka.restart();
        scene.complaint(before, "sasl_username and the password credential");
        scene.oracle.owe(&scene.sender.kill());
        scene.job.login = Some((scene.job.login.clone().unwrap().0, password));
        scene.job.name = format!("w{run}");
        scene.sender = Sender::start(&scene.job);
        assert!(scene.sender.wait(60.0, |s| s.sessions() > 0), "{:?}", scene.sender.troubles());
        scene.check();
    }
    scene.end("a password changed, the new one given at the next start");
}

#[test]
fn a_certificate_that_has_ended_is_told_of_and_waited_for() {
    let Some(mut scene) = Scene::new("e") else { return };
    for _ in runs(1, 20) {
        let before = scene.sender.troubles().len();
        scene.set_certificate("ended.p12");
        scene.complaint(before, "ca_file and the certificates, their dates");
        scene.set_certificate("good.p12");
        scene.check();
    }
    scene.end("the broker's certificate ended and was replaced");
}

/// The broker forgets producers and transactional ids after seconds instead of days.
#[test]
fn days_as_minutes() {
    let lines = [
        "transactional.id.expiration.ms=4000",
        "transaction.remove.expired.transaction.cleanup.interval.ms=1000",
        "producer.id.expiration.ms=2000",
        "producer.id.expiration.check.interval.ms=500",
        "offsets.retention.minutes=1",
    ];
    let Some(kafka) = Kafka::start_with(&lines) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::start(&Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "d"));
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let mut row = Row::default();
    assert!(sender.wait(60.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    for run in runs(2, 20) {
        if run % 2 == 0 {
            // A day without exposures.
            sender.pause();
            std::thread::sleep(std::time::Duration::from_secs(8));
            sender.go_on();
        } else {
            // A broker that is away in the middle of everything.
            kafka.freeze();
            std::thread::sleep(std::time::Duration::from_secs(8));
            kafka.thaw();
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
        oracle.owe(&sender.names());
        oracle.check(120.0, &mut row);
    }
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(60.0, &mut row);
    row.runs -= 1;
    row.assert_clean("days as seconds: producer and transactional ids expire");
    assert!(Path::new(folder.path()).exists());
}
