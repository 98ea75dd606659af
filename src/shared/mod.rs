//! shared

pub mod deadlines;
pub mod text;
