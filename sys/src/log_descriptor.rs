//! A standard error that nobody reads must not stop a writer.
//!
//! Owns: a descriptor for the same pipe, terminal, file or socket as descriptor 2 that never blocks, without making descriptor 2
//! itself (shared with whoever started us) non-blocking. Never buffers: what does not fit is `WouldBlock`, the caller counts it.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// How to write without waiting.
enum Way {
    /// The open file description is ours and has O_NONBLOCK (or is a file, which never makes one wait for a reader).
    Plain,
    /// A socket: MSG_DONTWAIT.
    Socket,
    /// A pipe or terminal that we may not open again: asked with `poll(2)` first, at most PIPE_BUF bytes.
    Asked,
}

/// Writes to descriptor 2 without ever waiting for a reader.
pub struct Unblocked {
    descriptor: OwnedFd,
    way: Way,
}

impl Unblocked {
    /// Standard error. Call it before privileges are dropped, children inherit it: after that, `/proc/self/fd` is closed to a process
    /// that changed its user (`proc(5)`, "dumpable"). (It then still works, but could wait for a reader when several processes write
    /// to a nearly full pipe at the very same moment.)
    ///
    /// # Errors
    /// EBADF when descriptor 2 is closed; what `fstat(2)` or `fcntl(2)` says.
    pub fn stderr() -> io::Result<Unblocked> {
        // SAFETY: the standard library keeps descriptor 2 for standard error; if it is closed, the calls on it say EBADF.
        Unblocked::of(unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) })
    }

    /// The same for any descriptor that is open for writing.
    ///
    /// # Errors
    /// As for [`Unblocked::stderr`].
    pub fn of(descriptor: BorrowedFd<'_>) -> io::Result<Unblocked> {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the kernel fills the struct it is given room for.
        unsafe { syscall!(fstat(descriptor.as_raw_fd(), stat.as_mut_ptr()))? };
        // SAFETY: filled by the call above, which did not fail.
        let kind = unsafe { stat.assume_init() }.st_mode & libc::S_IFMT;
        match kind {
            libc::S_IFSOCK => Ok(Unblocked { descriptor: descriptor.try_clone_to_owned()?, way: Way::Socket }),
            libc::S_IFIFO | libc::S_IFCHR => match reopen(descriptor) {
                Ok(own) => Ok(Unblocked { descriptor: own, way: Way::Plain }),
                Err(_) => Ok(Unblocked { descriptor: descriptor.try_clone_to_owned()?, way: Way::Asked }),
            },
            // Opening a file again would begin at its start; a duplicate shares offset and O_APPEND.
            _ => Ok(Unblocked { descriptor: descriptor.try_clone_to_owned()?, way: Way::Plain }),
        }
    }
}

/// An open file description of our own, so that O_NONBLOCK is ours alone.
fn reopen(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))?;
    // SAFETY: takes no pointer.
    let flags = unsafe { syscall!(fcntl(descriptor.as_raw_fd(), libc::F_GETFL))? };
    let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC | (flags & libc::O_APPEND);
    // SAFETY: the path ends with NUL and lives for the call.
    let own = unsafe { syscall!(open(path.as_ptr(), flags))? };
    // SAFETY: just opened, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}

impl Write for Unblocked {
    /// # Errors
    /// `WouldBlock` when nobody makes room; `BrokenPipe` when nobody reads any more.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fd = self.descriptor.as_raw_fd();
        let (at, len) = (bytes.as_ptr().cast(), bytes.len());
        let written = match self.way {
            // SAFETY: the kernel reads `len` bytes of a slice that lives for the call.
            Way::Plain => unsafe { syscall!(write(fd, at, len))? },
            // SAFETY: as above.
            Way::Socket => unsafe { syscall!(send(fd, at, len, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL))? },
            Way::Asked => {
                let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one struct that lives in this frame, and the count says one.
                if unsafe { syscall!(poll(&raw mut poll, 1, 0))? } == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                // SAFETY: as for `Plain`; the length is no larger than the slice's.
                unsafe { syscall!(write(fd, at, len.min(libc::PIPE_BUF)))? }
            }
        };
        Ok(written.unsigned_abs())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
