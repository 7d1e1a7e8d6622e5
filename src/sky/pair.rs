//! A pair of calibrated images, science and reference, with the truth of what changed.
//!
//! Both are in electrons with the sky left in. The reference is the sum of several exposures in
//! better seeing, so that its flux scale is another one; it has no cosmic rays and no bad columns.

use std::path::Path;

use super::SkyError;
use super::calibrated::{SkyLevel, add_read_noise, cards, photons, reference_header, reference_image};
use super::defects::{BadColumn, DefectKind, bleed, cosmic_rays};
use super::entries::{Taken, add_exposure};
use super::optics::Optics;
use super::projection::Gnomonic;
use super::random::{Purpose, stream, uniform};
use super::request::{EXPOSURE_S, FULL_WELL, READ_NOISE, Request, SCALE, SKY, field_centre};
use super::truth::Truth;
use super::view::View;
use crate::fits::{HduOut, Header, Plane, write_fits};

/// Writes `science.fits`, `reference.fits` and the truth tables into `folder`.
pub fn write_pair(request: &Request, folder: &Path) -> Result<Truth, SkyError> {
    std::fs::create_dir_all(folder).map_err(|error| SkyError::file(folder, error))?;
    let centre = field_centre(request.seed, 0);
    let sources = request.sources(0, centre);
    let reference_view = request.reference_view(0, centre);
    let mut rng = stream(request.seed, Purpose::Conditions, 0, 0);
    let view = View {
        camera: Gnomonic::new(centre, request.middle(), SCALE, uniform(&mut rng, -0.3, 0.3)),
        optics: Optics::draw(
            &mut stream(request.seed, Purpose::Optics, 0, 0),
            request.psf,
            request.fwhm,
            request.shape(),
        ),
        shape: request.shape(),
        throughput: uniform(&mut rng, 0.85, 1.0),
        hours: Some(0.0),
        exposure_s: EXPOSURE_S,
    };
    let level = SKY * uniform(&mut rng, 0.9, 1.3);
    let sky = SkyLevel::draw(&mut rng, level);
    let direction = uniform(&mut rng, 0.0, std::f64::consts::TAU);

    let scene = view.render(&sources);
    let (mut pixels, variance) = photons(request.seed, 0, &view, &scene, sky, READ_NOISE);
    let mut rays = stream(request.seed, Purpose::CosmicRays, 0, 0);
    let mut defects = cosmic_rays(&mut pixels, &mut rays, EXPOSURE_S);
    defects.extend(bleed(&mut pixels, FULL_WELL as f32, DefectKind::Saturated));
    add_read_noise(&mut pixels, request.seed, 0, READ_NOISE);
    for column in BadColumn::draw(&mut stream(request.seed, Purpose::Detector, 0, 0), request.shape()) {
        column.apply(&mut pixels);
        defects.push(column.defect(request.height));
    }

    let reference_scene = reference_view.render(&sources);
    let reference = reference_image(request, 0, &reference_view, &reference_scene);

    let date_obs = request.midnight.plus_seconds(3.0 * 3600.0 + 600.0).to_string();
    let mut header = Header::new();
    cards(&mut header, EXPOSURE_S, &date_obs, "field-0");
    header.set("IMAGETYP", "light", "").set("BUNIT", "electron", "").set("GAIN", 1.0, "[e-/unit]");
    header.set("RDNOISE", READ_NOISE, "[e-]").set("SATURATE", 0.97 * FULL_WELL, "[e-]");
    let error = (request.wcs_error * direction.sin(), request.wcs_error * direction.cos());
    view.camera.write(&mut header, error);
    write_fits(&folder.join("science.fits"), &[HduOut { name: "", header: &header, plane: Plane::F32(&pixels) }])?;
    let earlier = request.midnight.plus_seconds(-90.0 * 86_400.0);
    let header = reference_header(request, &reference_view, earlier, "field-0");
    let plane = Plane::F32(&reference.pixels);
    write_fits(&folder.join("reference.fits"), &[HduOut { name: "", header: &header, plane }])?;

    let blank_variance = sky.level + READ_NOISE * READ_NOISE;
    let taken = Taken { view: &view, scene: &scene, variance: &variance, blank_variance, defects: &defects };
    let against = Taken {
        view: &reference_view,
        scene: &reference_scene,
        variance: &reference.variance,
        blank_variance: reference.blank_variance,
        defects: &reference.defects,
    };
    let mut truth = Truth::default();
    add_exposure(&mut truth, "science.fits", &date_obs, &taken, &against);
    truth.write(folder)?;
    Ok(truth)
}
