//! What all processes share: plain data in one mapping.

pub mod broken;
pub mod counters;
pub mod flows;
pub mod mailbox;
pub mod open_associations;
