//! The night: the stages joined.

pub mod candidates;
pub mod compare;
pub mod fallbacks;
pub mod intake;
pub mod keeping;
pub mod leavings;
pub mod outcome;
pub mod queue;
