//! Signals, read as input like any other: signalfd(2) in the master's poll.
//!
//! Owns: which signals the daemon hears. They stay blocked in every process, so that a terminal's SIGINT, which goes
//! to the whole group, ends no worker: a worker hears of the end through shared memory.

use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal means to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// SIGTERM or SIGINT: come to an end; again: hurry.
    End,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGCHLD: one child or several died.
    Death,
}

pub(super) struct Signals(SignalFd);

impl Signals {
    /// From here on the signals wait in the descriptor, also one that comes while the daemon starts.
    pub(super) fn block() -> nix::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            set.add(signal);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Signals)
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> std::io::Result<()> {
        registry.register(&mut SourceFd(&self.0.as_raw_fd()), token, Interest::READABLE)
    }

    /// The next signal that waits. Signals of one kind may have been merged into one (signal(7)).
    pub(super) fn next(&self) -> Option<Heard> {
        loop {
            let info = self.0.read_signal().ok().flatten()?;
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGTERM | Signal::SIGINT) => return Some(Heard::End),
                Some(Signal::SIGHUP) => return Some(Heard::Reload),
                Some(Signal::SIGCHLD) => return Some(Heard::Death),
                _ => {}
            }
        }
    }
}
