//! Messages: RFC 3261 §7, §20.
//!
//! Owns: reading a message where it lies (`scan`), naming its parts by `Span`, and writing messages by splicing (`edit`, `reply`).
//! Never copies a message to read it, never allocates but by growing the caller's buffer, never panics on input, never decides
//! where a message goes. Bytes are text only by convention: nothing here asks for UTF-8.

pub mod branch;
pub mod contact;
pub mod edit;
pub(crate) mod ends;
pub mod headers;
pub mod method;
pub mod parts;
pub mod reader;
pub mod reply;
pub mod route;
pub mod scan;
pub mod span;
pub mod uri;
pub mod via;
mod wide;

pub use branch::BranchId;
pub use contact::Contact;
pub use edit::{RequestEdit, RouteEdit, StrictRoute, Upstream, ViaFix, forward_request, forward_response};
pub use method::Method;
pub use parts::{CSeq, Message, Start};
pub use reply::{Reply, ack, cancel, reason_phrase, reply};
pub use route::Route;
pub use scan::{Invalid, salvage, scan};
pub use span::Span;
pub use uri::{Scheme, Uri};
pub use via::{Rport, Via};

#[cfg(test)]
mod tests;
