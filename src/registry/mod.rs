//! The schema registry: under which number readers find the schema of a message.
//!
//! A message of the `registry` profile begins with the number that the registry gave the schema
//! (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>).
//! The schema is registered under the subject of the topic, `TOPIC-value` (Confluent's topic name strategy), once a
//! night; numbers are kept in `schema-registry.json` in the spool's folder. The registry therefore need not run during
//! the night: where it does not answer, a topic whose subject is not registered yet uses the number that the same schema
//! has under an earlier one (a registry gives one schema one number), and registering is tried again later.

mod client;
mod kept;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use client::Client;

use crate::service::Stopwatch;
use crate::spool::store::Store;
use kept::Kept;

/// How long to leave a registry alone that did not answer.
const PAUSE: Duration = Duration::from_secs(300);

/// Why a number cannot be had. Each message ends in what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// No answer.
    #[error("the schema registry {address} does not answer ({reason}); start it, or correct [alerts] schema_registry")]
    Away {
        /// Its address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// It refuses.
    #[error(
        "the schema registry {address} refuses the schema of {subject} (HTTP {status}: {reason}); look at the subject's \
         compatibility and at the rights of [alerts] registry_credential"
    )]
    Refused {
        /// Its address.
        address: String,
        /// The subject.
        subject: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// Something else answers.
    #[error("{address} is no schema registry (it answered: {answer}); correct [alerts] schema_registry")]
    Foreign {
        /// The address.
        address: String,
        /// The beginning of the answer.
        answer: String,
    },
    /// The disk refuses.
    #[error("the schema's number cannot be kept in {place}/{file} ({reason}); check the disk", file = Kept::FILE)]
    Disk {
        /// The spool.
        place: String,
        /// What the system said.
        reason: String,
    },
}

/// Numbers of one schema, by topic.
pub struct Numbers {
    client: Client,
    schema: String,
    store: Box<dyn Store>,
    state: Mutex<State>,
}

struct State {
    kept: Kept,
    /// Since the registry last failed to answer.
    failed: Option<Stopwatch>,
    notice: Option<String>,
}

impl Numbers {
    /// Of `schema` (JSON), with what `store` keeps from earlier nights.
    pub fn new(client: Client, schema: &str, store: Box<dyn Store>) -> Self {
        let kept = Kept::read(store.as_ref(), client.address(), schema);
        let state = Mutex::new(State { kept, failed: None, notice: None });
        Self { client, schema: schema.to_owned(), store, state }
    }

    /// The number for messages of `topic`.
    ///
    /// # Errors
    ///
    /// When none is kept and the registry gives none: the exposure must wait.
    pub fn of(&self, topic: &str) -> Result<u32, RegistryError> {
        let subject = format!("{topic}-value");
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = state.kept.number(&subject) {
            return Ok(number);
        }
        let substitute = state.kept.newest();
        if let (Some(number), Some(failed)) = (substitute, &state.failed)
            && failed.elapsed() < PAUSE
        {
            return Ok(number);
        }
        match self.client.register(&subject, &self.schema) {
            Ok(number) => {
                state.failed = None;
                state.kept.add(&subject, number);
                state.kept.write(self.store.as_ref())?;
                Ok(number)
            }
            Err(error) => {
                state.failed = Some(Stopwatch::start());
                let number = substitute.ok_or_else(|| error.clone())?;
                state.notice = Some(format!(
                    "{subject} is not registered yet: {error}; its alerts carry the schema's number of earlier nights, {number}"
                ));
                Ok(number)
            }
        }
    }

    /// What the operator should know, once.
    pub fn take_notice(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).notice.take()
    }
}
