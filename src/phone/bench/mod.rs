//! `strowger bench`: the paper's experiment.
//!
//! Owns: what is measured, how it is told. Never runs inside the daemon.

pub mod paper;
pub mod results;
