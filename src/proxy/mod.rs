//! The proxy core: RFC 3261 §16.
//!
//! Owns: what becomes of a request and of the responses to it. Never sees a socket, a clock, a thread or a file: an event and
//! the time go in, a short list of `Step`s comes out.
//!
//! A request passes `validate` (§16.3), `route` (§16.4, §16.5), `target` (§16.6 item 7) and `forward` (§16.6); `context` remembers
//! it, `request`, `response` and `timers` say what happens to it, `upstream` chooses what the caller hears (§16.7).

pub mod context;
pub mod forward;
pub mod identity;
mod request;
mod response;
pub mod route;
pub mod target;
#[cfg(test)]
mod tests;
mod timers;
mod upstream;
pub mod validate;

pub use context::{Branches, Client, Context, MAX_BRANCHES, Needed, Origin, Server, Step, Steps};
pub use identity::Identity;
pub use validate::Refusal;
