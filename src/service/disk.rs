//! Room on the disk.

use std::path::Path;

/// Bytes that this user may still write below `folder`, or below the nearest folder above it that is
/// there; `None` where nobody says.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let room = nix::sys::statvfs::statvfs(there).ok()?;
    Some(room.blocks_available() * room.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_to_be_made_has_the_room_of_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let room = free_bytes(&folder.path().join("var/lib/spool"));
        assert!(room.is_some_and(|bytes| bytes > 0));
    }
}
