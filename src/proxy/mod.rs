//! The proxy core: RFC 3261 §16.
//!
//! Owns: what becomes of a request and of the responses to it. Never sees a socket, a clock, a thread or a file: an event and
//! the time go in, a short list of `Step`s comes out.

pub mod context;
mod request;
mod response;
mod timers;
mod upstream;

pub use context::{Branches, Client, Context, MAX_BRANCHES, Needed, Origin, Server, Step, Steps};
