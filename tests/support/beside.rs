//! What tests use beside the crate. A test that lacks it says "not run" and passes, except under `make test`, which
//! installs it and sets `NIGHTJAR_REQUIRE_…`: there, missing is failing.

#![allow(dead_code)] // each test takes what it needs

use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python with astropy, fastavro and confluent-kafka: `NIGHTJAR_PYTHON`, else the one that `make test` makes.
pub fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let given = std::env::var_os("NIGHTJAR_PYTHON").map(PathBuf::from);
    let python = given.or_else(|| Some(cache?.join("nightjar/python/bin/python3")));
    present(python, "PYTHON", "no Python with astropy and fastavro; `make test` makes one")
}

/// Runs a script with arguments and gives what it prints; fails with what it says on stderr.
pub fn run(interpreter: &Path, script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(interpreter).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The folder of recorded exposures and packets of other projects.
pub fn real_data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    present(Some(folder), "DATA", "no real data in ../shared/data")
}

fn present(path: Option<PathBuf>, what: &str, absent: &str) -> Option<PathBuf> {
    let found = path.filter(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os(format!("NIGHTJAR_REQUIRE_{what}")).is_none(), "{absent}");
        println!("not run: {absent}");
    }
    found
}
