//! `Tick`: our own plain instant.

use std::ops::{Add, Sub};
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Milliseconds since the machine booted (`CLOCK_BOOTTIME` is read by `worker::Clock` only). Plain, because it lives in
/// shared memory, where `std::time::Instant` must not (its layout is not ours). The same in every process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Tick(pub u64);

impl Tick {
    /// Later than every time that comes: a timer that is not running.
    pub const NEVER: Tick = Tick(u64::MAX);

    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Adds milliseconds.
impl Add<u64> for Tick {
    type Output = Tick;

    fn add(self, milliseconds: u64) -> Tick {
        Tick(self.0.saturating_add(milliseconds))
    }
}

impl Sub<Tick> for Tick {
    type Output = Duration;

    fn sub(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.since(earlier))
    }
}
