//! shared

pub mod deadlines;
pub mod numbers;
pub mod text;
