//! The truth tables of a synthetic night.
//!
//! `truth.csv` has one line for each exposure and source that changed, `defects.csv` one for each
//! box of spoilt pixels, `stars.csv` one for each bright star. Pixels are those of FITS (the first
//! is 1, 1) on the trimmed science image.
//!
//! The true signal-to-noise ratio is that of the best linear filter that knows both PSFs and both
//! noises (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27), with the noise of everything that shines under
//! the source. With T the PSF of the science image drawn along the trail, P_n and P_r the PSFs, V_n
//! and V_r the variances of the pixels (that of the reference on the flux scale of the science
//! image), σ_n² and σ_r² those of blank sky, and hats for Fourier transforms:
//!
//! ```text
//! den = σ_n² |P̂_r|² + σ_r² |P̂_n|²     ŵ_n = T̂ |P̂_r|² / den     ŵ_r = T̂ P̂_r conj(P̂_n) / den
//! S/N = |flux| Σ w_n T / √(Σ w_n² V_n + Σ w_r² V_r)
//! ```
//!
//! For a reference without noise this is |flux| ΣT² / √(ΣT² V_n).

use std::path::Path;

use rustfft::num_complex::Complex64;
use serde::{Deserialize, Serialize};

use super::SkyError;
use super::catalogue::ChangeKind;
use super::defects::{Defect, DefectKind};
use super::fourier::{Transforms, wrapped};

/// A line of `truth.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrueChange {
    /// Name of the exposure's file.
    pub exposure: String,
    /// Beginning of the exposure, UTC.
    pub date_obs: String,
    /// Why it changed.
    pub kind: ChangeKind,
    /// FITS pixel at mid-exposure.
    pub x: f64,
    /// FITS pixel at mid-exposure.
    pub y: f64,
    /// Right ascension at mid-exposure, degrees.
    pub ra: f64,
    /// Declination at mid-exposure, degrees.
    pub dec: f64,
    /// Change against the reference, electrons of the science image, signed.
    pub flux: f64,
    /// True signal-to-noise ratio (see the module).
    pub snr: f64,
    /// Length of the trail, pixels.
    pub trail: f64,
    /// Why it cannot be measured as if nothing lay there: `edge`, `off_reference`, `saturated`,
    /// `cosmic_ray`, `bad_column`, `hot_pixel`; empty for those that count.
    pub defect: String,
}

/// A line of `defects.csv`: a box of FITS pixels, inclusive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrueDefect {
    /// Name of the exposure's file.
    pub exposure: String,
    /// What it is.
    pub kind: DefectKind,
    /// First column.
    pub x0: f64,
    /// First row.
    pub y0: f64,
    /// Last column.
    pub x1: f64,
    /// Last row.
    pub y1: f64,
}

/// A line of `stars.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrueStar {
    /// Name of the exposure's file.
    pub exposure: String,
    /// FITS pixel.
    pub x: f64,
    /// FITS pixel.
    pub y: f64,
    /// Right ascension, degrees.
    pub ra: f64,
    /// Declination, degrees.
    pub dec: f64,
    /// Electrons of the science image.
    pub flux: f64,
    /// Magnitude without its change.
    pub mag: f64,
}

/// All truth of a night.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    /// What changed.
    pub changes: Vec<TrueChange>,
    /// What is spoilt.
    pub defects: Vec<TrueDefect>,
    /// What is bright.
    pub stars: Vec<TrueStar>,
}

impl Truth {
    /// Writes the three tables into a folder.
    pub fn write(&self, folder: &Path) -> Result<(), SkyError> {
        write_table(&folder.join("truth.csv"), &self.changes)?;
        write_table(&folder.join("defects.csv"), &self.defects)?;
        write_table(&folder.join("stars.csv"), &self.stars)
    }

    /// Reads the three tables of a folder.
    pub fn read(folder: &Path) -> Result<Self, SkyError> {
        Ok(Self {
            changes: read_table(&folder.join("truth.csv"))?,
            defects: read_table(&folder.join("defects.csv"))?,
            stars: read_table(&folder.join("stars.csv"))?,
        })
    }
}

impl TrueDefect {
    /// The line of a defect of an exposure.
    pub fn new(exposure: &str, defect: &Defect) -> Self {
        let [x0, y0, x1, y1] = [defect.x.0, defect.y.0, defect.x.1, defect.y.1].map(|zero_based| zero_based + 1.0);
        Self { exposure: exposure.to_owned(), kind: defect.kind, x0, y0, x1, y1 }
    }

    /// Its box in FITS pixels.
    pub fn bounds(&self) -> Defect {
        Defect { kind: self.kind, x: (self.x0, self.x1), y: (self.y0, self.y1) }
    }
}

fn write_table<T: Serialize>(path: &Path, lines: &[T]) -> Result<(), SkyError> {
    let failed = |error: csv::Error| SkyError::file(path, error);
    let mut table = csv::Writer::from_path(path).map_err(failed)?;
    for line in lines {
        table.serialize(line).map_err(failed)?;
    }
    table.flush().map_err(|error| SkyError::file(path, error))
}

/// Reads a table of lines.
pub fn read_table<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Vec<T>, SkyError> {
    let failed = |error: csv::Error| SkyError::Table { path: path.to_owned(), reason: error.to_string() };
    csv::Reader::from_path(path).map_err(failed)?.deserialize().collect::<Result<_, _>>().map_err(failed)
}

/// Rounds to a number of decimals, for tables that people read.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    (value * unit).round() / unit
}

/// Side of the transforms, pixels.
const SIDE: usize = 48;

/// What the true signal-to-noise ratio of a source depends on; offsets in pixels of the science
/// image, from the source.
pub struct Surroundings<'a> {
    /// Change, electrons.
    pub flux: f64,
    /// T: the PSF of the science image drawn along the trail.
    pub template: &'a dyn Fn(f64, f64) -> f64,
    /// P_n.
    pub science_psf: &'a dyn Fn(f64, f64) -> f64,
    /// P_r, in the axes of the science image.
    pub reference_psf: &'a dyn Fn(f64, f64) -> f64,
    /// V_n at an offset, and σ_n².
    pub science_variance: (&'a dyn Fn(f64, f64) -> f64, f64),
    /// V_r at an offset, and σ_r², on the flux scale of the science image.
    pub reference_variance: (&'a dyn Fn(f64, f64) -> f64, f64),
}

impl Surroundings<'_> {
    /// The true signal-to-noise ratio (see the module).
    pub fn snr(&self, transforms: &mut Transforms) -> f64 {
        let mut transformed = |density: &dyn Fn(f64, f64) -> f64| {
            let mut values = wrapped(SIDE, 1.0, density);
            transforms.forward(SIDE, &mut values);
            values
        };
        let template = transformed(self.template);
        let science = transformed(self.science_psf);
        let reference = transformed(self.reference_psf);
        let (variance_n, sigma2_n) = self.science_variance;
        let (variance_r, sigma2_r) = self.reference_variance;
        let (mut weight_n, mut weight_r) = (Vec::new(), Vec::new());
        let mut gain = 0.0;
        for ((t, n), r) in template.iter().zip(&science).zip(&reference) {
            let den = sigma2_n * r.norm_sqr() + sigma2_r * n.norm_sqr() + 1e-9 * sigma2_n;
            weight_n.push(t * r.norm_sqr() / den);
            weight_r.push(t * r * n.conj() / den);
            gain += t.norm_sqr() * r.norm_sqr() / den;
        }
        gain /= (SIDE * SIDE) as f64;
        let mut noise = 0.0;
        for (weights, variance) in [(&mut weight_n, variance_n), (&mut weight_r, variance_r)] {
            transforms.inverse(SIDE, weights);
            noise += weighted(weights, variance);
        }
        if noise > 0.0 { self.flux.abs() * gain / noise.sqrt() } else { 0.0 }
    }
}

/// Σ w² V over offsets with wrap-around.
fn weighted(weights: &[Complex64], variance: &dyn Fn(f64, f64) -> f64) -> f64 {
    let offset = |index: usize| if index < SIDE / 2 { index as f64 } else { index as f64 - SIDE as f64 };
    let term = |(index, weight): (usize, &Complex64)| {
        weight.re * weight.re * variance(offset(index % SIDE), offset(index / SIDE))
    };
    weights.iter().enumerate().map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sky::optics::Profile;

    #[test]
    fn without_noise_in_the_reference_the_ratio_is_that_of_the_plain_matched_filter() {
        let (sharp, broad) = (Profile::moffat(2.2, [0.05, 0.0], 3.2), Profile::moffat(2.8, [0.0, 0.05], 3.0));
        let science = |dx: f64, dy: f64| broad.density(dx, dy);
        let reference = |dx: f64, dy: f64| sharp.density(dx, dy);
        let variance = |dx: f64, dy: f64| 1000.0 + 5e4 * broad.density(dx, dy);
        let surroundings = Surroundings {
            flux: -5000.0,
            template: &science,
            science_psf: &science,
            reference_psf: &reference,
            science_variance: (&variance, 1000.0),
            reference_variance: (&|_, _| 1e-6, 1e-6),
        };
        let (mut signal, mut noise) = (0.0, 0.0);
        for j in -24..24 {
            for i in -24..24 {
                let p = science(f64::from(i), f64::from(j));
                signal += p * p;
                noise += p * p * variance(f64::from(i), f64::from(j));
            }
        }
        let expected = 5000.0 * signal / noise.sqrt();
        let found = surroundings.snr(&mut Transforms::default());
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
    }

    #[test]
    fn a_reference_of_the_same_noise_costs_a_factor_of_the_square_root_of_two() {
        let psf = Profile::moffat(2.5, [0.0, 0.0], 3.2);
        let density = |dx: f64, dy: f64| psf.density(dx, dy);
        let flat = |_: f64, _: f64| 900.0;
        let snr = |sigma2_r: f64, variance_r: &dyn Fn(f64, f64) -> f64| {
            Surroundings {
                flux: 3000.0,
                template: &density,
                science_psf: &density,
                reference_psf: &density,
                science_variance: (&flat, 900.0),
                reference_variance: (variance_r, sigma2_r),
            }
            .snr(&mut Transforms::default())
        };
        let ratio = snr(1e-9, &|_, _| 1e-9) / snr(900.0, &flat);
        assert!((ratio - std::f64::consts::SQRT_2).abs() < 0.01, "{ratio}");
    }
}
