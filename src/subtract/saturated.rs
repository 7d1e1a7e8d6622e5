//! The saturated stars of both images, each with one flux and place, and what fills them.

use rayon::prelude::*;

use super::fill::{self, FilledStar, Patch};
use crate::calibrate::CalibratedFrame;
use crate::image::Overlay;
use crate::psf::PsfModel;
use crate::register::Registration;
use crate::register::stars::typical_noise;

/// What fills the unusable pixels of both images, and the saturated stars on the science grid.
pub(super) fn fill_both(
    science: &CalibratedFrame,
    reference: &CalibratedFrame,
    registration: &Registration,
) -> (Overlay, Overlay, Vec<FilledStar>) {
    let (on_science, on_reference) = rayon::join(
        || Side::new(science, &registration.psf_science),
        || Side::new(reference, &registration.psf_reference),
    );
    let map = &registration.map;
    let ratio = |x: f64, y: f64| registration.ln_flux_ratio.value(x, y)[0].exp();
    let to_reference = |star: &FilledStar| {
        let [x, y] = map.value(star.x, star.y);
        FilledStar { x, y, flux: star.flux / ratio(star.x, star.y), core: star.core }
    };
    let to_science = |star: &FilledStar| {
        let [x, y] = map.inverse([star.x, star.y], [star.x, star.y])?;
        Some(FilledStar { x, y, flux: star.flux * ratio(x, y), core: star.core })
    };
    // One flux and place for each saturated star, from every image in which its wings or the star itself are seen.
    let agreed_on_science: Vec<Option<FilledStar>> = on_science
        .stars
        .par_iter()
        .map(|own| {
            let own = (*own)?;
            let there = to_reference(&own);
            let other = match on_reference.star_near(&there) {
                Some(other) => Some((other, 0.5)),
                None => on_reference.unsaturated(&there).map(|other| (other, 1.0)),
            };
            Some(match other.and_then(|(o, weight)| to_science(&o).map(|o| (o, weight))) {
                Some((other, weight)) => mixed(&own, &other, weight),
                None => own,
            })
        })
        .collect();
    let agreed_on_reference: Vec<Option<FilledStar>> = on_reference
        .stars
        .par_iter()
        .map(|own| {
            let own = (*own)?;
            let here = to_science(&own);
            let agreed = here.and_then(|here| {
                let both =
                    agreed_on_science.iter().flatten().find(|s| (s.x - here.x).hypot(s.y - here.y) < 2.0).copied();
                both.or_else(|| on_science.unsaturated(&here).map(|other| mixed(&here, &other, 1.0)))
            });
            Some(agreed.map_or(own, |star| FilledStar { core: own.core, ..to_reference(&star) }))
        })
        .collect();
    let mut filled_stars: Vec<FilledStar> = agreed_on_science.iter().flatten().copied().collect();
    filled_stars.extend(agreed_on_reference.iter().flatten().filter_map(to_science));
    let (science, reference) =
        rayon::join(|| on_science.filled(&agreed_on_science), || on_reference.filled(&agreed_on_reference));
    (science, reference, filled_stars)
}

fn mixed(own: &FilledStar, other: &FilledStar, weight: f64) -> FilledStar {
    let mix = |a: f64, b: f64| a + weight * (b - a);
    FilledStar { x: mix(own.x, other.x), y: mix(own.y, other.y), flux: mix(own.flux, other.flux), core: own.core }
}

/// One image with its patches and the stars fitted to the saturated ones.
struct Side<'a> {
    frame: &'a CalibratedFrame,
    psf: &'a PsfModel,
    patches: Vec<Patch>,
    stars: Vec<Option<FilledStar>>,
    noise: f64,
}

impl<'a> Side<'a> {
    fn new(frame: &'a CalibratedFrame, psf: &'a PsfModel) -> Self {
        let noise = f64::from(typical_noise(frame));
        let patches = fill::patches(frame.mask());
        let stars = patches
            .par_iter()
            .map(|patch| {
                let pixels = &frame.pixels().pixels;
                patch.saturated.then(|| fill::fit_saturated(pixels, frame.mask(), psf, patch, noise)).flatten()
            })
            .collect();
        Self { frame, psf, patches, stars, noise }
    }

    fn star_near(&self, place: &FilledStar) -> Option<FilledStar> {
        self.stars.iter().flatten().copied().find(|s| (s.x - place.x).hypot(s.y - place.y) < 2.0)
    }

    /// The star at a place where this image is not saturated.
    fn unsaturated(&self, place: &FilledStar) -> Option<FilledStar> {
        let found = fill::fit_star(
            &self.frame.pixels().pixels,
            self.frame.mask(),
            self.psf,
            (place.x, place.y, 1.0),
            self.noise,
        )?;
        ((found.x - place.x).hypot(found.y - place.y) < 2.0).then_some(found)
    }

    /// What fills the patches.
    fn filled(&self, stars: &[Option<FilledStar>]) -> Overlay {
        let pixels = &self.frame.pixels().pixels;
        let values: Vec<Vec<f32>> = self
            .patches
            .par_iter()
            .zip(stars)
            .map(|(patch, star)| match star {
                Some(star) => fill::from_star(self.psf, patch, star),
                None => fill::from_surroundings(pixels, self.frame.mask(), patch),
            })
            .collect();
        Overlay::new(
            self.patches.iter().zip(values).flat_map(|(patch, values)| patch.pixels.iter().copied().zip(values)),
        )
    }
}
