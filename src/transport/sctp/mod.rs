//! SCTP: RFC 4168, by the kernel or, where the kernel has none, in user space.
//!
//! Owns: nothing of its own; `kernel` and `user` are two ways to carry the same messages. With the kernel's, any process sends on any
//! association; in user space an association belongs to one process, as a TCP connection does.
//!
//! # Layouts of the kernel's
//!
//! `per_worker`, the default: a socket for each worker (SO_REUSEPORT), where the kernel gives an association to one of them by its
//! peer's address and port (M15); its worker alone reads, but all send on it, so nothing is handed over. `shared`: one socket, which
//! all workers read.
//!
//! Whole calls, two workers, the layouts in turn (`cargo bench --bench layouts`). On one processor, where nobody waits for a lock (in
//! the virtual machine with VM_ICOUNT=1: a µs is 1,000 instructions; one round), CPU of the daemon per call:
//!
//! | associations on each side | shared, 20 calls at once | per_worker | shared, a third of that rate | per_worker |
//! |---|---|---|---|---|
//! | 1 | 407 µs | 331 µs | 411 µs | 411 µs |
//! | 10 | 414 µs | 435 µs | 414 µs | 415 µs |
//! | 100 | 415 µs | 422 µs | 414 µs | 416 µs |
//!
//! On two emulated processors (the virtual machine as it is, ROUNDS=7, medians and extremes; only the ratios mean something), 20 calls at
//! once, calls/s and CPU per call:
//!
//! | associations on each side | shared, calls/s | per_worker, calls/s | shared, CPU | per_worker, CPU |
//! |---|---|---|---|---|
//! | 1 | 634 (517–773) | 737 (567–816) | 1,352 µs | 1,088 µs |
//! | 10 | 388 (369–541) | 523 (374–784) | 2,324 µs | 1,841 µs |
//! | 100 | 447 (218–656) | 503 (269–741) | 2,024 µs | 1,870 µs |
//!
//! So the layouts do the same work, and where two processors meet at the one lock (M24), `per_worker` carries more, in the median of each
//! row 13 to 35 %; rounds vary by more than that, and which worker gets which association is drawn once a row. It has its price. A worker that hangs silences its associations until it is replaced, and fewer associations than workers leave some idle;
//! with `shared` the others go on reading. No machine with more than two processors was there to measure.

mod kernel;
pub mod sysctls;
pub mod user;

pub use kernel::{Kernel, Numbers, SocketId, open, prepare};
pub use user::User;
