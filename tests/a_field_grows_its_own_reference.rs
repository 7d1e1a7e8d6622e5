//! A telescope without any reference keeps the frames of its fields, says how many more are needed,
//! and builds the reference itself; from then on the field has one.
#![allow(clippy::unwrap_used)]

mod support {
    pub mod field;
}

use std::path::Path;

use nightjar::calibrate::{AdoptParameters, CalibratedFrame, adopt};
use nightjar::camera::{HeaderFallbacks, exposure_from_header};
use nightjar::exposure::Exposure;
use nightjar::fits::{Header, read_planes};
use nightjar::night::bootstrap::{Bootstrap, GROWING};
use nightjar::register::library::Library;
use support::field::{Frame, SIDE, frame};

fn read(header: &Header, file: &str) -> Result<Exposure, String> {
    exposure_from_header(header, file, 0.0, &HeaderFallbacks::default()).map_err(|error| error.to_string())
}

fn calibrated(path: &Path) -> CalibratedFrame {
    let planes = read_planes(path).unwrap();
    let exposure = read(&planes[0].header, "light.fits").unwrap();
    adopt(planes, exposure, &AdoptParameters::default()).unwrap()
}

fn open(references: &Path) -> Bootstrap {
    Bootstrap::open(references, 4, Box::new(read)).unwrap()
}

#[test]
fn the_frames_of_two_nights_make_the_reference_of_their_field() {
    let folder = tempfile::tempdir().unwrap();
    let references = folder.path().join("references");
    let mut frames: Vec<Frame> =
        (0..7).map(|k| frame("x.fits", (f64::from(k), -0.5 * f64::from(k), 0.02 * f64::from(k)), 2.8)).collect();
    frames[2].filter = "g";
    frames[3].fwhm = 6.0;
    let mut bootstrap = open(&references);
    let mut said = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        // The daemon may stop and start at any time: what is kept lies on disk.
        if index == 4 {
            bootstrap = open(&references);
        }
        said.push(bootstrap.keep(&calibrated(&frame.write(folder.path(), index))).unwrap());
        if index == 1 {
            assert!(bootstrap.build_ready(&AdoptParameters::default(), &|_| ()).is_empty(), "two are too few");
        }
    }
    assert_eq!(
        said[1].to_string(),
        "no reference yet for test field in r: 2 good frames of one night are kept, 2 more make one"
    );
    assert_eq!((said[2].filter.as_str(), said[2].good), ("g", 1));
    assert_eq!((said[6].good, said[6].nights), (5, 2), "the blurred one does not count: {said:?}");
    assert!(said[6].ready() && said[6].to_string().contains("when the night is over"));

    let built: Vec<_> =
        bootstrap.build_ready(&AdoptParameters::default(), &|_| ()).into_iter().map(Result::unwrap).collect();
    assert_eq!(built.len(), 1);
    let (path, reference) = &built[0];
    assert_eq!((reference.used.len(), reference.refused.len()), (5, 1), "{:?}", reference.refused);
    assert_eq!(path, &references.join("test_field-r-1.fits"));
    let growing = std::fs::read_dir(references.join(GROWING)).unwrap();
    let left: Vec<_> = growing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left, ["test_field-g-1"], "only the other filter still grows");

    let library = Library::index(std::slice::from_ref(path), &read, AdoptParameters::default(), 1);
    assert_eq!(library.refused().len(), 0);
    let mut exposure = library.entries()[0].exposure.clone();
    exposure.field.clear();
    let serving = library.find(&exposure, Some(&frames[6].wcs()), (SIDE, SIDE)).unwrap();
    assert_eq!(serving.entry.frames, 5);
}

#[test]
fn a_field_that_waits_long_does_not_fill_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let references = folder.path().join("references");
    let mut bootstrap = open(&references);
    for index in 0..11 {
        let wide = if index % 2 == 0 { 3.4 } else { 2.8 };
        bootstrap.keep(&calibrated(&frame("x.fits", (0.0, 0.0, 0.0), wide).write(folder.path(), index))).unwrap();
    }
    let kept = std::fs::read_dir(references.join(GROWING).join("test_field-r-1")).unwrap().count();
    assert_eq!(kept, 8, "twice what is needed");
    assert_eq!(bootstrap.growths()[0].good, 8);
}

#[test]
fn a_frame_that_cannot_be_part_of_a_reference_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut bootstrap = open(&folder.path().join("references"));
    let path = frame("x.fits", (0.0, 0.0, 0.0), 2.8).write(folder.path(), 0);
    let mut planes = read_planes(&path).unwrap();
    for keyword in ["OBJECT", "CTYPE1", "CTYPE2"] {
        planes[0].header.remove(keyword);
    }
    let exposure = read(&planes[0].header, "light.fits").unwrap();
    let nowhere = adopt(planes, exposure, &AdoptParameters::default()).unwrap();
    assert!(bootstrap.keep(&nowhere).unwrap_err().to_string().contains("plate-solve"));
}
