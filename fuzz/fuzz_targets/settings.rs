//! Any bytes as the settings file: settings, or a list of faults.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nightjar::settings::Settings;

fuzz_target!(|data: &[u8]| {
    let file = std::env::temp_dir().join(format!("nightjar-fuzz-{}.toml", std::process::id()));
    if std::fs::write(&file, data).is_ok()
        && let Err(error) = Settings::load_with(Some(&file), [])
    {
        assert!(!error.faults.is_empty());
    }
});
