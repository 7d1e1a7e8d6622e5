//! A field seen through a camera at one moment: the noiseless image and what lies where on it.

use ndarray::Array2;
use rayon::prelude::*;

use super::catalogue::{Change, Source};
use super::fourier::Transforms;
use super::optics::Optics;
use super::projection::{Gnomonic, deproject};
use super::render::{Point, render};

/// Where and how the camera looks.
#[derive(Debug, Clone)]
pub struct View {
    /// Pixels to sky.
    pub camera: Gnomonic,
    /// The PSF.
    pub optics: Optics,
    /// Rows and columns.
    pub shape: (usize, usize),
    /// Electrons for each electron of a nominal exposure: exposure time, transparency, aperture.
    pub throughput: f64,
    /// Hours from the beginning of the night to the middle of the exposure; `None` for the
    /// reference, which shows no change.
    pub hours: Option<f64>,
    /// Exposure time, seconds.
    pub exposure_s: f64,
}

/// A source that changed, where it stands on the image.
#[derive(Debug, Clone)]
pub struct Changed {
    /// How it changes.
    pub change: Change,
    /// Zero-based pixel at mid-exposure.
    pub x: f64,
    /// Zero-based pixel at mid-exposure.
    pub y: f64,
    /// Right ascension and declination at mid-exposure, degrees.
    pub place: (f64, f64),
    /// Change against the reference, electrons of this image, signed.
    pub flux: f64,
    /// From the beginning to the end of the trail, pixels.
    pub trail: (f64, f64),
}

/// A star on the image.
#[derive(Debug, Clone, Copy)]
pub struct Star {
    /// Zero-based pixel.
    pub x: f64,
    /// Zero-based pixel.
    pub y: f64,
    /// Right ascension and declination, degrees.
    pub place: (f64, f64),
    /// Electrons of this image.
    pub flux: f64,
    /// Electrons of a nominal exposure, without change.
    pub catalogue_flux: f64,
}

/// The noiseless image, in electrons, without sky, and the places of what is on it.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Electrons a pixel.
    pub image: Array2<f32>,
    /// The sources that changed, on the image.
    pub changed: Vec<Changed>,
    /// The stars on the image, those that vary included.
    pub stars: Vec<Star>,
}

impl View {
    fn inside(&self, x: f64, y: f64, margin: f64) -> bool {
        let (height, width) = (self.shape.0 as f64, self.shape.1 as f64);
        x > -margin && y > -margin && x < width - 1.0 + margin && y < height - 1.0 + margin
    }

    /// The place of a source at mid-exposure.
    fn place(&self, source: &Source, hours: f64) -> (f64, f64) {
        match source.change {
            Some(change) if change.motion != (0.0, 0.0) => {
                let seconds = hours * 3600.0;
                deproject(source.place, change.motion.0 * seconds, change.motion.1 * seconds)
            }
            _ => source.place,
        }
    }

    /// Renders the field.
    pub fn render(&self, sources: &[Source]) -> Scene {
        let (mut points, mut galaxies) = (Vec::new(), Vec::new());
        let (mut changed, mut stars) = (Vec::new(), Vec::new());
        for source in sources {
            let place = self.place(source, self.hours.unwrap_or(0.0));
            let Some((x, y)) = self.camera.pixel(place.0, place.1) else { continue };
            if !self.inside(x, y, 250.0) {
                continue;
            }
            let delta = match (source.change, self.hours) {
                (Some(change), Some(hours)) => self.throughput * change.flux(hours),
                _ => 0.0,
            };
            let flux = self.throughput * source.flux + delta;
            if let Some(galaxy) = source.galaxy {
                galaxies.push((galaxy, x, y, flux));
                continue;
            }
            let motion = source.change.map_or((0.0, 0.0), |change| change.motion);
            let trail = self.camera.pixel_offset(motion.0 * self.exposure_s, motion.1 * self.exposure_s);
            if self.inside(x, y, 0.5) {
                if source.flux > 0.0 {
                    stars.push(Star { x, y, place, flux, catalogue_flux: source.flux });
                }
                if let Some(change) = source.change.filter(|_| self.hours.is_some()) {
                    changed.push(Changed { change, x, y, place, flux: delta, trail });
                }
            }
            if flux > 0.0 {
                points.push(Point { x, y, flux, profile: self.optics.at(x, y), trail });
            }
        }
        let stamps: Vec<_> = galaxies
            .par_iter()
            .map_init(Transforms::default, |transforms, &(galaxy, x, y, flux)| {
                galaxy.stamp(transforms, &self.camera, &self.optics.at(x, y), (x, y), flux)
            })
            .collect();
        Scene { image: render(self.shape, &points, &stamps), changed, stars }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sky::catalogue::{ChangeKind, Depth, FieldRequest, field};
    use crate::sky::optics::PsfKind;
    use crate::sky::random::{Purpose, stream};

    #[test]
    fn what_changed_stands_on_the_noiseless_image_where_and_as_bright_as_it_is_said_to() {
        let depth = Depth { noise_area: 20.0, variance: 1200.0, exposure_s: 30.0 };
        let request = FieldRequest {
            seed: 9,
            field: 0,
            centre: (40.0, 10.0),
            half_side: 260.0,
            stars: 200.0,
            scale: 1.01,
            depth,
        };
        let sources = field(&request);
        let constant: Vec<Source> = sources.iter().map(|s| Source { change: None, ..s.clone() }).collect();
        for kind in [PsfKind::Moffat, PsfKind::Double, PsfKind::Coma] {
            let shape = (500, 480);
            let mut camera = Gnomonic::new(request.centre, (240.0, 250.0), 1.01, 25.0);
            camera.distortion = 1e-9;
            let view = View {
                camera,
                optics: Optics::draw(&mut stream(9, Purpose::Optics, 0, 0), kind, 2.4, shape),
                shape,
                throughput: 0.8,
                hours: Some(0.5),
                exposure_s: 30.0,
            };
            let scene = view.render(&sources);
            let difference = &scene.image - &view.render(&constant).image;
            let mut measured = 0;
            for changed in &scene.changed {
                let (x, y) = (changed.x.round() as usize, changed.y.round() as usize);
                if !(30..450).contains(&x) || !(30..470).contains(&y) || changed.flux.abs() < 500.0 {
                    continue;
                }
                let (mut flux, mut weighted, mut moment) = (0.0, 0.0, [0.0; 2]);
                for row in y - 6..=y + 6 {
                    for column in x - 6..=x + 6 {
                        let value = f64::from(difference[[row, column]]);
                        let (dx, dy) = (column as f64 - changed.x, row as f64 - changed.y);
                        let weight = value * (-(dx * dx + dy * dy) / 18.0).exp();
                        flux += value;
                        weighted += weight;
                        moment = [moment[0] + weight * dx, moment[1] + weight * dy];
                    }
                }
                // Wings beyond 13 × 13 pixels are missing, and a window pulls the centroid of a lopsided PSF.
                let place = (moment[0] / weighted).hypot(moment[1] / weighted);
                let limit = if kind == PsfKind::Coma { 0.08 } else { 0.02 };
                assert!((0.90..1.005).contains(&(flux / changed.flux)), "{kind:?} {changed:?} {flux}");
                assert!(place < limit || changed.change.kind == ChangeKind::Mover, "{kind:?} {changed:?} {place}");
                assert!(place < 0.2, "{kind:?} {changed:?} {place}");
                measured += 1;
            }
            assert!(measured > 15, "{measured}");
        }
    }
}
