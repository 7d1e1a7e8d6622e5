//! Several detectors on one host: `nightjar@NAME.service` reads `/etc/nightjar/NAME.toml`, and what that
//! file leaves out lies in folders of its own, so that two detectors never write into one spool.

use std::path::{Path, PathBuf};

use super::{DEFAULT_FILE, Settings};

/// NAME, where `file` is `/etc/nightjar/NAME.toml` and not the one of the plain unit.
pub(super) fn name_of(file: &Path) -> Option<&str> {
    let plain = Path::new(DEFAULT_FILE);
    let is_beside = file != plain && file.parent() == plain.parent();
    if is_beside && file.extension().is_some_and(|ending| ending == "toml") { file.file_stem()?.to_str() } else { None }
}

/// What `file` need not say.
pub(super) fn defaults(file: Option<&Path>) -> Settings {
    let mut settings = Settings::default();
    let Some(name) = file.and_then(name_of) else { return settings };
    let moved = |path: &mut PathBuf| {
        for (plain, own) in [("/var/lib/nightjar", "/var/lib/nightjar-"), ("/run/nightjar", "/run/nightjar-")] {
            if let Ok(rest) = path.strip_prefix(plain) {
                *path = Path::new(&format!("{own}{name}")).join(rest);
                return;
            }
        }
    };
    moved(&mut settings.frames.folder);
    moved(&mut settings.calibration.masters);
    moved(&mut settings.references.folder);
    moved(&mut settings.history.file);
    moved(&mut settings.spool.folder);
    moved(&mut settings.service.status_file);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_of_an_instance_is_that_of_another() {
        let text = |file: &str| serde_json::to_string(&defaults(Some(Path::new(file)))).unwrap();
        let (plain, blue) = (text(DEFAULT_FILE), text("/etc/nightjar/blue.toml"));
        for place in ["/var/lib/nightjar", "/run/nightjar"] {
            assert!(plain.contains(&format!("\"{place}/")) && blue.contains(&format!("\"{place}-blue/")), "{blue}");
            assert!(!blue.contains(&format!("\"{place}/")), "{blue}");
        }
        assert_eq!(text("/home/observer/nightjar/blue.toml"), plain);
    }
}
