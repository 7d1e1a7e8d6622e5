//! A star field with any point-spread function, drawn without the program's own synthetic sky.
#![allow(dead_code, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use ndarray::Array2;
use nightjar::fits::{HduOut, Header, Plane, write_fits};

/// Electrons of sky a pixel.
const SKY: f64 = 400.0;

/// A star: place in pixels and flux in electrons.
pub struct Star {
    pub x: f64,
    pub y: f64,
    pub flux: f64,
}

/// Evenly distributed numbers below 1 (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.next().ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos()
    }
}

impl Star {
    /// Stars all over a square field, none within 30 pixels of its edge.
    pub fn many(seed: u64, count: usize, side: usize) -> Vec<Self> {
        let mut numbers = Numbers(seed);
        let place = |numbers: &mut Numbers| 30.0 + numbers.next() * (side as f64 - 60.0);
        (0..count)
            .map(|_| {
                let (x, y) = (place(&mut numbers), place(&mut numbers));
                Self { x, y, flux: 10f64.powf(3.6 + 1.6 * numbers.next()) }
            })
            .collect()
    }
}

/// The field with the stars' places moved by `shift` in both axes, photon noise and 5 electrons of read noise.
pub fn draw(stars: &[Star], side: usize, shift: f64, psf: &dyn Fn(f64, f64) -> f64, seed: u64) -> Array2<f32> {
    const REACH: f64 = 14.0;
    let mut image = Array2::from_elem((side, side), SKY);
    for star in stars {
        let (cx, cy) = (star.x + shift, star.y + shift);
        for y in (cy - REACH).round() as usize..=(cy + REACH).round() as usize {
            for x in (cx - REACH).round() as usize..=(cx + REACH).round() as usize {
                image[[y, x]] += star.flux * psf(x as f64 - cx, y as f64 - cy);
            }
        }
    }
    let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    image.mapv(|electrons| (electrons + (electrons + 25.0).sqrt() * numbers.normal()) as f32)
}

/// Writes it as a calibrated image.
pub fn write(path: &Path, image: &Array2<f32>) {
    let mut header = Header::new();
    header.set("IMAGETYP", "light", "").set("BUNIT", "electron", "").set("GAIN", 1.0, "");
    header.set("RDNOISE", 5.0, "").set("EXPTIME", 30.0, "").set("FILTER", "r", "");
    header.set("DATE-OBS", "2026-11-24T01:00:00", "").set("SATURATE", 200_000.0, "");
    write_fits(path, &[HduOut { name: "", header: &header, plane: Plane::F32(image) }]).unwrap();
}
