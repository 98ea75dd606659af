//! -1 becomes an `io::Error`, here and nowhere else.

use std::io;

/// What a system call returned, or `errno` where that was -1.
///
/// `syscall!(name(arguments))` calls `libc::name`; the caller wraps it in `unsafe` and says why that is sound.
macro_rules! syscall {
    ($name:ident ( $($argument:expr),* $(,)? )) => {
        $crate::syscall::checked(libc::$name($($argument),*))
    };
}

/// The same for calls of the POSIX threads kind, which return the error number itself.
macro_rules! posix {
    ($name:ident ( $($argument:expr),* $(,)? )) => {
        $crate::syscall::zero(libc::$name($($argument),*))
    };
}

/// Calls again as long as a signal interrupts.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(crate) fn checked<T: Copy + PartialOrd + From<i8>>(returned: T) -> io::Result<T> {
    if returned < T::from(0) { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

pub(crate) fn zero(returned: i32) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(returned)) }
}
