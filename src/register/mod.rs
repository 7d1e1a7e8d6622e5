//! Finds where the reference lies under the science image and resamples it to its grid.

pub mod library;
pub mod polynomial;
pub mod resample;
pub mod spline;
pub mod triangles;
pub mod vote;
