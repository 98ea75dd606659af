//! The INVITE server transaction: RFC 3261 §17.2.1 as RFC 6026 §8.7 corrects it.
//!
//! ```text
//!   Proceeding ── 2xx from TU ──→ Accepted ── timer L ──→ Terminated
//!       └── 300-699 from TU ──→ Completed ── ACK ──→ Confirmed ── timer I ──→ Terminated
//!                                   └── timer H ──────────────────────────────→ Terminated
//! ```

use super::{Machine, Resend};
use crate::timer::{Lengths, PerTransport, Tick};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteServer {
    Proceeding,
    Accepted { l: Tick },
    Completed { g: Resend, h: Tick },
    Confirmed { i: Tick },
    Terminated,
}

/// What the transaction wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Send the response that the TU has just given.
    Send,
    /// Send the last response again.
    SendAgain,
    /// The request belongs to the TU: an ACK to a 2xx.
    Pass,
}

use Action::{Nothing, Pass, Send, SendAgain};
use InviteServer::{Accepted, Completed, Confirmed, Proceeding, Terminated};

impl InviteServer {
    #[must_use]
    pub fn start() -> InviteServer {
        Proceeding
    }

    /// The same INVITE again.
    #[must_use]
    pub fn repeated(self) -> (InviteServer, Action) {
        match self {
            Proceeding | Completed { .. } => (self, SendAgain),
            // A 2xx is repeated by the callee, end to end (RFC 6026 §7.1); in Confirmed the caller has its answer.
            Accepted { .. } | Confirmed { .. } | Terminated => (self, Nothing),
        }
    }

    /// The TU has a response with this status code.
    #[must_use]
    pub fn respond(self, code: u16, now: Tick, lengths: &Lengths, on: &PerTransport) -> (InviteServer, Action) {
        match (self, code) {
            (Proceeding, 100..=199) => (Proceeding, Send),
            (Proceeding, 200..=299) => (Accepted { l: now + lengths.transaction }, Send),
            (Proceeding, _) => (Completed { g: Resend::start(now, on.g), h: now + lengths.transaction }, Send),
            (Accepted { .. }, 200..=299) => (self, Send),
            // A 2xx that lost the race against our own final response still goes out (RFC 3261 §16.7 item 5).
            (Completed { .. } | Confirmed { .. }, 200..=299) => (self, Send),
            (Accepted { .. } | Completed { .. } | Confirmed { .. } | Terminated, _) => (self, Nothing),
        }
    }

    /// An ACK that matches this transaction.
    #[must_use]
    pub fn ack(self, now: Tick, on: &PerTransport) -> (InviteServer, Action) {
        match self {
            Completed { .. } if on.i == 0 => (Terminated, Nothing),
            Completed { .. } => (Confirmed { i: now + on.i }, Nothing),
            Accepted { .. } => (self, Pass),
            Proceeding | Confirmed { .. } | Terminated => (self, Nothing),
        }
    }

    #[must_use]
    pub fn timer(self, now: Tick, lengths: &Lengths) -> (InviteServer, Action) {
        match self {
            Accepted { l: end } | Completed { h: end, .. } | Confirmed { i: end } if end <= now => {
                (Terminated, Nothing)
            }
            Completed { g, h } if g.is_due(now) => (Completed { g: g.doubled(now, lengths.t2), h }, SendAgain),
            Proceeding | Accepted { .. } | Completed { .. } | Confirmed { .. } | Terminated => (self, Nothing),
        }
    }
}

impl From<Machine> for InviteServer {
    fn from(machine: Machine) -> InviteServer {
        match machine.state {
            1 => Proceeding,
            2 => Accepted { l: machine.end },
            3 => Completed { g: machine.resend(), h: machine.end },
            4 => Confirmed { i: machine.end },
            _ => Terminated,
        }
    }
}

impl From<InviteServer> for Machine {
    fn from(state: InviteServer) -> Machine {
        match state {
            Terminated => Machine::default(),
            Proceeding => Machine::new(1, Resend::OFF, Tick::NEVER),
            Accepted { l } => Machine::new(2, Resend::OFF, l),
            Completed { g, h } => Machine::new(3, g, h),
            Confirmed { i } => Machine::new(4, Resend::OFF, i),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(1_000);

    fn lengths() -> Lengths {
        Lengths::default()
    }

    #[test]
    fn a_repeated_invite_gets_the_last_provisional_again() {
        assert_eq!(Proceeding.repeated(), (Proceeding, SendAgain)); // D15
    }

    #[test]
    fn a_2xx_leads_to_accepted_and_repeats_are_absorbed() {
        let (state, action) = Proceeding.respond(200, NOW, &lengths(), &lengths().unreliable);
        assert_eq!((state, action), (Accepted { l: NOW + 32_000 }, Send)); // D16
        assert_eq!(state.repeated(), (state, Nothing));
        assert_eq!(state.respond(200, NOW, &lengths(), &lengths().unreliable), (state, Send));
        assert_eq!(state.ack(NOW, &lengths().unreliable), (state, Pass));
        assert_eq!(state.timer(NOW + 32_000, &lengths()).0, Terminated);
    }

    #[test]
    fn a_failure_is_repeated_by_timer_g_until_the_ack() {
        let (mut state, _) = Proceeding.respond(486, NOW, &lengths(), &lengths().unreliable);
        let mut at = Vec::new(); // D17: 500, 1000, 2000, 4000, 4000 ...
        for ms in (0..16_000).step_by(100) {
            let (next, action) = state.timer(NOW + ms, &lengths());
            if action == SendAgain {
                at.push(ms);
            }
            state = next;
        }
        assert_eq!(at, [500, 1_500, 3_500, 7_500, 11_500, 15_500]);
        let (confirmed, action) = state.ack(NOW + 16_000, &lengths().unreliable);
        assert_eq!((confirmed, action), (Confirmed { i: NOW + 21_000 }, Nothing)); // D18
        assert_eq!(confirmed.ack(NOW, &lengths().unreliable), (confirmed, Nothing));
    }

    #[test]
    fn over_sctp_nothing_is_repeated_and_the_ack_ends_it() {
        let (state, _) = Proceeding.respond(486, NOW, &lengths(), &lengths().reliable);
        assert_eq!(state, Completed { g: Resend::OFF, h: NOW + 32_000 }); // A20
        assert_eq!(state.ack(NOW, &lengths().reliable).0, Terminated);
    }

    #[test]
    fn timer_h_ends_a_transaction_that_never_gets_its_ack() {
        let (state, _) = Proceeding.respond(486, NOW, &lengths(), &lengths().reliable);
        assert_eq!(state.timer(NOW + 31_999, &lengths()).0, state);
        assert_eq!(state.timer(NOW + 32_000, &lengths()).0, Terminated); // D19
    }

    #[test]
    fn every_state_survives_its_plain_form() {
        let g = Resend { at: NOW, interval: 500 };
        for state in [Proceeding, Accepted { l: NOW }, Completed { g, h: NOW }, Confirmed { i: NOW }, Terminated] {
            assert_eq!(InviteServer::from(Machine::from(state)), state);
        }
    }
}
