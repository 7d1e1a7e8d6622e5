//! Pixels of real frames lie where astropy (wcslib) puts them on the sky.
#![allow(clippy::unwrap_used)]

mod support {
    pub mod beside;
}

use std::path::{Path, PathBuf};
use std::process::Command;

use nightjar::fits::{HduOut, Header, Plane, read_header, write_fits};
use nightjar::wcs::{Wcs, separation};
use support::beside::{python, real_data};

/// File, zero-based pixel, and the position that astropy 7.2 gives: a TPV of DECam (two cameras'
/// worth of pixels from its reference pixel), another, a TAN-SIP, and a TAN with SIP keys.
const GOLDEN: [(&str, f64, f64, f64, f64); 16] = [
    ("thomasvrussell+sfft/DEC-OBS04a.mini.fits.gz", 0.0, 0.0, 318.0849437282, -66.0064272715),
    ("thomasvrussell+sfft/DEC-OBS04a.mini.fits.gz", 255.0, 0.0, 318.0855828687, -66.0250888656),
    ("thomasvrussell+sfft/DEC-OBS04a.mini.fits.gz", 64.0, 192.0, 318.1196119291, -66.0109053358),
    ("thomasvrussell+sfft/DEC-OBS04a.mini.fits.gz", 255.0, 255.0, 318.1314367354, -66.0248128808),
    ("legacysurvey+legacypipe/testcase4/c4d_180314_055922_ooi_r_ls9.S1.fits", 0.0, 0.0, 186.7337565617, 25.4709077458),
    ("legacysurvey+legacypipe/testcase4/c4d_180314_055922_ooi_r_ls9.S1.fits", 250.0, 0.0, 186.733861521, 25.4526257423),
    (
        "legacysurvey+legacypipe/testcase4/c4d_180314_055922_ooi_r_ls9.S1.fits",
        62.75,
        142.5,
        186.7452821807,
        25.466373941,
    ),
    (
        "legacysurvey+legacypipe/testcase4/c4d_180314_055922_ooi_r_ls9.S1.fits",
        250.0,
        189.0,
        186.7491119817,
        25.4526975136,
    ),
    ("panoptes+panoptes-utils/solved.fits.fz", 0.0, 0.0, 301.7984744033, 44.9995846833),
    ("panoptes+panoptes-utils/solved.fits.fz", 699.0, 0.0, 301.7134537598, 47.0084078394),
    ("panoptes+panoptes-utils/solved.fits.fz", 175.0, 525.0, 303.9265630158, 45.5174560148),
    ("panoptes+panoptes-utils/solved.fits.fz", 699.0, 699.0, 304.6549925511, 47.0150243336),
    ("AstroHuntsman+huntsman-drp/raw1000/science_0.fits.gz", 0.0, 0.0, 64.7470390406, -55.0018914907),
    ("AstroHuntsman+huntsman-drp/raw1000/science_0.fits.gz", 999.0, 0.0, 65.2788074464, -55.173732553),
    ("AstroHuntsman+huntsman-drp/raw1000/science_0.fits.gz", 250.0, 750.0, 65.1045596539, -54.8165992824),
    ("AstroHuntsman+huntsman-drp/raw1000/science_0.fits.gz", 999.0, 999.0, 65.5756724628, -54.8683381216),
];

/// A milliarcsecond, degrees.
const MILLIARCSEC: f64 = 1.0 / 3.6e6;

#[test]
fn pixels_of_real_frames_lie_where_astropy_put_them() {
    let Some(data) = real_data() else { return };
    for (file, x, y, ra, dec) in GOLDEN {
        let wcs = Wcs::from_header(&read_header(&data.join(file)).unwrap()).unwrap();
        let at = wcs.pixel_to_sky(x, y);
        assert!(separation(at, (ra, dec)) < 0.01 * MILLIARCSEC, "{file} ({x}, {y}): {at:?}");
        let (back_x, back_y) = wcs.sky_to_pixel(ra, dec).unwrap();
        assert!((back_x - x).hypot(back_y - y) < 1e-5, "{file} ({x}, {y}): back at ({back_x}, {back_y})");
    }
}

#[test]
fn a_frame_that_nobody_solved_is_refused_by_the_missing_keyword() {
    let Some(data) = real_data() else { return };
    let unsolved = data.join("panoptes+panoptes-utils/unsolved.fits.gz");
    let message = Wcs::from_header(&read_header(&unsolved).unwrap()).unwrap_err().to_string();
    assert!(message.contains("CTYPE1"), "{message}");
}

const ASTROPY: &str = r#"
import sys, warnings
warnings.simplefilter("ignore")
from astropy import log; log.setLevel("ERROR")
from astropy.io import fits
from astropy.wcs import WCS
for path in sys.argv[1:]:
    hdu = next(h for h in fits.open(path) if h.header.get("NAXIS", 0) == 2)
    wcs = WCS(hdu.header)
    for x in (-40.0, 100.0, 330.5):
        for y in (-40.0, 77.25, 900.0):
            ra, dec = wcs.all_pix2world([[x, y]], 0)[0]
            print(path, x, y, repr(float(ra)), repr(float(dec)), sep="\t")
"#;

/// Every real header with a celestial WCS, and what Nightjar writes for it, as astropy reads them.
#[test]
fn astropy_agrees_on_every_real_header_and_on_what_is_written_for_it() {
    let (Some(python), Some(data)) = (python(), real_data()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let pixels = ndarray::Array2::<f32>::zeros((2, 2));
    let mut files = Vec::new();
    for entry in fits_files(&data) {
        let Some(wcs) = read_header(&entry).ok().and_then(|header| Wcs::from_header(&header).ok()) else { continue };
        let mut header = Header::new();
        wcs.write(&mut header);
        let copy = folder.path().join(format!("{}.fits", files.len()));
        write_fits(&copy, &[HduOut { name: "", header: &header, plane: Plane::F32(&pixels) }]).unwrap();
        files.extend([entry, copy]);
    }
    assert!(files.len() >= 60, "only {} headers were found", files.len() / 2);
    let output = Command::new(python).args(["-c", ASTROPY]).args(&files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut compared = 0;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |index: usize| fields[index].parse::<f64>().unwrap();
        let wcs = Wcs::from_header(&read_header(Path::new(fields[0])).unwrap()).unwrap();
        let distance = separation(wcs.pixel_to_sky(number(1), number(2)), (number(3), number(4)));
        assert!(distance < 0.01 * MILLIARCSEC, "{line}: off by {distance} degrees");
        compared += 1;
    }
    assert_eq!(compared, 9 * files.len());
}

fn fits_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(fits_files(&path));
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().contains(".fit")) {
            found.push(path);
        }
    }
    found.sort();
    found
}
