//! `epoll_ctl(2)` on the descriptor of a `mio::Poll`, which can name its descriptor but not lend it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// As [`crate::epoll::add_exclusive`], for a poll that is open as long as the reference to it lives.
///
/// # Errors
/// What `epoll_ctl(2)` says.
pub fn add_exclusive(poll: &impl AsRawFd, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
    // SAFETY: the poll is borrowed for this call, so its descriptor stays open; it is used for nothing else.
    let epoll = unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) };
    crate::epoll::add_exclusive(epoll, fd, token)
}
