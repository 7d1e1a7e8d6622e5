//! Any bytes as the header of a FITS file: cards, what they say of the exposure, and whether the file
//! is whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nightjar::camera::{HeaderFallbacks, exposure_from_header};
use nightjar::fits::{Header, wholeness};
use nightjar::wcs::Wcs;

fuzz_target!(|data: &[u8]| {
    let header = Header::parse(&String::from_utf8_lossy(data));
    let _ = exposure_from_header(&header, "a.fits", 10.0, &HeaderFallbacks::default());
    let _ = Wcs::from_header(&header);
    let file = std::env::temp_dir().join(format!("nightjar-fuzz-{}.fits", std::process::id()));
    if std::fs::write(&file, data).is_ok() {
        let _ = wholeness(&file);
    }
});
