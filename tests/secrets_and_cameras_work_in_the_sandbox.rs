//! Inside the shipped unit's sandbox: the broker's password comes as a credential and alerts go out over TLS;
//! a camera on a serial line is read; a second detector of the host runs beside the first; images under
//! /home and data on another disk are reached with the drop-ins of the package's examples.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod appliance;
    pub mod host;
    pub mod kafka;
    pub mod night;
}

use support::appliance::Appliance;
use support::host::Debian;
use support::kafka::{Kafka, PASSWORD};
use support::night::wait_until;

const HELD: &str = "publish = false";
const EXAMPLES: &str = "/usr/share/doc/nightjar/examples";

#[test]
fn alerts_go_out_over_tls_with_a_password_that_nobody_else_can_read() {
    let Some(appliance) = Appliance::installed(Debian::Bookworm, 1) else { return };
    let host = &appliance.host;
    let _network = host.network();
    let Some(kafka) = Kafka::start_secure() else { return };
    kafka.allow(&["--operation", "All", "--topic", "nightjar", "--resource-pattern-type", "prefixed"]);
    kafka.allow(&["--operation", "All", "--transactional-id", "nightjar-", "--resource-pattern-type", "prefixed"]);
    appliance.furnish();
    host.put(&kafka.ca_file(), "/etc/nightjar/ca.pem");
    appliance.configure(
        &format!(
            "brokers = [\"{}\"]\nreplication = 1\nsecurity = \"sasl_tls\"\nca_file = \"/etc/nightjar/ca.pem\"\n\
             sasl_username = \"nightjar\"\npassword_credential = \"kafka-password\"",
            kafka.secure_bootstrap()
        ),
        "",
    );
    // Without the drop-in it says what to add, and is not started again and again.
    let without = host.run("systemctl restart nightjar");
    assert_ne!(without.code, 0);
    assert_eq!(host.property("nightjar", "ExecMainStatus"), "78");
    assert_eq!(host.times("LoadCredential=kafka-password"), 1, "{:#?}", host.said());

    host.write("/etc/nightjar/kafka-password", &format!("{PASSWORD}\n"));
    host.write("/etc/nightjar/kafka-key", "not used here\n");
    host.succeed("chmod 600 /etc/nightjar/kafka-*");
    host.succeed(&format!(
        "install -D -m 644 {EXAMPLES}/credentials.conf /etc/systemd/system/nightjar.service.d/credentials.conf; \
         systemctl daemon-reload; systemctl restart nightjar"
    ));
    appliance.drop_in(&appliance.frames[0]);
    wait_until("the exposure is sent", || appliance.files("/var/lib/nightjar/spool/sent", ".seg") == 1);
    assert!(!kafka.read_all("nightjar_20", true).is_empty());
    // Neither in the environment nor in a file that others can read, nor in the journal.
    let pid = appliance.main_pid();
    let environment = host.succeed(&format!("tr '\\0' '\\n' </proc/{pid}/environ"));
    assert!(environment.contains("CREDENTIALS_DIRECTORY=") && !environment.contains(PASSWORD), "{environment}");
    assert_ne!(host.run_as_user("cat /run/credentials/nightjar.service/kafka-password").code, 0);
    assert_eq!(host.times(PASSWORD), 0);
}

#[test]
fn a_camera_on_a_serial_line_and_a_second_detector() {
    let Some(appliance) = Appliance::configured(Debian::Bookworm, 2, HELD, "") else { return };
    let host = &appliance.host;
    host.succeed("systemctl restart nightjar");
    host.put(&appliance.night, "/opt/night");
    let _camera = host.start("exec nightjar camera /opt/night --pty /opt/line --every 5 --exposure 0.1 --loop");
    wait_until("the camera is there", || host.path("/opt").join("line").symlink_metadata().is_ok());
    // A pseudo-terminal is not of the kinds that the unit lets in: this is what the drop-in says. Its owner and mode
    // are those that udev gives a serial line.
    let line = host.succeed("readlink /opt/line").trim().to_owned();
    host.succeed(&format!("chgrp dialout {line} && chmod 660 {line}"));
    host.write("/etc/systemd/system/nightjar@blue.service.d/line.conf", "[Service]\nDeviceAllow=char-pts rw\n");
    host.write(
        "/etc/nightjar/blue.toml",
        &format!(
            "[camera]\nkind = \"serial\"\ndevice = \"{line}\"\n[detector]\nrcid = 1\n[uplink]\npublish = false\n\
             [service]\nrequire_synchronised_clock = false\n"
        ),
    );
    host.succeed("systemctl daemon-reload && systemctl start nightjar@blue");
    host.succeed("cp -r /var/lib/nightjar/masters /var/lib/nightjar/references /var/lib/nightjar-blue/");
    host.succeed("chown -R nightjar:nightjar /var/lib/nightjar-blue");
    let spooled = || appliance.files("/var/lib/nightjar-blue/spool/ready", ".seg");
    wait_until("an exposure of the line is in its own spool", || spooled() >= 1);
    // Without rights beyond the group, and nothing of it at the other detector.
    assert_eq!((appliance.unsent(), appliance.in_journal()), (0, 0));
    for (config, unit) in [("", "nightjar"), (" --config /etc/nightjar/blue.toml", "nightjar@blue")] {
        assert_eq!(host.property(unit, "SubState"), "running");
        let status = host.run_as_user(&format!("nightjar status{config}"));
        assert_eq!(status.code, 0, "{}", status.said);
    }
    let pid = host.property("nightjar@blue", "MainPID");
    let capabilities = host.succeed(&format!("grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/{pid}/status"));
    assert!(capabilities.contains("CapEff:\t0000000000000000") && capabilities.contains("CapBnd:\t0000000000000000"));
    assert!(capabilities.contains("NoNewPrivs:\t1") && capabilities.contains("Seccomp:\t2"), "{capabilities}");
}

#[test]
fn images_under_home_and_data_on_another_disk_are_reached_by_the_examples() {
    let Some(appliance) = Appliance::installed(Debian::Bookworm, 1) else { return };
    let host = &appliance.host;
    appliance.furnish();
    host.succeed("install -d -o observer -g observer -m 755 /home/observer/images && chmod 755 /home/observer");
    host.succeed("install -d -o nightjar -g nightjar /data/nightjar");
    appliance
        .configure(HELD, "[spool]\nfolder = \"/data/nightjar/spool\"\n[frames]\nfolder = \"/data/nightjar/frames\"\n");
    let settings = host.succeed("cat /etc/nightjar/nightjar.toml").replace("/srv/camera", "/home/observer/images");
    host.write("/etc/nightjar/nightjar.toml", &settings);
    host.succeed(&format!(
        "install -d /etc/systemd/system/nightjar.service.d; cd /etc/systemd/system/nightjar.service.d; \
         cp {EXAMPLES}/data-disk.conf {EXAMPLES}/home-folder.conf .; systemctl daemon-reload; systemctl restart nightjar"
    ));
    let frame = &appliance.frames[0];
    host.put(frame, "/home/observer/images/");
    wait_until("the exposure is in the spool", || appliance.files("/data/nightjar/spool/ready", ".seg") == 1);
    assert_eq!(appliance.files("/data/nightjar/frames", ".fits"), 1);
}
