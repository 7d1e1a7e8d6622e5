//! S and D of a whole image by overlap-save transforms.
//!
//! `S = Σⱼ wⱼ(x, y) · (Knⱼ ⊗ N − Krⱼ ⊗ R)`, likewise D. One forward transform of a block carries N as real and R
//! as imaginary part; the way back carries S as real and D as imaginary part.
//!
//! **Few transforms.** Over a block the weights wⱼ are polynomials of low degree in the place within it, u and v
//! from −1 to 1: `S = Σ uᵃ vᵇ · (K_ab ⊗ …)` with `K_ab` combined from the Kⱼ where they are cheapest, in the
//! spectrum. The degree is the lowest that leaves no more than a tolerance of a star's light: 2 on a synthetic
//! 3072 × 3080 (3 with blocks of 512), however many kernels there are. On the way back the powers of v are
//! summed behind the transforms of columns, where a row has one v, and those of u behind the transforms of rows:
//!
//! ```text
//! block ─rows─► ─columns─► Z ─× K_ab─► Z_ab ─columns back─► Σ_b vᵇ ─► Z_a ─rows back─► Σ_a uᵃ ─► S, D
//!    transforms   1           degree 1, 2: 3, 6                           2, 3
//! ```
//!
//! A strip of columns goes from Z to Z_a in the second-level cache.
#![allow(clippy::needless_range_loop, reason = "the compiler makes vector instructions of loops over lanes")]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use ndarray::{Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use rustfft::num_complex::Complex32;

use super::fft::{STRIP, Transform, mirrored, scatter};
use super::kernels::{KernelField, Kernels};
use super::local::Local;
use super::spectra::{add_parts, add_scaled, add_times, multiply, parts, scale, turn};
use crate::image::{Mask, Overlay, mask};

/// Side of a transform. Larger blocks waste less on their margins but need polynomials of a higher degree and more
/// memory: 256, 320, 384 and 512 took the same processor time on 3072 × 3080, 256 the least memory.
const SIDE: usize = 256;
/// Margins up to this leave enough of such a block; wider ones take blocks of twice the side.
const NARROW: usize = 36;
/// Part of the kernels (root of the sum of squares) that the polynomials within a block may leave: this part
/// of a star's light, a tenth of what the models of bright stars are good for.
const TOLERANCE: f64 = 2e-4;

/// S (flux of a point source at each pixel, electrons) and D (electrons).
pub struct ScoreAndDifference {
    /// S, not yet divided by its noise.
    pub score: Array2<f32>,
    /// The proper difference image.
    pub difference: Array2<f32>,
}

/// Both images, of one shape.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// N, electrons.
    pub science: &'a Array2<f32>,
    /// What stands in place of its unusable pixels.
    pub overlay: &'a Overlay,
    /// R on the grid and flux scale of N, finite everywhere.
    pub template: &'a Array2<f32>,
    /// Both images' mask: where one has no data both are taken as 0.
    pub mask: &'a Mask,
}

/// Convolves both images.
pub fn convolve(images: &Images<'_>, kernels: &KernelField) -> ScoreAndDifference {
    let (height, width) = images.science.dim();
    let margin = kernels.radii().difference;
    let whole = (height.max(width) + 2 * margin).next_multiple_of(64);
    let side = if margin <= NARROW { SIDE } else { (2 * SIDE).max((4 * margin).next_multiple_of(64)) };
    convolve_in_blocks(images, kernels, whole.min(side))
}

/// [`convolve`] by transforms of this side.
pub fn convolve_in_blocks(images: &Images<'_>, kernels: &KernelField, side: usize) -> ScoreAndDifference {
    let shape = images.science.dim();
    let (mut score, mut difference) = (Array2::zeros(shape), Array2::zeros(shape));
    let work = Work::new(images, kernels, side);
    let valid = side - 2 * work.margin;
    let parts = split(&mut score, valid).into_iter().zip(split(&mut difference, valid));
    let queue = Mutex::new(parts);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    // A task for each core, each with one set of buffers.
    (0..rayon::current_num_threads()).into_par_iter().for_each(|_| {
        let Some(mut parts) = next() else { return };
        let mut buffers = Buffers::new(&work);
        loop {
            work.block(&mut parts.0, &mut parts.1, &mut buffers);
            match next() {
                Some(more) => parts = more,
                None => break,
            }
        }
    });
    drop(queue);
    ScoreAndDifference { score, difference }
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

/// What all blocks share.
struct Work<'a> {
    images: &'a Images<'a>,
    kernels: &'a KernelField,
    transform: Transform,
    margin: usize,
    products: Vec<Product>,
    /// Size of each term's kernels, of 1 in all.
    sizes: Vec<f64>,
}

/// One core's buffers.
struct Buffers {
    spectrum: Vec<Complex32>,
    /// Z_a, transforms along x of S + iD for each power of u; the first takes the block on its way in.
    powers: Vec<Vec<Complex32>>,
    /// Strips of Z_ab.
    strips: Vec<Vec<Complex32>>,
    opposite: Vec<Complex32>,
    product: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Buffers {
    fn new(work: &Work<'_>) -> Self {
        let transform = &work.transform;
        let row = vec![Complex32::default(); transform.side()];
        Self {
            spectrum: transform.spectrum(),
            powers: vec![transform.block()],
            strips: Vec::new(),
            opposite: row.clone(),
            product: row,
            scratch: transform.scratch(),
        }
    }

    fn grow(&mut self, transform: &Transform, degree: usize) {
        self.powers.resize_with((degree + 1).max(self.powers.len()), || transform.block());
        let strips = Local::terms(degree).max(self.strips.len());
        self.strips.resize_with(strips, || vec![Complex32::default(); STRIP * transform.side()]);
    }
}

impl<'a> Work<'a> {
    fn new(images: &'a Images<'a>, kernels: &'a KernelField, side: usize) -> Self {
        let transform = Transform::new(side);
        let products = kernels.terms().par_iter().map(|term| Product::new(&transform, term)).collect();
        let (height, width) = images.science.dim();
        let sizes = sizes(kernels, (width as f64 / 2.0, height as f64 / 2.0));
        let margin = kernels.radii().difference;
        Self { images, kernels, transform, margin, products, sizes }
    }

    /// S and D of one part of the image.
    fn block(&self, score: &mut Part<'_>, difference: &mut Part<'_>, buffers: &mut Buffers) {
        let side = self.transform.side();
        let (height, width) = score.view.dim();
        let local =
            Local::fit(score.origin, (width, height), &self.sizes, TOLERANCE, |x, y| self.kernels.weights(x, y));
        buffers.grow(&self.transform, local.degree());
        let rows = self.load(score.origin, &mut buffers.powers[0]);
        let Buffers { spectrum, powers, strips, opposite, product, scratch } = buffers;
        self.transform.forward(&mut powers[0], rows, spectrum, scratch);
        let wanted = self.margin..self.margin + height;
        // For real and imaginary part.
        let v: Vec<[f32; 2]> = local.places(height).map(|v| [v; 2]).collect();
        let powers = &mut powers[..=local.degree()];
        let strips = &mut strips[..Local::terms(local.degree())];
        for first in (0..side).step_by(STRIP) {
            for i in 0..STRIP {
                let here = (first + i) * side..(first + i + 1) * side;
                turn(&spectrum[mirrored(first + i, side) * side..][..side], opposite);
                for (j, factors) in self.products.iter().enumerate() {
                    let (a, b) = (&factors.a[here.clone()], &factors.b[here.clone()]);
                    multiply(&spectrum[here.clone()], opposite, a, b, product);
                    for (strip, weights) in strips.iter_mut().zip(local.weights()) {
                        let row = &mut strip[i * side..(i + 1) * side];
                        if j == 0 { scale(product, weights[j], row) } else { add_scaled(product, weights[j], row) }
                    }
                }
            }
            for strip in strips.iter_mut() {
                self.transform.inverse_rows(strip, scratch);
            }
            for (a, power) in powers.iter_mut().enumerate() {
                // Horner's scheme in v; the sum ends in the strip of v⁰.
                for b in (1..=local.degree() - a).rev() {
                    let (low, high) = two(strips, Local::term(a, b - 1), Local::term(a, b));
                    for (low, high) in low.chunks_exact_mut(side).zip(high.chunks_exact(side)) {
                        add_times(&mut low[wanted.clone()], &high[wanted.clone()], &v);
                    }
                }
                let strip = &strips[Local::term(a, 0)];
                scatter(strip, side, wanted.clone(), power, self.transform.stride(), first);
            }
        }
        let u: Vec<f32> = local.places(width).collect();
        let stride = self.transform.stride();
        for (iy, (mut s, mut d)) in score.view.rows_mut().into_iter().zip(difference.view.rows_mut()).enumerate() {
            let row = (iy + self.margin) * stride;
            let (Some(s), Some(d)) = (s.as_slice_mut(), d.as_slice_mut()) else { continue };
            for (a, power) in powers.iter_mut().enumerate().rev() {
                let row = &mut power[row..row + side];
                self.transform.inverse_rows(row, scratch);
                let row = &row[self.margin..self.margin + width];
                if a == local.degree() { parts(row, s, d) } else { add_parts(row, &u, s, d) }
            }
        }
    }

    /// Fills the block whose wanted part begins at `origin`, zero beyond the images; gives the rows that hold something.
    fn load(&self, origin: (usize, usize), block: &mut [Complex32]) -> Range<usize> {
        let Images { science, overlay, template, mask } = *self.images;
        let (height, width) = science.dim();
        let (side, margin) = (self.transform.side(), self.margin);
        let inside = |origin: usize, length: usize| {
            let first = margin.saturating_sub(origin);
            first..(length + margin).saturating_sub(origin).clamp(first, side)
        };
        let (rows, columns) = (inside(origin.1, height), inside(origin.0, width));
        for (iy, row) in block.chunks_exact_mut(self.transform.stride()).enumerate().take(rows.end).skip(rows.start) {
            let (x, y) = (origin.0 + columns.start - margin, origin.1 + iy - margin);
            row.fill(Complex32::default());
            let here = (science.row(y).to_slice(), template.row(y).to_slice(), mask.row(y).to_slice());
            let (Some(n), Some(r), Some(bits)) = here else { continue };
            let out = &mut row[columns.clone()];
            for (out, ((n, r), bits)) in out.iter_mut().zip(n[x..].iter().zip(&r[x..]).zip(&bits[x..])) {
                let there = bits & mask::NO_DATA == 0;
                *out = if there { Complex32::new(*n, *r) } else { Complex32::default() };
            }
            let here = x..x + out.len();
            for (column, value) in overlay.row(y).filter(|(column, _)| here.contains(column)) {
                out[column - x].re = if bits[column] & mask::NO_DATA == 0 { value } else { 0.0 };
            }
        }
        rows
    }
}

/// The strip `low` to be changed and the strip `high` behind it.
fn two(strips: &mut [Vec<Complex32>], low: usize, high: usize) -> (&mut [Complex32], &[Complex32]) {
    let (before, behind) = strips.split_at_mut(high);
    (&mut before[low], &behind[0])
}

/// How large each term's kernels are (root of the sum of squares, the largest of the four kinds), in units of
/// the kernels at `middle`.
fn sizes(kernels: &KernelField, middle: (f64, f64)) -> Vec<f64> {
    let kinds: [fn(&Kernels) -> &Array2<f32>; 4] =
        [|k| &k.score_science, |k| &k.score_reference, |k| &k.difference_science, |k| &k.difference_reference];
    let size = |kernel: &Array2<f32>| kernel.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let whole = kernels.at(middle.0, middle.1);
    let part = |term: &Kernels| kinds.map(|kind| size(kind(term)) / size(kind(&whole)).max(1e-30));
    kernels.terms().iter().map(|term| part(term).into_iter().fold(0.0, f64::max)).collect()
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
        let (mut block, mut scratch) = (transform.block(), transform.scratch());
        let mut spectrum = |re: &Array2<f32>, im: &Array2<f32>| {
            block.fill(Complex32::default());
            place(re, im, &mut block, side, transform.stride());
            let mut spectrum = transform.spectrum();
            transform.forward(&mut block, 0..side, &mut spectrum, &mut scratch);
            spectrum
        };
        let mut a = spectrum(&kernels.score_science, &kernels.difference_science);
        let mut b = spectrum(&kernels.score_reference, &kernels.difference_reference);
        let half = 0.5 / (side * side) as f32;
        let i = Complex32::new(0.0, 1.0);
        for (a, b) in a.iter_mut().zip(&mut b) {
            (*a, *b) = ((*a + i * *b) * half, (*a - i * *b) * half);
        }
        Self { a, b }
    }
}

/// Two real kernels as one complex image with the origin in the corner.
fn place(re: &Array2<f32>, im: &Array2<f32>, block: &mut [Complex32], side: usize, stride: usize) {
    let mut add = |kernel: &Array2<f32>, unit: Complex32| {
        let reach = kernel.nrows() / 2;
        for ((iy, ix), value) in kernel.indexed_iter() {
            block[(iy + side - reach) % side * stride + (ix + side - reach) % side] += unit * value;
        }
    };
    add(re, Complex32::new(1.0, 0.0));
    add(im, Complex32::new(0.0, 1.0));
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Radii;
    use super::*;
    use crate::psf::Field;

    /// A kernel that depends on everything, so that no mistake of sign, order or origin is forgiven.
    fn kernel(radius: usize, seed: usize) -> Array2<f32> {
        Array2::from_shape_fn((2 * radius + 1, 2 * radius + 1), |(y, x)| {
            ((x * 7 + y * 13 + seed * 29) % 17) as f32 / 17.0 - 0.4
        })
    }

    #[test]
    fn blocks_give_the_direct_sums_with_kernels_that_vary() {
        let (height, width) = (90, 150);
        let radii = Radii { score: 3, difference: 5 };
        let field = Field::new(width, height);
        let places: Vec<(f64, f64)> = (0..25).map(|i| (f64::from(i % 5) * 37.0, f64::from(i / 5) * 22.0)).collect();
        let kernels: Vec<Kernels> = (0..25)
            .map(|i| Kernels {
                score_science: kernel(3, i),
                score_reference: kernel(3, i * i),
                difference_science: kernel(5, 3 * i),
                difference_reference: kernel(5, i + 11),
            })
            .collect();
        let image = |seed: usize| {
            Array2::from_shape_fn((height, width), |(y, x)| ((x * 31 + y * 17 + seed) % 101) as f32 - 50.0)
        };
        let (science, reference) = (image(0), image(55));
        for degree in 0..=3 {
            let kernels = KernelField::fit(field, radii, &places, &kernels, degree);
            let (mask, overlay) = (Mask::zeros((height, width)), Overlay::default());
            let images = Images { science: &science, overlay: &overlay, template: &reference, mask: &mask };
            let found = convolve_in_blocks(&images, &kernels, 48);
            for (x, y) in [(0, 0), (149, 89), (37, 38), (38, 37), (75, 45), (76, 0), (3, 88)] {
                let at = kernels.at(x as f64, y as f64);
                let sum = |image: &Array2<f32>, kernel: &Array2<f32>| -> f64 {
                    let reach = kernel.nrows() / 2;
                    let terms = kernel.indexed_iter().filter_map(|((ky, kx), value)| {
                        let pixel = image.get([(y + reach).wrapping_sub(ky), (x + reach).wrapping_sub(kx)])?;
                        Some(f64::from(value * pixel))
                    });
                    terms.sum()
                };
                let score = sum(&science, &at.score_science) - sum(&reference, &at.score_reference);
                let difference = sum(&science, &at.difference_science) - sum(&reference, &at.difference_reference);
                assert!((f64::from(found.score[[y, x]]) - score).abs() < 0.3, "S at ({x}, {y}), degree {degree}");
                let d = f64::from(found.difference[[y, x]]);
                assert!((d - difference).abs() < 0.3, "D at ({x}, {y}), degree {degree}: {d} for {difference}");
            }
        }
    }
}
