//! What all sockets here have in common: making, options, buffers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::sockaddr::Name;

/// Socket buffers as the kernel granted them, in bytes as it counts them: twice what was asked, `socket(7)`. Less means that
/// `net.core.rmem_max` or `wmem_max` cut the wish and we may not go over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub receive: usize,
    pub send: usize,
}

/// A new socket: non-blocking, close-on-exec.
pub(crate) fn open(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = unsafe { syscall!(socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol))? };
    // SAFETY: just opened, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn family(address: SocketAddr) -> libc::c_int {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

pub(crate) fn bind(fd: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    let name = Name::new(address);
    let bytes = name.as_bytes();
    // SAFETY: the kernel reads as many bytes as the slice has, which lives for the call.
    unsafe { syscall!(bind(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len() as libc::socklen_t))? };
    Ok(())
}

pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: takes integers only.
    unsafe { syscall!(listen(fd.as_raw_fd(), backlog))? };
    Ok(())
}

pub(crate) fn set_bytes(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads as many bytes as the slice has, which lives for the call.
    unsafe { syscall!(setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len))? };
    Ok(())
}

pub(crate) fn set(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: i32) -> io::Result<()> {
    set_bytes(fd, level, name, &value.to_ne_bytes())
}

/// Reads an option into `value`, whose beginning may say what is asked. Returns how many bytes the kernel filled.
pub(crate) fn get_bytes(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel writes at most `len` bytes into the slice, and the new length; both live for the call.
    unsafe { syscall!(getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len))? };
    Ok((len as usize).min(value.len()))
}

pub(crate) fn get(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<i32> {
    let mut value = [0; 4];
    get_bytes(fd, level, name, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

/// Asks for buffers of `receive` and `send` bytes (0: leave as it is), over the system's maximum where we may (CAP_NET_ADMIN),
/// and reads back what came of it.
pub(crate) fn set_buffers(fd: BorrowedFd<'_>, receive: usize, send: usize) -> io::Result<Granted> {
    for (bytes, force, ask) in
        [(receive, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (send, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if bytes > 0 {
            // The kernel doubles the value; half of what an int holds is the most that can be meant.
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX).min(i32::MAX / 2);
            set(fd, libc::SOL_SOCKET, force, bytes).or_else(|_| set(fd, libc::SOL_SOCKET, ask, bytes))?;
        }
    }
    let size = |name| get(fd, libc::SOL_SOCKET, name).map(|n| usize::try_from(n).unwrap_or(0));
    Ok(Granted { receive: size(libc::SO_RCVBUF)?, send: size(libc::SO_SNDBUF)? })
}

/// The address a socket is bound to: tells the port when 0 was asked for. Of several addresses of an SCTP socket, Linux tells the
/// one that was bound last.
///
/// # Errors
/// What `getsockname(2)` says; `InvalidData` for an address that is neither IPv4 nor IPv6.
pub fn local_address(fd: impl AsFd) -> io::Result<SocketAddr> {
    let mut name = Name::EMPTY;
    let mut len = Name::ROOM as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into the name, and the new length; both live for the call.
    unsafe { syscall!(getsockname(fd.as_fd().as_raw_fd(), name.as_mut_ptr().cast(), &raw mut len))? };
    name.read(len as usize).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
