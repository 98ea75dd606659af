//! Names and lengths of the SIP timers (RFC 3261 §17 table 4, RFC 6026 §8.11), and `Tick`, the time they are measured in.
//!
//! Owns: lengths. Never reads a clock.

mod tick;

use crate::config::Timers;
use crate::transport::Transport;

pub use tick::Tick;

/// How long every timer runs, in milliseconds. One letter, one field, as in the RFC; `OFF` is a timer that is not started.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub t2: u64,
    /// 64*T1: timers B, F, H, L and M, and the life of a cancelled branch (RFC 3261 §9.1).
    pub transaction: u64,
    pub c: u64,
    pub unreliable: PerTransport,
    pub reliable: PerTransport,
}

/// The timers whose length depends on the transport.
#[derive(Clone, Copy, Debug)]
pub struct PerTransport {
    /// First wait before an INVITE is sent again; doubles without a cap.
    pub a: u64,
    pub d: u64,
    /// First wait before another request is sent again; doubles up to T2.
    pub e: u64,
    /// First wait before a final response to INVITE is sent again; doubles up to T2.
    pub g: u64,
    pub i: u64,
    pub j: u64,
    pub k: u64,
}

/// Not started on this transport.
pub const OFF: u64 = u64::MAX;

impl Lengths {
    #[must_use]
    pub fn on(&self, transport: Transport) -> &PerTransport {
        if transport.is_reliable() { &self.reliable } else { &self.unreliable }
    }

    /// When a server must have answered a non-INVITE request with 100 if nothing else was sent: the moment its client's timer E
    /// reaches T2 (RFC 4320 §4.1).
    #[must_use]
    pub fn late_trying(&self) -> u64 {
        let mut interval = self.unreliable.e;
        let mut passed = 0_u64;
        while interval < self.t2 {
            passed = passed.saturating_add(interval);
            interval = interval.saturating_mul(2).max(1);
        }
        passed
    }
}

impl From<&Timers> for Lengths {
    fn from(timers: &Timers) -> Lengths {
        let Timers { t1_ms: t1, t2_ms: t2, t4_ms: t4, c_ms: c } = *timers;
        let transaction = 64 * t1;
        Lengths {
            t2,
            transaction,
            c,
            unreliable: PerTransport { a: t1, d: transaction.max(32_000), e: t1, g: t1, i: t4, j: transaction, k: t4 },
            reliable: PerTransport { a: OFF, d: 0, e: OFF, g: OFF, i: 0, j: 0, k: 0 },
        }
    }
}

/// RFC 3261 §17 table 4 with its defaults: T1 500 ms, T2 4 s, T4 5 s; timer C just over three minutes (§16.6 item 11).
impl Default for Lengths {
    fn default() -> Lengths {
        Lengths::from(&Timers { t1_ms: 500, t2_ms: 4_000, t4_ms: 5_000, c_ms: 185_000 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_have_the_lengths_of_table_4() {
        let lengths = Lengths::default();
        assert_eq!(lengths.transaction, 32_000); // D03, D10, D16, D17
        let udp = lengths.on(Transport::Udp);
        assert_eq!((udp.a, udp.e, udp.g), (500, 500, 500)); // D02
        assert_eq!((udp.d, udp.i, udp.j, udp.k), (32_000, 5_000, 32_000, 5_000));
        for transport in [Transport::Sctp, Transport::Tcp] {
            let reliable = lengths.on(transport); // A20
            assert_eq!((reliable.a, reliable.e, reliable.g), (OFF, OFF, OFF));
            assert_eq!((reliable.d, reliable.i, reliable.j, reliable.k), (0, 0, 0, 0));
        }
    }

    #[test]
    fn the_late_100_is_due_after_3500_ms() {
        assert_eq!(Lengths::default().late_trying(), 3_500); // D25
    }
}
