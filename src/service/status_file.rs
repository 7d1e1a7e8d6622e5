//! The daemon's state as a file for `nightjar status`, replaced as a whole each time.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The file; writing it never stops the night.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    failed: bool,
}

impl StatusFile {
    /// The file at `path`; its folder is systemd's `RuntimeDirectory=`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), failed: false }
    }

    /// Replaces the content. A failure is said once, until it is over.
    pub fn write(&mut self, status: &impl Serialize) {
        match self.replace(status) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                let path = self.path.display();
                tracing::warn!(
                    "{path}: the status cannot be written ({error}); create the folder or set [service] status_file"
                );
            }
            Err(_) => {}
        }
    }

    fn replace(&self, status: &impl Serialize) -> std::io::Result<()> {
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".tmp");
        std::fs::write(&temporary, serde_json::to_vec_pretty(status)?)?;
        // The state of the night is no secret; the unit's UMask= is meant for frames and alerts.
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o644))?;
        std::fs::rename(&temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        let mut file = StatusFile::new(&path);
        file.write(&serde_json::json!({"exposures": 1}));
        file.write(&serde_json::json!({"exposures": 2}));
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["exposures"], 2);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
