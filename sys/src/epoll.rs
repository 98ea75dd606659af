//! `epoll_ctl(2)` for sockets that several processes share.
//!
//! mio registers edge-triggered and wakes every process; a shared socket wants one woken, as long as there is something to read
//! (design §2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Watches `fd` for reading on `epoll` (the descriptor of a `mio::Poll`): level-triggered, and of the processes that wait
/// exclusively at least one is woken, usually only one. `token` comes back as mio's token.
///
/// # Errors
/// What `epoll_ctl(2)` says: EEXIST when it is already watched.
pub fn add_exclusive(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, u64: token as u64 };
    // SAFETY: both descriptors are open (borrowed); the kernel reads one struct that lives in this frame.
    unsafe { syscall!(epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event))? };
    Ok(())
}

/// Stops watching `fd` on `epoll`. Dropping a shared socket does not: another process still holds it open.
///
/// # Errors
/// What `epoll_ctl(2)` says: ENOENT when it is not watched.
pub fn remove(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open (borrowed); for this operation the kernel reads no event.
    unsafe { syscall!(epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut()))? };
    Ok(())
}
