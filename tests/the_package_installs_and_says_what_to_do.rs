//! `apt install ./nightjar_*.deb` on a fresh Debian: nothing fails, nothing runs blind, and what is to be
//! edited is said in order; an ordinary user can rehearse before that; the sandbox is closed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod host;
}

use support::host::{Debian, Host, package};

fn walk(debian: Debian) {
    let Some(host) = Host::boot(debian) else { return };
    let said = host.install(&package("0.1.0-1"));
    assert!(said.contains("systemctl status nightjar"), "{said}");
    assert!(!said.to_lowercase().contains("error") && !said.to_lowercase().contains("warning"), "{said}");

    nothing_fails_and_nothing_runs_blind(&host);
    an_ordinary_user_rehearses(&host);
    what_belongs_to_the_package_is_in_force(&host);
    the_sandbox_is_closed(&host);
}

fn nothing_fails_and_nothing_runs_blind(host: &Host) {
    assert_eq!(host.succeed("systemctl is-system-running").trim(), "running");
    assert_eq!(host.succeed("systemctl is-enabled nightjar").trim(), "enabled");
    assert_eq!(host.property("nightjar", "ActiveState"), "inactive");
    assert_eq!(host.property("nightjar", "MainPID"), "0");
    let status = host.run("systemctl status --no-pager --full --lines=20 nightjar").said;
    let place = |what: &str| status.find(what).unwrap_or_else(|| panic!("'{what}' is missing in\n{status}"));
    let order =
        ["no camera is named yet", "[observatory]", "[camera]", "[uplink]", "masters", "prove it: nightjar check"];
    assert!(order.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{status}");

    // The same from `check`, in a shell.
    let check = host.run("nightjar check");
    assert_eq!(check.code, 78, "{}", check.said);
    assert!(check.said.contains("camera.folder") && check.said.contains("uplink.brokers"), "{}", check.said);
    // A second start is no failure either, and a reboot is none.
    host.succeed("systemctl restart nightjar");
    assert_eq!(host.property("nightjar", "ActiveState"), "inactive");
    assert_eq!(host.succeed("systemctl is-system-running").trim(), "running");
}

fn an_ordinary_user_rehearses(host: &Host) {
    let sky = host.run_as_user(
        "nightjar sky --out night --width 512 --height 512 --fields 1 --exposures 1 --calibration-frames 6 --seed 5",
    );
    assert_eq!(sky.code, 0, "{}", sky.said);
    let run = host.run_as_user("nightjar simulate night --out run");
    assert_eq!(run.code, 0, "{}", run.said);
    let summary = host.succeed("cat /home/observer/run/summary.json");
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let (alerts, acknowledged) = (&summary["totals"]["alerts"], &summary["totals"]["acknowledged"]);
    assert!(alerts.as_u64().unwrap() > 0 && alerts == acknowledged, "{summary}");
}

fn what_belongs_to_the_package_is_in_force(host: &Host) {
    let id = host.succeed("id nightjar");
    assert!(id.contains("(nightjar)") && id.contains("dialout"), "{id}");
    let owner = host.succeed("stat -c '%U %a' /var/lib/nightjar /var/lib/nightjar/masters");
    assert_eq!(owner, "nightjar 750\nnightjar 750\n");
    let pages = ["1 nightjar", "1 nightjar-simulate", "5 nightjar.toml", "7 nightjar-protocol", "7 nightjar-alerts"];
    for page in pages.into_iter().chain(["8 nightjar-admin"]) {
        let shown = host.succeed(&format!("man -P cat {page}"));
        assert!(shown.contains("NAME") && shown.lines().count() > 20, "{page}: {shown}");
    }
    let completed = host.succeed(
        "bash -c '. /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/nightjar; \
         COMP_WORDS=(nightjar sp); COMP_CWORD=1; _nightjar nightjar sp nightjar; echo ${COMPREPLY[@]}'",
    );
    assert_eq!(completed.trim(), "spool");
    // Explained by the catalogue, restarted by nobody else.
    assert!(host.succeed("journalctl --list-catalog").contains("Nightjar is ready"));
    let rule = host.succeed(
        "perl -e 'our %nrconf; do \"/etc/needrestart/conf.d/nightjar.conf\"; die $@ if $@; \
         for my $unit (\"nightjar.service\", \"nightjar@blue.service\", \"ssh.service\") { \
         print grep({ $unit =~ $_ } keys %{$nrconf{override_rc}}) ? \"left\" : \"restarted\", \"\\n\" }'",
    );
    assert_eq!(rule, "left\nleft\nrestarted\n");
    let verified = host.run("systemd-analyze verify nightjar.service nightjar@blue.service");
    assert_eq!((verified.code, verified.said.trim()), (0, ""), "{}", verified.said);
    // The schema and the bill of materials can be read by machines.
    let bill = host.succeed("zcat /usr/share/doc/nightjar/nightjar.cdx.json.gz");
    let bill: serde_json::Value = serde_json::from_str(&bill).unwrap();
    let names: Vec<&str> =
        bill["components"].as_array().unwrap().iter().filter_map(|part| part["name"].as_str()).collect();
    assert!(names.contains(&"rdkafka-sys") && names.contains(&"fitsio") && names.len() > 100, "{names:?}");
}

fn the_sandbox_is_closed(host: &Host) {
    let security = host.succeed("systemd-analyze security --no-pager nightjar.service");
    let last = security.lines().rev().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
    let level: f64 = last.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(level <= 1.5, "{security}");
    let instance = host.succeed("systemd-analyze security --no-pager nightjar@blue.service");
    assert!(
        instance
            .contains(last.trim_start_matches("→ ").split(" for ").nth(1).and_then(|t| t.split(": ").nth(1)).unwrap())
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
