//! Why the daemon could not start.

use crate::camera::journal::JournalError;
use crate::history::HistoryError;
use crate::service::credentials::CredentialError;
use crate::spool::SpoolError;
use crate::uplink::UplinkError;

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The frame journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The Kafka client.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// A secret.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Folders that cannot be written, a line each.
    #[error("{0}")]
    Folders(String),
    /// A camera that is a folder, and no folder.
    #[error("setting camera.folder: is not set; name the folder of the camera's frames")]
    Camera,
    /// Signals or threads.
    #[error("the system gives no threads or signals: {0}; raise TasksMax= of the unit")]
    System(#[from] std::io::Error),
}

impl DaemonError {
    /// Whether the settings are at fault: starting again does not help.
    pub fn is_of_the_settings(&self) -> bool {
        matches!(self, Self::Credential(_) | Self::Camera | Self::Uplink(UplinkError::Settings(_)))
    }
}
