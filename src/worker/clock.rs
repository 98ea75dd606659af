//! The one clock of the processes.

use nix::time::{ClockId, clock_gettime};

use crate::timer::Tick;

/// Milliseconds since boot, the same in every process of the machine (clock_gettime(2), `CLOCK_BOOTTIME`).
#[must_use]
pub fn now() -> Tick {
    // Cannot fail: the clock exists since Linux 2.6.39. If it did, time would stand still and nothing would be due.
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return Tick(0) };
    let milliseconds = time.tv_sec().saturating_mul(1000).saturating_add(time.tv_nsec() / 1_000_000);
    Tick(u64::try_from(milliseconds).unwrap_or(0))
}

/// Seconds since 1970, for Date headers.
#[must_use]
pub fn wall() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_REALTIME_COARSE) else { return 0 };
    u64::try_from(time.tv_sec()).unwrap_or(0)
}
