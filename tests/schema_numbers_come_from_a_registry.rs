//! With the registry profile the schema is registered under the topic's subject, its number is kept in the spool so
//! that the registry need not run, and Confluent's deserializer reads the alerts from what the registry holds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod beside;
    pub mod night;
}

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nightjar::alert::alert_schema;
use nightjar::registry::{Client, Numbers, RegistryError};
use nightjar::spool::disk::Disk;
use support::beside::python;
use support::night::{both, nightjar, small_night, succeed, wait_until};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/registry.py");

/// A registry of our own, ended with the test.
struct Registry {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Registry {
    fn start(python: &Path, folder: &Path, more: &[&str]) -> Self {
        let (port, log) = (folder.join("port"), folder.join("requests"));
        let _ = std::fs::remove_file(&port);
        let out = std::fs::File::create(&log).unwrap();
        let child = Command::new(python).args([SCRIPT, "serve"]).arg(&port).args(more).stdout(out).spawn().unwrap();
        wait_until("the registry listens", || port.exists());
        let address = format!("http://127.0.0.1:{}", std::fs::read_to_string(&port).unwrap());
        Self { child, address, log }
    }

    fn requests(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(address: &str, spool: &Path) -> Numbers {
    Numbers::new(Client::new(address, None), &alert_schema().json, Box::new(Disk::at(spool)))
}

#[test]
fn a_number_is_asked_for_once_a_topic_and_kept_for_when_the_registry_is_away() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&python, folder.path(), &[]);
    let of = numbers(&registry.address, folder.path());
    assert_eq!(of.of("njr_20261124_programid1").unwrap(), 4711);
    assert_eq!(of.of("njr_20261124_programid1").unwrap(), 4711);
    assert_eq!(registry.requests(), ["POST /subjects/njr_20261124_programid1-value/versions"]);
    // The next start, with the registry gone.
    let address = registry.address.clone();
    drop(registry);
    let of = numbers(&address, folder.path());
    assert_eq!(of.of("njr_20261124_programid1").unwrap(), 4711);
    assert!(of.take_notice().is_none());
    assert_eq!(of.of("njr_20261125_programid1").unwrap(), 4711);
    let notice = of.take_notice().unwrap();
    assert!(
        notice.contains("njr_20261125_programid1-value is not registered yet") && !notice.contains('\n'),
        "{notice}"
    );
    assert_eq!(of.of("njr_20261125_programid1").unwrap(), 4711);
    assert!(of.take_notice().is_none(), "it is asked again only after a pause");
    // A schema or a registry that is another has another number: none is kept.
    let other = Numbers::new(Client::new(&address, None), "\"string\"", Box::new(Disk::at(folder.path())));
    assert!(matches!(other.of("njr_20261124_programid1"), Err(RegistryError::Away { .. })));
    // A file of numbers that is damaged is as if it were not there.
    std::fs::write(folder.path().join("schema-registry.json"), "{\"registry\": 7").unwrap();
    assert!(numbers(&address, folder.path()).of("njr_20261124_programid1").is_err());
}

#[test]
fn a_registry_that_refuses_or_is_none_is_told_in_one_line() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&python, folder.path(), &["njr:secret"]);
    let line = |client: Client, subject: &str| {
        let line = client.register(subject, &alert_schema().json).unwrap_err().to_string();
        assert!(!line.contains('\n') && !line.contains("secret"), "{line}");
        line
    };
    let client = |user: Option<&str>| Client::new(&registry.address, user);
    assert!(line(client(None), "a-value").contains("HTTP 401: Unauthorized"));
    assert!(line(client(Some("njr:guess")), "a-value").contains("[alerts] registry_credential"));
    assert!(
        line(client(Some("njr:secret")), "refused-value").contains("HTTP 409: Schema being registered is incompatible")
    );
    assert_eq!(client(Some("njr:secret")).register("a-value", &alert_schema().json).unwrap(), 4711);
    assert_eq!(client(Some("njr:secret")).subjects().unwrap(), 1);
    assert!(client(Some("njr:secret")).register("b-value", "{\"type\": \"nonsense\"}").is_err());
    let nobody = Client::new("http://127.0.0.1:9", None);
    assert!(line(nobody, "a-value").contains("does not answer"));
}

#[test]
fn confluents_deserializer_reads_a_night_from_what_the_registry_holds() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&python, folder.path(), &[]);
    let night = small_night(folder.path(), 2);
    let run = folder.path().join("run");
    let rehearse = |address: &str, out: &Path| {
        let mut command = nightjar();
        command.env("NIGHTJAR__ALERTS__PROFILE", "registry").env("NIGHTJAR__ALERTS__SCHEMA_REGISTRY", address);
        command.arg("simulate").arg(&night).arg("--out").arg(out);
        command
    };
    succeed(&mut rehearse(&registry.address, &run));
    let posts: Vec<String> = registry.requests().into_iter().filter(|r| r.starts_with("POST")).collect();
    assert_eq!(posts, ["POST /subjects/nightjar_20261124_programid1-value/versions"]);
    let read = Command::new(&python)
        .args([SCRIPT, "read", &registry.address, "nightjar_20261124_programid1"])
        .arg(run.join("alerts"))
        .output()
        .unwrap();
    let said = both(&read);
    let count: usize = said.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(read.status.success() && count >= 5, "{said}");
    // Without a number and without a registry nothing is framed, and the reason is said.
    let address = registry.address.clone();
    drop(registry);
    let output = rehearse(&address, &folder.path().join("again")).output().unwrap();
    assert!(!output.status.success() && both(&output).contains("does not answer"), "{}", both(&output));
    // The profile needs an address.
    let output = rehearse("", &folder.path().join("none")).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(both(&output).contains("alerts.schema_registry"), "{}", both(&output));
}
