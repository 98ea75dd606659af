//! Listening TCP sockets. Accepting, connecting and the rest are mio's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use crate::socket;

/// A listening, non-blocking TCP socket with SO_REUSEADDR (a restart need not wait for old connections to time out). IPv6 sockets
/// take IPv6 only. With `reuse_port`, several sockets of one user share the address, and the kernel spreads connections.
///
/// # Errors
/// What `socket(2)`, `setsockopt(2)`, `bind(2)` or `listen(2)` says.
pub fn listen(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<OwnedFd> {
    let fd = socket::open(socket::family(address), libc::SOCK_STREAM, libc::IPPROTO_TCP)?;
    if address.is_ipv6() {
        socket::set(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    socket::set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if reuse_port {
        socket::set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    socket::bind(fd.as_fd(), address)?;
    socket::listen(fd.as_fd(), backlog)?;
    Ok(fd)
}
