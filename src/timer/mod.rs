//! Names and lengths of the SIP timers (RFC 3261 §17 table 4, RFC 6026 §8.11), and `Tick`, the time they are measured in.
//!
//! Owns: lengths. Never reads a clock.

mod tick;

pub use tick::Tick;
