//! What the exit codes do under systemd: wrong settings (78) are all told and not tried again; a disk in
//! the way (75) and a defect (70) are tried again; each with one line that says what to do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod appliance;
    pub mod host;
    pub mod night;
}

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nightjar::service::events;
use support::appliance::{Appliance, SETTINGS};
use support::host::Debian;
use support::night::wait_until;

const HELD: &str = "publish = false";

#[test]
fn five_faults_are_five_lines_and_78_is_not_tried_again() {
    let Some(appliance) = Appliance::installed(Debian::Bookworm, 1) else { return };
    let host = &appliance.host;
    host.write(
        SETTINGS,
        "[camera]\nfolder = \"/srv/camera\"\nbaud = 3\ncadence_s = -1\n[detect]\nthreshold = 1\n\
         [uplink]\npublish = false\npartitions = 0\n[service]\nthreads = 5000\n",
    );
    let started = host.run("systemctl restart nightjar");
    assert_ne!(started.code, 0, "{}", started.said);
    assert_eq!(host.property("nightjar", "ActiveState"), "failed");
    assert_eq!(host.property("nightjar", "ExecMainStatus"), "78");
    let lines = host.journal(&format!("-u nightjar MESSAGE_ID={} PRIORITY=3", events::SETTINGS_WRONG));
    let told: Vec<&str> = lines.iter().filter_map(|line| line["MESSAGE"].as_str()).collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    for key in ["camera.baud", "camera.cadence_s", "detect.threshold", "service.threads", "uplink.partitions"] {
        let line = told.iter().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {told:#?}"));
        assert!(line.contains("must be") && line.contains(SETTINGS), "{line}");
    }
    // Longer than the pause after which it would be started again.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(host.property("nightjar", "ActiveState"), "failed");
    assert_eq!(host.property("nightjar", "NRestarts"), "0");
    assert_eq!(host.journal(&format!("-u nightjar MESSAGE_ID={}", events::SETTINGS_WRONG)).len(), 5);

    appliance.configure(HELD, "");
    host.succeed("systemctl restart nightjar");
    assert_eq!(host.property("nightjar", "ActiveState"), "active");
}

#[test]
fn a_disk_in_the_way_is_75_with_the_drop_in_to_add_and_it_is_tried_until_it_can() {
    let Some(appliance) = Appliance::installed(Debian::Bookworm, 1) else { return };
    let host = &appliance.host;
    // A disk outside the sandbox, as somebody would mount it.
    host.succeed("install -d -o nightjar -g nightjar /data/spool");
    appliance.configure(HELD, "[spool]\nfolder = \"/data/spool\"\n");
    host.run("systemctl restart --no-block nightjar");
    wait_until("it is tried again", || host.property("nightjar", "NRestarts").parse::<u32>().unwrap() >= 2);
    let ended = host.succeed("journalctl --no-pager -o cat -u nightjar");
    assert!(ended.contains("status=75/TEMPFAIL"), "{ended}");
    let line = host.said().into_iter().find(|line| line.contains("/data/spool")).unwrap();
    assert!(line.contains("ReadWritePaths=/data/spool"), "{line}");
    // What the line says, done.
    host.write("/etc/systemd/system/nightjar.service.d/disk.conf", "[Service]\nReadWritePaths=/data/spool\n");
    host.succeed("systemctl daemon-reload");
    wait_until("it runs", || host.property("nightjar", "SubState") == "running");
}

/// A library that lets the clock of one thread give nonsense, on which Rust's own library panics: a defect
/// as an operator would meet it, in the program as it is shipped.
fn defect(folder: &Path) -> std::path::PathBuf {
    let source = folder.join("defect.c");
    std::fs::write(
        &source,
        "#define _GNU_SOURCE\n#include <string.h>\n#include <sys/prctl.h>\n#include <sys/syscall.h>\n#include <time.h>\n\
         #include <unistd.h>\n\
         int clock_gettime(clockid_t clock, struct timespec *time) {\n\
         \x20   int answer = syscall(SYS_clock_gettime, clock, time);\n\
         \x20   char name[16] = \"\";\n\
         \x20   prctl(PR_GET_NAME, name);\n\
         \x20   if (!strcmp(name, \"pipeline\") && !access(\"/var/lib/nightjar/defect\", F_OK)) time->tv_nsec = 2000000000;\n\
         \x20   return answer;\n}\n",
    )
    .unwrap();
    let library = folder.join("defect.so");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(made.success());
    library
}

#[test]
fn a_defect_is_70_with_its_place_and_the_exposure_is_done_after_the_restart() {
    let Some(appliance) = Appliance::configured(Debian::Bookworm, 1, HELD, "") else { return };
    let host = &appliance.host;
    let folder = tempfile::tempdir().unwrap();
    host.put(&defect(folder.path()), "/usr/local/lib/defect.so");
    host.write(
        "/etc/systemd/system/nightjar.service.d/defect.conf",
        "[Service]\nEnvironment=LD_PRELOAD=/usr/local/lib/defect.so\n",
    );
    host.succeed("systemctl daemon-reload && systemctl restart nightjar");
    host.write("/var/lib/nightjar/defect", "");
    appliance.drop_in(&appliance.frames[0]);
    wait_until("it is started again", || host.property("nightjar", "NRestarts") != "0");
    std::fs::remove_file(host.path("/var/lib/nightjar/defect")).unwrap();
    let journal = host.succeed("journalctl --no-pager -o cat -u nightjar");
    assert!(journal.contains("status=70/SOFTWARE"), "{journal}");
    let told = host.journal(&format!("-u nightjar MESSAGE_ID={}", events::DEFECT));
    let told: Vec<&str> = told.iter().filter_map(|line| line["MESSAGE"].as_str()).collect();
    assert!(told.iter().any(|line| line.contains("please report this line") && line.contains(".rs:")), "{told:#?}");
    wait_until("the exposure is in the spool", || appliance.unsent() == 1);
    assert_eq!(host.property("nightjar", "SubState"), "running");
}
