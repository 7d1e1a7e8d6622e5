//! The night: the stages joined.

pub mod leavings;
pub mod outcome;
