//! `Machine`, the plain form of a state; `Resend`, a timer that doubles.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::timer::{OFF, Tick};

/// Any machine's state as plain data. Zero is `Terminated` in all four machines, so fresh or wiped memory is at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Machine {
    pub(super) state: u32,
    pub(super) interval: u32,
    pub(super) again: Tick,
    pub(super) end: Tick,
}

impl Machine {
    pub(super) fn new(state: u32, resend: Resend, end: Tick) -> Machine {
        Machine { state, interval: u32::try_from(resend.interval).unwrap_or(u32::MAX), again: resend.at, end }
    }

    pub(super) fn resend(&self) -> Resend {
        Resend { at: self.again, interval: u64::from(self.interval) }
    }

    /// All four machines call 0 Terminated.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.state == 0
    }

    /// When this state wants to be looked at again.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        if self.is_terminated() { Tick::NEVER } else { self.again.min(self.end) }
    }
}

/// A timer that is started again with a longer interval each time it fires: A, E and G.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    pub at: Tick,
    pub interval: u64,
}

impl Resend {
    /// Not running.
    pub const OFF: Resend = Resend { at: Tick::NEVER, interval: 0 };

    /// The first wait is `interval` milliseconds; `timer::OFF` starts nothing.
    #[must_use]
    pub fn start(now: Tick, interval: u64) -> Resend {
        if interval == OFF { Resend::OFF } else { Resend { at: now + interval, interval } }
    }

    #[must_use]
    pub fn is_due(&self, now: Tick) -> bool {
        self.at <= now
    }

    /// Fired: wait twice as long, but no longer than `cap`.
    #[must_use]
    pub fn doubled(self, now: Tick, cap: u64) -> Resend {
        let interval = self.interval.saturating_mul(2).min(cap);
        Resend { at: now + interval, interval }
    }
}
