//! Strowger's system calls.
//!
//! Owns: all unsafe code of the project: shared memory and robust locks, processes, shared sockets and their batches,
//! kernel SCTP. Never has policy: a function here does what its manual page says, turns -1 into `io::Error` once, and leaves
//! limits, retries and meaning to the caller. Design §2, §5, §6.
//!
//! Linux only. Every `unsafe` block says why it is sound; most of them pass the kernel pointers into a slice that lives for
//! the length of the call.

#[macro_use]
mod syscall;

pub mod datagram;
pub mod epoll;
pub mod errno;
pub mod log_descriptor;
pub mod memory;
pub mod passing;
pub mod process;
pub mod sctp;
mod sockaddr;
mod socket;
pub mod tcp;
pub mod udp;

pub use socket::{Granted, local_address};
