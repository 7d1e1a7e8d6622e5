//! The Python with astropy, numpy and fastavro that tests hand files to.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter that `NIGHTJAR_PYTHON` names, or the one in the cache; `None`, with a line that
/// says so, where there is neither.
pub fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let found = std::env::var_os("NIGHTJAR_PYTHON")
        .map(PathBuf::from)
        .or_else(|| cache.map(|folder| folder.join("nightjar/python/bin/python")))
        .filter(|path| path.is_file());
    if found.is_none() {
        println!("not run: no Python with astropy (`make test` makes one)");
    }
    found
}

/// Runs a script with arguments and gives what it prints; fails with what it says on stderr.
pub fn run(interpreter: &Path, script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(interpreter).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
