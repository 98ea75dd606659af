//! The INVITE client transaction: RFC 3261 §17.1.1 as RFC 6026 §8.4 corrects it.
//!
//! ```text
//!   Calling ── 1xx ──→ Proceeding ── 2xx ──→ Accepted ── timer M ──→ Terminated
//!      │                   └──── 300-699 ──→ Completed ── timer D ──→ Terminated
//!      ├── 2xx, 300-699: as from Proceeding
//!      └── timer B: time-out to the TU ──→ Terminated
//! ```

use super::{Machine, Resend};
use crate::timer::{Lengths, PerTransport, Tick};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteClient {
    Calling { a: Resend, b: Tick },
    Proceeding,
    Accepted { m: Tick },
    Completed { d: Tick },
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Send the INVITE again.
    SendAgain,
    /// The response is for the TU.
    Pass,
    /// The response is for the TU, and the transaction acknowledges it (§17.1.1.3).
    PassAndAck,
    /// A final response came again: acknowledge it again, tell nobody.
    Ack,
    /// Nobody answered within timer B.
    TimedOut,
}

use Action::{Ack, Nothing, Pass, PassAndAck, SendAgain, TimedOut};
use InviteClient::{Accepted, Calling, Completed, Proceeding, Terminated};

impl InviteClient {
    /// The INVITE is sent now.
    #[must_use]
    pub fn start(now: Tick, lengths: &Lengths, on: &PerTransport) -> InviteClient {
        Calling { a: Resend::start(now, on.a), b: now + lengths.transaction }
    }

    #[must_use]
    pub fn response(self, code: u16, now: Tick, lengths: &Lengths, on: &PerTransport) -> (InviteClient, Action) {
        match (self, code) {
            (Calling { .. } | Proceeding, 100..=199) => (Proceeding, Pass),
            (Calling { .. } | Proceeding, 200..=299) => (Accepted { m: now + lengths.transaction }, Pass),
            (Calling { .. } | Proceeding, _) if on.d == 0 => (Terminated, PassAndAck),
            (Calling { .. } | Proceeding, _) => (Completed { d: now + on.d }, PassAndAck),
            (Accepted { .. }, 200..=299) => (self, Pass),
            (Completed { .. }, 300..) => (self, Ack),
            (Accepted { .. } | Completed { .. } | Terminated, _) => (self, Nothing),
        }
    }

    #[must_use]
    pub fn timer(self, now: Tick) -> (InviteClient, Action) {
        match self {
            Calling { b, .. } if b <= now => (Terminated, TimedOut),
            Calling { a, b } if a.is_due(now) => (Calling { a: a.doubled(now, u64::MAX), b }, SendAgain),
            Accepted { m: end } | Completed { d: end } if end <= now => (Terminated, Nothing),
            Calling { .. } | Proceeding | Accepted { .. } | Completed { .. } | Terminated => (self, Nothing),
        }
    }
}

impl From<Machine> for InviteClient {
    fn from(machine: Machine) -> InviteClient {
        match machine.state {
            1 => Calling { a: machine.resend(), b: machine.end },
            2 => Proceeding,
            3 => Accepted { m: machine.end },
            4 => Completed { d: machine.end },
            _ => Terminated,
        }
    }
}

impl From<InviteClient> for Machine {
    fn from(state: InviteClient) -> Machine {
        match state {
            Terminated => Machine::default(),
            Calling { a, b } => Machine::new(1, a, b),
            Proceeding => Machine::new(2, Resend::OFF, Tick::NEVER),
            Accepted { m } => Machine::new(3, Resend::OFF, m),
            Completed { d } => Machine::new(4, Resend::OFF, d),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(1_000);

    fn calling(reliable: bool) -> InviteClient {
        let lengths = Lengths::default();
        InviteClient::start(NOW, &lengths, if reliable { &lengths.reliable } else { &lengths.unreliable })
    }

    fn respond(state: InviteClient, code: u16, reliable: bool) -> (InviteClient, Action) {
        let lengths = Lengths::default();
        state.response(code, NOW, &lengths, if reliable { &lengths.reliable } else { &lengths.unreliable })
    }

    #[test]
    fn timer_a_doubles_without_a_cap_and_timer_b_ends_it() {
        let mut state = calling(false);
        let mut at = Vec::new();
        for ms in (0..40_000).step_by(500) {
            let (next, action) = state.timer(NOW + ms);
            match action {
                SendAgain => at.push(ms),
                TimedOut => assert_eq!(ms, 32_000), // D03
                _ => {}
            }
            state = next;
        }
        assert_eq!(at, [500, 1_500, 3_500, 7_500, 15_500, 31_500]); // D02
        assert_eq!(state, Terminated);
    }

    #[test]
    fn over_sctp_only_timer_b_runs() {
        let state = calling(true); // A20
        assert_eq!(state, Calling { a: Resend::OFF, b: NOW + 32_000 });
        assert_eq!(state.timer(NOW + 31_999), (state, Nothing));
    }

    #[test]
    fn a_provisional_stops_the_retransmission() {
        assert_eq!(respond(calling(false), 100, false), (Proceeding, Pass)); // D04
        assert_eq!(Proceeding.timer(NOW + 100_000), (Proceeding, Nothing));
    }

    #[test]
    fn a_failure_is_acknowledged_each_time_and_passed_up_once() {
        let (state, action) = respond(calling(false), 486, false);
        assert_eq!((state, action), (Completed { d: NOW + 32_000 }, PassAndAck)); // D05, D06
        assert_eq!(respond(state, 486, false), (state, Ack));
        assert_eq!(respond(calling(true), 486, true), (Terminated, PassAndAck));
    }

    #[test]
    fn every_2xx_is_passed_up_until_timer_m() {
        let (state, action) = respond(Proceeding, 200, false);
        assert_eq!((state, action), (Accepted { m: NOW + 32_000 }, Pass)); // D07
        assert_eq!(respond(state, 200, false), (state, Pass));
        assert_eq!(respond(state, 486, false), (state, Nothing));
        assert_eq!(state.timer(NOW + 32_000).0, Terminated); // D08
    }

    #[test]
    fn every_state_survives_its_plain_form() {
        for state in [calling(false), calling(true), Proceeding, Accepted { m: NOW }, Completed { d: NOW }, Terminated]
        {
            assert_eq!(InviteClient::from(Machine::from(state)), state);
        }
    }
}
