//! Every system call of a writer fails once, and from some call on for ever: a shim that is
//! preloaded counts them.

use std::path::Path;
use std::process::Command;

use nix::libc::{EINTR, EIO, ENOSPC};

use crate::row::{Row, long, not_run};
use crate::spool::{judge, write_to_the_end};

/// Kinds of calls, and whether the writer makes them for sure.
const KINDS: [(&str, bool); 7] = [
    ("open", true),
    ("write", true),
    ("fsync", true),
    ("rename", true),
    ("fallocate", true),
    ("ftruncate", true),
    ("unlink", false),
];

/// Builds the shim; `None` where there is no C compiler.
fn shim(folder: &Path) -> Option<std::path::PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fault_campaign/failing_calls.c");
    let library = folder.join("failing_calls.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .is_ok_and(|status| status.success());
    built.then_some(library)
}

#[test]
fn the_nth_call_fails() {
    let title = "the Nth open, write, fsync, rename, fallocate, ftruncate, unlink fails (EIO, ENOSPC, EINTR, short)";
    let place = tempfile::tempdir().unwrap();
    let Some(library) = shim(place.path()) else { return not_run(title, "there is no C compiler") };
    let mut row = Row::default();
    // In the tests every fifth; the last one that is tried must be beyond the end.
    let step = if long() { 1 } else { 5 };
    for (kind, always) in KINDS {
        let mut struck_at_all = false;
        let mut ways: Vec<String> = [EIO, ENOSPC].iter().flat_map(|e| [e.to_string(), format!("{e}+")]).collect();
        ways.push(EINTR.to_string());
        if kind == "write" {
            ways.push("short".into());
        }
        for how in ways {
            for n in (1..).step_by(step) {
                let folder = tempfile::tempdir().unwrap();
                let (spool, mark) = (folder.path().join("spool"), folder.path().join("struck"));
                let job = format!("{kind} {n} {how} {} {}", spool.display(), mark.display());
                let variables = [("LD_PRELOAD", library.display().to_string()), ("NIGHTJAR_SHIM", job)];
                let said = write_to_the_end(&spool, &variables);
                if !mark.exists() {
                    break;
                }
                struck_at_all = true;
                judge(&spool, &said, &mut row);
                assert!(row.clean(), "{kind} {n} {how}: {row:?}");
            }
        }
        assert!(struck_at_all || !always, "no {kind} was ever made to fail");
    }
    row.assert_clean(title);
}
