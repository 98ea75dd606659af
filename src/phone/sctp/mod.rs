//! A phone's SCTP end: the kernel's, or one in user space.

pub(super) mod kernel;
pub(super) mod user;
