//! How long a process waits in one turn of its loop, whatever for.
//!
//! The master ends a process that has not come round its loop for 10 s. So all waits of a turn share one allowance, and when it
//! is used up, nothing is waited for until the next turn. A wait is charged with the time that it could have taken: the
//! transports read no clock.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::timer::Tick;

/// What a process waits for the supervisor's answer, or for room to ask (OpenSER: for ever). A supervisor that died is
/// replaced within 100 ms.
pub const SUPERVISOR_PATIENCE: Duration = Duration::from_millis(1_000);
/// All waits of one turn (OpenSER: 10 s for each write and each connection, `tcp_send_timeout`, `tcp_connect_timeout`).
const TURN_MS: u64 = 3_000;
/// The longest sleep between two looks at the allowance.
const LONGEST_MS: u64 = 128;

#[derive(Default)]
pub struct Patience {
    turn: Tick,
    spent: u64,
}

impl Patience {
    /// What is left in the turn that began at `now`, milliseconds.
    pub fn left(&mut self, now: Tick) -> u64 {
        if self.turn != now {
            *self = Patience { turn: now, spent: 0 };
        }
        TURN_MS.saturating_sub(self.spent)
    }

    pub fn spend(&mut self, ms: u64) {
        self.spent = self.spent.saturating_add(ms);
    }

    /// Waits until the socket can be written, but no longer than `most_ms`. False: it cannot.
    pub fn until_writable(&mut self, fd: BorrowedFd<'_>, most_ms: u64, now: Tick) -> bool {
        let most = most_ms.min(self.left(now));
        let mut waited = 0;
        // The first look costs nothing.
        let mut slice = 0;
        loop {
            let mut sources = [PollFd::new(fd, PollFlags::POLLOUT)];
            let timeout = PollTimeout::from(u16::try_from(slice).unwrap_or(0));
            self.spend(slice);
            waited += slice;
            match poll(&mut sources, timeout) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                // An error of the socket's is found by whoever writes.
                _ => return true,
            }
            slice = (2 * slice).clamp(1, LONGEST_MS).min(most - waited.min(most));
            if slice == 0 {
                return false;
            }
        }
    }
}
