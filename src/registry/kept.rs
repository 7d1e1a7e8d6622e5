//! The numbers that are kept in the spool's folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RegistryError;
use crate::spool::store::{Store, read_small, replace_small};

/// Subjects that are kept: the newest nights.
const MOST_SUBJECTS: usize = 400;
/// Longest file that is read, bytes.
const LONGEST: u64 = 1 << 20;

/// What `schema-registry.json` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The registry that gave the numbers.
    registry: String,
    /// CRC-32C of the schema that has them.
    schema: u32,
    /// The numbers, by subject.
    numbers: BTreeMap<String, u32>,
    /// The one that was given last.
    newest: Option<u32>,
}

impl Kept {
    /// The file.
    pub const FILE: &str = "schema-registry.json";

    /// Reads it. What belongs to another registry or schema, or cannot be read, is as if it were not there: the
    /// registry is asked again.
    pub fn read(store: &dyn Store, registry: &str, schema: &str) -> Self {
        let sum = crc32c::crc32c(schema.as_bytes());
        let bytes = read_small(store, Self::FILE, LONGEST).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes)
            .ok()
            .filter(|kept: &Self| kept.registry == registry && kept.schema == sum)
            .unwrap_or_else(|| Self { registry: registry.to_owned(), schema: sum, ..Self::default() })
    }

    /// The number of a subject.
    pub fn number(&self, subject: &str) -> Option<u32> {
        self.numbers.get(subject).copied()
    }

    /// The number that was given last.
    pub fn newest(&self) -> Option<u32> {
        self.newest
    }

    /// Adds a subject. Topics of nights sort by date: the oldest go first.
    pub fn add(&mut self, subject: &str, number: u32) {
        self.numbers.insert(subject.to_owned(), number);
        self.newest = Some(number);
        while self.numbers.len() > MOST_SUBJECTS {
            self.numbers.pop_first();
        }
    }

    /// Writes it, all or nothing.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn write(&self, store: &dyn Store) -> Result<(), RegistryError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        replace_small(store, Self::FILE, &text)
            .map_err(|error| RegistryError::Disk { place: store.place(), reason: error.to_string() })
    }
}
