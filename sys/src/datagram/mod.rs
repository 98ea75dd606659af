//! Batches of messages over UDP and one-to-many SCTP.
//!
//! Owns: the arrays that `recvmmsg(2)` and `sendmmsg(2)` want, allocated once, and the buffers to receive into. Never waits, never
//! retries, never looks into a message.

mod arena;
mod receive;
mod send;

pub use arena::Arena;
pub use receive::{RcvInfo, Received, Receiver};
pub use send::{Item, Sender, SndInfo, To};

/// A control message as the kernel lays it out: header, then data, each rounded up to 8 bytes. `struct cmsghdr` is a length
/// (of header and data, without the rounding), a level and a type.
const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();
const CMSG_ALIGN: usize = size_of::<usize>();
// Level and type are looked for behind a length of 64 bits.
const _: () = assert!(CMSG_ALIGN == 8 && CMSG_HEADER == 16);
