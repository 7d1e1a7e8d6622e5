//! An exposure with detections, as tests of packets and of the history need it.
#![allow(dead_code, clippy::unwrap_used)]

use ndarray::Array2;
use nightjar::alert::{Alert, AlertParameters, Profile, packets, upper_limit};
use nightjar::detect::{CUTOUT_SIDE, Candidate, Conditions, Cutouts, Detections, Neighbour};
use nightjar::exposure::{Exposure, ExposureId, FrameKind};
use nightjar::history::{Footprint, History, Outcome, Past, Question, Searched, Sighting};
use nightjar::time::{Mjd, NightName};
use std::collections::BTreeMap;

/// Pixels a row and rows of the exposure.
pub const SHAPE: (usize, usize) = (3072, 3080);
/// Arcsec a pixel.
pub const SCALE: f64 = 1.012;

/// An exposure that began at `start` at the longitude of Palomar.
pub fn exposure(start: &str) -> Exposure {
    let start: Mjd = start.parse().unwrap();
    let night = NightName::of(start, -116.86);
    Exposure {
        id: ExposureId::new(night, start),
        night,
        kind: FrameKind::Light,
        start,
        exposure_s: 30.0,
        filter: "r".into(),
        field: "M31".into(),
        pointing: Some((10.0, 41.0)),
        temperature_c: Some(-100.0),
        file: "frame.fits".into(),
    }
}

/// Right ascension and declination of a pixel: a tangent plane at the frame's centre, north up and
/// east left.
pub fn sky(x: f64, y: f64) -> (f64, f64) {
    let (ra, dec) = (10.0_f64, 41.0_f64.to_radians());
    let xi = (-(x - 0.5 * (SHAPE.0 - 1) as f64) * SCALE / 3600.0).to_radians();
    let eta = ((y - 0.5 * (SHAPE.1 - 1) as f64) * SCALE / 3600.0).to_radians();
    let below = dec.cos() - eta * dec.sin();
    let turn = xi.atan2(below);
    let up = ((dec.sin() + eta * dec.cos()) / xi.hypot(below)).atan();
    ((ra + turn.to_degrees()).rem_euclid(360.0), up.to_degrees())
}

/// A candidate of `flux` electrons at a pixel, with pictures of a round star on a sky of 100.
pub fn candidate(x: f64, y: f64, flux: f64) -> Candidate {
    let (ra, dec) = sky(x, y);
    let size = flux.abs();
    let mag = 26.0 - 2.5 * size.log10();
    let centre = (CUTOUT_SIDE / 2) as f64;
    let star = |level: f32, amplitude: f64| {
        Array2::from_shape_fn((CUTOUT_SIDE, CUTOUT_SIDE), |(row, column)| {
            let (dx, dy) = (column as f64 - centre - (x - x.round()), row as f64 - centre - (y - y.round()));
            let s2 = 1.3 * 1.3;
            let value =
                amplitude * size / (2.0 * std::f64::consts::PI * s2) * (-(dx * dx + dy * dy) / (2.0 * s2)).exp();
            let wobble = ((row * 31 + column * 17) % 13) as f32 - 6.0;
            level + value as f32 + wobble
        })
    };
    let positive = flux > 0.0;
    let edge = (x + 1.0).min(y + 1.0).min(SHAPE.0 as f64 - x).min(SHAPE.1 as f64 - y);
    Candidate {
        x,
        y,
        position_err: 0.1,
        ra,
        dec,
        positive,
        flux,
        flux_err: size / 20.0,
        snr: 20.0,
        scorr: 20.0 * flux.signum(),
        mag,
        mag_err: 0.054,
        chi: 1.1,
        core_chi: 1.0,
        sharpness: 0.0,
        track: None,
        reference_snr: 2.0,
        width: 1.02,
        opposite: 0.1,
        may_trail: false,
        regular: true,
        aperture14: (size * 0.99, size / 15.0),
        aperture18: (size, size / 12.0),
        fwhm: 3.06,
        a: 1.32,
        b: 1.28,
        theta: 10.0,
        nneg: 2,
        nbad: 0,
        sumrat: 0.95,
        class_star: 0.97,
        sky: 0.3,
        edge_distance: edge,
        rb: 0.9,
        trail_px: 0.0,
        difference_snr: 17.0,
        score_snr: 30.0,
        neighbour: Some(Neighbour { distance_px: 0.4, ra, dec, mag: 18.2, mag_err: 0.02, chi: 0.9, sharp: -0.02 }),
        flags: 0,
        rejected: None,
        cutouts: Some(Cutouts {
            science: star(100.0, if positive { 2.0 } else { 1.0 }),
            template: star(0.0, if positive { 1.0 } else { 2.0 }),
            difference: star(0.0, 1.0),
        }),
    }
}

/// What holds for the whole exposure.
pub fn conditions() -> Conditions {
    let (w, h) = (SHAPE.0 as f64 - 0.5, SHAPE.1 as f64 - 0.5);
    Conditions {
        method: "zogy",
        zero_point: 26.0,
        zero_point_err: 0.004,
        zero_point_rms: 0.03,
        zero_point_stars: 412,
        photometry: None,
        limit_mag: 20.4,
        fwhm_px: 3.0,
        seeing_ratio: 1.1,
        pixel_scale: SCALE,
        sky: 140.0,
        flux_ratio: 1.0,
        registration_rms_px: 0.05,
        registration_stars: 400,
        reference_id: 7,
        reference_jd: (2_460_000.5, 2_460_020.5),
        reference_frames: 20,
        shape: SHAPE,
        corners: [sky(-0.5, -0.5), sky(w, -0.5), sky(w, h), sky(-0.5, h)],
        warnings: Vec::new(),
    }
}

/// An exposure with these candidates.
pub fn detections(start: &str, candidates: Vec<Candidate>) -> Detections {
    Detections { exposure: exposure(start), conditions: conditions(), candidates }
}

/// Parameters of the `ztf` profile.
pub fn parameters() -> AlertParameters {
    AlertParameters {
        profile: Profile::Ztf,
        publisher: "Nightjar rehearsal".into(),
        topic: "{prefix}_{night}_programid{programid}".into(),
        topic_prefix: "njr".into(),
        program_id: 1,
        program_pi: "Rehearsal".into(),
        rcid: 0,
        filters: BTreeMap::new(),
        rb_version: "shape-1".into(),
        network: None,
        star_catalogue: None,
        asteroids: None,
        software: "nightjar 0.1.0".into(),
    }
}

/// A place that was never looked at before.
pub fn nothing_before(object_id: &str, jd: f64) -> Past {
    Past {
        object_id: object_id.into(),
        object_place: (10.0, 41.0),
        epochs: Vec::new(),
        detections: 1,
        coverages: 1,
        first_jd: jd,
        last_jd: jd,
    }
}

/// The three letters of the tests' observatory.
pub const CODE: &str = "NJR";

/// Looks up, makes the packets and records, as a night does.
pub fn night(history: &mut History, seen: &Detections, parameters: &AlertParameters) -> (Vec<Past>, Vec<Alert>) {
    let places: Vec<(f64, f64)> = seen.accepted().map(|c| (c.ra, c.dec)).collect();
    let pasts = history.look_up(&places, &Question::about(&seen.exposure, CODE, 30.0)).unwrap();
    let alerts = packets(seen, &pasts, parameters).unwrap();
    let sightings: Vec<&Sighting> = alerts.iter().map(|alert| &alert.sighting).collect();
    let searched =
        Searched { limit: upper_limit(seen, parameters), footprint: Footprint(seen.conditions.corners), sightings };
    let done = Outcome::Done { spool: Some(1), reason: String::new() };
    history.record(&seen.exposure, &done, Some(&searched)).unwrap();
    (pasts, alerts)
}

/// Three visits: one object in all of them, one in the last two, one once, which faded.
pub fn three_visits() -> Vec<Detections> {
    let (a, b, c) = ((1500.3, 1200.8), (800.0, 2100.4), (2900.9, 77.7));
    let moved = |place: (f64, f64), by: f64| candidate(place.0 + by, place.1 - by, 4000.0);
    vec![
        detections("2026-11-24T03:00:00", vec![moved(a, 0.0), candidate(c.0, c.1, -4000.0)]),
        detections("2026-11-24T03:00:45", vec![moved(b, 0.0), moved(a, 0.4)]),
        detections("2026-11-24T03:01:30", vec![moved(a, -0.5), moved(b, 0.2)]),
    ]
}
