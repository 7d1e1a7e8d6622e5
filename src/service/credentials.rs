//! Secrets, as systemd hands them over (`LoadCredential=`): files that only this service can read.

use std::path::{Path, PathBuf};

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Not started with credentials.
    #[error(
        "credential '{0}' is asked for, but the service was started without credentials; \
         add LoadCredential={0}:/path/to/secret with `systemctl edit nightjar`"
    )]
    NoFolder(String),
    /// The file is not there or cannot be read.
    #[error("credential '{name}' cannot be read from {folder} ({reason}); check LoadCredential={name}: in the unit", folder = folder.display())]
    Unreadable {
        /// Its name.
        name: String,
        /// Where credentials lie.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// The credential `name`, without a final line break. `folder` is the value of
/// `CREDENTIALS_DIRECTORY` (systemd.exec(5)).
pub fn read(folder: Option<&Path>, name: &str) -> Result<String, CredentialError> {
    let folder = folder.ok_or_else(|| CredentialError::NoFolder(name.to_owned()))?;
    let text = std::fs::read_to_string(folder.join(name)).map_err(|e| CredentialError::Unreadable {
        name: name.to_owned(),
        folder: folder.to_owned(),
        reason: e.to_string(),
    })?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Where systemd put this service's credentials.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_without_the_line_break_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kafka"), "secret \n").unwrap();
        assert_eq!(read(Some(folder.path()), "kafka").unwrap(), "secret ");
    }

    #[test]
    fn a_missing_credential_says_what_to_add_to_the_unit() {
        assert!(read(None, "kafka").unwrap_err().to_string().contains("LoadCredential=kafka"));
    }
}
