//! The proper difference image (Zackay, Ofek & Gal-Yam 2016) with kernels that vary over the field.

pub mod convolve;
pub mod fft;
pub mod kernels;
