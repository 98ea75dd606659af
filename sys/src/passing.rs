//! Passing open descriptors between processes: Unix sockets with SCM_RIGHTS (`unix(7)`).
//!
//! A pair keeps message boundaries (SOCK_SEQPACKET): a message comes whole or not at all, with its descriptor or without one.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use crate::socket;
use crate::syscall::uninterrupted;

/// What to do where a message cannot be sent, or none has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// `WouldBlock` at once.
    No,
    /// As long as [`set_patience`] lets it; then `WouldBlock`.
    Yes,
}

/// Two connected sockets that block, close-on-exec.
///
/// # Errors
/// What `socketpair(2)` says.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two descriptors into the array, which lives for the call.
    unsafe { syscall!(socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()))? };
    let [one, other] = fds;
    // SAFETY: both were just opened, and nobody else knows them.
    Ok(unsafe { (OwnedFd::from_raw_fd(one), OwnedFd::from_raw_fd(other)) })
}

/// How long [`send`] and [`receive`] wait on this socket (SO_SNDTIMEO, SO_RCVTIMEO): all who share it.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn set_patience(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<()> {
    let mut bytes = [0; mem::size_of::<libc::timeval>()];
    let seconds = libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX);
    let micros = libc::suseconds_t::from(patience.subsec_micros().cast_signed());
    let (first, second) = bytes.split_at_mut(mem::size_of::<libc::time_t>());
    first.copy_from_slice(&seconds.to_ne_bytes());
    second.copy_from_slice(&micros.to_ne_bytes());
    socket::set_bytes(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &bytes)?;
    socket::set_bytes(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &bytes)
}

/// Room for one control message with one descriptor, aligned as its header.
#[repr(C)]
union Control {
    bytes: [u8; 64],
    _align: libc::cmsghdr,
}

// SAFETY: computes with constants only.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<RawFd>() as u32) } as usize;
const _: () = assert!(CONTROL_BYTES <= 64);

/// Sends one message, with a copy of `descriptor`: the receiver gets one of its own.
///
/// # Errors
/// `WouldBlock` when the other side reads too slowly; ETOOMANYREFS when too many descriptors of ours are on their way; else what
/// `sendmsg(2)` says.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>, wait: Wait) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control { bytes: [0; 64] };
    // SAFETY: all zero is a valid msghdr: no name, no parts, no control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(descriptor) = descriptor {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: the control buffer is aligned for a header and has room for it with one descriptor behind, so the first header lies
        // in it and so do its data.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<RawFd>() as u32) as _;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), descriptor.as_raw_fd());
        }
    }
    let flags = libc::MSG_NOSIGNAL | if wait == Wait::No { libc::MSG_DONTWAIT } else { 0 };
    // SAFETY: the header points to one part and to control data that live for the call; the kernel writes to neither.
    uninterrupted(|| unsafe { syscall!(sendmsg(fd.as_raw_fd(), &raw const message, flags)) })?;
    Ok(())
}

/// Receives one message into `buffer` and gives its length, and its descriptor, close-on-exec, if it came with one. Length 0: the
/// other side is closed.
///
/// # Errors
/// `WouldBlock` when none has come; else what `recvmsg(2)` says.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], wait: Wait) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = MaybeUninit::<Control>::zeroed();
    // SAFETY: as in `send`.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // Room for one descriptor and no more: the kernel closes any other.
    message.msg_controllen = CONTROL_BYTES as _;
    let flags = libc::MSG_CMSG_CLOEXEC | if wait == Wait::No { libc::MSG_DONTWAIT } else { 0 };
    let length = uninterrupted(|| {
        // SAFETY: the kernel writes into the part and the control data, at most as many bytes as they have; both live for the call.
        unsafe { syscall!(recvmsg(fd.as_raw_fd(), &raw mut message, flags)) }
    })?;
    // SAFETY: the kernel filled the control data and said how far; the first header, if there is one, lies in it.
    let descriptor = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let is_one = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
            && (*header).cmsg_len as usize >= libc::CMSG_LEN(mem::size_of::<RawFd>() as u32) as usize;
        // The descriptor is new and nobody else knows it.
        is_one.then(|| OwnedFd::from_raw_fd(ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>())))
    };
    Ok((length.unsigned_abs(), descriptor))
}
