//! Promise: what the package ships for the other end of the stream runs as its units say, on a Debian host with
//! nothing but the package: the archive keeps each alert once over restarts, a filter sends on what it passes, and
//! what is missing is said in one sentence.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/downstream.rs"]
mod downstream;
mod packets;
mod support {
    pub mod host;
    pub mod kafka;
    pub mod night;
}

use std::path::PathBuf;

use apache_avro::types::Value;
use downstream::{Visit, send, uplink_to, visits};
use nightjar::alert::Alert;
use nightjar::history::History;
use support::host::{Debian, Host, package};
use support::kafka::Kafka;
use support::night::wait_until;

fn alerts_of(night: &[Visit]) -> usize {
    night.iter().map(|visit| visit.alerts.len()).sum()
}

/// A host with the package, a Kafka that it reaches, and a night of which the first part is in it.
struct Downstream {
    host: Host,
    kafka: Kafka,
    night: Vec<Visit>,
    folder: tempfile::TempDir,
    _network: support::host::InsideNetwork,
}

impl Downstream {
    fn begin() -> Option<Self> {
        let host = Host::boot(Debian::Bookworm)?;
        let network = host.network();
        let kafka = Kafka::start()?;
        host.install(&package("0.1.0-1"));
        let night = visits(&mut History::in_memory().unwrap(), "2026-11-24", 6, 50);
        let begun = Self { host, kafka, night, folder: tempfile::tempdir().unwrap(), _network: network };
        begun.send(..3);
        Some(begun)
    }

    fn send(&self, part: impl std::slice::SliceIndex<[Visit], Output = [Visit]>) {
        send(&self.folder.path().join("spool"), uplink_to(self.kafka.bootstrap(), 4), &self.night[part]);
    }
}

#[test]
fn the_archive_unit_says_what_it_lacks_and_keeps_each_alert_once() {
    let Some(there) = Downstream::begin() else { return };
    let host = &there.host;
    host.run("systemctl start nightjar-archive");
    assert_ne!(host.property("nightjar-archive", "ActiveState"), "active");
    assert!(host.succeed("journalctl -b -u nightjar-archive").contains("no broker is named"));

    host.write("/etc/nightjar/nightjar.toml", "[alerts]\nprefix = \"njr\"\n");
    let drop_in = format!("[Service]\nEnvironment=BROKERS={}\n", there.kafka.bootstrap());
    host.write("/etc/systemd/system/nightjar-archive.service.d/where.conf", &drop_in);
    host.succeed("systemctl daemon-reload; systemctl start nightjar-archive");
    there.send(3..);
    let listening = || host.property("nightjar-archive", "ActiveState") == "active";
    assert!(listening());
    host.succeed("systemctl kill --signal=KILL nightjar-archive");
    wait_until("the archive is started again", listening);
    let count = alerts_of(&there.night);
    let words =
        format!("nightjar archive verify --out /var/lib/nightjar-archive --brokers {}", there.kafka.bootstrap());
    let all = format!("{count} alerts in the topic, {count} of them here, 0 missing, 0 twice");
    wait_until("each alert is in the archive once", || {
        // What is open gets its name when the unit stops.
        host.succeed("systemctl restart nightjar-archive");
        host.run(&format!("runuser -u nightjar -- {words}")).said.contains(&all)
    });
    host.succeed("systemctl stop nightjar-archive");
    let said = host.succeed(&format!("runuser -u nightjar -- {words}"));
    assert!(said.contains(&all), "{said}");
}

/// What the example passes, by another reader of the packet.
fn passes(alert: &Alert) -> bool {
    let record = apache_avro::Reader::new(alert.payload.as_slice()).unwrap().next().unwrap().unwrap();
    let of = |value: &Value, name: &str| -> Value {
        let Value::Record(fields) = value else { panic!("{value:?}") };
        let value = fields.iter().find(|(field, _)| field == name).unwrap().1.clone();
        if let Value::Union(_, inner) = value { *inner } else { value }
    };
    let number = |name: &str| match of(&of(&record, "candidate"), name) {
        Value::Float(x) => f64::from(x),
        Value::Double(x) => x,
        other => panic!("{name}: {other:?}"),
    };
    number("scorr").abs() > 10.0 && number("magpsf") < 19.0
}

fn wheels() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("nightjar/wheels")
}

#[test]
fn a_filter_unit_runs_the_scientists_file_and_sends_on_what_it_passes() {
    let Some(there) = Downstream::begin() else { return };
    let host = &there.host;
    // As the unit's head says, without a network: from wheels that were fetched before.
    host.put(&wheels(), "/root/wheels");
    host.succeed(
        "python3 -m venv /opt/nightjar-filters && cp -r /usr/share/nightjar/filters /root/filters && \
         /opt/nightjar-filters/bin/pip install --no-index --find-links /root/wheels /root/filters 2>&1",
    );
    host.succeed("install -D -m 644 /usr/share/nightjar/filters/examples/signal_and_brightness.py /etc/nightjar/filters/bright.py");
    let properties = format!("bootstrap.servers = {}\n", there.kafka.bootstrap());
    host.write("/etc/nightjar/filters/kafka.properties", &properties);
    // Another prefix, and one broker that keeps one copy.
    host.write(
        "/etc/systemd/system/nightjar-filter@.service.d/one.conf",
        "[Service]\nExecStart=\nExecStart=/opt/nightjar-filters/bin/nightjar-filter /etc/nightjar/filters/%i.py --kafka /etc/nightjar/filters/kafka.properties --group nightjar-filter-%i --prefix njr --replication 1\n",
    );
    host.succeed("systemctl daemon-reload; systemctl start nightjar-filter@bright");
    there.send(3..);
    let passing = there
        .night
        .iter()
        .flat_map(|visit| &visit.alerts)
        .filter(|alert| passes(alert))
        .map(|alert| alert.candid.to_string())
        .collect::<std::collections::BTreeSet<_>>();
    assert!(passing.len() > 5, "the night has something to pass");
    let passed = || {
        let records = there.kafka.read_all("njr_20261124_Filter001", true);
        let candid = |record: &support::kafka::Record| {
            record.headers.iter().find(|(name, _)| name == "candid").map(|(_, value)| value.clone())
        };
        records.iter().filter_map(candid).collect::<Vec<_>>()
    };
    wait_until("what passes has been sent on", || passed().len() >= passing.len());
    host.succeed("systemctl kill --signal=KILL nightjar-filter@bright");
    let active = || host.property("nightjar-filter@bright", "ActiveState") == "active";
    wait_until("the filter is started again", active);
    host.succeed("systemctl stop nightjar-filter@bright");
    let passed = passed();
    assert_eq!(passed.len(), passing.len(), "nothing is sent on twice");
    assert_eq!(passed.into_iter().collect::<std::collections::BTreeSet<_>>(), passing);

    // A file that is wrong ends the unit with a sentence, and it is not started again and again.
    host.write("/etc/nightjar/filters/broken.py", "class Filter002(AlertFilter:\n");
    host.run("systemctl start nightjar-filter@broken");
    assert_eq!(host.property("nightjar-filter@broken", "ExecMainStatus"), "78");
    assert!(host.succeed("journalctl -b -u nightjar-filter@broken").contains("broken.py"));
}
