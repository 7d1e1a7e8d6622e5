//! Calibrated frames of one small field, drawn apart from the pipeline: Moffat stars, a WCS, dithers.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part")]

use std::path::{Path, PathBuf};

use ndarray::Array2;
use nightjar::fits::{HduOut, Header, Plane, write_fits};
use nightjar::time::Mjd;
use nightjar::wcs::Wcs;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// Side of a frame, pixels.
pub const SIDE: usize = 320;
const SCALE_DEG: f64 = 1.0 / 3600.0;
const SKY: f64 = 400.0;

/// The place of the transient, in the field's own pixels: as far from all stars as can be.
pub fn transient() -> (f64, f64) {
    let stars = stars();
    let room = |x: f64, y: f64| stars.iter().map(|s| (s.0 - x).hypot(s.1 - y)).fold(f64::INFINITY, f64::min);
    let places = (0..1600).map(|k| (100.3 + f64::from(k % 40) * 3.0, 100.6 + f64::from(k / 40) * 3.0));
    let (place, room) = places.map(|(x, y)| ((x, y), room(x, y))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(room > 12.0, "the field is too crowded: {room}");
    place
}

/// What sets a frame apart.
pub struct Frame {
    /// Name of the file.
    pub name: &'static str,
    /// Shift (pixels) and turn (degrees) of the pointing.
    pub dither: (f64, f64, f64),
    /// FWHM, pixels.
    pub fwhm: f64,
    /// Share of the light that passes the clouds.
    pub transparency: f64,
    /// The filter.
    pub filter: &'static str,
    /// Flux of the transient, electrons.
    pub transient: f64,
}

/// A good frame.
pub const fn frame(name: &'static str, dither: (f64, f64, f64), fwhm: f64) -> Frame {
    Frame { name, dither, fwhm, transparency: 1.0, filter: "r", transient: 0.0 }
}

/// Stars of the field: position in the field's own pixels, flux in electrons.
pub fn stars() -> Vec<(f64, f64, f64)> {
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

    /// Where it lies on the sky.
    pub fn wcs(&self) -> Wcs {
        let (sin, cos) = self.dither.2.to_radians().sin_cos();
        let (x, y) = self.place(159.5, 159.5);
        let s = SCALE_DEG;
        Wcs::tan([x, y], [30.0, 10.0], [[-s * cos, -s * sin], [-s * sin, s * cos]]).unwrap()
    }

    /// Writes it as the exposure number `index`, five a night.
    pub fn write(&self, folder: &Path, index: usize) -> PathBuf {
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
        let start = Mjd(61_000.0 + (index / 5) as f64 + (index % 5) as f64 * 0.01);
        header.set("IMAGETYP", "light", "").set("DATE-OBS", start.to_string(), "").set("EXPTIME", 30.0, "");
        header.set("FILTER", self.filter, "").set("OBJECT", "test field", "").set("GAIN", 1.0, "");
        header.set("MAGZP", 25.0, "");
        self.wcs().write(&mut header);
        let path = folder.join(self.name);
        write_fits(&path, &[HduOut { name: "", header: &header, plane: Plane::F32(&pixels) }]).unwrap();
        path
    }
}
