//! From a measured candidate to the packet's 103 fields.
//!
//! What each field means stands in `schema/candidate.avsc`. Fields of a star catalogue
//! (`*ps1…3`, `*gaia*`, colour terms) and of an orbit catalogue (`ss*`) are absent where none is
//! installed; the zero point then comes from the reference's stars. What the two catalogues know is filled in
//! afterwards: [`super::stars`], [`super::asteroid`].

use super::identifiers::{field_number, processing_id};
use super::record::{ABSENT, CandidateRecord};
use super::{AlertParameters, Numbered};
use crate::detect::{Candidate, Conditions};
use crate::exposure::Exposure;
use crate::history::{Past, PriorEpoch};

/// Version of a network that is not installed.
const NO_MODEL: &str = "none";
/// ZTF cuts `seeratio` at this.
const HIGHEST_SEERATIO: f64 = 2.0;

/// The fields of one candidate, absent values as `None`.
pub(super) fn candidate_record(
    numbered: &Numbered<'_>,
    past: &Past,
    exposure: &Exposure,
    conditions: &Conditions,
    parameters: &AlertParameters,
) -> CandidateRecord {
    let candidate = numbered.candidate;
    let magap = magnitude(candidate.aperture14, conditions);
    let magapbig = magnitude(candidate.aperture18, conditions);
    let neighbour = candidate.neighbour.as_ref();
    let photometry = conditions.photometry.as_ref();
    let colour = photometry.and_then(|p| p.colour.as_ref());
    let over_fwhm = |length: f64| some(length / candidate.fwhm);
    CandidateRecord {
        jd: exposure.start.jd(),
        fid: parameters.filter_id(&exposure.filter),
        pid: processing_id(exposure, parameters.rcid),
        diffmaglim: some(conditions.limit_mag),
        pdiffimfilename: Some(difference_file(exposure)),
        programpi: Some(parameters.program_pi.clone()),
        programid: parameters.program_id,
        candid: numbered.candid,
        isdiffpos: sign(candidate).to_owned(),
        tblid: Some(numbered.number),
        nid: Some(exposure.night.nid()),
        rcid: Some(i32::from(parameters.rcid)),
        field: field_number(&exposure.field),
        xpos: some(candidate.x + 1.0),
        ypos: some(candidate.y + 1.0),
        ra: candidate.ra,
        dec: candidate.dec,
        magpsf: candidate.mag as f32,
        sigmapsf: candidate.mag_err as f32,
        chipsf: some(candidate.chi),
        magap: magap.map(|m| m.0 as f32),
        sigmagap: magap.map(|m| m.1 as f32),
        distnr: neighbour.and_then(|n| some(n.distance_px)),
        magnr: neighbour.and_then(|n| some(n.mag)),
        sigmagnr: neighbour.and_then(|n| some(n.mag_err)),
        chinr: neighbour.and_then(|n| some(n.chi)),
        sharpnr: neighbour.and_then(|n| some(n.sharp)),
        sky: some(candidate.sky),
        magdiff: magap.and_then(|m| some(m.0 - candidate.mag)),
        fwhm: some(candidate.fwhm),
        classtar: some(candidate.class_star),
        mindtoedge: some(candidate.edge_distance),
        magfromlim: magap.and_then(|m| some(conditions.limit_mag - m.0)),
        seeratio: over_fwhm(conditions.fwhm_px.min(HIGHEST_SEERATIO * candidate.fwhm)),
        aimage: some(candidate.a),
        bimage: some(candidate.b),
        aimagerat: over_fwhm(candidate.a),
        bimagerat: over_fwhm(candidate.b),
        elong: some(candidate.a / candidate.b),
        nneg: Some(candidate.nneg as i32),
        nbad: Some(candidate.nbad as i32),
        rb: some(candidate.rb),
        ssdistnr: None,
        ssmagnr: None,
        ssnamenr: None,
        sumrat: some(candidate.sumrat),
        magapbig: magapbig.map(|m| m.0 as f32),
        sigmagapbig: magapbig.map(|m| m.1 as f32),
        ranr: neighbour.map_or(f64::NAN, |n| n.ra),
        decnr: neighbour.map_or(f64::NAN, |n| n.dec),
        sgmag1: None,
        srmag1: None,
        simag1: None,
        szmag1: None,
        sgscore1: None,
        distpsnr1: None,
        ndethist: past.detections,
        ncovhist: past.coverages,
        jdstarthist: Some(past.first_jd),
        jdendhist: Some(past.last_jd),
        scorr: Some(candidate.scorr.abs()),
        tooflag: Some(0),
        objectidps1: None,
        objectidps2: None,
        sgmag2: None,
        srmag2: None,
        simag2: None,
        szmag2: None,
        sgscore2: None,
        distpsnr2: None,
        objectidps3: None,
        sgmag3: None,
        srmag3: None,
        simag3: None,
        szmag3: None,
        sgscore3: None,
        distpsnr3: None,
        nmtchps: 0,
        rfid: conditions.reference_id,
        jdstartref: conditions.reference_jd.0,
        jdendref: conditions.reference_jd.1,
        nframesref: conditions.reference_frames,
        rbversion: parameters.rb_version.clone(),
        dsnrms: some(candidate.difference_snr),
        ssnrms: some(candidate.score_snr),
        dsdiff: some(candidate.difference_snr - candidate.score_snr),
        magzpsci: some(conditions.zero_point),
        magzpsciunc: some(conditions.zero_point_err),
        magzpscirms: some(conditions.zero_point_rms),
        nmatches: conditions.zero_point_stars as i32,
        clrcoeff: colour.and_then(|c| some(c.coefficient)),
        clrcounc: colour.and_then(|c| some(c.error)),
        zpclrcov: colour.and_then(|c| some(c.covariance)),
        zpmed: photometry.and_then(|p| some(p.median)),
        clrmed: colour.and_then(|c| some(c.median)),
        clrrms: colour.and_then(|c| some(c.rms)),
        neargaia: None,
        neargaiabright: None,
        maggaia: None,
        maggaiabright: None,
        exptime: some(exposure.exposure_s),
        drb: None,
        drbversion: NO_MODEL.to_owned(),
    }
}

/// What the history keeps of a candidate: the fields that later packets carry as `prv_candidates`.
pub(super) fn remembered(record: &CandidateRecord) -> PriorEpoch {
    let mut r = record.clone();
    r.settle(false);
    PriorEpoch {
        jd: r.jd,
        fid: r.fid,
        pid: r.pid,
        diffmaglim: r.diffmaglim,
        pdiffimfilename: r.pdiffimfilename,
        programpi: r.programpi,
        programid: r.programid,
        candid: Some(r.candid),
        isdiffpos: Some(if r.isdiffpos == "t" { "t" } else { "f" }),
        tblid: r.tblid,
        nid: r.nid,
        rcid: r.rcid,
        field: r.field,
        xpos: r.xpos,
        ypos: r.ypos,
        ra: Some(r.ra),
        dec: Some(r.dec),
        magpsf: Some(r.magpsf).filter(|m| f64::from(*m) != ABSENT),
        sigmapsf: Some(r.sigmapsf).filter(|m| f64::from(*m) != ABSENT),
        chipsf: r.chipsf,
        magap: r.magap,
        sigmagap: r.sigmagap,
        distnr: r.distnr,
        magnr: r.magnr,
        sigmagnr: r.sigmagnr,
        chinr: r.chinr,
        sharpnr: r.sharpnr,
        sky: r.sky,
        magdiff: r.magdiff,
        fwhm: r.fwhm,
        classtar: r.classtar,
        mindtoedge: r.mindtoedge,
        magfromlim: r.magfromlim,
        seeratio: r.seeratio,
        aimage: r.aimage,
        bimage: r.bimage,
        aimagerat: r.aimagerat,
        bimagerat: r.bimagerat,
        elong: r.elong,
        nneg: r.nneg,
        nbad: r.nbad,
        rb: r.rb,
        ssdistnr: r.ssdistnr,
        ssmagnr: r.ssmagnr,
        ssnamenr: r.ssnamenr,
        sumrat: r.sumrat,
        magapbig: r.magapbig,
        sigmagapbig: r.sigmagapbig,
        ranr: known(r.ranr),
        decnr: known(r.decnr),
        scorr: r.scorr,
        magzpsci: r.magzpsci,
        magzpsciunc: r.magzpsciunc,
        magzpscirms: r.magzpscirms,
        clrcoeff: r.clrcoeff,
        clrcounc: r.clrcounc,
        rbversion: r.rbversion,
    }
}

/// The exposure without a candidate.
pub(super) fn upper_limit(exposure: &Exposure, conditions: &Conditions, parameters: &AlertParameters) -> PriorEpoch {
    let colour = conditions.photometry.as_ref().and_then(|p| p.colour.as_ref());
    PriorEpoch {
        jd: exposure.start.jd(),
        fid: parameters.filter_id(&exposure.filter),
        pid: processing_id(exposure, parameters.rcid),
        diffmaglim: some(conditions.limit_mag),
        pdiffimfilename: Some(difference_file(exposure)),
        programpi: Some(parameters.program_pi.clone()),
        programid: parameters.program_id,
        nid: Some(exposure.night.nid()),
        rcid: Some(i32::from(parameters.rcid)),
        field: field_number(&exposure.field),
        magzpsci: some(conditions.zero_point),
        magzpsciunc: some(conditions.zero_point_err),
        magzpscirms: some(conditions.zero_point_rms),
        clrcoeff: colour.and_then(|c| some(c.coefficient)),
        clrcounc: colour.and_then(|c| some(c.error)),
        rbversion: parameters.rb_version.clone(),
        ..PriorEpoch::default()
    }
}

/// `pdiffimfilename`.
fn difference_file(exposure: &Exposure) -> String {
    format!("{}.fits", exposure.id)
}

/// `isdiffpos`.
fn sign(candidate: &Candidate) -> &'static str {
    if candidate.positive { "t" } else { "f" }
}

/// A finite number as the packet stores it.
fn some(value: f64) -> Option<f32> {
    Some(value as f32).filter(|x| x.is_finite())
}

/// A number that is not the sentinel.
fn known(value: f64) -> Option<f64> {
    Some(value).filter(|x| *x != ABSENT)
}

/// Magnitude and error of an aperture (flux, error); none where the aperture holds no flux.
fn magnitude((flux, error): (f64, f64), conditions: &Conditions) -> Option<(f64, f64)> {
    let magnitude = conditions.zero_point - 2.5 * flux.log10();
    (flux > 0.0 && magnitude.is_finite()).then(|| (magnitude, 2.5 / std::f64::consts::LN_10 * error / flux))
}
