//! Strowger: a SIP proxy and registrar for Linux whose first transport is SCTP (RFC 4168). This page is the map of the house.
//!
//! A message walks one way, without turning back:
//!
//! ```text
//! socket ─transport→ Frame ─message→ Message ─shared→ slot (locked) ─transaction, proxy→ Steps ─(unlock)→ message → bytes ─transport→ socket
//! ```
//!
//! | room | owns | from |
//! |---|---|---|
//! | [`master`] | listeners, children, signals, the admin listener; no SIP message | the paper's figure |
//! | [`worker`] | the loop and the clock; the corridor that every input walks | |
//! | [`shared`] | one mapping: transactions, texts, flows, mailboxes, bindings, counters | |
//! | [`timer`] | names and lengths of timers; `Tick` | |
//! | [`transport`] | sockets, connections, associations, framing | RFC 3261 §18, RFC 4168 |
//! | [`message`] | reading and splicing bytes | §7, §20 |
//! | [`transaction`] | the four machines | §17, RFC 6026 |
//! | [`proxy`] | what becomes of a request | §16 |
//! | [`location`] | bindings and REGISTER | §10, §16.5 |
//! | [`phone`] | user agents for demo, benchmarks and tests | §8, §13 |
//! | [`config`], [`log`] | what the operator says, and what is said to the operator | |
//! | [`check`] | what a configuration would serve, and what one should know before | |
//!
//! Arrows point down only: main → {check, master} → worker → {shared, transport, location} → proxy → transaction → {message, timer}. What a
//! peer is called (`transport::{Address, Flow, Transport}`) and what was configured (`config`) is vocabulary that every room speaks;
//! `shared` holds the parts of the rooms above it, so it knows their plain data.
//!
//! The rules of the house:
//!
//! 1. On a message's way only `worker` reads the clock and orders things, only `transport` touches sockets, only the crate `sys` has `unsafe`.
//! 2. Decide under the lock, act after it: no system call while a bucket is locked.
//! 3. `transaction` and `proxy` are pure: an event and the time in, a short list of steps out.
//! 4. Input from the network never panics and never blocks: it becomes a response, or a counted drop. (Behind the paper's supervisor a
//!    worker waits, as OpenSER's did, each time for a bounded time: `transport::tcp`.)
//! 5. What lies in shared memory is plain data: no pointer, no `Drop`; slots are named by index and generation.
//! 6. In the steady state a message costs no heap allocation.

#![forbid(unsafe_code)]
// They panic when nobody reads any more (`| head`).
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod check;
pub mod config;
pub mod location;
pub mod log;
pub mod master;
pub mod message;
pub mod phone;
pub mod proxy;
pub mod shared;
pub mod timer;
pub mod transaction;
pub mod transport;
pub mod worker;
