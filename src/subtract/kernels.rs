//! The kernels of the proper subtraction in real space, and how they vary over the field.
//!
//! At each node of a grid the kernels follow from the two PSFs there (Zackay, Ofek & Gal-Yam 2016,
//! ApJ 830, 27; with the reference scaled to the science image's flux, fn = fr = 1):
//!
//! ```text
//! den  = σn² |P̂r|² + σr² |P̂n|²                 S  = kn ⊗ N − kr ⊗ R      D = dn ⊗ N − dr ⊗ R
//! k̂n   = P̂n* |P̂r|² / (den F_S)                 k̂r = P̂r* |P̂n|² / (den F_S)
//! d̂n   = P̂r / (√den F_D)                       d̂r = P̂n / (√den F_D)      F_D = 1 / √(σn² + σr²)
//! ```
//!
//! They are divided by F_S and F_D, so that S is the flux of a point source at each pixel and D keeps the
//! flux of the science image. Each kernel pixel is then a polynomial of the field position, fitted to the
//! nodes: no tiles, no seams.

use nalgebra::{DMatrix, DVector};
use ndarray::Array2;
use rayon::prelude::*;
use rustfft::num_complex::Complex64;
use rustfft::{Fft, FftPlanner};

use crate::psf::{Field, cosine_taper};

/// Nodes along each axis.
pub const NODES: usize = 9;
/// The floor of `den` as a fraction of σn, squared: without it noise near the Nyquist frequency rings.
const DEN_FLOOR: f64 = 0.005;
/// The terms leave at most this part of the kernels, rms. On a synthetic field whose PSFs are of degree 3, 12, 10,
/// 7 and 5 terms (1e-3, 2e-3, 5e-3, 1e-2) left 1, 1, 1 and 10 false alerts and a bright-star floor of 0.0021,
/// 0.0024, 0.0024 and 0.0032.
const TOLERANCE: f64 = 5e-3;
/// At most this many terms.
const MOST_TERMS: usize = 10;
/// The outermost pixels over which a kernel falls to zero.
const TAPER: f64 = 4.0;

/// The four kernels at one place, images of odd side with the origin in the middle.
#[derive(Debug, Clone)]
pub struct Kernels {
    /// S from the science image.
    pub score_science: Array2<f32>,
    /// S from the reference.
    pub score_reference: Array2<f32>,
    /// D from the science image.
    pub difference_science: Array2<f32>,
    /// D from the reference.
    pub difference_reference: Array2<f32>,
}

/// The PSFs of a node, unit sum, images of the same odd side.
#[derive(Debug, Clone)]
pub struct NodePsfs {
    /// Place, pixels of the science image.
    pub x: f64,
    /// Place, pixels of the science image.
    pub y: f64,
    /// PSF of the science image.
    pub science: Array2<f32>,
    /// PSF of the resampled reference.
    pub reference: Array2<f32>,
}

/// Radii of the kernels, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Radii {
    /// Of the kernels of S.
    pub score: usize,
    /// Of the kernels of D.
    pub difference: usize,
}

impl Radii {
    /// Radii for PSFs of this FWHM (the larger one), pixels: 24 and 32 up to 3.4 px.
    pub fn for_fwhm(fwhm: f64) -> Self {
        let score = (7.0 * fwhm).ceil().clamp(24.0, 56.0) as usize;
        Self { score, difference: score + 8 }
    }
}

/// Works out the kernels of a node.
pub struct Workshop {
    side: usize,
    radii: Radii,
    forward: std::sync::Arc<dyn Fft<f64>>,
    inverse: std::sync::Arc<dyn Fft<f64>>,
}

impl Workshop {
    /// For PSF stamps of half side `psf_half`.
    pub fn new(radii: Radii, psf_half: usize) -> Self {
        let least = 2 * radii.difference.max(psf_half) + 16;
        let side = if least <= 96 { 96 } else { least.next_multiple_of(32) };
        let mut planner = FftPlanner::new();
        Self { side, radii, forward: planner.plan_fft_forward(side), inverse: planner.plan_fft_inverse(side) }
    }

    /// The kernels from the PSFs and the background noises σn, σr (electrons of the science image).
    pub fn kernels(&self, psfs: &NodePsfs, noise_science: f64, noise_reference: f64) -> Kernels {
        let side = self.side;
        // Both PSFs are real: one transform carries them as real and imaginary part.
        let mut packed = vec![Complex64::default(); side * side];
        let half = (psfs.science.nrows() / 2) as isize;
        for ((iy, ix), value) in psfs.science.indexed_iter() {
            let other = psfs.reference[[iy, ix]];
            packed[wrapped(iy as isize - half, ix as isize - half, side)] =
                Complex64::new(f64::from(*value), f64::from(other));
        }
        self.transform(&self.forward, &mut packed);
        let (sn2, sr2) = (noise_science.powi(2), noise_reference.powi(2));
        let mut score = vec![Complex64::default(); side * side];
        let mut difference = score.clone();
        let mut flux_scale = 0.0;
        let fd = 1.0 / (sn2 + sr2).sqrt();
        let unit = Complex64::new(0.0, 1.0);
        for ky in 0..side {
            for kx in 0..side {
                let index = ky * side + kx;
                let mirror = packed[(side - ky) % side * side + (side - kx) % side].conj();
                let pn = (packed[index] + mirror) * 0.5;
                let pr = (packed[index] - mirror) * Complex64::new(0.0, -0.5);
                let den = sn2 * pr.norm_sqr() + sr2 * pn.norm_sqr() + DEN_FLOOR * DEN_FLOOR * sn2;
                flux_scale += pn.norm_sqr() * pr.norm_sqr() / den;
                let kn = pn.conj() * (pr.norm_sqr() / den);
                let kr = pr.conj() * (pn.norm_sqr() / den);
                score[index] = kn + unit * kr;
                let root = den.sqrt() * fd;
                difference[index] = (pr + unit * pn) / root;
            }
        }
        let pixels = (side * side) as f64;
        self.transform(&self.inverse, &mut score);
        self.transform(&self.inverse, &mut difference);
        let cut = |spectrum: &[Complex64], radius: usize, scale: f64, part: fn(&Complex64) -> f64| {
            let reach = radius as isize;
            Array2::from_shape_fn((2 * radius + 1, 2 * radius + 1), |(iy, ix)| {
                let (dy, dx) = (iy as isize - reach, ix as isize - reach);
                let distance = (dy as f64).hypot(dx as f64);
                let taper = cosine_taper(distance, radius as f64 - TAPER, radius as f64);
                (part(&spectrum[wrapped(dy, dx, side)]) * scale * taper) as f32
            })
        };
        // F_S is a mean over frequencies, the inverse transform a mean too.
        let (to_flux, to_image) = (1.0 / flux_scale, 1.0 / pixels);
        Kernels {
            score_science: cut(&score, self.radii.score, to_flux, |c| c.re),
            score_reference: cut(&score, self.radii.score, to_flux, |c| c.im),
            difference_science: cut(&difference, self.radii.difference, to_image, |c| c.re),
            difference_reference: cut(&difference, self.radii.difference, to_image, |c| c.im),
        }
    }

    fn transform(&self, plan: &std::sync::Arc<dyn Fft<f64>>, square: &mut [Complex64]) {
        let side = self.side;
        for _ in 0..2 {
            plan.process(square);
            for y in 0..side {
                for x in y + 1..side {
                    square.swap(y * side + x, x * side + y);
                }
            }
        }
    }
}

fn wrapped(dy: isize, dx: isize, side: usize) -> usize {
    let side = side as isize;
    (dy.rem_euclid(side) * side + dx.rem_euclid(side)) as usize
}

/// Kernels that vary over the field: `k(x, y) = Σⱼ wⱼ(x, y) kⱼ`.
///
/// The kⱼ are the leading singular vectors of the nodes' kernels, the weights wⱼ polynomials of the field
/// position.
#[derive(Debug, Clone)]
pub struct KernelField {
    field: Field,
    degree: usize,
    terms: Vec<Kernels>,
    /// Coefficients of each term's weight, in the order of [`Field::basis`].
    weights: Vec<Vec<f64>>,
    radii: Radii,
}

impl KernelField {
    /// Fits the nodes' kernels with as many terms as they need; the degree of the weights is cut to what the
    /// nodes support.
    pub fn fit(field: Field, radii: Radii, nodes: &[(f64, f64)], kernels: &[Kernels], degree: usize) -> Self {
        let solved = (0..=degree).rev().find_map(|d| solver(&field, nodes, d).map(|s| (d, s)));
        let (degree, solver) =
            solved.unwrap_or_else(|| (0, DMatrix::from_element(1, nodes.len(), 1.0 / nodes.len() as f64)));
        // The singular vectors over the nodes, from the nodes' scalar products: far fewer nodes than pixels.
        let products = scalar_products(kernels);
        let eigen = products.symmetric_eigen();
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        let total: f64 = eigen.eigenvalues.iter().filter(|v| **v > 0.0).sum();
        let mut left = total;
        let mut used = Vec::new();
        for &index in order.iter().take(MOST_TERMS) {
            if left <= TOLERANCE * TOLERANCE * total && !used.is_empty() {
                break;
            }
            left -= eigen.eigenvalues[index].max(0.0);
            used.push(eigen.eigenvectors.column(index).clone_owned());
        }
        let combine = |over_nodes: &DVector<f64>, of: fn(&Kernels) -> &Array2<f32>| {
            let mut sum = Array2::zeros(of(&kernels[0]).dim());
            for (value, kernel) in over_nodes.iter().zip(kernels) {
                sum.scaled_add(*value as f32, of(kernel));
            }
            sum
        };
        let terms = used
            .par_iter()
            .map(|over_nodes| Kernels {
                score_science: combine(over_nodes, |n| &n.score_science),
                score_reference: combine(over_nodes, |n| &n.score_reference),
                difference_science: combine(over_nodes, |n| &n.difference_science),
                difference_reference: combine(over_nodes, |n| &n.difference_reference),
            })
            .collect();
        let weights = used.iter().map(|over_nodes| (&solver * over_nodes).iter().copied().collect()).collect();
        Self { field, degree, terms, weights, radii }
    }

    /// Degree of the weights.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// The kernels kⱼ.
    pub fn terms(&self) -> &[Kernels] {
        &self.terms
    }

    /// Radii of the kernels.
    pub fn radii(&self) -> Radii {
        self.radii
    }

    /// The terms' weights at pixel (x, y).
    pub fn weights(&self, x: f64, y: f64) -> Vec<f64> {
        let basis = self.field.basis(x, y, self.degree);
        self.weights.iter().map(|weight| weight.iter().zip(&basis).map(|(c, b)| c * b).sum()).collect()
    }

    /// The kernels at pixel (x, y).
    pub fn at(&self, x: f64, y: f64) -> Kernels {
        let weights = self.weights(x, y);
        let sum = |of: fn(&Kernels) -> &Array2<f32>| {
            let mut sum = Array2::zeros(of(&self.terms[0]).dim());
            for (term, weight) in self.terms.iter().zip(&weights) {
                sum.scaled_add(*weight as f32, of(term));
            }
            sum
        };
        Kernels {
            score_science: sum(|n| &n.score_science),
            score_reference: sum(|n| &n.score_reference),
            difference_science: sum(|n| &n.difference_science),
            difference_reference: sum(|n| &n.difference_reference),
        }
    }
}

/// Scalar products of the nodes' kernels, each of the four kinds in units of its own size.
fn scalar_products(kernels: &[Kernels]) -> DMatrix<f64> {
    let kinds: [fn(&Kernels) -> &Array2<f32>; 4] =
        [|k| &k.score_science, |k| &k.score_reference, |k| &k.difference_science, |k| &k.difference_reference];
    let product = |a: &Array2<f32>, b: &Array2<f32>| -> f64 {
        scalar_product(a.as_slice().unwrap_or_default(), b.as_slice().unwrap_or_default())
    };
    let sizes = kinds.map(|kind| kernels.iter().map(|k| product(kind(k), kind(k))).sum::<f64>().max(f64::MIN_POSITIVE));
    let rows: Vec<Vec<f64>> = (0..kernels.len())
        .into_par_iter()
        .map(|a| {
            let one = |b: usize| {
                kinds.iter().zip(sizes).map(|(k, size)| product(k(&kernels[a]), k(&kernels[b])) / size).sum()
            };
            (0..=a).map(one).collect()
        })
        .collect();
    DMatrix::from_fn(kernels.len(), kernels.len(), |a, b| rows[a.max(b)][a.min(b)])
}

#[allow(clippy::needless_range_loop, reason = "the compiler makes vector instructions of loops over lanes")]
#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn scalar_product(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    for k in length - length % LANES..length {
        sums[0] += f64::from(a[k]) * f64::from(b[k]);
    }
    sums.iter().sum()
}

/// The matrix that takes node values to polynomial coefficients.
fn solver(field: &Field, nodes: &[(f64, f64)], degree: usize) -> Option<DMatrix<f64>> {
    if Field::terms(degree) > nodes.len() {
        return None;
    }
    let rows: Vec<Vec<f64>> = nodes.iter().map(|(x, y)| field.basis(*x, *y, degree)).collect();
    let design = DMatrix::from_fn(nodes.len(), Field::terms(degree), |n, k| rows[n][k]);
    let normal = design.transpose() * &design;
    normal.cholesky().map(|c| c.solve(&design.transpose()))
}

/// The nodes' places on an image of `width` × `height`.
pub fn node_places(width: usize, height: usize) -> Vec<(f64, f64)> {
    let at = |i: usize, side: usize| (i as f64 + 0.5) / NODES as f64 * side as f64 - 0.5;
    (0..NODES * NODES).map(|n| (at(n % NODES, width), at(n / NODES, height))).collect()
}
