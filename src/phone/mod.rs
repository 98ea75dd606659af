//! Phones: user agents that call through a proxy (RFC 3261 §8, §10, §13, §15), for the demo, the tests and the measurements.
//!
//! Owns: both ends of a call, each with its timers, and what a caller measures. Never runs inside the daemon: phones live in a
//! process of their own and meet the daemon only through sockets, so whatever they show, the daemon did.
//!
//! ```text
//! demo ── starts the daemon, tells what happened
//!   └─ load ── places calls, closed or open loop, and counts          ladder ── draws one call
//!        ├─ agent ── one user agent: pure, messages and time in, steps out
//!        │    └─ compose ── the bytes of requests and responses
//!        └─ line ── its socket: UDP, TCP, SCTP by the kernel or in user space
//!
//! bench ── measures a proxy with phones of its own, which are many and cost little
//! ```
//!
//! Phones read the clock and allocate as they like: they are beside the path of a message, not on it.

pub mod agent;
pub mod bench;
pub mod compose;
pub mod daemon;
pub mod demo;
pub mod ladder;
pub mod line;
pub mod load;
mod sctp;
pub mod signals;
