//! Removing the package keeps what was observed; purging it leaves nothing that it has made, but for
//! alerts that were never sent, which can still be read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod appliance;
    pub mod host;
    pub mod night;
}

use std::collections::BTreeSet;

use support::appliance::{Appliance, SETTINGS};
use support::host::{Debian, Host, package};
use support::night::wait_until;

/// Every file, folder, user and group of the host, but for what the system itself writes as it runs.
fn inventory(host: &Host) -> BTreeSet<String> {
    let systems = [
        "/var/log/",
        "/var/lib/dpkg/",
        "/var/lib/apt/",
        "/var/cache/",
        "/var/lib/systemd/",
        "/opt/",
        "/etc/.pwd.lock",
        "/var/backups/",
        "/etc/passwd-",
        "/etc/group-",
        "/etc/shadow-",
        "/etc/gshadow-",
        "/etc/subuid",
        "/etc/subgid",
        "/var/lib/man-db",
        "/root/",
    ];
    let files = host.succeed("find / -xdev -path /proc -prune -o -path /sys -prune -o -path /tmp -prune -o -print");
    let accounts = host
        .succeed("getent passwd | cut -d: -f1 | sed 's/^/user /'; getent group | cut -d: -f1,4 | sed 's/^/group /'");
    let private = |line: &str| line.starts_with("/var/tmp/systemd-private-") && !line.contains("nightjar");
    let is_ours = |line: &&str| !private(line) && !systems.iter().any(|system| line.starts_with(system));
    files.lines().filter(is_ours).chain(accounts.lines()).map(str::to_owned).collect()
}

fn walk(debian: Debian) {
    let Some(host) = Host::boot(debian) else { return };
    let before = inventory(&host);
    host.install(&package("0.1.0-1"));
    host.succeed("apt-get purge -y nightjar");
    let after = inventory(&host);
    assert_eq!(after.symmetric_difference(&before).collect::<Vec<_>>(), Vec::<&String>::new(), "never configured");
    drop(host);

    let Some(appliance) = Appliance::configured(debian, 1, "publish = false", "") else { return };
    let host = &appliance.host;
    host.succeed("systemctl restart nightjar");
    appliance.drop_in(&appliance.frames[0]);
    wait_until("the exposure is in the spool", || appliance.unsent() == 1);
    host.succeed("apt-get remove -y nightjar");
    assert!(!host.path("/usr/bin/nightjar").exists());
    assert_eq!((appliance.unsent(), appliance.in_journal()), (1, 1));
    assert!(host.path("/var/lib/nightjar/history.sqlite").exists() && host.path(SETTINGS).exists());
    assert_eq!(host.succeed("systemctl is-system-running").trim(), "running");

    // Installed again it goes on where it was; with `purge` unsent alerts stay, and it says where.
    host.install(&package("0.1.0-1"));
    wait_until("it runs", || host.property("nightjar", "SubState") == "running");
    let said = host.succeed("apt-get purge -y nightjar 2>&1");
    assert!(said.contains("/var/lib/nightjar keeps alerts that were never sent"), "{said}");
    let left = host.succeed("find /var/lib/nightjar -name '*.seg'; find /var/lib/nightjar -maxdepth 1 -mindepth 1");
    assert_eq!(left.lines().count(), 2, "{left}");
    let kept = left.lines().last().unwrap().to_owned();
    assert!(kept.starts_with("/var/lib/nightjar/spool-unsent-"), "{kept}");
    let rest: Vec<String> = inventory(host).difference(&before).cloned().collect();
    // What is left keeps its owner.
    let ours = ["/var/lib/nightjar", "/srv/camera", "user nightjar", "group nightjar:", "group dialout:nightjar"];
    let others: Vec<&String> = rest.iter().filter(|line| !ours.iter().any(|own| line.starts_with(own))).collect();
    assert!(others.is_empty(), "{others:#?}");

    // A new installation does not take them for its own, and can write them out.
    host.install(&package("0.1.0-1"));
    assert_eq!(appliance.unsent(), 0);
    host.succeed(&format!("nightjar spool export --folder {kept} --out /root/alerts"));
    let files = host.succeed("find /root/alerts -name '*.avro' | wc -l");
    assert!(files.trim().parse::<u32>().unwrap() > 0, "{files}");
    host.succeed("apt-get purge -y nightjar");
    assert!(host.path(&kept).exists(), "a second purge leaves them too");
}

#[test]
fn debian_12() {
    walk(Debian::Bookworm);
}

#[test]
fn debian_13() {
    walk(Debian::Trixie);
}
