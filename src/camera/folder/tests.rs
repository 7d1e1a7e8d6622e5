//! What the watched folder takes, and when.

use super::*;
use crate::fits::{HduOut, Header, Plane, write_fits};

struct Here {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    camera: FolderCamera,
}

/// A watched folder whose events are left out: only what the test says happens.
fn here() -> Here {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("a.fits");
    let pixels = ndarray::Array2::<f32>::zeros((40, 30));
    write_fits(&path, &[HduOut { name: "", header: &Header::new(), plane: Plane::F32(&pixels) }]).unwrap();
    let mut camera = FolderCamera::open(folder.path()).unwrap();
    camera.watcher = None;
    camera.signs = sync_channel(1).1;
    Here { folder, bytes: std::fs::read(path).unwrap(), camera }
}

impl Here {
    fn write(&self, name: &str, length: usize) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, &self.bytes[..length]).unwrap();
        path
    }
}

#[test]
fn a_file_found_by_the_rescan_is_taken_once_when_it_stands_still() {
    let mut here = here();
    let path = here.write("a.fits", here.bytes.len());
    assert!(here.camera.poll(0.0).is_empty());
    assert_eq!(here.camera.poll(SETTLE_S), std::slice::from_ref(&path));
    assert!(here.camera.poll(100.0).is_empty());
    assert!(path.exists(), "nothing is removed unasked");
}

#[test]
fn a_growing_file_is_waited_for() {
    let mut here = here();
    here.write("a.fits", 3000);
    assert!(here.camera.poll(0.0).is_empty());
    assert!(here.camera.poll(SETTLE_S + 1.0).is_empty(), "it stands still but is not whole");
    let path = here.write("a.fits", here.bytes.len());
    assert!(here.camera.poll(20.0).is_empty(), "it has just grown");
    assert_eq!(here.camera.poll(20.0 + SETTLE_S), [path]);
}

#[test]
fn a_rename_counts_at_once() {
    let mut here = here();
    assert!(here.camera.poll(0.0).is_empty());
    let path = here.write("a.fits", here.bytes.len());
    here.camera.note(Sign::Renamed(path.clone()), 1.0);
    assert_eq!(here.camera.poll(1.0), [path]);
    let broken = here.write("b.fits", 4000);
    here.camera.note(Sign::Renamed(broken.clone()), 2.0);
    assert!(here.camera.poll(2.0).is_empty());
    assert!(!broken.exists() && here.folder.path().join("rejected/b.fits").exists());
}

#[test]
fn broken_and_foreign_files_are_moved_aside_with_a_reason_and_unfinished_ones_are_not() {
    let mut here = here();
    here.write("cut.fits", 4000);
    std::fs::write(here.folder.path().join("notes.txt"), "not FITS").unwrap();
    std::fs::write(here.folder.path().join(".a.fits.Xy12"), "rsync").unwrap();
    std::fs::write(here.folder.path().join("b.fits.part"), "browser").unwrap();
    for now in [0.0, GIVE_UP_S / 2.0] {
        assert!(here.camera.poll(now).is_empty());
    }
    assert!(here.folder.path().join("cut.fits").exists());
    assert!(here.camera.poll(GIVE_UP_S).is_empty());
    let why = std::fs::read_to_string(here.folder.path().join("rejected/why.txt")).unwrap();
    assert!(why.contains("cut.fits: the file is not whole") && why.contains("notes.txt: not a FITS file"), "{why}");
    assert!(here.folder.path().join(".a.fits.Xy12").exists() && here.folder.path().join("b.fits.part").exists());
    assert_eq!(here.camera.arriving(), 0);
}

#[test]
fn a_consumed_file_may_come_again_under_its_name() {
    let mut here = here();
    let path = here.write("a.fits", here.bytes.len());
    here.camera.poll(0.0);
    assert_eq!(here.camera.poll(5.0).len(), 1);
    here.camera.consume(&path);
    assert!(!path.exists());
    here.write("a.fits", here.bytes.len());
    here.camera.poll(20.0);
    assert_eq!(here.camera.poll(30.0), [path]);
}

#[test]
fn inotify_tells_of_a_rename() {
    let mut here = here();
    let mut camera = FolderCamera::open(here.folder.path()).unwrap();
    camera.poll(0.0);
    let unfinished = here.write("a.fits.part", here.bytes.len());
    let path = here.folder.path().join("a.fits");
    std::fs::rename(unfinished, &path).unwrap();
    // The rescan is not due: only the event can tell.
    let found = (0..100).find_map(|_| {
        camera.wait(Duration::from_millis(100), 1.0);
        camera.poll(1.0).pop()
    });
    here.camera.watcher = None;
    assert_eq!(found, Some(path));
}
