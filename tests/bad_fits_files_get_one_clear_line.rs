//! Whatever is wrong with a FITS file, reading it gives one line that names the file and what to do: no
//! panic, no flood, no memory beyond what the file can hold.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ndarray::Array2;
use nightjar::camera::{DetectorFallbacks, HeaderFallbacks, raw_frame};
use nightjar::fits::{FitsError, FitsImage, HduOut, Header, Plane, read_header, read_planes, write_fits};
use proptest::prelude::*;

/// A raw frame with an extension behind it.
fn good(folder: &Path) -> Vec<u8> {
    let pixels = Array2::from_shape_fn((60, 50), |(y, x)| (500 + (x * 31 + y * 17) % 97) as u16);
    let mut header = Header::new();
    header.set("IMAGETYP", "Light Frame", "").set("DATE-OBS", "2026-11-24T03:15:22.12", "").set("EXPTIME", 30.0, "");
    header.set("FILTER", "r", "").set("GAIN", 6.2, "e-/ADU").set("TRIMSEC", "[1:40,1:60]", "");
    header.set("BIASSEC", "[41:50,1:60]", "");
    let path = folder.join("good.fits");
    let planes = [
        HduOut { name: "", header: &header, plane: Plane::U16(&pixels) },
        HduOut { name: "MASK", header: &Header::new(), plane: Plane::U16(&pixels) },
    ];
    write_fits(&path, &planes).unwrap();
    std::fs::read(path).unwrap()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let length = compressor.gzip_compress(bytes, &mut packed).unwrap();
    packed.truncate(length);
    packed
}

fn with_card(bytes: &[u8], keyword: &str, value: &str) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let at = changed.chunks(80).position(|card| card.starts_with(format!("{keyword:<8}=").as_bytes())).unwrap() * 80;
    changed[at..at + 80].copy_from_slice(format!("{keyword:<8}= {value:<70}").as_bytes());
    changed
}

fn read(path: &Path, bytes: &[u8]) -> Result<Vec<FitsImage>, FitsError> {
    std::fs::write(path, bytes).unwrap();
    read_planes(path)
}

/// The message is one line, names the file, and ends in something to do.
fn assert_clear(message: &str, name: &str) {
    assert!(!message.contains('\n') && message.len() < 400, "{message}");
    assert!(message.contains(name), "{message}");
    let does = ["copy it again", "give a", "check", "correct", "let the camera", "calibrate", "set ", "is not usable"];
    assert!(does.iter().any(|words| message.contains(words)), "{message}");
}

#[test]
fn a_header_that_claims_a_thousand_million_columns_is_refused_by_its_keyword() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = good(folder.path());
    for (keyword, value) in [
        ("NAXIS1", "1000000000"),
        ("NAXIS2", "1000000000"),
        ("NAXIS1", "-7"),
        ("NAXIS1", "NaN"),
        ("BITPIX", "17"),
        ("NAXIS", "99999"),
    ] {
        let changed = with_card(&bytes, keyword, value);
        for (name, content) in [("bad.fits", changed.clone()), ("bad.fits.gz", gzipped(&changed))] {
            let message = read(&folder.path().join(name), &content).unwrap_err().to_string();
            assert_clear(&message, name);
            assert!(message.contains(keyword), "{keyword} = {value}: {message}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = good(folder.path());
    // Behind the last pixel there is only padding; between the two images nothing is missed.
    let (first, second) = (2880 + 60 * 50 * 2, 2880 + 8640 + 2880 + 60 * 50 * 2);
    for cut in (0..second).step_by(97).chain([2879, 2880, first - 1, second - 1]) {
        let outcome = read(&folder.path().join("cut.fits"), &bytes[..cut]);
        if cut >= first && cut <= 2880 + 8640 {
            // The first image is there; without the padding behind it the library may decline.
            match outcome {
                Ok(images) => assert_eq!(images.len(), 1),
                Err(error) => assert_clear(&error.to_string(), "cut.fits"),
            }
            continue;
        }
        assert_clear(&outcome.expect_err(&format!("{cut} bytes")).to_string(), "cut.fits");
    }
    let packed = gzipped(&bytes);
    for cut in (0..packed.len()).step_by(11) {
        let outcome = read(&folder.path().join("cut.fits.gz"), &packed[..cut]);
        assert_clear(&outcome.expect_err(&format!("{cut} packed bytes")).to_string(), "cut.fits.gz");
    }
}

#[test]
fn what_is_no_fits_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str| folder.path().join(name);
    assert_clear(&read(&named("empty.fits"), b"").unwrap_err().to_string(), "empty.fits");
    assert_clear(&read(&named("picture.fits"), b"\x89PNG\r\n\x1a\n and more").unwrap_err().to_string(), "picture.fits");
    assert_clear(&read_planes(&named("nowhere.fits")).unwrap_err().to_string(), "nowhere.fits");
    assert_clear(&read_planes(folder.path()).unwrap_err().to_string(), "folder");
    let table = with_card(&good(folder.path()), "NAXIS", "0");
    assert_clear(&read(&named("no-image.fits"), &table[..2880]).unwrap_err().to_string(), "no-image.fits");
}

#[test]
fn a_gzip_bomb_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let mut bomb = gzipped(&vec![0_u8; 100 << 20]);
    let message = read(&folder.path().join("bomb.fits.gz"), &bomb).unwrap_err().to_string();
    assert!(message.contains("claims to unpack"), "{message}");
    // One that lies about its length is caught when it exceeds it.
    let end = bomb.len();
    bomb[end - 4..].copy_from_slice(&2880_u32.to_le_bytes());
    let message = read(&folder.path().join("bomb.fits.gz"), &bomb).unwrap_err().to_string();
    assert!(message.contains("length"), "{message}");
}

#[test]
fn keywords_that_are_missing_or_hold_nonsense_are_named_with_file_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = good(folder.path());
    let path = folder.path().join("light.fits");
    for (keyword, value) in [
        ("EXPTIME", "'NaN     '"),
        ("EXPTIME", "NaN"),
        ("EXPTIME", "-1.0"),
        ("DATE-OBS", "'yesterday'"),
        ("TRIMSEC", "'[1:4000,1:60]'"),
        ("TRIMSEC", "'oops    '"),
        ("BIASSEC", "'[30:50,1:60]'"),
    ] {
        let image = read(&path, &with_card(&bytes, keyword, value)).unwrap().swap_remove(0);
        let raw = raw_frame(image, 0.0, &HeaderFallbacks::default(), &DetectorFallbacks::default());
        let message = raw.expect_err(value).to_string();
        assert_clear(&message, "light.fits");
        assert!(message.contains(keyword), "{message}");
    }
}

#[test]
fn nan_pixels_are_read_and_masked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nan.fits");
    let mut pixels = Array2::<f32>::from_elem((20, 30), 7.0);
    pixels[[3, 4]] = f32::NAN;
    pixels[[5, 6]] = f32::INFINITY;
    let mut header = Header::new();
    header.set("IMAGETYP", "light", "").set("DATE-OBS", "2026-11-24T03:15:22", "").set("EXPTIME", 1.0, "");
    header.set("FILTER", "r", "");
    write_fits(&path, &[HduOut { name: "", header: &header, plane: Plane::F32(&pixels) }]).unwrap();
    let image = read_planes(&path).unwrap().swap_remove(0);
    let raw = raw_frame(image, 0.0, &HeaderFallbacks::default(), &DetectorFallbacks::default()).unwrap();
    let missing = raw.missing.unwrap();
    assert!(missing[[3, 4]] != 0 && missing[[5, 6]] != 0);
    assert!(raw.pixels.pixels.iter().all(|value| value.is_finite()));
}

/// Real files, small ones of each form.
fn real_files() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let names = [
        "panoptes+panoptes-utils/solved.fits.fz",
        "kbarbary+sep/image.fits.gz",
        "AstroHuntsman+huntsman-drp/raw/bias_0.fits.gz",
        "legacysurvey+legacypipe/testcase4/c4d_150411_035242_ooi_z_ls9.N3.fits",
    ];
    names.iter().map(|name| data.join(name)).filter(|path| path.is_file()).collect()
}

#[test]
fn real_files_cut_or_with_flipped_bits_never_do_worse_than_an_error() {
    let files = real_files();
    if files.is_empty() {
        println!("not run: no real data");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let path = folder.path().join(&name);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % limit.max(1)
        };
        for round in 0..60 {
            let mut changed = bytes.clone();
            if round % 3 == 0 {
                changed.truncate(next(bytes.len()));
            } else {
                // Headers are where one bit matters most.
                let reach = if round % 3 == 1 { bytes.len().min(20_000) } else { bytes.len() };
                for _ in 0..=next(6) {
                    let at = next(reach);
                    changed[at] ^= 1 << next(8);
                }
            }
            if let Err(error) = read(&path, &changed) {
                assert!(error.to_string().contains(&name), "{error}");
                assert!(!error.to_string().contains('\n'), "{error}");
            }
            let _ = read_header(&path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_card_may_hold_anything(
        card in 0_usize..30,
        text in prop::collection::vec(0x20_u8..0x7f, 80),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = good(folder.path());
        bytes[card * 80..card * 80 + 80].copy_from_slice(&text);
        match read(&folder.path().join("any.fits"), &bytes) {
            Ok(mut planes) => {
                let image = planes.swap_remove(0);
                prop_assert!(image.pixels.len() <= bytes.len());
                let _ = raw_frame(image, 0.0, &HeaderFallbacks::default(), &DetectorFallbacks::default());
            }
            Err(error) => prop_assert!(error.to_string().contains("any.fits")),
        }
    }
}
