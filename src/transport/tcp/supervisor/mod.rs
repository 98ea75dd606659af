//! TCP as OpenSER had it ("Explaining the Impact of Network Transport Protocols on SIP Proxy Performance", Ram, Fedeli, Cox, Rixner,
//! §§3.1, 5.1-5.3): here to be compared with, not for service.
//!
//! ```text
//!                     accept, connections by round-robin, idle ones closed
//! peers ────────────► supervisor ── holds every descriptor
//!   │                  │    ▲  ▲
//!   │   descriptors,   │    │  │ connections given back, or opened
//!   │   connections    ▼    │  │
//!   └── read ────────► workers ── ask for a descriptor, wait, write, close it
//! ```
//!
//! Every connection is in the shared hash table (`shared::flows`); its owner is the worker that reads it, or the supervisor
//! once the worker has returned it. Files: `ipc` is what the processes say to each other; `holder` is the supervisor, with `hearing`
//! (what it is told and asked) and `closing` (its idle connections); `reader` is a worker that owns connections, with `returning`
//! (its idle ones); `sender` is any other process that sends, with `cache` (`tcp.descriptor_cache`), `opening` and `writing`.
//!
//! "Input from the network never blocks" does not hold here: a worker waits for the supervisor, for a peer that it opens a connection
//! to, for another's write, and for a socket without room, as OpenSER's does (`receive_fd`, `tcp_blocking_connect`, `write_lock`,
//! `tsend_stream`). Each wait is bounded (`patience`) and counted. What OpenSER's supervisor did, this one never does: wait for a worker.
//! What a worker has no room for stays here in a bounded list, so the deadlock of the paper's §6 cannot be.
//!
//! Where they differ otherwise: a connection that one process opens is claimed, so no other opens a second one to the same peer; a
//! connection that cannot be written ends at once, and who waits on it is told (A19); a dead process is replaced.

mod cache;
mod closing;
mod hearing;
mod holder;
mod ipc;
mod opening;
mod patience;
mod reader;
mod returning;
mod sender;
mod writing;

pub use holder::Supervisor;
pub use patience::SUPERVISOR_PATIENCE;
pub use reader::Worker;

/// Of the tokens of TCP, those from here on are lines between the supervisor and other processes; those below are connections.
const LINES: usize = 1 << 24;
