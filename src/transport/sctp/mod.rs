//! SCTP: RFC 4168, by the kernel or, where the kernel has none, in user space.
//!
//! Owns: nothing of its own; `kernel` and `user` are two ways to carry the same messages. With the kernel's, any process sends on any
//! association; in user space an association belongs to one process, as a TCP connection does.
//!
//! # Layouts of the kernel's
//!
//! `shared`: one socket, which all workers read as they read UDP's. `per_worker`: a socket for each (SO_REUSEPORT), where the kernel
//! gives an association to one of them by its peer's address and port (M15); its worker alone reads, but all send on it, so nothing is
//! handed over. Whole calls, two workers, CPU of the daemon per call in µs (`cargo bench --bench layouts`, in the virtual machine
//! with VM_ICOUNT=1, where a µs is 1,000 instructions):
//!
//! | associations on each side | shared, 20 calls at once | per_worker | shared, a third of that rate | per_worker |
//! |---|---|---|---|---|
//! | 1 | 407 | 331 | 411 | 411 |
//! | 10 | 414 | 435 | 414 | 415 |
//! | 100 | 415 | 422 | 414 | 416 |
//!
//! So the kernel's one lock costs less than it seems (M24: what it guards is a small part of a message's way through a proxy), and
//! `shared` is the default: it keeps all workers busy however few the associations are. `per_worker` wins where one association
//! carries everything, by larger batches, but then one worker does all of it.

mod kernel;
pub mod sysctls;
pub mod user;

pub use kernel::{Kernel, Numbers, SocketId, open, prepare};
pub use user::User;
