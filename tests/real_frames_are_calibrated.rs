//! Frames of real cameras, each with its own traps, are calibrated without special treatment; figures
//! from ccdproc and SEP stand beside ours.

#![allow(clippy::unwrap_used)]

mod support {
    pub mod beside;
}

use std::path::Path;

use nightjar::calibrate::background::measure;
use nightjar::calibrate::masters::Masters;
use nightjar::calibrate::{AdoptParameters, CalibratedFrame, CalibrationParameters, FrameImages, adopt, calibrate};
use nightjar::camera::{DetectorFallbacks, HeaderFallbacks, RawFrame, exposure_from_header, raw_frame};
use nightjar::exposure::FrameKind;
use nightjar::fits::{read_image, read_planes, write_fits};
use nightjar::image::{Mask, mask};
use support::beside::{python, real_data, run};

fn raw(path: &Path, detector: &DetectorFallbacks) -> RawFrame {
    let fallbacks = HeaderFallbacks { kind: Some(FrameKind::Light), ..HeaderFallbacks::default() };
    raw_frame(read_image(path).unwrap(), 0.0, &fallbacks, detector).unwrap()
}

fn calibrated(raw: RawFrame) -> CalibratedFrame {
    calibrate(raw, &Masters::default(), &CalibrationParameters::default()).unwrap()
}

/// Nothing that is not a number, a positive variance, and pulls of the empty sky near a unit Gaussian.
fn assert_sound(frame: &CalibratedFrame, name: &str) {
    let (pixels, variance, bits) = (&frame.pixels().pixels, &frame.variance().pixels, frame.mask());
    assert!(pixels.iter().all(|value| value.is_finite()), "{name}");
    assert!(variance.iter().all(|value| value.is_finite() && *value > 0.0), "{name}");
    let mut pulls: Vec<f32> = pixels
        .iter()
        .zip(variance)
        .zip(bits)
        .filter(|(_, bits)| **bits == 0)
        .map(|((value, variance), _)| value / variance.sqrt())
        .collect();
    pulls.sort_unstable_by(f32::total_cmp);
    let at = |part: f64| pulls[(pulls.len() as f64 * part) as usize];
    let (median, low) = (at(0.5), at(0.1587));
    assert!(
        median.abs() < 0.2 && (median - low - 1.0).abs() < 0.12,
        "{name}: median {median}, lower σ {}",
        median - low
    );
}

#[test]
fn the_saao_frame_agrees_with_ccdproc() {
    let Some(data) = real_data() else { return };
    let path = data.join("astropy+ccdproc/a8280271.fits.gz");
    let raw = raw(&path, &DetectorFallbacks::default());
    assert_eq!(raw.exposure.start.to_string(), "2013-07-13T00:57:33.000");
    assert_eq!(raw.exposure.filter, "48");
    let frame = calibrated(raw);
    assert_eq!(frame.pixels().shape(), (520, 512));
    // ccdproc 2.5.1: subtract_overscan(median=True), trim_image, gain_correct. Its overscan is the median
    // of ten pixels row by row (2.2 electrons of noise in each row); ours the smooth curve through them.
    let surface = frame.background().level_surface();
    let mut row = vec![0.0; 512];
    let mut total = 0.0;
    let ccdproc = [(100, 200, 161.5), (400, 50, 168.15), (259, 255, 167.2), (0, 0, 150.1), (519, 511, 9.5)];
    for y in 0..520 {
        surface.fill_row(y, &mut row);
        for (x, sky) in row.iter().enumerate() {
            let electrons = frame.pixels().pixels[[y, x]] + sky;
            total += f64::from(electrons);
            for (_, _, theirs) in ccdproc.iter().filter(|(v, u, _)| (*v, *u) == (y, x)) {
                assert!((electrons - theirs).abs() < 8.0, "({x}, {y}): {electrons}, ccdproc {theirs}");
            }
        }
    }
    let mean = total / (520.0 * 512.0);
    assert!((mean - 163.021_834).abs() < 0.3, "mean {mean}, ccdproc 163.0218");
    assert!((frame.background().median_level() - 163.04).abs() < 1.5, "{}", frame.background().median_level());
    assert!((frame.background().median_noise() / 13.94 - 1.0).abs() < 0.05, "{}", frame.background().median_noise());
    assert_sound(&frame, "SAAO");
}

#[test]
fn the_background_of_the_ntt_frame_agrees_with_sep() {
    let Some(data) = real_data() else { return };
    let image = read_image(&data.join("kbarbary+sep/image.fits.gz")).unwrap();
    let background = measure(image.pixels.view(), &Mask::zeros(image.pixels.dim()), 64).unwrap();
    // sep 1.4.1, Background(bw=64, bh=64, fw=3, fh=3): ours masks sources in a second pass, so that it
    // lies a little lower and is less noisy.
    assert!((background.median_level() - 6852.05).abs() < 10.0, "{}", background.median_level());
    assert!((0.85..1.03).contains(&(background.median_noise() / 65.46)), "{}", background.median_noise());
    let surface = background.level_surface();
    let mut row = vec![0.0; 256];
    for (x, y, sep) in
        [(32, 32, 6852.39), (128, 128, 6849.79), (200, 60, 6855.81), (60, 200, 6841.5), (224, 224, 6860.89)]
    {
        surface.fill_row(y, &mut row);
        assert!((row[x] - sep).abs() < 20.0, "({x}, {y}): {} for {sep}", row[x]);
    }
}

#[test]
fn a_camera_of_twelve_bits_is_known_by_its_plateau() {
    let Some(data) = real_data() else { return };
    let raw = raw(&data.join("AstroHuntsman+huntsman-drp/raw1000/science_0.fits.gz"), &DetectorFallbacks::default());
    assert_eq!(raw.exposure.exposure_s, 300.0);
    assert_eq!(raw.exposure.field, "DoradoGroup-p0p0");
    let saturated_raw: Vec<(usize, usize)> =
        raw.pixels.pixels.indexed_iter().filter(|(_, value)| **value >= 4094.0).map(|(at, _)| at).collect();
    let frame = calibrated(raw);
    assert!(frame.gain_known());
    assert!(saturated_raw.iter().all(|at| frame.mask()[*at] & mask::SATURATED != 0));
    let flagged = frame.mask().iter().filter(|bits| **bits & mask::SATURATED != 0).count();
    assert!(flagged < 12 * saturated_raw.len(), "{flagged} for {}", saturated_raw.len());
    assert_sound(&frame, "Huntsman");
}

#[test]
fn compressed_and_unlabelled_frames_load_and_calibrate() {
    let Some(data) = real_data() else { return };
    let frame = calibrated(raw(&data.join("panoptes+panoptes-utils/solved.fits.fz"), &DetectorFallbacks::default()));
    assert_eq!(frame.pixels().shape(), (700, 700));
    assert!(!frame.gain_known());
    let image = read_image(&data.join("panoptes+panoptes-utils/solved.fits.fz")).unwrap();
    // As astropy reads it.
    assert_eq!(image.pixels.iter().map(|value| f64::from(*value)).sum::<f64>(), 1_096_040_198.0);
    assert_eq!(image.pixels[[10, 20]], 2219.0);
    let frame = calibrated(raw(
        &data.join("quatrope+ProperImage/aligned_eso085-030-004.fit.gz"),
        &DetectorFallbacks::default(),
    ));
    let saturated = frame.mask().iter().filter(|bits| **bits & mask::SATURATED != 0).count();
    assert!((106..1500).contains(&saturated), "{saturated} saturated pixels");
    assert_sound(&frame, "ProperImage");
}

#[test]
fn images_that_others_calibrated_are_adopted_with_their_noise() {
    let Some(data) = real_data() else { return };
    let names = [
        "thomasvrussell+sfft/DEC-OBS04a.mini.fits.gz",
        "thomasvrussell+sfft/DEC-OBS18b.mini.fits.gz",
        "legacysurvey+legacypipe/testcase4/c4d_150411_035242_ooi_z_ls9.N3.fits",
        "legacysurvey+legacypipe/testcase4/c4d_180225_074106_ooi_g_ls9.S1.fits",
        "quatrope+ProperImage/aligned_eso085-030-005.fit.gz",
    ];
    for name in names {
        let planes = read_planes(&data.join(name)).unwrap();
        let fallbacks = HeaderFallbacks { kind: Some(FrameKind::Light), ..HeaderFallbacks::default() };
        let exposure = exposure_from_header(&planes[0].header, name, 0.0, &fallbacks).unwrap();
        let frame = adopt(planes, exposure, &AdoptParameters::default()).unwrap();
        assert_sound(&frame, name);
    }
}

#[test]
fn a_master_of_another_size_is_refused_with_both_sizes() {
    let Some(data) = real_data() else { return };
    let huntsman = data.join("AstroHuntsman+huntsman-drp");
    let masters = nightjar::calibrate::masters::read_folder(&huntsman.join("calib/2021-01-07/flat"), None).unwrap();
    let raw = raw(&huntsman.join("raw1000/science_0.fits.gz"), &DetectorFallbacks::default());
    let message = calibrate(raw, &masters, &CalibrationParameters::default()).unwrap_err().to_string();
    assert!(message.contains("1000 x 1000") && message.contains("801 x 801"), "{message}");
}

const ASTROPY: &str = r#"
import sys, warnings
from astropy.io import fits
warnings.simplefilter("error")
with fits.open(sys.argv[1], checksum=True) as file:
    file.verify("exception")
    names = [hdu.name for hdu in file]
    for hdu in file:
        assert "CHECKSUM" in hdu.header and "DATASUM" in hdu.header, hdu.name
    bits = {file["MASK"].header[f"MSKBIT{b:02d}"]: int(((file["MASK"].data >> b) & 1).sum()) for b in range(10)}
    print(*names, file[0].data.shape, file["MASK"].data.dtype, file[0].header["CRPIX1"], bits["SATURATED"])
"#;

#[test]
fn astropy_verifies_the_checksums_of_a_calibrated_frame_and_it_reads_back_the_same() {
    let (Some(data), Some(python)) = (real_data(), python()) else { return };
    let frame = calibrated(raw(
        &data.join("AstroHuntsman+huntsman-drp/raw1000/science_0.fits.gz"),
        &DetectorFallbacks::default(),
    ));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibrated.fits");
    write_fits(&path, &FrameImages::new(&frame).hdus()).unwrap();
    let said = run(&python, ASTROPY, &[&path]);
    let saturated = frame.mask().iter().filter(|bits| **bits & mask::SATURATED != 0).count();
    assert!(said.starts_with("PRIMARY VARIANCE MASK SKYLEVEL SKYNOISE (1000, 1000) uint16"), "{said}");
    assert!(said.trim().ends_with(&format!(" {saturated}")), "{said}");
    let back = adopt(read_planes(&path).unwrap(), frame.exposure().clone(), &AdoptParameters::default()).unwrap();
    assert_eq!(back.pixels().pixels, frame.pixels().pixels);
    assert_eq!(back.variance().pixels, frame.variance().pixels);
    assert_eq!(back.mask(), frame.mask());
    assert_eq!(back.background().level, frame.background().level);
    assert_eq!(back.gain_known(), frame.gain_known());
}
