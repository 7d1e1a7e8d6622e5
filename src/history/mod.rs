//! What was seen before: exposures, objects, detections, coverage, in SQLite.

mod epoch;

pub use epoch::{Past, PriorEpoch};
