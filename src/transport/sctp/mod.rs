//! SCTP: RFC 4168, by the kernel or, where the kernel has none, in user space.
//!
//! Owns: nothing of its own; `kernel` and `user` are two ways to carry the same messages. With the kernel's, any process sends on any
//! association; in user space an association belongs to one process, as a TCP connection does.
//!
//! # Layouts of the kernel's
//!
//! `shared`, the default: one socket, which all workers read. `per_worker`: a socket for each worker (SO_REUSEPORT), where the kernel
//! gives an association to one of them by its peer's address and port (M15); its worker alone reads, but all send on it, so nothing is
//! handed over.
//!
//! Whole calls, two workers on the two emulated processors of the virtual machine, nine rounds, each with new daemons and new
//! associations (`ROUNDS=9`, `cargo bench --bench layouts` as its head says; 2026-11-23). Within a round, `per_worker` divided by
//! `shared`: median, and the quarters:
//!
//! | associations on each side | calls/s, 20 at once | CPU per call | CPU per call at a third of the rate |
//! |---|---|---|---|
//! | 1 | 0.90 (0.83–1.26) | 0.98 (0.91–1.03) | 0.88 (0.84–0.95) |
//! | 2 | 0.95 (0.79–1.00) | 0.95 (0.92–1.20) | 0.97 (0.92–1.04) |
//! | 10 | 0.93 (0.88–1.03) | 0.99 (0.92–1.08) | 0.99 (0.87–1.02) |
//! | 100 | 0.99 (0.85–1.03) | 0.98 (0.93–1.14) | 1.00 (0.92–1.05) |
//!
//! So there is no difference beyond the noise, but that at a third of the rate one association costs less with `per_worker`, which then
//! leaves one worker idle; the one lock (M24) does not show with two workers. `shared` is the default for what else it does: a single
//! trunk keeps all workers busy, and a worker that hangs silences nobody until it is replaced. No machine with more than two processors
//! was there to measure: on many, with many associations, the lock may speak for `per_worker`. (An earlier measurement favoured
//! `per_worker`; its rounds shared one drawing of which worker gets which association.)

mod kernel;
pub mod sysctls;
pub mod user;

pub use kernel::{Kernel, Numbers, SocketId, open, prepare};
pub use user::User;
