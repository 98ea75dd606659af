//! The response context (RFC 3261 §16.6–16.7): one server transaction and its client transactions.
//!
//! Owns: what is remembered about them, as plain data, and the vocabulary of what is to be done. Never sees bytes.

use arrayvec::ArrayVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::message::Method;
use crate::timer::{Lengths, PerTransport, Tick};
use crate::transaction::{InviteClient, InviteServer, Machine, NonInviteServer};
use crate::transport::{Flow, Transport};

/// Most branches one request may be forked to at once.
pub const MAX_BRANCHES: usize = 16;

/// A server transaction: toward the caller.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Server {
    pub machine: Machine,
    /// Where its responses go.
    pub flow: Flow,
    /// Best final response so far, and the one sent; 0: none.
    pub best: u16,
    pub answered: u16,
    /// Status code and origin (an `Origin` as u8) of the response sent last.
    pub last: u16,
    pub last_origin: u8,
    /// The best response is our own invention: no text of it is stored.
    pub best_is_own: u8,
    /// A `Method` as u8.
    pub method: u8,
    pub cancelled: u8,
    pub unused: [u8; 6],
}

/// A client transaction: toward the callee. An INVITE's may have a CANCEL's beside it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Client {
    pub machine: Machine,
    /// The CANCEL's non-INVITE client transaction.
    pub cancel: Machine,
    /// Timer C; after a CANCEL the end of our patience (RFC 3261 §9.1).
    pub c: Tick,
    /// When the request was first sent.
    pub sent: Tick,
    /// Where it goes.
    pub flow: Flow,
    pub cancel_wanted: u8,
    pub cancelled: u8,
    pub answered: u8,
    /// How often its request was sent again because SCTP had given it up.
    pub retries: u8,
    /// Number of the loss that did so last.
    pub loss: u32,
}

/// Where the bytes of a response come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// Made by us from the request.
    Own = 1,
    /// Kept just as it was sent: from downstream, or the registrar's.
    Kept = 2,
}

/// The branches of one context, however they are kept.
pub trait Branches {
    fn count(&self) -> usize;
    fn client(&mut self, n: usize) -> Option<&mut Client>;
    /// A new branch to the next address of the same target (RFC 3263 §4.3); none when there is no further address, or no
    /// room for the branch. Its `Client` has a flow and nothing else.
    fn next_try(&mut self, failed: usize) -> Option<usize>;
}

/// What is to be done. `Keep...` happens in memory, before the lock is given back; everything else after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the request of branch n.
    Request(u8),
    /// Acknowledge the failure that branch n has just got (RFC 3261 §17.1.1.3).
    Ack(u8),
    Cancel(u8),
    /// Send upstream a response of our own.
    Reply(u16),
    /// Send it upstream once more.
    ReplyAgain(u16),
    /// Send upstream the response at hand.
    Relay,
    /// Send upstream the best response, kept earlier.
    RelayBest,
    /// Send upstream once more what was sent last.
    RelayLast,
    /// The response at hand is the best so far.
    KeepBest,
    /// The response at hand may have to be sent again.
    KeepLast,
    /// The best response may have to be sent again.
    KeepBestAsLast,
}

/// At most: a CANCEL or a request for each branch, and three words upstream.
pub type Steps = ArrayVec<Step, { 2 * MAX_BRANCHES + 8 }>;

/// One context under its lock, and one moment.
pub struct Context<'c, B: Branches> {
    pub server: &'c mut Server,
    pub branches: &'c mut B,
    pub now: Tick,
    pub lengths: &'c Lengths,
    pub steps: &'c mut Steps,
}

impl Server {
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::from_u8(self.flow.transport).unwrap_or(Transport::Udp)
    }

    #[must_use]
    pub fn is_invite(&self) -> bool {
        self.method == Method::Invite as u8
    }

    /// Could a repeated request, or timer G, want the last response once more?
    #[must_use]
    pub fn may_resend(&self) -> bool {
        if self.transport().is_reliable() {
            return false;
        }
        if self.is_invite() {
            matches!(self.machine.into(), InviteServer::Proceeding | InviteServer::Completed { .. })
        } else {
            matches!(self.machine.into(), NonInviteServer::Proceeding | NonInviteServer::Completed { .. })
        }
    }
}

impl Client {
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::from_u8(self.flow.transport).unwrap_or(Transport::Udp)
    }

    /// Has it neither ended nor got a final response?
    #[must_use]
    pub fn is_pending(&self, invite: bool) -> bool {
        use crate::transaction::NonInviteClient;
        if invite {
            matches!(self.machine.into(), InviteClient::Calling { .. } | InviteClient::Proceeding)
        } else {
            matches!(self.machine.into(), NonInviteClient::Trying { .. } | NonInviteClient::Proceeding { .. })
        }
    }

    /// Waits for its final response, or its CANCEL's.
    #[must_use]
    pub fn waits(&self, invite: bool) -> bool {
        self.is_pending(invite) || !self.cancel.is_terminated()
    }

    /// Waits for any answer: to its request, or to its CANCEL.
    #[must_use]
    pub fn is_unanswered(&self, invite: bool) -> bool {
        use crate::transaction::NonInviteClient;
        self.awaits_first_answer(invite) || matches!(self.cancel.into(), NonInviteClient::Trying { .. })
    }

    /// Not even a 100 has come for its request.
    #[must_use]
    pub fn awaits_first_answer(&self, invite: bool) -> bool {
        use crate::transaction::NonInviteClient;
        if invite {
            matches!(self.machine.into(), InviteClient::Calling { .. })
        } else {
            matches!(self.machine.into(), NonInviteClient::Trying { .. })
        }
    }

    /// Could its request, a CANCEL or an ACK have to be sent (again)? All are made from the request's text and its target.
    #[must_use]
    pub fn may_send(&self, invite: bool) -> bool {
        // A repeated failure must be acknowledged again (D06).
        let acknowledges = || invite && matches!(self.machine.into(), InviteClient::Completed { .. });
        self.waits(invite) || acknowledges()
    }

    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.machine.is_terminated() && self.cancel.is_terminated()
    }

    #[must_use]
    pub fn deadline(&self, invite: bool) -> Tick {
        let c =
            if invite && InviteClient::from(self.machine) == InviteClient::Proceeding { self.c } else { Tick::NEVER };
        self.machine.deadline().min(self.cancel.deadline()).min(c)
    }
}

/// Which texts a context still needs; all others are given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    pub request: bool,
    pub best: bool,
    pub last: bool,
}

impl<B: Branches> Context<'_, B> {
    pub(super) fn upstream(&self) -> PerTransport {
        *self.lengths.on(self.server.transport())
    }

    pub(super) fn step(&mut self, step: Step) {
        // The capacity is the sum of all that one event can ask for; one step too many would be a request less, not a crash.
        let _ = self.steps.try_push(step);
    }

    pub(super) fn any_pending(&mut self) -> bool {
        let invite = self.server.is_invite();
        (0..self.branches.count()).any(|n| self.branches.client(n).is_some_and(|c| c.is_pending(invite)))
    }

    /// When this context wants to be looked at again.
    #[must_use]
    pub fn deadline(&mut self) -> Tick {
        let invite = self.server.is_invite();
        (0..self.branches.count())
            .filter_map(|n| self.branches.client(n).map(|c| c.deadline(invite)))
            .fold(self.server.machine.deadline(), Tick::min)
    }

    /// It lives until all its transactions have ended (RFC 3261 §16.7 item 9).
    #[must_use]
    pub fn is_finished(&mut self) -> bool {
        self.server.machine.is_terminated()
            && (0..self.branches.count()).all(|n| self.branches.client(n).is_none_or(|c| c.is_finished()))
    }

    #[must_use]
    pub fn needed(&mut self) -> Needed {
        let invite = self.server.is_invite();
        let resend = self.server.may_resend();
        let own = self.server.last_origin == Origin::Own as u8;
        let may_send = |branches: &mut B, n| branches.client(n).is_some_and(|client| client.may_send(invite));
        let branch = (0..self.branches.count()).any(|n| may_send(self.branches, n));
        Needed {
            request: branch || resend && own,
            best: self.server.answered == 0 && self.server.best != 0 && self.server.best_is_own == 0,
            last: resend && self.server.last != 0 && !own,
        }
    }
}
