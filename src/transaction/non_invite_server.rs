//! The non-INVITE server transaction: RFC 3261 §17.2.2, RFC 4320 §4.
//!
//! ```text
//!   Trying ── 100 when late ──→ Proceeding ── final from TU ──→ Completed ── timer J ──→ Terminated
//!     └────────────── final from TU ──────────────────────────────┘
//! ```

use super::{Machine, Resend};
use crate::timer::{Lengths, PerTransport, Tick};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonInviteServer {
    /// `late`: when a 100 must have been sent if nothing else was (RFC 4320 §4.1).
    Trying {
        late: Tick,
    },
    Proceeding,
    Completed {
        j: Tick,
    },
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Send the response that the TU has just given.
    Send,
    /// Send the last response again.
    SendAgain,
    /// Nothing was said for so long that a 100 is due.
    SendTrying,
}

use Action::{Nothing, Send, SendAgain, SendTrying};
use NonInviteServer::{Completed, Proceeding, Terminated, Trying};

impl NonInviteServer {
    #[must_use]
    pub fn start(now: Tick, lengths: &Lengths) -> NonInviteServer {
        Trying { late: now + lengths.late_trying() }
    }

    /// The same request again.
    #[must_use]
    pub fn repeated(self) -> (NonInviteServer, Action) {
        match self {
            Proceeding | Completed { .. } => (self, SendAgain),
            Trying { .. } | Terminated => (self, Nothing),
        }
    }

    /// The TU has a response. A provisional one is refused: RFC 4320 §4.1 allows none but the late 100 of `timer`.
    #[must_use]
    pub fn respond(self, code: u16, now: Tick, on: &PerTransport) -> (NonInviteServer, Action) {
        match (self, code) {
            (Trying { .. } | Proceeding, 200..) if on.j == 0 => (Terminated, Send),
            (Trying { .. } | Proceeding, 200..) => (Completed { j: now + on.j }, Send),
            (Trying { .. } | Proceeding | Completed { .. } | Terminated, _) => (self, Nothing),
        }
    }

    #[must_use]
    pub fn timer(self, now: Tick) -> (NonInviteServer, Action) {
        match self {
            Trying { late } if late <= now => (Proceeding, SendTrying),
            Completed { j } if j <= now => (Terminated, Nothing),
            Trying { .. } | Proceeding | Completed { .. } | Terminated => (self, Nothing),
        }
    }
}

impl From<Machine> for NonInviteServer {
    fn from(machine: Machine) -> NonInviteServer {
        match machine.state {
            1 => Trying { late: machine.end },
            2 => Proceeding,
            3 => Completed { j: machine.end },
            _ => Terminated,
        }
    }
}

impl From<NonInviteServer> for Machine {
    fn from(state: NonInviteServer) -> Machine {
        match state {
            Terminated => Machine::default(),
            Trying { late } => Machine::new(1, Resend::OFF, late),
            Proceeding => Machine::new(2, Resend::OFF, Tick::NEVER),
            Completed { j } => Machine::new(3, Resend::OFF, j),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(1_000);

    fn trying() -> NonInviteServer {
        NonInviteServer::start(NOW, &Lengths::default())
    }

    #[test]
    fn repeats_are_ignored_in_trying_and_answered_in_completed() {
        assert_eq!(trying().repeated().1, Nothing); // D21
        let (state, action) = trying().respond(200, NOW, &Lengths::default().unreliable);
        assert_eq!((state, action), (Completed { j: NOW + 32_000 }, Send));
        assert_eq!(state.repeated().1, SendAgain);
        assert_eq!(state.respond(404, NOW, &Lengths::default().unreliable), (state, Nothing));
        assert_eq!(state.timer(NOW + 32_000).0, Terminated);
    }

    #[test]
    fn over_sctp_the_final_response_ends_it() {
        assert_eq!(trying().respond(200, NOW, &Lengths::default().reliable), (Terminated, Send)); // D28
    }

    #[test]
    fn a_provisional_response_is_never_sent_but_a_late_100_is() {
        assert_eq!(trying().respond(180, NOW, &Lengths::default().unreliable), (trying(), Nothing)); // D24
        assert_eq!(trying().timer(NOW + 3_499).1, Nothing); // D25
        assert_eq!(trying().timer(NOW + 3_500), (Proceeding, SendTrying));
    }

    #[test]
    fn every_state_survives_its_plain_form() {
        for state in [trying(), Proceeding, Completed { j: NOW }, Terminated] {
            assert_eq!(NonInviteServer::from(Machine::from(state)), state);
        }
    }
}
