//! The four transaction machines: RFC 3261 §17, RFC 6026. One file each.
//!
//! Owns: states and their timers. Never sees a socket, a clock, a thread, a file or a byte of a message: an event and the time
//! go in, the next state and one action come out.
//!
//! A state carries exactly the timers that run in it, so a timer cannot fire in the wrong state. `Machine` is the plain form
//! of any state, as it lies in shared memory.

pub mod invite_client;
pub mod invite_server;
pub mod machine;
pub mod non_invite_client;
pub mod non_invite_server;

pub use invite_client::InviteClient;
pub use invite_server::InviteServer;
pub use machine::{Machine, Resend};
pub use non_invite_client::NonInviteClient;
pub use non_invite_server::NonInviteServer;
