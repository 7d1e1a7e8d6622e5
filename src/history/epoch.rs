//! What is remembered of an earlier exposure at one place.

use std::sync::Arc;

use serde::Serialize;

/// An earlier detection, or an upper limit where an exposure covered the place without one.
///
/// Names, order and units are those of the packet's `prv_candidates`, so that a packet writes it as
/// it is. An upper limit has what belongs to its exposure, and nothing of a candidate. No value is
/// a NaN.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PriorEpoch {
    /// Julian date (UTC) at which the shutter opened (days).
    pub jd: f64,
    /// Filter: 1 g, 2 r, 3 i; from 10 up the observatory's own.
    pub fid: i32,
    /// Number of the exposure: night (4 digits), day fraction (5), rcid (2), 15.
    pub pid: i64,
    /// Magnitude of a 5-sigma point source in the difference image (mag).
    pub diffmaglim: Option<f32>,
    /// File name of the difference image.
    pub pdiffimfilename: Option<String>,
    /// Who the exposure belongs to.
    pub programpi: Option<String>,
    /// Who may see it: 1 public, 2 partnership, 3 private.
    pub programid: i32,
    /// Number of the candidate; null for an upper limit.
    pub candid: Option<i64>,
    /// t: brighter than in the reference; f: fainter; null for an upper limit.
    pub isdiffpos: Option<&'static str>,
    /// Running number among the alerts of this exposure and sign, by position on the detector.
    pub tblid: Option<i64>,
    /// Nights since 2017-01-01, by the UTC date of the local mean midnight.
    pub nid: Option<i32>,
    /// Readout channel (amplifier or detector).
    pub rcid: Option<i32>,
    /// Field of the observatory's grid; fields with a name have a number made from it.
    pub field: Option<i32>,
    /// Column on the exposure, first pixel is 1 (pixels).
    pub xpos: Option<f32>,
    /// Row on the exposure, first pixel is 1 (pixels).
    pub ypos: Option<f32>,
    /// Right ascension, ICRS (deg).
    pub ra: Option<f64>,
    /// Declination, ICRS (deg).
    pub dec: Option<f64>,
    /// Magnitude of the PSF flux in the difference image (mag).
    pub magpsf: Option<f32>,
    /// 1-sigma error of magpsf (mag).
    pub sigmapsf: Option<f32>,
    /// Reduced chi-square of the PSF fit.
    pub chipsf: Option<f32>,
    /// Magnitude in a 14 pixel diameter aperture on the difference image (mag).
    pub magap: Option<f32>,
    /// 1-sigma error of magap (mag).
    pub sigmagap: Option<f32>,
    /// Distance to the nearest source of the reference image (pixels).
    pub distnr: Option<f32>,
    /// PSF magnitude of that source (mag).
    pub magnr: Option<f32>,
    /// 1-sigma error of magnr (mag).
    pub sigmagnr: Option<f32>,
    /// Reduced chi-square of its PSF fit.
    pub chinr: Option<f32>,
    /// Sharpness of its PSF fit: 0 like a star, above broader, below sharper.
    pub sharpnr: Option<f32>,
    /// Local level of the difference image around the candidate (e-).
    pub sky: Option<f32>,
    /// magap - magpsf (mag).
    pub magdiff: Option<f32>,
    /// Full width at half maximum on the difference image, Gaussian core (pixels).
    pub fwhm: Option<f32>,
    /// Likeness to a star: 0 to 1.
    pub classtar: Option<f32>,
    /// Distance to the nearest edge of the exposure (pixels).
    pub mindtoedge: Option<f32>,
    /// diffmaglim - magap (mag).
    pub magfromlim: Option<f32>,
    /// FWHM of the difference image's PSF over fwhm.
    pub seeratio: Option<f32>,
    /// Rms width along the major axis (pixels).
    pub aimage: Option<f32>,
    /// Rms width along the minor axis (pixels).
    pub bimage: Option<f32>,
    /// aimage / fwhm.
    pub aimagerat: Option<f32>,
    /// bimage / fwhm.
    pub bimagerat: Option<f32>,
    /// aimage / bimage.
    pub elong: Option<f32>,
    /// Negative pixels in the central 5 x 5.
    pub nneg: Option<i32>,
    /// Bad pixels in the central 5 x 5.
    pub nbad: Option<i32>,
    /// Real or bogus, from shape and surroundings: 0 (bogus) to 1 (real).
    pub rb: Option<f32>,
    /// Distance to the nearest known asteroid or comet within 30 arcsec (arcsec).
    pub ssdistnr: Option<f32>,
    /// Its predicted magnitude (mag).
    pub ssmagnr: Option<f32>,
    /// Its designation.
    pub ssnamenr: Option<String>,
    /// Sum over sum of absolute values of the central 5 x 5.
    pub sumrat: Option<f32>,
    /// Magnitude in an 18 pixel diameter aperture on the difference image (mag).
    pub magapbig: Option<f32>,
    /// 1-sigma error of magapbig (mag).
    pub sigmagapbig: Option<f32>,
    /// Right ascension of the nearest source of the reference image (deg).
    pub ranr: Option<f64>,
    /// Declination of the nearest source of the reference image (deg).
    pub decnr: Option<f64>,
    /// Signal to noise of the peak in the matched-filtered difference image.
    pub scorr: Option<f64>,
    /// Zero point: magnitude of 1 electron an exposure in the pictures and fluxes (mag).
    pub magzpsci: Option<f32>,
    /// 1-sigma error of magzpsci (mag).
    pub magzpsciunc: Option<f32>,
    /// Rms of the calibration stars about the zero point (mag).
    pub magzpscirms: Option<f32>,
    /// Colour coefficient of the zero point.
    pub clrcoeff: Option<f32>,
    /// 1-sigma error of clrcoeff.
    pub clrcounc: Option<f32>,
    /// Version of the model that gave rb.
    pub rbversion: String,
}

/// What the history knows of the place of one candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// Name of the object: the one it has, or the one it gets with this detection.
    pub object_id: String,
    /// Where the object was first seen (right ascension, declination), degrees.
    pub object_place: (f64, f64),
    /// Earlier detections and upper limits, oldest first, as far back as packets carry them.
    pub epochs: Vec<Arc<PriorEpoch>>,
    /// Detections since the beginning, this one included (`ndethist`).
    pub detections: i32,
    /// Exposures since the beginning that covered the place, this one included (`ncovhist`).
    pub coverages: i32,
    /// First detection, this one included, JD (`jdstarthist`).
    pub first_jd: f64,
    /// Last detection, this one included, JD (`jdendhist`).
    pub last_jd: f64,
}

/// A detection that became an alert, as the history keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Name of the object.
    pub object_id: String,
    /// Where the object was first seen (right ascension, declination), degrees.
    pub object_place: (f64, f64),
    /// The detection.
    pub detection: PriorEpoch,
}
