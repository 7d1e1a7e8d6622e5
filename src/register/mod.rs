//! Finds where the reference lies under the science image and resamples it to its grid.

pub mod polynomial;
pub mod resample;
pub mod smooth;
pub mod spline;
pub mod triangles;
pub mod vote;
pub mod stars;
