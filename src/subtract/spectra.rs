//! The inner loops of the convolution, over rows of spectra.

#![allow(clippy::needless_range_loop, reason = "the compiler makes vector instructions of loops over lanes")]

use multiversion::multiversion;
use rustfft::num_complex::Complex32;

/// Z̃ of a column from Z of the opposite one.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn turn(column: &[Complex32], out: &mut [Complex32]) {
    let side = column.len();
    out[0] = column[0].conj();
    for y in 1..side {
        out[y] = column[side - y].conj();
    }
}

/// `a z + b z̃`.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn multiply(
    z: &[Complex32],
    opposite: &[Complex32],
    a: &[Complex32],
    b: &[Complex32],
    out: &mut [Complex32],
) {
    let length = out.len();
    let (z, opposite, a, b) = (&z[..length], &opposite[..length], &a[..length], &b[..length]);
    for i in 0..length {
        let (z, o, a, b) = (z[i], opposite[i], a[i], b[i]);
        out[i].re = a.re * z.re - a.im * z.im + (b.re * o.re - b.im * o.im);
        out[i].im = a.re * z.im + a.im * z.re + (b.re * o.im + b.im * o.re);
    }
}

/// `weight · product`.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn scale(product: &[Complex32], weight: f32, out: &mut [Complex32]) {
    let length = out.len();
    let product = &product[..length];
    for i in 0..length {
        out[i].re = weight * product[i].re;
        out[i].im = weight * product[i].im;
    }
}

/// `out += weight · product`.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn add_scaled(product: &[Complex32], weight: f32, out: &mut [Complex32]) {
    let length = out.len();
    let product = &product[..length];
    for i in 0..length {
        out[i].re += weight * product[i].re;
        out[i].im += weight * product[i].im;
    }
}

/// `low += weights · high`.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn add_times(low: &mut [Complex32], high: &[Complex32], weights: &[[f32; 2]]) {
    let length = low.len();
    let (high, weights) = (&high[..length], &weights[..length]);
    for i in 0..length {
        low[i].re += weights[i][0] * high[i].re;
        low[i].im += weights[i][1] * high[i].im;
    }
}

/// Real and imaginary parts.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn parts(row: &[Complex32], re: &mut [f32], im: &mut [f32]) {
    let length = row.len();
    let (re, im) = (&mut re[..length], &mut im[..length]);
    for i in 0..length {
        re[i] = row[i].re;
        im[i] = row[i].im;
    }
}

/// A step of Horner's scheme in u: times `u`, and the parts of the next coefficient added.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn add_parts(row: &[Complex32], u: &[f32], re: &mut [f32], im: &mut [f32]) {
    let length = row.len();
    let (u, re, im) = (&u[..length], &mut re[..length], &mut im[..length]);
    for i in 0..length {
        re[i] = re[i] * u[i] + row[i].re;
        im[i] = im[i] * u[i] + row[i].im;
    }
}
