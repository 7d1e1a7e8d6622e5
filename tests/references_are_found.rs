//! An exposure finds its reference by where it points, in its own filter; files that cannot serve are
//! named with the keyword at fault.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ndarray::Array2;
use nightjar::calibrate::AdoptParameters;
use nightjar::camera::{HeaderFallbacks, exposure_from_header};
use nightjar::exposure::{Exposure, FrameKind};
use nightjar::fits::{HduOut, Header, Plane, write_fits};
use nightjar::register::library::{FALLBACK_ZERO_POINT, Library, NoReference};
use nightjar::time::Mjd;
use nightjar::wcs::Wcs;

const SIDE: usize = 80;
const SCALE_DEG: f64 = 1.0 / 3600.0;

fn wcs(ra: f64, dec: f64) -> Wcs {
    let middle = (SIDE as f64 - 1.0) / 2.0;
    Wcs::tan([middle, middle], [ra, dec], [[-SCALE_DEG, 0.0], [0.0, SCALE_DEG]]).unwrap()
}

fn header(filter: &str, field: &str, at: Option<(f64, f64)>) -> Header {
    let mut header = Header::new();
    header.set("IMAGETYP", "light", "").set("DATE-OBS", "2026-08-01T02:00:00", "").set("EXPTIME", 30.0, "");
    header.set("FILTER", filter, "").set("OBJECT", field, "").set("GAIN", 2.0, "");
    if let Some((ra, dec)) = at {
        wcs(ra, dec).write(&mut header);
    }
    header
}

fn write(folder: &Path, name: &str, header: &Header) -> PathBuf {
    let path = folder.join(name);
    let pixels = Array2::from_shape_fn((SIDE, SIDE), |(y, x)| 100.0 + ((x * 37 + y * 61) % 17) as f32);
    write_fits(&path, &[HduOut { name: "", header, plane: Plane::F32(&pixels) }]).unwrap();
    path
}

fn read(header: &Header, file: &str) -> Result<Exposure, String> {
    let fallbacks =
        HeaderFallbacks { kind: Some(FrameKind::Light), exposure_s: Some(1.0), filter: None, start: Some(Mjd(0.0)) };
    exposure_from_header(header, file, 0.0, &fallbacks).map_err(|error| error.to_string())
}

fn index(files: &[PathBuf]) -> Library {
    Library::index(files, &read, AdoptParameters::default(), 2)
}

fn exposure(filter: &str, field: &str) -> Exposure {
    read(&header(filter, field, None), "light.fits").unwrap()
}

#[test]
fn the_reference_of_largest_overlap_in_the_same_filter_serves() {
    let folder = tempfile::tempdir().unwrap();
    let quarter = 20.0 * SCALE_DEG;
    let files = [
        write(folder.path(), "a-r.fits", &header("r", "a", Some((10.0, 0.0)))),
        write(folder.path(), "b-r.fits", &header("r", "b", Some((10.0 + 2.0 * quarter, 0.0)))),
        write(folder.path(), "a-g.fits", &header("g", "a", Some((10.0 + quarter, 0.0)))),
    ];
    let library = index(&files);
    assert_eq!((library.entries().len(), library.refused().len()), (3, 0));
    let place = wcs(10.0 + 0.5 * quarter, 0.0);
    let found = library.find(&exposure("r", ""), Some(&place), (SIDE, SIDE)).unwrap();
    assert_eq!(found.entry.path, files[0]);
    let overlap = found.overlap.unwrap();
    assert!((overlap - 0.875).abs() < 0.06, "{overlap}");
    let all = library.covering("r", &place, (SIDE, SIDE));
    assert_eq!(all.iter().map(|s| s.entry.exposure.field.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn without_a_wcs_the_pointing_serves_and_without_that_the_name_of_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        write(folder.path(), "a.fits", &header("r", "M 31", Some((10.0, 41.0)))),
        write(folder.path(), "b.fits", &header("r", "M 33", Some((23.4, 30.6)))),
    ];
    let library = index(&files);
    let mut light = exposure("r", "M 31");
    let by_name = library.find(&light, None, (SIDE, SIDE)).unwrap();
    assert_eq!((by_name.entry.path.clone(), by_name.overlap), (files[0].clone(), None));
    light.pointing = Some((23.405, 30.603));
    assert_eq!(library.find(&light, None, (SIDE, SIDE)).unwrap().entry.path, files[1]);
    // A pointing that is far off does not stop the field's name from serving.
    light.pointing = Some((200.0, 0.0));
    assert_eq!(library.find(&light, None, (SIDE, SIDE)).unwrap().entry.path, files[0]);
}

#[test]
fn where_none_serves_the_reason_says_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(index(&[]).find(&exposure("r", ""), None, (SIDE, SIDE)).unwrap_err(), NoReference::Empty);
    let library = index(&[write(folder.path(), "a.fits", &header("r", "a", Some((10.0, 0.0))))]);
    let other_filter = library.find(&exposure("g", "a"), Some(&wcs(10.0, 0.0)), (SIDE, SIDE)).unwrap_err();
    assert!(other_filter.to_string().contains("there are: r"), "{other_filter}");
    let elsewhere = library.find(&exposure("r", "z"), Some(&wcs(12.0, 0.0)), (SIDE, SIDE)).unwrap_err();
    assert!(elsewhere.to_string().contains("a.fits, lies 2.00 degrees away"), "{elsewhere}");
    let nowhere = library.find(&exposure("r", ""), None, (SIDE, SIDE)).unwrap_err();
    assert!(nowhere.to_string().contains("RA and DEC"), "{nowhere}");
}

#[test]
fn a_file_that_cannot_serve_is_refused_by_its_keyword_and_the_others_still_serve() {
    let folder = tempfile::tempdir().unwrap();
    let mut no_scale = header("r", "", Some((10.0, 0.0)));
    for keyword in ["CD1_1", "CD1_2", "CD2_1", "CD2_2"] {
        no_scale.remove(keyword);
    }
    let mut projection = header("r", "", Some((10.0, 0.0)));
    projection.set("CTYPE1", "RA---CAR", "");
    let mut no_filter = header("r", "", Some((10.0, 0.0)));
    no_filter.remove("FILTER");
    let mut same = header("r", "", Some((10.0, 0.0)));
    same.set("RFID", 7_i64, "");
    let broken = folder.path().join("broken.fits");
    std::fs::write(&broken, b"SIMPLE").unwrap();
    let files = [
        write(folder.path(), "unsolved.fits", &header("r", "", None)),
        write(folder.path(), "no-scale.fits", &no_scale),
        write(folder.path(), "projection.fits", &projection),
        write(folder.path(), "no-filter.fits", &no_filter),
        broken,
        write(folder.path(), "seven.fits", &same),
        write(folder.path(), "seven-again.fits", &same),
    ];
    let library = index(&files);
    assert_eq!(library.entries().len(), 1);
    let reasons: Vec<String> = library.refused().iter().map(ToString::to_string).collect();
    let expected = ["CTYPE1", "CDELT1", "CTYPE1", "FILTER", "broken.fits", "RFID = 7"];
    for (reason, keyword) in reasons.iter().zip(expected) {
        assert!(reason.contains(keyword), "{reason}");
    }
    assert_eq!(reasons.len(), expected.len());
}

#[test]
fn pixels_are_loaded_on_demand_with_the_zero_point_of_an_electron_and_the_last_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut deep = header("r", "a", Some((10.0, 0.0)));
    deep.set("MAGZERO", 24.0, "").set("NCOMBINE", 12_i64, "").set("JDSTART", 2_460_000.5, "");
    deep.set("JDEND", 2_460_100.5, "");
    let files = [
        write(folder.path(), "a.fits.gz", &deep),
        write(folder.path(), "b.fits", &header("r", "b", Some((20.0, 0.0)))),
    ];
    let library = index(&files);
    let reference = library.load(&library.entries()[0]).unwrap();
    // Two electrons a unit: the magnitude of one electron is that of half a unit.
    assert!((reference.zero_point - (24.0 + 2.5 * 2.0_f64.log10())).abs() < 1e-9 && reference.zero_point_known);
    assert_eq!((reference.frames, reference.jd), (12, (2_460_000.5, 2_460_100.5)));
    let again = library.load(&library.entries()[0]).unwrap();
    assert!(std::sync::Arc::ptr_eq(&reference, &again));
    let plain = library.load(&library.entries()[1]).unwrap();
    assert_eq!((plain.zero_point, plain.zero_point_known, plain.frames), (FALLBACK_ZERO_POINT, false, 1));
    assert_ne!(plain.id, reference.id);
    assert_eq!(index(&files).entries()[0].id, reference.id, "the same name gives the same number");
    let map = reference.map_from(&wcs(10.0, 5.0 * SCALE_DEG), (SIDE, SIDE)).unwrap();
    let at = map.value(30.0, 30.0);
    assert!((at[0] - 30.0).hypot(at[1] - 35.0) < 1e-3, "{at:?}");
}
