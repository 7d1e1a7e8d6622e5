//! The proper difference image (Zackay, Ofek & Gal-Yam 2016) with kernels that vary over the field.
//!
//! In order: what cannot be used is [filled](fill); the reference is [resampled](crate::register::resample)
//! to the science grid and scaled to its flux; the [kernels] of S and D follow from both PSFs at a grid of
//! nodes and become polynomials of the field position; both images are [convolved](convolve) with them; the
//! background that is left is taken out of D and S; and S becomes [Scorr](score).

pub mod carried;
pub mod convolve;
pub mod fft;
pub mod fill;
pub mod floor;
pub mod kernel_fit;
pub mod kernels;
mod local;
pub mod mesh;
pub mod method;
mod saturated;
pub mod score;
mod spectra;

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::calibrate::CalibratedFrame;
use crate::image::{Image, Mask, Overlay, mask};
use crate::register::Registration;
use crate::register::resample::{Resampled, Source, marks, resample};
use crate::register::spline::BSpline;
use crate::register::stars::typical_noise;
use crate::units::{Electrons, Electrons2, Ratio};
use fill::FilledStar;
use floor::{BrightStar, BrightStarFloor};
use kernels::{KernelField, Radii, Workshop};
use mesh::Mesh;
use method::{Chosen, Method};
use saturated::fill_both;
use score::{Appraiser, Score};

/// Boxes in which the background of D and the noise of S are measured, pixels.
const BOX: usize = 96;
/// Degree of the kernels' weights over the field.
const KERNEL_DEGREE: usize = 4;
/// The measured scale of S on empty sky is doubtful outside this range.
const SCALE_RANGE: std::ops::RangeInclusive<f64> = 0.8..=1.3;

/// Why a registered exposure could not be subtracted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubtractError {
    /// The reference covers too little of the science image.
    #[error(
        "the reference covers only {percent:.0} % of the science image; check the pointing, or build a wider reference"
    )]
    Coverage {
        /// Part that is covered, per cent.
        percent: f64,
    },
    /// No PSF or no flux ratio can be trusted, and no kernel could be fitted.
    #[error(
        "no kernel can be had: the {objects} objects in common give neither a point-spread function and a flux ratio to trust nor a fit; look for clouds, trailed stars or a reference of another filter"
    )]
    NoKernel {
        /// Objects that both frames show well enough.
        objects: usize,
    },
    /// The noise of the difference cannot be measured.
    #[error("the noise of the difference image is not a number; look for a blank or saturated frame")]
    NoNoise,
}

/// A difference image and all that was known when it was made.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The science frame; its mask is part of [`mask`](Self::mask).
    pub science: CalibratedFrame,
    /// The reference on the science grid and flux scale, electrons.
    pub template: Image<Electrons>,
    /// Its variance.
    pub template_variance: Image<Electrons2>,
    /// Mask of science image and reference together.
    pub mask: Mask,
    /// D, electrons of the science image.
    pub difference: Image<Electrons>,
    /// Scorr above the preselection, S over the noise of empty sky below it.
    pub score: Image<Ratio>,
    /// Robust standard deviation of S on empty sky, electrons: the noise of a point source's flux.
    pub sky_noise: Mesh,
    /// Robust standard deviation of a pixel of D, electrons.
    pub pixel_noise: Mesh,
    /// The kernels.
    pub kernels: KernelField,
    /// How the kernels were made.
    pub method: Chosen,
    /// What the fit of the kernel came to, where there was one.
    pub kernel_fit: Option<kernel_fit::Summary>,
    /// The registration.
    pub registration: Registration,
    /// Errors of bright stars' models.
    pub bright_star_floor: BrightStarFloor,
    /// Measured over expected noise of S on empty sky, median over the frame.
    pub scale: f64,
    /// Stars that were filled in, on the science grid.
    pub filled_stars: Vec<FilledStar>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// What of a difference goes into files: a quarter of its memory.
#[derive(Debug, Clone)]
pub struct DifferenceImages {
    /// Cards that say how it was made.
    pub header: crate::fits::Header,
    /// D, electrons of the science image.
    pub difference: Image<Electrons>,
    /// Scorr; see [`Difference::score`].
    pub score: Image<Ratio>,
    /// Mask of science image and reference together.
    pub mask: Mask,
}

/// Subtracts the registered reference from the science frame.
pub fn subtract(
    mut science: CalibratedFrame,
    reference: &CalibratedFrame,
    mut registration: Registration,
    method: Method,
) -> Result<Difference, SubtractError> {
    let shape = science.pixels().shape();
    let (fill_science, fill_reference, filled_stars) = fill_both(&science, reference, &registration);
    let OnGrid { mut template, variance: mut template_variance, mask: mut bits, covered } =
        put_on_grid(&science, reference, &fill_reference, &registration);
    drop(science.take_mask());
    if covered < 0.2 {
        return Err(SubtractError::Coverage { percent: 100.0 * covered });
    }

    let (height, width) = shape;
    let middle = registration.ln_flux_ratio.value(width as f64 / 2.0, height as f64 / 2.0)[0].exp();
    let area = registration.map.determinant(width as f64 / 2.0, height as f64 / 2.0).abs();
    let noise = (f64::from(typical_noise(&science)), f64::from(typical_noise(reference)) * middle * area.max(1e-6));
    let mut choice = method::choose(method, &registration);
    let fitted = match choice.chosen {
        Chosen::Zogy => None,
        Chosen::KernelFit => {
            let images = kernel_fit::Images {
                science: &filled_copy(&science, &fill_science, &bits),
                science_variance: &science.variance().pixels,
                template: &template,
                template_variance: &template_variance,
                bits: &bits,
            };
            let trusted = |f: &kernel_fit::Fitted| f.summary.unseen_chi2 <= kernel_fit::WORST_UNSEEN;
            kernel_fit::fit(&images, &registration, noise).filter(|f| method == Method::KernelFit || trusted(f))
        }
    };
    let summary = fitted.as_ref().map(|f| f.summary);
    let kernels = match fitted {
        Some(fitted) => {
            fitted.grow_mask(&mut bits);
            // The fit's own flux ratio rests on all objects; the stars' does not hold where they are few.
            let factor = fitted.flux_ratio;
            template.par_mapv_inplace(|v| v * factor as f32);
            template_variance.par_mapv_inplace(|v| v * (factor * factor) as f32);
            registration.ln_flux_ratio = registration.ln_flux_ratio.plus([factor.ln()]);
            if let Some(psf) = fitted.psf_science {
                registration.psf_science = psf;
            }
            fitted.kernels
        }
        None => {
            choice.fall_back(method, &registration)?;
            kernels_of(&registration, shape, noise)
        }
    };
    let images = convolve::Images {
        science: &science.pixels().pixels,
        overlay: &fill_science,
        template: &template,
        mask: &bits,
    };
    let convolve::ScoreAndDifference { mut score, mut difference } = convolve::convolve(&images, &kernels);

    let (level, _) = mesh::measure(&difference, &bits, BOX);
    level.smoothed(1).subtract_from(&mut difference);
    let (_, pixel_noise) = mesh::measure(&difference, &bits, BOX);
    let (level, _) = mesh::measure(&score, &bits, BOX);
    level.smoothed(1).subtract_from(&mut score);
    let (_, sky_noise) = mesh::measure(&score, &bits, BOX);
    let (sky_noise, pixel_noise) = (sky_noise.smoothed(2), pixel_noise.smoothed(2));
    if !sky_noise.values().iter().all(|v| v.is_finite() && *v > 0.0) {
        return Err(SubtractError::NoNoise);
    }

    let expected = expected_noise(&kernels, shape, noise);
    let scale = f64::from(sky_noise.at(width / 2, height / 2)) / expected;
    let mut warnings = registration.warnings.clone();
    warnings.extend(choice.warning);
    if !SCALE_RANGE.contains(&scale) {
        warnings.push(format!(
            "the noise of the difference is {scale:.2} times what the images' noise predicts; check gain and read noise"
        ));
    }
    let parts = Score {
        shape,
        sky_noise: &sky_noise,
        science_variance: &science.variance().pixels,
        template: &template,
        template_variance: &template_variance,
        kernels: &kernels,
        registration_noise: registration.excess_px,
        noise,
    };
    let appraiser = Appraiser::new(&parts);
    let bright_star_floor = BrightStarFloor::measure(
        &appraiser,
        &score,
        &star_places(&registration, &bits),
        &bright_stars(&registration, &filled_stars),
        [registration.psf_science.clone(), registration.psf_reference.clone()],
    );
    appraiser.correct(&mut score, &bright_star_floor);
    Ok(Difference {
        science,
        template: Image::new(template),
        template_variance: Image::new(template_variance),
        mask: bits,
        difference: Image::new(difference),
        score: Image::new(score),
        sky_noise,
        pixel_noise,
        kernels,
        method: choice.chosen,
        kernel_fit: summary,
        registration,
        bright_star_floor,
        scale,
        filled_stars,
        warnings,
    })
}

/// The science pixels with the unusable ones filled, 0 where there is no data.
fn filled_copy(science: &CalibratedFrame, fill: &Overlay, bits: &Mask) -> Array2<f32> {
    let mut image = science.pixels().pixels.clone();
    for (y, mut row) in image.axis_iter_mut(Axis(0)).enumerate() {
        for (x, value) in fill.row(y) {
            row[x] = value;
        }
    }
    image.zip_mut_with(bits, |value, b| *value = if b & mask::NO_DATA == 0 { *value } else { 0.0 });
    image
}

/// Whole pixels of the matched stars that no mask touches.
fn star_places(registration: &Registration, bits: &Mask) -> Vec<(usize, usize)> {
    let place = |v: f64| (v.round() >= 0.0).then_some(v.round() as usize);
    registration
        .matched
        .iter()
        .filter_map(|star| place(star.x).zip(place(star.y)))
        .filter(|&(x, y)| bits.get([y, x]).is_some_and(|b| b & (mask::UNUSABLE | mask::REFERENCE) == 0))
        .collect()
}

/// Stars whose wings may be seen: those in common, and the saturated ones.
fn bright_stars(registration: &Registration, filled: &[FilledStar]) -> Vec<BrightStar> {
    let matched = registration.matched.iter().map(|s| BrightStar { x: s.x, y: s.y, flux: s.flux });
    matched.chain(filled.iter().map(|s| BrightStar { x: s.x, y: s.y, flux: s.flux })).collect()
}

/// The reference on the science grid and its flux scale, its variance, and both masks together.
struct OnGrid {
    template: Array2<f32>,
    variance: Array2<f32>,
    mask: Mask,
    /// Part of the science image that the reference covers.
    covered: f64,
}

fn put_on_grid(
    science: &CalibratedFrame,
    reference: &CalibratedFrame,
    fill: &Overlay,
    registration: &Registration,
) -> OnGrid {
    let spline = BSpline::with(&reference.pixels().pixels, fill);
    let marked = marks(reference.mask());
    let source = Source { spline: &spline, variance: &reference.variance().pixels, marks: &marked };
    let Resampled { mut pixels, mut variance, mask: mut bits } =
        resample(source, &registration.map, science.pixels().shape());
    let rows = pixels.axis_iter_mut(Axis(0)).into_par_iter().zip(variance.axis_iter_mut(Axis(0)));
    let masks = bits.axis_iter_mut(Axis(0)).into_par_iter().zip(science.mask().axis_iter(Axis(0)));
    let empty: usize = rows
        .zip(masks)
        .enumerate()
        .map(|(y, ((mut pixels, mut variance), (mut bits, own)))| {
            let rows = (pixels.as_slice_mut(), variance.as_slice_mut(), bits.as_slice_mut(), own.as_slice());
            let (Some(pixels), Some(variance), Some(bits), Some(own)) = rows else { return 0 };
            scale_to_science(registration, y, pixels, variance);
            let mut empty = 0;
            for ((pixel, bits), own) in pixels.iter_mut().zip(bits).zip(own) {
                *bits |= own;
                let missing = *bits & mask::NO_DATA != 0;
                *pixel = if missing { 0.0 } else { *pixel };
                empty += usize::from(missing);
            }
            empty
        })
        .sum();
    let covered = 1.0 - empty as f64 / bits.len().max(1) as f64;
    OnGrid { template: pixels, variance, mask: bits, covered }
}

/// Brings row `y` of the template to the flux of the science image.
fn scale_to_science(registration: &Registration, y: usize, pixels: &mut [f32], variance: &mut [f32]) {
    let ln_ratio = &registration.ln_flux_ratio;
    // Smooth over thousands of pixels: exact every STEP columns, linear between.
    const STEP: usize = 32;
    let at = |x: usize| ln_ratio.value(x as f64, y as f64)[0].exp() as f32;
    let (mut factor, mut slope) = (at(0), 0.0);
    for (chunk, (pixels, variance)) in pixels.chunks_mut(STEP).zip(variance.chunks_mut(STEP)).enumerate() {
        if ln_ratio.degree() > 0 {
            factor = at(chunk * STEP);
            slope = (at((chunk + 1) * STEP) - factor) / STEP as f32;
        }
        for (i, (pixel, variance)) in pixels.iter_mut().zip(variance).enumerate() {
            let factor = factor + slope * i as f32;
            *pixel *= factor;
            *variance *= factor * factor;
        }
    }
}

fn kernels_of(registration: &Registration, (height, width): (usize, usize), noise: (f64, f64)) -> KernelField {
    let field = crate::psf::Field::new(width, height);
    let (cx, cy) = (width as f64 / 2.0, height as f64 / 2.0);
    let fwhm = registration.psf_science.fwhm_at(cx, cy).max(registration.psf_reference.fwhm_at(cx, cy));
    let radii = Radii::for_fwhm(fwhm);
    let half = registration.psf_science.radius().max(registration.psf_reference.radius());
    let workshop = Workshop::new(radii, half);
    let places = kernels::node_places(width, height);
    let nodes: Vec<kernels::Kernels> = places
        .par_iter()
        .map(|&(x, y)| {
            let psfs =
                carried::psfs_at(&registration.psf_science, &registration.psf_reference, &registration.map, x, y, half);
            workshop.kernels(&psfs, noise.0, noise.1)
        })
        .collect();
    KernelField::fit(field, radii, &places, &nodes, KERNEL_DEGREE)
}

/// The noise of S on empty sky that the images' noises predict at the middle of the frame.
fn expected_noise(kernels: &KernelField, (height, width): (usize, usize), noise: (f64, f64)) -> f64 {
    let at = kernels.at(width as f64 / 2.0, height as f64 / 2.0);
    let sum = |kernel: &Array2<f32>| kernel.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    (noise.0.powi(2) * sum(&at.score_science) + noise.1.powi(2) * sum(&at.score_reference)).sqrt()
}

impl Difference {
    /// Lets everything go that measurements alone need.
    pub fn into_images(self) -> DifferenceImages {
        let header = self.header();
        DifferenceImages { header, difference: self.difference, score: self.score, mask: self.mask }
    }

    /// Cards that say how the difference was made, behind those of the science frame.
    pub fn header(&self) -> crate::fits::Header {
        let mut header = self.science.header().clone();
        let (science, reference) = self.registration.psf_stars;
        let degree = |d: (usize, Option<usize>)| d.1.map_or(-1, |r| r as i64);
        let (own, other) = (&self.registration.psf_science, &self.registration.psf_reference);
        header
            .set("BUNIT", "electron", "flux of the science image")
            .set("DIFFMETH", self.method.name(), self.method.source())
            .set("NJKDEG", self.kernels.degree() as i64, "degree of the kernels' weights over the field")
            .set("NJKTERMS", self.kernels.terms().len() as i64, "terms of the kernels over the field")
            .set("NJPSFN", science as i64, "stars of the science PSF")
            .set("NJPSFR", reference as i64, "stars of the reference PSF")
            .set("NJMISN", self.registration.psf_misfit.0, "misfit of the science PSF, fraction of a star")
            .set("NJMISR", self.registration.psf_misfit.1, "misfit of the reference PSF")
            .set("NJDEGN", own.degrees().0 as i64, "degree of the science PSF over the field")
            .set("NJDEGR", other.degrees().0 as i64, "degree of the reference PSF over the field")
            .set("NJRESN", degree(own.degrees()), "degree of its pixel residual, -1 for none")
            .set("NJRESR", degree(other.degrees()), "degree of its pixel residual, -1 for none")
            .set("NJREGRMS", self.registration.rms_px, "registration residual, px rms an axis")
            .set("NJREGEXC", self.registration.excess_px, "part that centroid errors do not explain")
            .set("NJREGN", self.registration.stars as i64, "stars of the registration")
            .set("NJEPS", self.bright_star_floor.epsilon, "fractional error of bright stars")
            .set("NJWINGS", self.bright_star_floor.wings, "the same of their wings")
            .set("NJSCALE", self.scale, "measured over expected noise of S on empty sky")
            .set("NJSCORE", "S/sigma below 4.5, Scorr above", "what SCORE holds");
        if let Some(fit) = &self.kernel_fit {
            header
                .set("NJKCONV", fit.convolved.name(), "image that the matching kernel convolves")
                .set("NJKSTAMP", fit.stamps as i64, "objects that the matching kernel rests on")
                .set("NJKSHAPE", fit.shape.degree as i64, "degree of its shape over the field")
                .set("NJKSUM", fit.shape.sum_degree as i64, "degree of its sum over the field")
                .set("NJKCHI2", fit.unseen_chi2, "chi2 a pixel of objects that it had not seen");
        }
        header
    }
}
