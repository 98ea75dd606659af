//! Error numbers by name, as `std::io::Error::raw_os_error` gives them: those that `io::ErrorKind` does not tell apart.

pub use libc::{EADDRNOTAVAIL, ENOBUFS, ENOMEM, EPIPE, ESHUTDOWN};
