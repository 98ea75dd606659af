//! `epoll_ctl(2)` for sockets that several processes share.
//!
//! mio registers edge-triggered and wakes every process; a shared socket wants one woken, as long as there is something to read.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Watches `fd` for reading on `epoll`: level-triggered, and of the processes that wait exclusively at least one is woken, usually
/// only one. `token` comes back as mio's token. `epoll` is a `mio::Poll`, which can name its descriptor but not lend it.
///
/// # Errors
/// What `epoll_ctl(2)` says: EEXIST when it is already watched, EINVAL when `epoll` names no epoll.
pub fn add_exclusive(epoll: &impl AsRawFd, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, u64: token as u64 };
    // SAFETY: the kernel reads one struct that lives in this frame, and writes nothing. It checks both descriptors itself: whatever
    // number `epoll` names, what is not an epoll is refused.
    unsafe { syscall!(epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event))? };
    Ok(())
}

/// Stops watching `fd` on `epoll`. Dropping a shared socket does not: another process still holds it open.
///
/// # Errors
/// What `epoll_ctl(2)` says: ENOENT when it is not watched.
pub fn remove(epoll: &impl AsRawFd, fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: for this operation the kernel reads no event; it checks both descriptors itself, as above.
    unsafe { syscall!(epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut()))? };
    Ok(())
}
