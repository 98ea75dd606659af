//! SCTP: RFC 4168, by the kernel or, where the kernel has none, in user space.
//!
//! Owns: nothing of its own; `kernel` and `user` are two ways to carry the same messages. With the kernel's, any process sends on any
//! association; in user space an association belongs to one process, as a TCP connection does.
//!
//! # Layouts of the kernel's
//!
//! `shared`: one socket, which all workers read as they read UDP's. `per_worker`: a socket for each (SO_REUSEPORT), where the kernel
//! gives an association to one of them by its peer's address and port (M15); its worker alone reads, but all send on it, so nothing is
//! handed over. A worker that hangs silences its associations then, until it is replaced; with `shared` the others go on reading.
//!
//! Whole calls, two workers, CPU of the daemon per call in µs (`cargo bench --bench layouts`). On one processor, where nobody waits
//! for a lock (in the virtual machine with VM_ICOUNT=1: a µs is 1,000 instructions, which repeat):
//!
//! | associations on each side | shared, 20 calls at once | per_worker | shared, a third of that rate | per_worker |
//! |---|---|---|---|---|
//! | 1 | 407 | 331 | 411 | 411 |
//! | 10 | 414 | 435 | 414 | 415 |
//! | 100 | 415 | 422 | 414 | 416 |
//!
//! On two emulated processors (the virtual machine as it is, ROUNDS=3; only the ratios mean something, and they vary by a fifth),
//! calls/s with 20 at once, and their CPU per call:
//!
//! | associations on each side | shared | per_worker | shared | per_worker |
//! |---|---|---|---|---|
//! | 1 | 586 calls/s | 589 calls/s | 1,511 µs | 1,456 µs |
//! | 10 | 427 calls/s | 548 calls/s | 2,179 µs | 1,742 µs |
//! | 100 | 449 calls/s | 527 calls/s | 1,992 µs | 1,805 µs |
//!
//! So the layouts do the same work, and where two processors meet at the one lock (M24), `per_worker` gains. `shared` is the default as
//! long as that is seen in so few rounds: it keeps all workers busy however few the associations are.

mod kernel;
pub mod sysctls;
pub mod user;

pub use kernel::{Kernel, Numbers, SocketId, open, prepare};
pub use user::User;
