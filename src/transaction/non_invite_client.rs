//! The non-INVITE client transaction: RFC 3261 §17.1.2. CANCEL has one too.
//!
//! ```text
//!   Trying ── 1xx ──→ Proceeding ── final ──→ Completed ── timer K ──→ Terminated
//!     ├── final: as from Proceeding
//!     └── timer F (in Proceeding too): time-out to the TU ──→ Terminated
//! ```

use super::{Machine, Resend};
use crate::timer::{Lengths, PerTransport, Tick};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonInviteClient {
    Trying { e: Resend, f: Tick },
    Proceeding { e: Resend, f: Tick },
    Completed { k: Tick },
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Send the request again.
    SendAgain,
    /// The response is for the TU.
    Pass,
    /// Nobody answered within timer F.
    TimedOut,
}

use Action::{Nothing, Pass, SendAgain, TimedOut};
use NonInviteClient::{Completed, Proceeding, Terminated, Trying};

impl NonInviteClient {
    /// The request is sent now.
    #[must_use]
    pub fn start(now: Tick, lengths: &Lengths, on: &PerTransport) -> NonInviteClient {
        Trying { e: Resend::start(now, on.e), f: now + lengths.transaction }
    }

    #[must_use]
    pub fn response(self, code: u16, now: Tick, on: &PerTransport) -> (NonInviteClient, Action) {
        match (self, code) {
            (Trying { e, f } | Proceeding { e, f }, 100..=199) => (Proceeding { e, f }, Pass),
            (Trying { .. } | Proceeding { .. }, _) if on.k == 0 => (Terminated, Pass),
            (Trying { .. } | Proceeding { .. }, _) => (Completed { k: now + on.k }, Pass),
            (Completed { .. } | Terminated, _) => (self, Nothing),
        }
    }

    #[must_use]
    pub fn timer(self, now: Tick, lengths: &Lengths) -> (NonInviteClient, Action) {
        match self {
            Trying { f, .. } | Proceeding { f, .. } if f <= now => (Terminated, TimedOut),
            Trying { e, f } if e.is_due(now) => (Trying { e: e.doubled(now, lengths.t2), f }, SendAgain),
            Proceeding { e, f } if e.is_due(now) => {
                (Proceeding { e: Resend { at: now + lengths.t2, interval: lengths.t2 }, f }, SendAgain)
            }
            Completed { k } if k <= now => (Terminated, Nothing),
            Trying { .. } | Proceeding { .. } | Completed { .. } | Terminated => (self, Nothing),
        }
    }
}

impl From<Machine> for NonInviteClient {
    fn from(machine: Machine) -> NonInviteClient {
        match machine.state {
            1 => Trying { e: machine.resend(), f: machine.end },
            2 => Proceeding { e: machine.resend(), f: machine.end },
            3 => Completed { k: machine.end },
            _ => Terminated,
        }
    }
}

impl From<NonInviteClient> for Machine {
    fn from(state: NonInviteClient) -> Machine {
        match state {
            Terminated => Machine::default(),
            Trying { e, f } => Machine::new(1, e, f),
            Proceeding { e, f } => Machine::new(2, e, f),
            Completed { k } => Machine::new(3, Resend::OFF, k),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(1_000);

    fn resent_at(mut state: NonInviteClient, until: u64) -> Vec<u64> {
        let mut at = Vec::new();
        for ms in (0..=until).step_by(100) {
            let (next, action) = state.timer(NOW + ms, &Lengths::default());
            if action == SendAgain {
                at.push(ms);
            }
            state = next;
        }
        at
    }

    #[test]
    fn timer_e_doubles_up_to_t2_and_timer_f_ends_it() {
        let lengths = Lengths::default();
        let state = NonInviteClient::start(NOW, &lengths, &lengths.unreliable);
        assert_eq!(resent_at(state, 12_000), [500, 1_500, 3_500, 7_500, 11_500]); // D10
        assert_eq!(state.timer(NOW + 32_000, &lengths), (Terminated, TimedOut));
    }

    #[test]
    fn in_proceeding_it_repeats_every_t2() {
        let lengths = Lengths::default();
        let state = NonInviteClient::start(NOW, &lengths, &lengths.unreliable);
        let (state, action) = state.response(100, NOW, &lengths.unreliable);
        assert_eq!(action, Pass);
        assert_eq!(resent_at(state, 9_000), [500, 4_500, 8_500]); // D10
    }

    #[test]
    fn a_final_response_is_passed_up_once() {
        let lengths = Lengths::default();
        let state = NonInviteClient::start(NOW, &lengths, &lengths.unreliable);
        let (state, action) = state.response(200, NOW, &lengths.unreliable);
        assert_eq!((state, action), (Completed { k: NOW + 5_000 }, Pass)); // D11
        assert_eq!(state.response(200, NOW, &lengths.unreliable), (state, Nothing));
        assert_eq!(state.timer(NOW + 5_000, &lengths).0, Terminated);
    }

    #[test]
    fn over_sctp_nothing_is_repeated_and_the_final_response_ends_it() {
        let lengths = Lengths::default();
        let state = NonInviteClient::start(NOW, &lengths, &lengths.reliable);
        assert!(resent_at(state, 31_000).is_empty()); // A20
        assert_eq!(state.response(200, NOW, &lengths.reliable), (Terminated, Pass));
    }

    #[test]
    fn every_state_survives_its_plain_form() {
        let e = Resend { at: NOW, interval: 500 };
        for state in [Trying { e, f: NOW }, Proceeding { e, f: NOW }, Completed { k: NOW }, Terminated] {
            assert_eq!(NonInviteClient::from(Machine::from(state)), state);
        }
    }
}
