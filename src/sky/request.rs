//! What is asked for, and the telescope, camera and site that all synthetic nights share.

use super::catalogue::{Depth, FieldRequest, Source, field};
use super::optics::{Optics, Profile, PsfKind};
use super::projection::Gnomonic;
use super::random::{Purpose, stream, uniform};
use super::view::View;
use crate::time::Mjd;

/// Arcsec a pixel.
pub const SCALE: f64 = 1.01;
/// Electrons a pixel of dark sky in a nominal exposure.
pub const SKY: f64 = 1100.0;
/// Electrons.
pub const READ_NOISE: f64 = 8.0;
/// Electrons a pixel holds.
pub const FULL_WELL: f64 = 340_000.0;
/// Seconds of a nominal exposure.
pub const EXPOSURE_S: f64 = 30.0;
/// The filter.
pub const FILTER: &str = "r";
/// Stars a pixel: 4,600 on 3072×3080.
pub const STAR_DENSITY: f64 = 4600.0 / (3072.0 * 3080.0);
/// Room that is filled with sources around a frame, pixels.
pub const MARGIN: f64 = 90.0;

/// What is to be seen, for pairs and nights alike.
#[derive(Debug, Clone)]
pub struct Request {
    /// Seed of everything.
    pub seed: u64,
    /// Pixels a row of the trimmed image.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Stars on a frame.
    pub stars: f64,
    /// Median FWHM of the science image, pixels.
    pub fwhm: f64,
    /// Median FWHM of the reference, pixels.
    pub reference_fwhm: f64,
    /// Angle of the reference against the science image, degrees; drawn within ±0.3 where not given.
    pub reference_angle: Option<f64>,
    /// Exposures that the reference is the sum of.
    pub reference_depth: f64,
    /// What the PSF is made of.
    pub psf: PsfKind,
    /// Error of the science image's WCS, arcsec.
    pub wcs_error: f64,
    /// Midnight that names the night.
    pub midnight: Mjd,
}

impl Request {
    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The sources of a field around `centre`.
    pub fn sources(&self, number: u64, centre: (f64, f64)) -> Vec<Source> {
        let half_side = 0.5 * self.width.max(self.height) as f64 + MARGIN;
        let noise_area = Profile::moffat(self.fwhm, [0.0, 0.0], 3.2).noise_area() + 1.0;
        let variance = (SKY + READ_NOISE * READ_NOISE) * (1.0 + 1.0 / self.reference_depth);
        field(&FieldRequest {
            seed: self.seed,
            field: number,
            centre,
            half_side,
            stars: self.stars * 4.0 * half_side * half_side / (self.width * self.height) as f64,
            scale: SCALE,
            depth: Depth { noise_area, variance, exposure_s: EXPOSURE_S },
        })
    }

    /// Where the reference of a field looks: near its middle, at its angle.
    pub fn reference_view(&self, number: u64, centre: (f64, f64)) -> View {
        let mut rng = stream(self.seed, Purpose::Conditions, REFERENCE_FRAME + number, 0);
        let angle = uniform(&mut rng, -0.3, 0.3);
        let angle = self.reference_angle.unwrap_or(angle);
        let middle = self.middle();
        let pixel = (middle.0 + uniform(&mut rng, -8.0, 8.0), middle.1 + uniform(&mut rng, -8.0, 8.0));
        let mut rng = stream(self.seed, Purpose::Optics, REFERENCE_FRAME + number, 0);
        View {
            camera: Gnomonic::new(centre, pixel, SCALE, angle),
            optics: Optics::draw(&mut rng, self.psf, self.reference_fwhm, self.shape()),
            shape: self.shape(),
            throughput: self.reference_depth * 1.04,
            hours: None,
            exposure_s: self.reference_depth * EXPOSURE_S,
        }
    }

    /// The middle of the frame, zero-based.
    pub fn middle(&self) -> (f64, f64) {
        (0.5 * (self.width as f64 - 1.0), 0.5 * (self.height as f64 - 1.0))
    }
}

/// Number of the first frame that is a reference; light frames count from 0.
pub const REFERENCE_FRAME: u64 = 1 << 32;

/// The middle of a field of a night: apart on the sky, away from the pole.
pub fn field_centre(seed: u64, number: u64) -> (f64, f64) {
    let mut rng = stream(seed, Purpose::Conditions, REFERENCE_FRAME + number, 2);
    let ra: f64 = uniform(&mut rng, 0.0, 360.0);
    ((ra + 17.0 * number as f64).rem_euclid(360.0), uniform(&mut rng, -25.0, 65.0))
}
