//! SIGINT, SIGTERM and SIGHUP, heard between two turns of whoever starts a daemon, so that it is ended before its starter ends.
//!
//! Owns: the signals of the process that measures or shows. Blocked before anything is started, so that none is missed.

use std::io;
use std::ops::ControlFlow;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub struct Signals(SignalFd);

/// Somebody wants it to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl Signals {
    /// # Errors
    /// No descriptor.
    pub fn block() -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        Ok(Signals(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// # Errors
    /// A signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        match self.0.read_signal() {
            Ok(Some(_)) => Err(Interrupted),
            _ => Ok(()),
        }
    }

    /// For callbacks that may break off; `interrupted` says why they did.
    pub fn flow(&self, interrupted: &mut Result<(), Interrupted>) -> ControlFlow<()> {
        *interrupted = self.check();
        if interrupted.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
