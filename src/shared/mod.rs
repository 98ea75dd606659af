//! shared

pub mod bindings;
pub mod deadlines;
pub mod numbers;
pub mod text;
