//! Who this spool is: `spool.json`, and the epoch of each opening.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::store::{Store, read_small, replace_small};

/// One opening of the spool: a running number above, chance below, so that two lives of one
/// snapshot never share one. Written `12-9f3a77c1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.0 >> 32, self.0 as u32)
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.to_string()
    }
}

impl TryFrom<String> for Epoch {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once('-').and_then(|(opened, chance)| {
            Some((u64::from(opened.parse::<u32>().ok()?), u64::from(u32::from_str_radix(chance, 16).ok()?)))
        });
        parts.map(|(opened, chance)| Self(opened << 32 | chance)).ok_or_else(|| format!("`{text}` is not an epoch"))
    }
}

/// What `spool.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Format of the folder.
    pub format: u16,
    /// Name of the spool; also of its transactions.
    pub uuid: Uuid,
    /// How often it was opened.
    pub opened: u32,
    /// CRC-32C over the others as text; version 0.1 wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<u32>,
}

impl Identity {
    /// The name of the file.
    pub const FILE: &str = "spool.json";

    /// Reads it; `Ok(None)` when there is none, the reason as text when it is unreadable.
    pub fn read(store: &dyn Store) -> std::io::Result<Result<Option<Self>, String>> {
        let Some(bytes) = read_small(store, Self::FILE, 1 << 16)? else {
            return Ok(Ok(None));
        };
        let identity = serde_json::from_slice(&bytes).map_err(|error| error.to_string());
        Ok(identity.and_then(|identity: Self| match identity.check {
            Some(check) if check != identity.sum() => Err("its checksum does not fit".to_owned()),
            _ => Ok(Some(identity)),
        }))
    }

    fn sum(&self) -> u32 {
        crc32c::crc32c(format!("{} {} {}", self.format, self.uuid, self.opened).as_bytes())
    }

    /// A new spool.
    pub fn fresh(uuid: Uuid) -> Self {
        Self::known(uuid, 0)
    }

    /// A spool that was opened at least so often.
    pub fn known(uuid: Uuid, opened: u32) -> Self {
        Self { format: super::format::VERSION, uuid, opened, check: None }
    }

    /// Counts this opening durably and gives its epoch.
    pub fn open(&mut self, store: &dyn Store) -> std::io::Result<Epoch> {
        self.opened = self.opened.wrapping_add(1);
        self.check = Some(self.sum());
        replace_small(store, Self::FILE, format!("{}\n", serde_json::json!(self)).as_bytes())?;
        let chance = Uuid::new_v4().as_u128() as u32;
        Ok(Epoch(u64::from(self.opened) << 32 | u64::from(chance)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_digit_does_not_make_another_spool() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::spool::disk::Disk::at(folder.path());
        Identity::fresh(Uuid::from_u128(7)).open(&store).unwrap();
        let file = folder.path().join(Identity::FILE);
        let sound = std::fs::read(&file).unwrap();
        assert_eq!(Identity::read(&store).unwrap().unwrap().unwrap().uuid, Uuid::from_u128(7));
        for bit in 0..(sound.len() - 1) * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file, &damaged).unwrap();
            let read = Identity::read(&store).unwrap();
            assert!(read.is_err() || read.is_ok_and(|i| i.is_some_and(|i| i.uuid == Uuid::from_u128(7))), "bit {bit}");
        }
    }

    #[test]
    fn an_epoch_reads_back_what_it_wrote() {
        let epoch = Epoch(12 << 32 | 0x9f3a77c1);
        assert_eq!(epoch.to_string(), "12-9f3a77c1");
        assert_eq!(Epoch::try_from(epoch.to_string()), Ok(epoch));
        assert!(Epoch::try_from("12".to_string()).is_err());
    }
}
