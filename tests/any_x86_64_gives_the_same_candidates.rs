//! On the oldest x86-64, without AVX2, FMA or anything that came after SSE3, the same pair of images gives the same
//! candidates: the hot kernels choose at run time what the machine has. The old machine is QEMU's.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod night;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use support::night::{both, nightjar, succeed};

const OLD: [&str; 3] = ["qemu-x86_64", "-cpu", "qemu64"];

/// `program` with its words on the old machine.
fn on_old(program: &str) -> Command {
    let mut command = Command::new(OLD[0]);
    command.args(&OLD[1..]).arg(program);
    command
}

/// Whether there is QEMU; says so where there is none.
fn can_run() -> bool {
    let there = Command::new(OLD[0]).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        assert!(std::env::var_os("NIGHTJAR_REQUIRE_QEMU").is_none(), "no qemu-x86_64: apt install qemu-user");
        println!("not run: no qemu-x86_64 (Debian's qemu-user)");
    }
    there
}

/// Candidates of a pair, by column.
fn candidates(folder: &Path) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(folder.join("candidates.csv")).unwrap();
    let (names, lines) = text.split_once('\n').unwrap();
    let row = |line: &str| names.split(',').map(str::to_owned).zip(line.split(',').map(str::to_owned)).collect();
    lines.lines().map(row).collect()
}

/// Prints what the machine that runs this has; the tests run it on the old one.
#[test]
fn this_machine() {
    println!("avx2 {} fma {}", is_x86_feature_detected!("avx2"), is_x86_feature_detected!("fma"));
}

#[test]
fn an_x86_64_without_avx2_finds_what_another_finds() {
    if !can_run() {
        return;
    }
    let me = std::env::current_exe().unwrap();
    let said = on_old(me.to_str().unwrap()).args(["--exact", "this_machine", "--nocapture"]).output().unwrap();
    assert!(both(&said).contains("avx2 false fma false"), "the old machine is not old: {}", both(&said));

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let size = ["--width", "512", "--height", "512"];
    succeed(nightjar().args(["sky", "--pair"]).args(size).arg("--out").arg(path("pair")));
    let words = |out: &str| {
        let pair = ["pair/science.fits", "pair/reference.fits"].map(path);
        [vec!["difference".into()], pair.to_vec(), vec!["--out".into(), path(out)]].concat()
    };
    succeed(nightjar().args(words("here")));
    succeed(on_old(env!("CARGO_BIN_EXE_nightjar")).args(words("old")));

    let (here, old) = (candidates(&path("here")), candidates(&path("old")));
    assert!(here.len() > 20, "{} candidates show nothing", here.len());
    assert_eq!(here.len(), old.len());
    for (here, old) in here.iter().zip(&old) {
        for name in ["positive", "rejected", "flags"] {
            assert_eq!(here[name], old[name], "{name} of {here:?}");
        }
        let apart = |name: &str| {
            let value = |row: &BTreeMap<String, String>| row[name].parse::<f64>().unwrap();
            (value(here) - value(old)).abs() / if matches!(name, "x" | "y") { 1.0 } else { value(here).abs() }
        };
        // Sums in another order differ in the last digits of single precision.
        assert!(apart("x") < 0.002 && apart("y") < 0.002 && apart("flux") < 1e-3, "{here:?} against {old:?}");
    }
}
