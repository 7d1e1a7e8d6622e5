//! The first night on an installed host: settings, masters and references in place, a frame dropped into
//! the watched folder, and its alerts are committed records on real Kafka; the journal tells it with
//! fields and explains itself; state and figures can be read by others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod appliance;
    pub mod host;
    pub mod kafka;
    pub mod night;
}

use support::appliance::Appliance;
use support::host::Debian;
use support::kafka::Kafka;
use support::night::wait_until;

fn walk(debian: Debian) {
    let Some(appliance) = Appliance::installed(debian, 2) else { return };
    let host = &appliance.host;
    let _network = host.network();
    let Some(kafka) = Kafka::start() else { return };
    appliance.furnish();
    let uplink = format!("brokers = [\"{}\"]\nreplication = 1", kafka.bootstrap());
    appliance.configure(&uplink, "[metrics]\nlisten = \"127.0.0.1:9184\"");

    // Before the night: everything is there, as the service sees it.
    let check = host.run("runuser -u nightjar -- nightjar check --json 2>/dev/null");
    let findings: serde_json::Value = serde_json::from_str(&check.said).unwrap();
    // The disk is this machine's memory, and said to be small.
    let faults: Vec<_> = findings.as_array().unwrap().iter().filter(|f| f["severity"] == "fault").collect();
    assert!(faults.iter().all(|fault| fault["subject"] == "disk"), "{}", check.said);
    assert_eq!(check.code, i32::from(!faults.is_empty()));

    host.succeed("sync; echo 3 > /proc/sys/vm/drop_caches 2>/dev/null || true; systemctl restart nightjar");
    assert_eq!(host.property("nightjar", "ActiveState"), "active");
    let at = |what: &str| host.property("nightjar", what).parse::<f64>().unwrap() / 1e3;
    let cold = at("ActiveEnterTimestampMonotonic") - at("ExecMainStartTimestampMonotonic");
    let sizes = host.succeed("stat -c '%s' /opt/nightjar_*.deb; dpkg-query -W -f '${Installed-Size}' nightjar");
    println!("cold start to READY=1: {cold:.0} ms; bytes of the package, kB installed: {}", sizes.replace('\n', ", "));
    appliance.drop_in(&appliance.frames[0]);
    wait_until("the first exposure is done", || host.times("alerts in") == 1);
    wait_until("its alerts are acknowledged", || appliance.files("/var/lib/nightjar/spool/sent", ".seg") == 1);
    let records = kafka.read_all("nightjar_20", true);
    assert!(!records.is_empty() && records.iter().all(|record| record.payload.starts_with(b"Obj\x01")));

    // The headers are those of nightjar-alerts(7).
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/manual/nightjar-alerts.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| header")).skip(2);
    let told: Vec<&str> = rows.map_while(|row| row.split('`').nth(1).filter(|_| row.starts_with('|'))).collect();
    let mut sent: Vec<&str> = records[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    sent.sort_by_key(|name| told.iter().position(|other| other == name));
    assert_eq!(sent, told);

    the_journal_has_fields_and_explains_itself(&appliance, records.len());
    state_and_figures_can_be_read(&appliance, records.len());
}

fn the_journal_has_fields_and_explains_itself(appliance: &Appliance, alerts: usize) {
    let host = &appliance.host;
    let field = nightjar::fits::read_header(&appliance.frames[0]).unwrap().text(&["OBJECT"]).unwrap();
    let found = host.journal(&format!("-u nightjar NIGHTJAR_FIELD={field}"));
    assert_eq!(found.len(), 1, "{found:?}");
    let record = &found[0];
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("NIGHTJAR_ALERTS"), alerts.to_string());
    assert_eq!(text("MESSAGE_ID"), nightjar::service::events::EXPOSURE_DONE);
    assert_eq!((text("PRIORITY").as_str(), text("_SYSTEMD_UNIT").as_str()), ("6", "nightjar.service"));
    assert!(text("NIGHTJAR_SECONDS").parse::<f64>().unwrap() > 0.0 && text("NIGHTJAR_SPOOL_SEQ") == "1");
    let exposure = text("NIGHTJAR_EXPOSURE");
    assert!(text("MESSAGE").contains(&format!("exposure {exposure} field {field}")), "{record}");
    assert_eq!(host.journal(&format!("-u nightjar NIGHTJAR_EXPOSURE={exposure}")).len(), 1);
    assert!(host.journal("-u nightjar NIGHTJAR_FIELD=nowhere").is_empty());

    let explained = host.succeed("journalctl --no-pager -x -t nightjar");
    assert!(explained.contains("Subject: Nightjar is ready"), "{explained}");
    assert!(explained.contains(&format!("Subject: Alerts of exposure {exposure} are durable")), "{explained}");
    // No line says the same as another.
    let mut said = host.said();
    let count = said.len();
    said.sort();
    said.dedup();
    assert_eq!(said.len(), count, "{said:#?}");
}

fn state_and_figures_can_be_read(appliance: &Appliance, alerts: usize) {
    let host = &appliance.host;
    let status = host.property("nightjar", "StatusText");
    assert!(status.starts_with("exposure ") && status.contains("uplink ok"), "{status}");
    // By anybody, as a screen and for machines.
    let screen = host.run_as_user("nightjar status");
    assert_eq!(screen.code, 0, "{}", screen.said);
    assert!(screen.said.contains(&format!("{alerts} alerts acknowledged")), "{}", screen.said);
    let machine: serde_json::Value = serde_json::from_str(&host.run_as_user("nightjar status --json").said).unwrap();
    assert_eq!(machine["acknowledged"], alerts as u64);
    // In the sandbox it is known whether the clock is right: timedated answers, on a busy machine not at once.
    wait_until("the clock's state is known", || {
        let status = host.run_as_user("nightjar status --json");
        serde_json::from_str::<serde_json::Value>(&status.said).is_ok_and(|s| s["clock_synchronised"].is_boolean())
    });
    let figures = host.succeed(
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/9184; printf \"GET /metrics HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'",
    );
    assert!(
        figures.lines().any(|line| line == "nightjar_exposures_total 1" || line == "nightjar_exposures 1"),
        "{figures}"
    );
}

#[test]
fn debian_12() {
    walk(Debian::Bookworm);
}

#[test]
fn debian_13() {
    walk(Debian::Trixie);
}
