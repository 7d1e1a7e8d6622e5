//! S and D of a whole image by overlap-save transforms.
//!
//! `S = Σⱼ φⱼ(x, y) · (Knⱼ ⊗ N − Krⱼ ⊗ R)`, likewise D. One forward transform of a block carries N as real
//! and R as imaginary part; one inverse transform a term j gives Sⱼ as real and Dⱼ as imaginary part.

use ndarray::{Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use rustfft::num_complex::Complex32;

use super::fft::{Transform, mirrored};
use super::kernels::{KernelField, Kernels};

/// Side of a transform. Larger blocks waste less on their margins, smaller ones stay in cache.
const SIDE: usize = 512;

/// S (flux of a point source at each pixel, electrons) and D (electrons).
pub struct ScoreAndDifference {
    /// S, not yet divided by its noise.
    pub score: Array2<f32>,
    /// The proper difference image.
    pub difference: Array2<f32>,
}

/// Convolves both images, which must be finite everywhere and of one shape.
pub fn convolve(science: &Array2<f32>, reference: &Array2<f32>, kernels: &KernelField) -> ScoreAndDifference {
    let margin = kernels.radii().difference;
    let (height, width) = science.dim();
    let transform = Transform::new(side_for(margin, height.max(width)));
    let valid = transform.side() - 2 * margin;
    let products: Vec<Product> = kernels.terms().par_iter().map(|term| Product::new(&transform, term)).collect();
    let mut score = Array2::zeros((height, width));
    let mut difference = Array2::zeros((height, width));
    let blocks: Vec<_> = split(&mut score, valid).into_iter().zip(split(&mut difference, valid)).collect();
    blocks.into_par_iter().for_each_init(
        || Scratch::new(&transform),
        |scratch, (mut score, mut difference)| {
            scratch.load(science, reference, score.origin, margin, transform.side());
            transform.forward(&mut scratch.image, &mut scratch.work);
            for (j, product) in products.iter().enumerate() {
                product.apply(&scratch.image, &mut scratch.product, transform.side());
                transform.inverse(&mut scratch.product, &mut scratch.work);
                add(&mut score, &mut difference, &scratch.product, (margin, transform.side()), |x, y| {
                    kernels.weights(x, y)[j] as f32
                });
            }
        },
    );
    ScoreAndDifference { score, difference }
}

fn side_for(margin: usize, longest: usize) -> usize {
    let whole = (longest + 2 * margin).next_multiple_of(64);
    whole.min(SIDE.max((4 * margin).next_multiple_of(64)))
}

/// A part of an output image and where it lies.
struct Part<'a> {
    origin: (usize, usize),
    view: ArrayViewMut2<'a, f32>,
}

/// Cuts an image into parts of at most `side` × `side`.
fn split(image: &mut Array2<f32>, side: usize) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for (row, strip) in image.axis_chunks_iter_mut(Axis(0), side).enumerate() {
        let mut rest = strip;
        let mut x = 0;
        while rest.ncols() > 0 {
            let cut = side.min(rest.ncols());
            let (view, remaining) = rest.split_at(Axis(1), cut);
            parts.push(Part { origin: (x, row * side), view });
            x += cut;
            rest = remaining;
        }
    }
    parts
}

struct Scratch {
    image: Vec<Complex32>,
    product: Vec<Complex32>,
    work: Vec<Complex32>,
}

impl Scratch {
    fn new(transform: &Transform) -> Self {
        let zeros = vec![Complex32::default(); transform.side() * transform.side()];
        Self { image: zeros.clone(), product: zeros, work: transform.scratch() }
    }

    /// Fills the block whose valid part begins at `origin`; zero beyond the images.
    fn load(
        &mut self,
        science: &Array2<f32>,
        reference: &Array2<f32>,
        origin: (usize, usize),
        margin: usize,
        side: usize,
    ) {
        let (height, width) = science.dim();
        for (iy, row) in self.image.chunks_exact_mut(side).enumerate() {
            row.fill(Complex32::default());
            let y = (origin.1 + iy).wrapping_sub(margin);
            if y >= height {
                continue;
            }
            let first = margin.saturating_sub(origin.0);
            let last = (width + margin).saturating_sub(origin.0).min(side);
            let x0 = origin.0 + first - margin;
            let (n, r) = (science.row(y), reference.row(y));
            for (i, out) in row[first..last.max(first)].iter_mut().enumerate() {
                *out = Complex32::new(n[x0 + i], r[x0 + i]);
            }
        }
    }
}

/// The kernels of one term as factors of the packed spectrum.
///
/// With Z the transform of N + iR, N̂ = (Z + Z̃)/2 and R̂ = −i(Z − Z̃)/2 where Z̃(k) = Z(−k)*. The
/// transform of Sⱼ + iDⱼ is `a Z + b Z̃`, a = (Cn + iCr)/2, b = (Cn − iCr)/2, with Cn = k̂n + i d̂n and
/// Cr = k̂r + i d̂r.
struct Product {
    a: Vec<Complex32>,
    b: Vec<Complex32>,
}

impl Product {
    fn new(transform: &Transform, kernels: &Kernels) -> Self {
        let side = transform.side();
        let mut scratch = transform.scratch();
        let mut cn = packed(&kernels.score_science, &kernels.difference_science, side);
        let mut cr = packed(&kernels.score_reference, &kernels.difference_reference, side);
        transform.forward(&mut cn, &mut scratch);
        transform.forward(&mut cr, &mut scratch);
        let half = 0.5 / (side * side) as f32;
        let i = Complex32::new(0.0, 1.0);
        Self {
            a: cn.iter().zip(&cr).map(|(n, r)| (n + i * r) * half).collect(),
            b: cn.iter().zip(&cr).map(|(n, r)| (n - i * r) * half).collect(),
        }
    }

    fn apply(&self, spectrum: &[Complex32], out: &mut [Complex32], side: usize) {
        for y in 0..side {
            let row = y * side..(y + 1) * side;
            let opposite = &spectrum[mirrored(y, side) * side..][..side];
            let (z, a, b) = (&spectrum[row.clone()], &self.a[row.clone()], &self.b[row.clone()]);
            multiply_row(z, opposite, a, b, &mut out[row]);
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn multiply_row(z: &[Complex32], opposite: &[Complex32], a: &[Complex32], b: &[Complex32], out: &mut [Complex32]) {
    let side = z.len();
    if let (Some(first), Some(z0), Some(o0)) = (out.first_mut(), z.first(), opposite.first()) {
        *first = a[0] * z0 + b[0] * o0.conj();
    }
    for x in 1..side {
        out[x] = a[x] * z[x] + b[x] * opposite[side - x].conj();
    }
}

/// Two real kernels as one complex image with the origin in the corner.
fn packed(re: &Array2<f32>, im: &Array2<f32>, side: usize) -> Vec<Complex32> {
    let mut image = vec![Complex32::default(); side * side];
    let mut place = |kernel: &Array2<f32>, unit: Complex32| {
        let reach = kernel.nrows() / 2;
        for ((iy, ix), value) in kernel.indexed_iter() {
            image[(iy + side - reach) % side * side + (ix + side - reach) % side] += unit * value;
        }
    };
    place(re, Complex32::new(1.0, 0.0));
    place(im, Complex32::new(0.0, 1.0));
    image
}

/// Adds a term, weighted by its polynomial: exact on a coarse grid of columns, linear between.
fn add(
    score: &mut Part<'_>,
    difference: &mut Part<'_>,
    product: &[Complex32],
    (margin, side): (usize, usize),
    weight: impl Fn(f64, f64) -> f32,
) {
    const STEP: usize = 16;
    let (x0, y0) = score.origin;
    let width = score.view.ncols();
    for (iy, (mut s, mut d)) in score.view.rows_mut().into_iter().zip(difference.view.rows_mut()).enumerate() {
        let source = &product[(iy + margin) * side + margin..][..width];
        let y = (y0 + iy) as f64;
        for from in (0..width).step_by(STEP) {
            let to = (from + STEP).min(width);
            let (left, right) = (weight((x0 + from) as f64, y), weight((x0 + from + STEP) as f64, y));
            let slope = (right - left) / STEP as f32;
            for x in from..to {
                let w = left + slope * (x - from) as f32;
                s[x] += w * source[x].re;
                d[x] += w * source[x].im;
            }
        }
    }
}
