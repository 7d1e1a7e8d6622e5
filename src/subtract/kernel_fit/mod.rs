//! The kernels of S and D from a matching kernel that is fitted to the images, for fields in which no
//! point-spread function can be trusted (Alard & Lupton 1998, ApJ 503, 325; Alard 2000, A&AS 144, 363;
//! Bramich 2008, MNRAS 386, L77).
//!
//! The sharper image is convolved to look like the broader one. The kernel is a sum of [functions](basis) whose
//! coefficients are polynomials of the field position; they are fitted by least squares to [stamps] around objects
//! that both frames show, stars and galaxies alike, and [solved](solve) with the smoothing and the degrees that
//! predict unseen stamps best. The difference that this leaves has correlated noise; [nodes] makes it white again
//! and turns everything into the same four kernels a place that the proper subtraction uses, so that convolution,
//! Scorr, detection and measurement are shared. The background that the fit allows for is not used: what is left of
//! it in D is measured afterwards, as for the proper subtraction.
//!
//! **The PSF** enters only as the filter of S and the profile of the measurement: a crude one (few stars, degree 0)
//! costs significance and fluxes, and leaves no residuals of constant stars. Where the reference's PSF is trusted and
//! the science image's is not, the science PSF is the reference's through the kernel.
//!
//! # Choices tried against each other
//!
//! Scenes of 1536×1536 whose science PSF no smooth model fits, false alerts off defects; the kernel of free pixels
//! against Gaussians of 0.7, 1.5 and 3 px (for a FWHM of 3) times polynomials of degree 6, 4 and 2 (49 functions and
//! a single pixel), the rest being the same:
//!
//! | science PSF | free pixels | Gaussians | proper subtraction |
//! | --- | --- | --- | --- |
//! | every star double, 3.9 px apart | **12** | 15 | 512 |
//! | width varies by 12 % with a period of 700 px | 10 | 16 | **8** |
//! | 15 % broader in one half than in the other | 6 | 16 | **2** |
//! | smooth, 15,000 stars | 11 | 17 | **1** |
//!
//! The Gaussians' normal equations took 1.0 s on two cores and those of free pixels 0.14 s (157 stamps), because each
//! pixel's column is the image itself, shifted; completeness and flux scatter were the same. Gaussians were better on
//! the undersampled PANOPTES pair (0 alerts for 18) and on one DECam pair (4 others for 6).
//!
//! - Noise of the convolved image subtracted from its normal equations (errors in variables), against nothing: where
//!   the science image is convolved the equations lost their definiteness and the kernel its degree, 78 of 87 changes
//!   above S/N 20 found for 85, and 6 false alerts for 0. Lost.
//! - All of the kernel's pixels varying over the field, against those within 0.6 of its radius: 0 to 2 false alerts
//!   either way, the fit 5.2 s for 1.8 s. Lost.
//! - Stamps left out by their chi² alone, against their flux factor too: variable stars of a few per cent stay in, and
//!   constant stars lost 1.1 % of their flux. Lost.

pub mod basis;
pub mod nodes;
pub mod solve;
pub mod stamps;

use ndarray::Array2;
use rayon::prelude::*;

use super::carried;
use super::kernels::{KernelField, Kernels, NodePsfs, Radii, node_places};
use super::method::{LEAST_PSF_STARS, WORST_MISFIT};
use crate::image::{Mask, mask};
use crate::psf::{Field, PsfModel};
use crate::register::Registration;
use basis::Basis;
use nodes::{Bench, Convolved};
use solve::{Shape, Solution};
use stamps::Pair;

/// Degree of the kernels of S and D over the field.
const KERNEL_DEGREE: usize = 3;
/// A fit whose chi² a pixel of unseen stamps is larger is no better founded than the PSF that it stands in for: 3.2 on
/// the undersampled PANOPTES pair (20 false alerts for at most 1), at most 1.5 on the scenes on which it is better.
pub const WORST_UNSEEN: f64 = 2.5;
/// The mask grows by the radius within which this share of the squared kernel lies.
const GROWTH_SHARE: f64 = 0.8;

/// The filled images on one grid.
pub struct Images<'a> {
    /// Science pixels.
    pub science: &'a Array2<f32>,
    /// Their variance.
    pub science_variance: &'a Array2<f32>,
    /// The resampled, scaled reference.
    pub template: &'a Array2<f32>,
    /// Its variance.
    pub template_variance: &'a Array2<f32>,
    /// Mask of both.
    pub bits: &'a Mask,
}

/// What a fit came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Which image is convolved.
    pub convolved: Convolved,
    /// How the matching kernel varies.
    pub shape: Shape,
    /// Stamps that it rests on.
    pub stamps: usize,
    /// Chi² a pixel of stamps that the fit had not seen.
    pub unseen_chi2: f64,
}

/// What was fitted.
pub struct Fitted {
    /// The kernels of S and D.
    pub kernels: KernelField,
    /// What the fit came to.
    pub summary: Summary,
    /// Flux of the science image over that of the template in the middle of the field: near 1.
    pub flux_ratio: f64,
    /// The science PSF, where the reference's, convolved with the kernel, tells it better.
    pub psf_science: Option<PsfModel>,
    growth: usize,
}

/// Fits the kernel; `None` where too few objects agree. `noise` is that of science image and template.
pub fn fit(images: &Images<'_>, registration: &Registration, noise: (f64, f64)) -> Option<Fitted> {
    let (height, width) = images.science.dim();
    let middle = (width as f64 / 2.0, height as f64 / 2.0);
    let half = registration.psf_science.radius().max(registration.psf_reference.radius());
    let psfs_at = |x: f64, y: f64| -> NodePsfs {
        carried::psfs_at(&registration.psf_science, &registration.psf_reference, &registration.map, x, y, half)
    };
    let psfs = psfs_at(middle.0, middle.1);
    let sharpness = (sum_of_squares(&psfs.science), sum_of_squares(&psfs.reference));
    let convolved = if sharpness.0 > sharpness.1 { Convolved::Science } else { Convolved::Reference };
    let (science, template) = ((images.science, images.science_variance), (images.template, images.template_variance));
    let (source, target) = match convolved {
        Convolved::Science => (science, template),
        Convolved::Reference => (template, science),
    };
    let pair = Pair {
        source: source.0,
        source_variance: source.1,
        target: target.0,
        target_variance: target.1,
        bits: images.bits,
    };
    let scale = |at: (f64, f64)| registration.map.determinant(at.0, at.1).abs().sqrt().max(0.1);
    let fwhm = registration
        .psf_science
        .fwhm_at(middle.0, middle.1)
        .max(registration.psf_reference.fwhm_at(middle.0, middle.1) / scale(middle));
    let size = Size::of(fwhm);
    let basis = Basis::grid(size.radius, size.spacing, size.inner);
    let mut places = stamps::places(&registration.matched, (height, width), size.half);
    stamps::supplement(&mut places, (images.science, images.template), noise, fwhm, size.half);
    let share = sharpness.0.min(sharpness.1) / sharpness.0.max(sharpness.1);
    let cut = stamps::cut(pair, &basis, &places, size.half, share);
    let field = Field::new(width, height);
    let solution = solve::solve(field, basis, cut)?;
    let sum = solution.sum(middle.0, middle.1);
    let flux_ratio = match convolved {
        Convolved::Reference => sum,
        Convolved::Science => 1.0 / sum,
    };
    if !(0.2..=5.0).contains(&flux_ratio) {
        return None;
    }
    let noise = (noise.0, noise.1 * flux_ratio);
    let radii = Radii::for_fwhm(fwhm);
    let nodes = node_places(width, height);
    let reach = solution.kernel(middle.0, middle.1).nrows() / 2;
    let bench = Bench::new(radii, half, reach, convolved, noise);
    // The template is scaled to the fit's own flux ratio.
    let factor = if convolved == Convolved::Reference { 1.0 / flux_ratio } else { flux_ratio };
    let carried_over = convolved == Convolved::Reference && only_reference_is_trusted(registration);
    let made: Vec<(Kernels, Array2<f32>)> = nodes
        .par_iter()
        .map(|&(x, y)| {
            let matching = solution.kernel(x, y) * factor;
            let psfs = psfs_at(x, y);
            let star = if carried_over { through(&matching, &psfs.reference) } else { psfs.science };
            (bench.kernels(&matching, &star), star)
        })
        .collect();
    let (kernels, stars): (Vec<Kernels>, Vec<Array2<f32>>) = made.into_iter().unzip();
    let psf_science = carried_over
        .then(|| {
            let stamps: Vec<_> = nodes.iter().zip(stars).map(|(&(x, y), star)| (x, y, star)).collect();
            registration.psf_science.reshaped(&stamps)
        })
        .flatten();
    let growth = growth(&solution, middle);
    Some(Fitted {
        kernels: KernelField::fit(field, radii, &nodes, &kernels, KERNEL_DEGREE),
        summary: Summary {
            convolved,
            shape: solution.shape,
            stamps: solution.stamps,
            unseen_chi2: solution.unseen_chi2,
        },
        flux_ratio,
        psf_science,
        growth,
    })
}

/// Sizes of kernel and stamps, pixels: all follow the broader FWHM.
struct Size {
    radius: f64,
    spacing: usize,
    inner: f64,
    half: usize,
}

impl Size {
    fn of(fwhm: f64) -> Self {
        let spacing = (fwhm / 3.0).floor().clamp(1.0, 6.0) as usize;
        let radius = (2.2 * fwhm + 1.0).clamp(5.0, 9.5 * spacing as f64);
        Self { radius, spacing, inner: 0.6 * radius, half: (2.5 * fwhm).ceil().clamp(6.0, 40.0) as usize }
    }
}

/// Whether the reference's PSF is worth more than the science image's.
fn only_reference_is_trusted(registration: &Registration) -> bool {
    let (science, reference) = (registration.psf_stars, registration.psf_misfit);
    let trusted = |stars: usize, misfit: f64| stars >= LEAST_PSF_STARS && misfit <= WORST_MISFIT;
    !trusted(science.0, reference.0) && trusted(science.1, reference.1)
}

/// A star of unit sum through the kernel, of unit sum again.
fn through(kernel: &Array2<f64>, star: &Array2<f32>) -> Array2<f32> {
    let reach = kernel.nrows() / 2;
    let (rows, columns) = star.dim();
    let mut sum = Array2::<f32>::zeros((rows, columns));
    for ((ky, kx), value) in kernel.indexed_iter() {
        for y in reach.saturating_sub(ky)..(rows + reach).saturating_sub(ky).min(rows) {
            for x in reach.saturating_sub(kx)..(columns + reach).saturating_sub(kx).min(columns) {
                let (to_y, to_x) = (y + ky - reach, x + kx - reach);
                if to_y < rows && to_x < columns {
                    sum[[to_y, to_x]] += *value as f32 * star[[y, x]];
                }
            }
        }
    }
    let total: f32 = sum.sum();
    if total > 0.1 { sum / total } else { star.clone() }
}

fn sum_of_squares(psf: &Array2<f32>) -> f64 {
    psf.iter().map(|v| f64::from(*v).powi(2)).sum()
}

/// Radius that holds most of the squared kernel in the middle of the field, pixels.
fn growth(solution: &Solution, middle: (f64, f64)) -> usize {
    let kernel = solution.kernel(middle.0, middle.1);
    let reach = kernel.nrows() / 2;
    let total: f64 = kernel.iter().map(|v| v * v).sum();
    (0..reach)
        .find(|&radius| {
            let inside = kernel
                .indexed_iter()
                .filter(|((iy, ix), _)| iy.abs_diff(reach).pow(2) + ix.abs_diff(reach).pow(2) <= radius * radius);
            inside.map(|(_, v)| v * v).sum::<f64>() >= GROWTH_SHARE * total
        })
        .unwrap_or(reach)
}

impl Fitted {
    /// Spreads the mask of the image that is convolved as far as the kernel spreads its pixels.
    pub fn grow_mask(&self, bits: &mut Mask) {
        let own = match self.summary.convolved {
            Convolved::Reference => mask::REFERENCE,
            Convolved::Science => mask::UNUSABLE & !mask::NO_DATA,
        };
        let (height, width) = bits.dim();
        let marked: Vec<(usize, usize, u16)> =
            bits.indexed_iter().filter(|(_, b)| **b & own != 0).map(|((y, x), b)| (x, y, b & own)).collect();
        let reach = self.growth;
        for (x, y, found) in marked {
            for py in y.saturating_sub(reach)..(y + reach + 1).min(height) {
                for px in x.saturating_sub(reach)..(x + reach + 1).min(width) {
                    if px.abs_diff(x).pow(2) + py.abs_diff(y).pow(2) <= reach * reach {
                        bits[[py, px]] |= found;
                    }
                }
            }
        }
    }
}
