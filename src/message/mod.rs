//! Messages: RFC 3261 §7, §20.

pub mod branch;
