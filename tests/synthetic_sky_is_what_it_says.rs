//! What `nightjar sky` writes is what its truth tables say, for readers that share no code with it,
//! and the same for a seed on any number of cores.
#![allow(clippy::unwrap_used)]

mod support {
    pub mod beside;
}

use std::path::Path;
use std::process::Command;

use nightjar::fits::read_image;
use nightjar::sky::night::{NightRequest, Pointing, write_night};
use nightjar::sky::optics::PsfKind;
use nightjar::sky::pair::write_pair;
use nightjar::sky::request::Request;
use nightjar::sky::truth::Truth;
use support::beside;

fn request(seed: u64, side: usize, stars: f64) -> Request {
    Request {
        seed,
        width: side,
        height: side + 8,
        stars,
        fwhm: 2.6,
        reference_fwhm: 2.1,
        reference_angle: None,
        reference_depth: 15.0,
        psf: PsfKind::Moffat,
        wcs_error: 0.0,
        midnight: "2026-11-24".parse().unwrap(),
    }
}

fn night(seed: u64, side: usize, stars: f64) -> NightRequest {
    NightRequest {
        sky: request(seed, side, stars),
        exposures: 3,
        fields: 2,
        cadence_s: 45.0,
        calibration_frames: 4,
        pointing: Pointing::Wcs,
    }
}

fn fits_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(fits_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "fits") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn write_on(threads: usize, request: &NightRequest, folder: &Path) -> Truth {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| write_night(request, folder, &|_| {})).unwrap()
}

#[test]
fn a_seed_gives_the_same_night_on_any_number_of_cores_and_another_seed_another() {
    let folder = tempfile::tempdir().unwrap();
    let [one, three, other] = ["one", "three", "other"].map(|name| folder.path().join(name));
    let truth = write_on(1, &night(7, 160, 60.0), &one);
    assert_eq!(truth, write_on(3, &night(7, 160, 60.0), &three));
    assert_ne!(truth, write_on(3, &night(8, 160, 60.0), &other));
    let files = fits_files(&one);
    assert_eq!(files.len(), 3 + 2 + 4 + 2 + 2);
    for (a, b) in files.iter().zip(fits_files(&three)) {
        assert_eq!(read_image(a).unwrap().pixels, read_image(&b).unwrap().pixels, "{}", a.display());
    }
    assert_eq!(Truth::read(&one).unwrap(), truth);
}

#[test]
fn blank_sky_has_the_noise_of_its_photons_and_of_the_readout() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(&request(2, 300, 1.0), folder.path()).unwrap();
    for name in ["science.fits", "reference.fits"] {
        let image = read_image(&folder.path().join(name)).unwrap();
        let read_noise = image.header.number(&["RDNOISE"]).unwrap();
        // Neighbours in a row share the gradient; outliers are stars and cosmic rays.
        let mut differences: Vec<f64> = Vec::new();
        let mut levels: Vec<f64> = Vec::new();
        for row in image.pixels.rows() {
            for pair in row.to_vec().chunks_exact(2) {
                differences.push(f64::from(pair[1] - pair[0]));
                levels.push(f64::from(pair[0]));
            }
        }
        levels.sort_by(f64::total_cmp);
        let level = levels[levels.len() / 2];
        let expected = (2.0 * (level + read_noise * read_noise)).sqrt();
        differences.retain(|difference| difference.abs() < 4.0 * expected);
        let mean_square = differences.iter().map(|d| d * d).sum::<f64>() / differences.len() as f64;
        let found = mean_square.sqrt() / expected;
        assert!((found - 1.0).abs() < 0.015, "{name}: {found} times the noise of {level} electrons of sky");
    }
}

/// Opens every file, holds the truth's sky positions against its pixels by the headers' WCS, and
/// prints name, largest distance (pixels), data type, smallest value.
const ASTROPY: &str = r#"
import csv, pathlib, sys, warnings
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
warnings.simplefilter("ignore")
folder = pathlib.Path(sys.argv[1])
truth = list(csv.DictReader(open(folder / "truth.csv")))
for path in sorted(folder.rglob("*.fits")):
    with fits.open(path, checksum=True) as hdus:
        hdu = hdus[0]
        hdu.verify("exception")
        header, data = hdu.header, hdu.data
        assert header["CHECKSUM"] and header["DATASUM"]
        worst = -1.0
        rows = [row for row in truth if row["exposure"] == path.name]
        if rows and "CTYPE1" in header:
            x, y, ra, dec = (np.array([float(row[k]) for row in rows]) for k in ("x", "y", "ra", "dec"))
            first = int(header["TRIMSEC"][1:].split(":")[0]) - 1 if "TRIMSEC" in header else 0
            px, py = WCS(header).all_world2pix(ra, dec, 1)
            worst = np.hypot(px - first - x, py - y).max()
        print(path.name, header["IMAGETYP"], worst, data.dtype.name, data.shape[0], data.shape[1], sep="\t")
"#;

#[test]
fn astropy_opens_every_file_and_its_wcs_puts_the_truth_where_the_truth_says() {
    let Some(interpreter) = beside::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pair = folder.path().join("pair");
    write_pair(&request(5, 400, 250.0), &pair).unwrap();
    let lines = beside::run(&interpreter, ASTROPY, &[&pair]);
    let science: Vec<&str> = lines.lines().find(|line| line.starts_with("science")).unwrap().split('\t').collect();
    assert!(science[2].parse::<f64>().unwrap() < 1e-3, "{lines}");
    assert_eq!(&science[3..], ["float32", "408", "400"]);

    let folder = folder.path().join("night");
    let mut request = night(5, 200, 120.0);
    request.sky.wcs_error = 5.0;
    write_night(&request, &folder, &|_| {}).unwrap();
    let lines = beside::run(&interpreter, ASTROPY, &[&folder]);
    assert_eq!(lines.lines().count(), 13, "{lines}");
    for line in lines.lines().filter(|line| line.starts_with("light")) {
        let fields: Vec<&str> = line.split('\t').collect();
        let offset: f64 = fields[2].parse().unwrap();
        // The mount is wrong by 5 arcsec, the optics by a little more.
        assert!((offset - 5.0 / 1.01).abs() < 0.05, "{line}");
        assert_eq!(&fields[3..], ["uint16", "208", "248"]);
    }
}

/// Calibrates the night's frames in the plainest way and measures its stars by apertures: prints
/// the median of measured over true flux, and of the distances from the true places (pixels).
const MEASURE: &str = r#"
import csv, pathlib, sys
import numpy as np
from astropy.io import fits
folder = pathlib.Path(sys.argv[1])
def section(text):
    (x0, x1), (y0, y1) = (map(int, part.split(":")) for part in text.strip("[]").split(","))
    return slice(y0 - 1, y1), slice(x0 - 1, x1)
def load(path):
    with fits.open(path) as hdus:
        header, data = hdus[0].header, hdus[0].data.astype(float)
    data -= np.median(data[section(header["BIASSEC"])], axis=1)[:, None]
    return header, data[section(header["TRIMSEC"])]
bias = np.mean([load(path)[1] for path in folder.glob("bias*")], axis=0)
dark = np.median([load(path)[1] - bias for path in folder.glob("dark*")], axis=0) / 120
flat = np.mean([load(path)[1] - bias for path in folder.glob("flat*")], axis=0)
flat /= np.median(flat)
stars = list(csv.DictReader(open(folder / "stars.csv")))
ratios, distances = [], []
for path in sorted(folder.glob("light*")):
    header, data = load(path)
    data = (data - bias - 30 * dark) / flat * header["GAIN"]
    mine = [star for star in stars if star["exposure"] == path.name]
    x, y, flux = (np.array([float(star[k]) for star in mine]) - (k != "flux") for k in ("x", "y", "flux"))
    for a, b, f in zip(x, y, flux):
        i, j = int(round(b)), int(round(a))
        if not 3e4 < f < 6e5 or min(i, j, data.shape[0] - 1 - i, data.shape[1] - 1 - j) < 22: continue
        if (np.hypot(x - a, y - b) < 25).sum() > 1: continue
        yy, xx = np.mgrid[i - 20:i + 21, j - 20:j + 21]
        r = np.hypot(xx - a, yy - b)
        cut = data[i - 20:i + 21, j - 20:j + 21]
        cut = cut - np.median(cut[r > 15])
        ratios.append(cut[r < 11].sum() / f)
        px, py = a, b
        for _ in range(20):
            w = cut * np.exp(-((xx - px) ** 2 + (yy - py) ** 2) / 6)
            px, py = px + 2 * ((w * xx).sum() / w.sum() - px), py + 2 * ((w * yy).sum() / w.sum() - py)
        distances.append((px - a, py - b))
print(len(ratios), np.median(ratios), *np.median(distances, axis=0), *np.std(distances, axis=0))
"#;

#[test]
fn a_plain_reduction_finds_the_stars_of_a_night_where_and_as_bright_as_the_truth_says() {
    let Some(interpreter) = beside::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    write_night(&night(11, 600, 160.0), folder.path(), &|_| {}).unwrap();
    let line = beside::run(&interpreter, MEASURE, &[folder.path()]);
    let figures: Vec<f64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(figures[0] >= 15.0, "{line}");
    // An aperture of 11 px holds 99 % or more of a Moffat profile of FWHM 2.6.
    assert!(figures[1] > 0.98 && figures[1] < 1.005, "flux {line}");
    assert!(figures[2].abs() < 0.01 && figures[3].abs() < 0.01, "place {line}");
}

#[test]
fn a_run_that_says_the_truth_has_the_best_score_and_one_that_lies_has_not() {
    let folder = tempfile::tempdir().unwrap();
    let (pair, run) = (folder.path().join("pair"), folder.path().join("run"));
    let truth = write_pair(&request(3, 400, 250.0), &pair).unwrap();
    std::fs::create_dir(&run).unwrap();
    let table = |flux_factor: f64, shift: f64| {
        let mut text = "exposure,x,y,ra,dec,flux,flux_err,snr,mag,mag_err,positive,fwhm,rejected,extra\n".to_owned();
        for change in truth.changes.iter().filter(|change| change.snr > 5.0) {
            let (x, y, flux) = (change.x + shift, change.y, change.flux * flux_factor);
            let error = change.flux.abs() / change.snr;
            let sign = if flux > 0.0 { "t" } else { "f" };
            text +=
                &format!("20261124-031000,{x},{y},{},{},{flux},{error},9,18,0.1,{sign},2,,z\n", change.ra, change.dec);
        }
        std::fs::write(run.join("candidates.csv"), text).unwrap();
        let command = Command::new(env!("CARGO_BIN_EXE_nightjar"))
            .args(["sky", "score", "--json"])
            .args([&pair, &run])
            .output()
            .unwrap();
        assert!(command.status.success(), "{}", String::from_utf8_lossy(&command.stderr));
        serde_json::from_slice::<serde_json::Value>(&command.stdout).unwrap()
    };
    let honest = table(1.0, 0.0);
    assert_eq!(honest["completeness"]["20+"]["found"], honest["completeness"]["20+"]["of"]);
    assert_eq!(honest["false_alerts"]["other"], 0);
    assert_eq!(honest["signs"]["found"], honest["signs"]["of"]);
    let inverted = table(-1.0, 0.0);
    assert_eq!(inverted["signs"]["found"], 0);
    let displaced = table(1.0, 2.0);
    assert_eq!(displaced["completeness"]["20+"]["found"], 0);
    assert!(displaced["false_alerts"]["other"].as_u64().unwrap() > 0);
    assert!(run.join("score.json").exists());
}
