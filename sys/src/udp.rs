//! UDP sockets for batches ([`crate::datagram`]).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use crate::socket::{self, Granted};

/// A bound, non-blocking UDP socket, with buffers of `receive` and `send` bytes where granted (0: the system's default).
/// IPv6 sockets take IPv6 only. On a wildcard, what is received says which address it came to (`Received::own`). With `reuse_port`, several sockets of one user share the address (`socket(7)`, SO_REUSEPORT).
///
/// # Errors
/// What `socket(2)`, `setsockopt(2)` or `bind(2)` says.
pub fn bind(address: SocketAddr, reuse_port: bool, receive: usize, send: usize) -> io::Result<(OwnedFd, Granted)> {
    let fd = socket::open(socket::family(address), libc::SOCK_DGRAM, libc::IPPROTO_UDP)?;
    if address.is_ipv6() {
        socket::set(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    if reuse_port {
        socket::set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    let granted = socket::set_buffers(fd.as_fd(), receive, send)?;
    if address.ip().is_unspecified() {
        // One socket, many addresses: each datagram tells which it was sent to.
        let (level, name) = match address.is_ipv4() {
            true => (libc::IPPROTO_IP, libc::IP_PKTINFO),
            false => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        };
        socket::set(fd.as_fd(), level, name, 1)?;
    }
    socket::bind(fd.as_fd(), address)?;
    Ok((fd, granted))
}
