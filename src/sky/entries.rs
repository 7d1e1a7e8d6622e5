//! Draws up the truth of one exposure: places, fluxes, signal-to-noise ratios, defects.

use ndarray::Array2;
use rayon::prelude::*;

use super::catalogue::ZERO_POINT;
use super::defects::{Defect, DefectKind};
use super::fourier::Transforms;
use super::render::integrated;
use super::truth::{Surroundings, TrueChange, TrueDefect, TrueStar, Truth, rounded};
use super::view::{Changed, Scene, View};

/// An image, as far as its truth depends on it.
pub struct Taken<'a> {
    /// Where the camera looked.
    pub view: &'a View,
    /// What is on it.
    pub scene: &'a Scene,
    /// Variance of each calibrated pixel, electrons².
    pub variance: &'a Array2<f32>,
    /// Variance of a pixel of blank sky, electrons².
    pub blank_variance: f64,
    /// Its spoilt pixels.
    pub defects: &'a [Defect],
}

/// Distance from the edge within which nothing is measured, pixels.
const EDGE: f64 = 16.0;
/// Distance from a defect within which a source does not count, pixels.
const NEAR_FULL_WELL: f64 = 9.0;
const NEAR_OTHER: f64 = 3.5;
/// Stars above this many electrons are listed: S/N of about 40 in a nominal exposure.
const LISTED: f64 = 6000.0;
/// Longest piece of a defect that is carried from one image to the other as a box, pixels.
const PIECE: f64 = 12.0;

/// Adds the truth of the exposure `name` that began at `date_obs`, against `reference`.
pub fn add_exposure(truth: &mut Truth, name: &str, date_obs: &str, science: &Taken<'_>, reference: &Taken<'_>) {
    let changes: Vec<TrueChange> = science
        .scene
        .changed
        .par_iter()
        .map_init(Transforms::default, |transforms, source| TrueChange {
            exposure: name.to_owned(),
            date_obs: date_obs.to_owned(),
            kind: source.change.kind,
            x: rounded(source.x + 1.0, 4),
            y: rounded(source.y + 1.0, 4),
            ra: rounded(source.place.0, 8),
            dec: rounded(source.place.1, 8),
            flux: rounded(source.flux, 2),
            snr: rounded(snr(transforms, source, science, reference), 3),
            trail: rounded(source.trail.0.hypot(source.trail.1), 3),
            defect: defect(source, science, reference).to_owned(),
        })
        .collect();
    truth.changes.extend(changes);
    truth.defects.extend(science.defects.iter().map(|d| TrueDefect::new(name, d)));
    truth.defects.extend(carried(science.view, reference).iter().map(|d| TrueDefect::new(name, d)));
    let bright = science.scene.stars.iter().filter(|star| star.flux > LISTED);
    truth.stars.extend(bright.map(|star| TrueStar {
        exposure: name.to_owned(),
        x: rounded(star.x + 1.0, 4),
        y: rounded(star.y + 1.0, 4),
        ra: rounded(star.place.0, 8),
        dec: rounded(star.place.1, 8),
        flux: rounded(star.flux, 2),
        mag: rounded(ZERO_POINT - 2.5 * star.catalogue_flux.log10(), 4),
    }));
}

fn snr(transforms: &mut Transforms, source: &Changed, science: &Taken<'_>, reference: &Taken<'_>) -> f64 {
    let (camera, other) = (&science.view.camera, &reference.view.camera);
    let Some((rx, ry)) = other.pixel(source.place.0, source.place.1) else { return 0.0 };
    let scale = reference.view.throughput / science.view.throughput;
    // Offsets of the science image in the axes of the reference.
    let turned = |dx: f64, dy: f64| {
        let [[a, b], [c, d]] = camera.matrix;
        other.pixel_offset(a * dx + b * dy, c * dx + d * dy)
    };
    let (psf_n, psf_r) = (science.view.optics.at(source.x, source.y), reference.view.optics.at(rx, ry));
    let science_psf = |dx: f64, dy: f64| integrated(&psf_n, dx, dy);
    let reference_psf = |dx: f64, dy: f64| {
        let (dx, dy) = turned(dx, dy);
        integrated(&psf_r, dx, dy)
    };
    let steps = source.trail.0.hypot(source.trail.1).ceil() as usize * 2 + 1;
    let template = |dx: f64, dy: f64| {
        let along = |step: usize| (step as f64 + 0.5) / steps as f64 - 0.5;
        let at = |step| science_psf(dx - along(step) * source.trail.0, dy - along(step) * source.trail.1);
        (0..steps).map(at).sum::<f64>() / steps as f64
    };
    let variance_n = |dx: f64, dy: f64| nearest(science.variance, source.x + dx, source.y + dy);
    let variance_r = |dx: f64, dy: f64| {
        let (dx, dy) = turned(dx, dy);
        nearest(reference.variance, rx + dx, ry + dy) / (scale * scale)
    };
    Surroundings {
        flux: source.flux,
        template: &template,
        science_psf: &science_psf,
        reference_psf: &reference_psf,
        science_variance: (&variance_n, science.blank_variance),
        reference_variance: (&variance_r, reference.blank_variance / (scale * scale)),
    }
    .snr(transforms)
}

fn nearest(plane: &Array2<f32>, x: f64, y: f64) -> f64 {
    let index = |value: f64, length: usize| value.round().clamp(0.0, length as f64 - 1.0) as usize;
    f64::from(plane[[index(y, plane.nrows()), index(x, plane.ncols())]])
}

fn near_edge(view: &View, x: f64, y: f64, margin: f64) -> bool {
    let (height, width) = (view.shape.0 as f64 - 1.0, view.shape.1 as f64 - 1.0);
    x < margin || y < margin || x > width - margin || y > height - margin
}

fn defect(source: &Changed, science: &Taken<'_>, reference: &Taken<'_>) -> &'static str {
    if near_edge(science.view, source.x, source.y, EDGE) {
        return "edge";
    }
    let Some((rx, ry)) = reference.view.camera.pixel(source.place.0, source.place.1) else { return "off_reference" };
    if near_edge(reference.view, rx, ry, EDGE) {
        return "off_reference";
    }
    let trail = 0.5 * source.trail.0.hypot(source.trail.1);
    let on = |defects: &[Defect], x: f64, y: f64| {
        let reach = |defect: &Defect| match defect.kind {
            DefectKind::Saturated | DefectKind::ReferenceSaturated => NEAR_FULL_WELL,
            _ => NEAR_OTHER + trail,
        };
        defects.iter().find(|defect| defect.distance(x, y) <= reach(defect)).map(|defect| defect.kind)
    };
    match on(science.defects, source.x, source.y).or_else(|| on(reference.defects, rx, ry)) {
        Some(DefectKind::Saturated | DefectKind::ReferenceSaturated) => "saturated",
        Some(DefectKind::CosmicRay) => "cosmic_ray",
        Some(DefectKind::BadColumn) => "bad_column",
        Some(DefectKind::HotPixel) => "hot_pixel",
        None => "",
    }
}

/// The reference's defects as boxes on the science image, long ones in pieces.
fn carried(science: &View, reference: &Taken<'_>) -> Vec<Defect> {
    let mut boxes = Vec::new();
    for defect in reference.defects {
        let pieces = (((defect.y.1 - defect.y.0) / PIECE).ceil() as usize).max(1);
        for piece in 0..pieces {
            let edge = |n: usize| defect.y.0 + (defect.y.1 - defect.y.0) * n as f64 / pieces as f64;
            let corners = [(defect.x.0, edge(piece)), (defect.x.1, edge(piece + 1))];
            let on_science = corners.map(|(x, y)| {
                let (ra, dec) = reference.view.camera.sky(x, y);
                science.camera.pixel(ra, dec)
            });
            let [Some(a), Some(b)] = on_science else { continue };
            let span = |a: f64, b: f64| (rounded(a.min(b), 1), rounded(a.max(b), 1));
            let mapped = Defect { kind: DefectKind::ReferenceSaturated, x: span(a.0, b.0), y: span(a.1, b.1) };
            let (middle_x, middle_y) = (0.5 * (a.0 + b.0), 0.5 * (a.1 + b.1));
            if !near_edge(science, middle_x, middle_y, -PIECE) {
                boxes.push(mapped);
            }
        }
    }
    boxes
}
