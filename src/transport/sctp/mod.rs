//! SCTP: RFC 4168, by the kernel or, where the kernel has none, in user space.
//!
//! Owns: nothing of its own; `kernel` and `user` are two ways to carry the same messages. With the kernel's, any process reads and
//! sends for any association; in user space an association belongs to one process, as a TCP connection does.

mod kernel;
pub mod sysctls;
pub mod user;

pub use kernel::{Kernel, Numbers, SocketId, open, prepare};
pub use user::User;
