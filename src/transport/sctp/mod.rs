//! SCTP: RFC 4168, by the kernel.

mod kernel;

pub use kernel::Kernel;
