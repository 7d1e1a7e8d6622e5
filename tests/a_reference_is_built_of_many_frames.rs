//! Calibrated frames of one field become a deep reference: what one frame alone shows does not
//! survive, bad frames are refused by name, and the library takes the result.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::Array2;
use nightjar::calibrate::{AdoptParameters, adopt};
use nightjar::camera::{HeaderFallbacks, exposure_from_header};
use nightjar::exposure::Exposure;
use nightjar::fits::{HduOut, Header, Plane, read_header, read_planes, write_fits};
use nightjar::register::library::Library;
use nightjar::time::Mjd;
use nightjar::wcs::Wcs;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

const SIDE: usize = 320;
const SCALE_DEG: f64 = 1.0 / 3600.0;
const SKY: f64 = 400.0;

/// The place of the transient, in the field's own pixels: as far from all stars as can be.
fn transient() -> (f64, f64) {
    let stars = stars();
    let room = |x: f64, y: f64| stars.iter().map(|s| (s.0 - x).hypot(s.1 - y)).fold(f64::INFINITY, f64::min);
    let places = (0..1600).map(|k| (100.3 + f64::from(k % 40) * 3.0, 100.6 + f64::from(k / 40) * 3.0));
    let (place, room) = places.map(|(x, y)| ((x, y), room(x, y))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(room > 12.0, "the field is too crowded: {room}");
    place
}

struct Frame {
    name: &'static str,
    /// Shift (pixels) and turn (degrees) of the pointing.
    dither: (f64, f64, f64),
    fwhm: f64,
    transparency: f64,
    filter: &'static str,
    transient: f64,
}

const fn frame(name: &'static str, dither: (f64, f64, f64), fwhm: f64) -> Frame {
    Frame { name, dither, fwhm, transparency: 1.0, filter: "r", transient: 0.0 }
}

/// Stars of the field: position in the field's own pixels, flux in electrons.
fn stars() -> Vec<(f64, f64, f64)> {
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    (0..130)
        .map(|_| {
            let flux = 10_f64.powf(rng.random_range(3.3..5.0));
            (rng.random_range(-20.0..340.0), rng.random_range(-20.0..340.0), flux)
        })
        .collect()
}

impl Frame {
    /// From the field's own pixels to this frame's.
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let (sin, cos) = self.dither.2.to_radians().sin_cos();
        let (u, v) = (x - 159.5, y - 159.5);
        (cos * u - sin * v + 159.5 + self.dither.0, sin * u + cos * v + 159.5 + self.dither.1)
    }

    fn wcs(&self) -> Wcs {
        let (sin, cos) = self.dither.2.to_radians().sin_cos();
        let (x, y) = self.place(159.5, 159.5);
        let s = SCALE_DEG;
        Wcs::tan([x, y], [30.0, 10.0], [[-s * cos, -s * sin], [-s * sin, s * cos]]).unwrap()
    }

    fn write(&self, folder: &Path, index: usize) -> PathBuf {
        let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
        let mut pixels = Array2::from_elem((SIDE, SIDE), SKY as f32);
        let mut sources = stars();
        let (x, y) = transient();
        sources.push((x, y, self.transient));
        let variance = (self.fwhm / 2.354_82).powi(2);
        for (x, y, flux) in sources {
            let (x, y) = self.place(x, y);
            let reach = 6.0 * self.fwhm;
            let span = |at: f64| (at - reach).max(0.0) as usize..((at + reach).max(0.0) as usize).min(SIDE);
            for row in span(y) {
                for column in span(x) {
                    let r2 = (column as f64 - x).powi(2) + (row as f64 - y).powi(2);
                    // A Moffat of beta 3.5, as wide as the Gaussian of this variance.
                    let core = 2.0 * variance * 2.5;
                    let profile = (1.0 + r2 / core).powf(-3.5) * 2.5 / (std::f64::consts::PI * core);
                    pixels[[row, column]] += (self.transparency * flux * profile) as f32;
                }
            }
        }
        let normal = Normal::new(0.0, 1.0).unwrap();
        pixels.mapv_inplace(|mean: f32| mean + (f64::from(mean).sqrt() * normal.sample(&mut rng)) as f32);
        let mut header = Header::new();
        let start = Mjd(61_000.0 + index as f64 * 0.01);
        header.set("IMAGETYP", "light", "").set("DATE-OBS", start.to_string(), "").set("EXPTIME", 30.0, "");
        header.set("FILTER", self.filter, "").set("OBJECT", "test field", "").set("GAIN", 1.0, "");
        header.set("MAGZP", 25.0, "");
        self.wcs().write(&mut header);
        let path = folder.join(self.name);
        write_fits(&path, &[HduOut { name: "", header: &header, plane: Plane::F32(&pixels) }]).unwrap();
        path
    }
}

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
    assert!((entry.jd.0 - Mjd(61_000.0).jd()).abs() < 1e-6 && entry.jd.1 > entry.jd.0 + 0.039, "{:?}", entry.jd);
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
