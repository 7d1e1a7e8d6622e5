//! Calibrated frames of one field become a deep reference: what one frame alone shows does not
//! survive, bad frames are refused by name, and the library takes the result.
#![allow(clippy::unwrap_used)]

mod support {
    pub mod field;
}

use std::path::PathBuf;
use std::process::Command;

use ndarray::Array2;
use nightjar::calibrate::{AdoptParameters, adopt};
use nightjar::camera::{HeaderFallbacks, exposure_from_header};
use nightjar::exposure::Exposure;
use nightjar::fits::{Header, read_header, read_planes};
use nightjar::register::library::Library;
use nightjar::time::Mjd;
use support::field::{Frame, SIDE, frame, stars, transient};

fn read(header: &Header, file: &str) -> Result<Exposure, String> {
    exposure_from_header(header, file, 0.0, &HeaderFallbacks::default()).map_err(|error| error.to_string())
}

fn aperture(image: &Array2<f32>, x: f64, y: f64) -> f64 {
    let (x, y) = (x.round() as usize, y.round() as usize);
    f64::from(image.slice(ndarray::s![y - 5..=y + 5, x - 5..=x + 5]).sum())
}

#[test]
fn many_frames_make_a_deep_reference_without_what_one_of_them_alone_shows() {
    let folder = tempfile::tempdir().unwrap();
    let frames = [
        frame("a.fits", (0.0, 0.0, 0.0), 2.8),
        frame("b.fits", (6.3, -4.1, 0.2), 3.0),
        Frame { transient: 30_000.0, ..frame("c.fits", (-3.7, 2.2, -0.1), 2.7) },
        frame("d.fits", (2.5, 7.9, 0.3), 3.2),
        frame("e.fits", (-8.4, -1.6, 0.05), 2.9),
        frame("blurred.fits", (1.0, 1.0, 0.0), 6.5),
        Frame { filter: "g", ..frame("green.fits", (0.5, 0.5, 0.0), 2.9) },
        Frame { transparency: 0.03, ..frame("cloudy.fits", (0.1, 3.0, 0.0), 3.0) },
    ];
    let mut files: Vec<PathBuf> = frames.iter().enumerate().map(|(k, f)| f.write(folder.path(), k)).collect();
    let copy = folder.path().join("again.fits");
    std::fs::copy(&files[1], &copy).unwrap();
    files.push(copy);
    let broken = folder.path().join("broken.fits");
    std::fs::write(&broken, b"SIMPLE  =                    T").unwrap();
    files.push(broken);
    let output = folder.path().join("references/deep.fits");

    let run = Command::new(env!("CARGO_BIN_EXE_nightjar"))
        .arg("reference")
        .args(&files)
        .arg("-o")
        .arg(&output)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    for bad in ["blurred", "green", "cloudy", "again", "broken"] {
        assert!(said.contains(&format!("left out {bad}.fits")), "{bad}: {said}");
    }
    assert!(said.contains("made from 5 of 10 frames"), "{said}");
    assert_eq!(std::fs::read_dir(output.parent().unwrap()).unwrap().count(), 1, "temporary files stayed");

    let header = read_header(&output).unwrap();
    assert_eq!(header.number(&["NFRAMES"]), Some(5.0));
    let planes = read_planes(&output).unwrap();
    let deep = adopt(planes, read(&header, "deep.fits").unwrap(), &AdoptParameters::default()).unwrap();
    let pixels = &deep.pixels().pixels;

    let noise = f64::from(deep.background().median_noise());
    assert!((8.0..11.0).contains(&noise), "noise {noise} of five frames of 20 each");
    let (x, y) = transient();
    let left = aperture(pixels, x, y);
    assert!(left.abs() < 4.0 * noise * 11.0, "{left} of 30000 electrons survived");
    let bright = stars().into_iter().filter(|(x, y, flux)| {
        *flux > 3e4 && [x, y].iter().all(|c| (20.0..300.0).contains(*c)) && {
            let near = |other: &&(f64, f64, f64)| (other.0 - x).hypot(other.1 - y) < 16.0;
            stars().iter().filter(near).count() == 1
        }
    });
    let ratios: Vec<f64> = bright.map(|(x, y, flux)| aperture(pixels, x, y) / flux).collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(ratios.len() >= 3 && ratios.iter().all(|r| (r / mean - 1.0).abs() < 0.03), "{ratios:?}");
    assert!((0.9..1.01).contains(&mean), "{mean}");

    let library = Library::index(&[output], &read, AdoptParameters::default(), 1);
    let entry = &library.entries()[0];
    assert_eq!((entry.frames, entry.exposure.filter.as_str()), (5, "r"));
    assert!((entry.jd.0 - Mjd(61_000.0).jd()).abs() < 1e-6 && entry.jd.1 > entry.jd.0 + 0.04, "{:?}", entry.jd);
    assert!(entry.limit_mag.is_some_and(|limit| (16.0..20.0).contains(&limit)), "{:?}", entry.limit_mag);
    let wcs = frames[3].wcs();
    let serving = library.find(&read(&header, "x").unwrap(), Some(&wcs), (SIDE, SIDE)).unwrap();
    assert!(serving.overlap.unwrap() > 0.85);
    assert!((library.load(entry).unwrap().zero_point - 25.0).abs() < 1e-9);
}

#[test]
fn two_good_frames_are_too_few_and_the_message_says_what_was_wrong_with_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let frames = [
        frame("a.fits", (0.0, 0.0, 0.0), 2.8),
        frame("b.fits", (6.3, -4.1, 0.2), 3.0),
        Frame { filter: "g", ..frame("green.fits", (0.5, 0.5, 0.0), 2.9) },
    ];
    let files: Vec<PathBuf> = frames.iter().enumerate().map(|(k, f)| f.write(folder.path(), k)).collect();
    let output = folder.path().join("deep.fits");
    let run = Command::new(env!("CARGO_BIN_EXE_nightjar"))
        .arg("reference")
        .args(&files)
        .arg("-o")
        .arg(&output)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1));
    assert!(said.contains("2 good frames of 3") && said.contains("green.fits: filter g"), "{said}");
    assert!(!output.exists());
}
