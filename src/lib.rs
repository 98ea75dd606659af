//! The map of the house.
//!
//! A message walks one way:
//!
//! ```text
//! socket ─transport→ Frame ─message→ Message ─shared→ slot (locked) ─transaction, proxy→ Steps ─(unlock)→ message → bytes ─transport→ socket
//! ```
pub mod config;
pub mod location;
pub mod log;
pub mod master;
pub mod message;
pub mod phone;
pub mod proxy;
pub mod shared;
pub mod timer;
pub mod transaction;
pub mod transport;
pub mod worker;
