//! What a response, or the lack of one, does to its context (RFC 3261 §16.7 to §16.9).

use super::context::{Branches, Context, Step};
use super::request::index;
use super::upstream::Which;
use crate::message::Method;
use crate::transaction::{InviteClient, NonInviteClient, invite_client, non_invite_client};
use crate::transport::Transport;

impl<B: Branches> Context<'_, B> {
    /// Branch `n` got a response to its request of this method: the context's own, or CANCEL.
    pub fn response(&mut self, n: usize, method: Method, code: u16) {
        match (method, self.server.is_invite()) {
            (Method::Invite, true) => self.response_to_invite(n, code),
            (Method::Cancel, true) => self.response_to_cancel(n, code),
            (Method::Invite, false) => {}
            (_, true) => {}
            (_, false) => self.response_to_other(n, code),
        }
    }

    fn response_to_invite(&mut self, n: usize, code: u16) {
        let (now, lengths) = (self.now, self.lengths);
        let Some(client) = self.branches.client(n) else { return };
        let on = lengths.on(client.transport());
        let (state, action) = InviteClient::from(client.machine).response(code, now, lengths, on);
        client.machine = state.into();
        client.answered = 1;
        match action {
            invite_client::Action::Pass if code < 200 => {
                if code > 100 && client.cancelled == 0 {
                    client.c = now + lengths.c; // C03
                }
                if client.cancel_wanted != 0 {
                    self.cancel_branch(n); // C21
                }
                if code > 100 && self.server.answered == 0 {
                    self.answer(code, Which::Current);
                }
            }
            invite_client::Action::Pass => {
                self.answer(code, Which::Current);
                self.cancel_pending();
            }
            invite_client::Action::PassAndAck => {
                self.step(Step::Ack(index(n)));
                self.failed(n, code, Which::Current);
            }
            invite_client::Action::Ack => self.step(Step::Ack(index(n))),
            invite_client::Action::Nothing | invite_client::Action::SendAgain | invite_client::Action::TimedOut => {}
        }
    }

    fn response_to_cancel(&mut self, n: usize, code: u16) {
        let (now, lengths) = (self.now, self.lengths);
        let Some(client) = self.branches.client(n) else { return };
        let on = lengths.on(client.transport());
        // Whatever it says: the INVITE's own final response decides.
        client.cancel = NonInviteClient::from(client.cancel).response(code, now, on).0.into();
    }

    fn response_to_other(&mut self, n: usize, code: u16) {
        let (now, lengths) = (self.now, self.lengths);
        let Some(client) = self.branches.client(n) else { return };
        let on = lengths.on(client.transport());
        let (state, action) = NonInviteClient::from(client.machine).response(code, now, on);
        client.machine = state.into();
        client.answered = 1;
        if action != non_invite_client::Action::Pass || code < 200 {
            return; // D24: provisional responses to a non-INVITE go no further.
        }
        if code < 300 {
            if self.server.answered == 0 {
                self.answer(code, Which::Current);
            }
        } else {
            self.failed(n, code, Which::Current);
        }
    }

    /// The transport could not deliver branch `n`'s request, or lost the association it went over: as if a 503 had come
    /// (RFC 3261 §16.9, §18.4).
    pub fn transport_error(&mut self, n: usize) {
        let invite = self.server.is_invite();
        let Some(client) = self.branches.client(n) else { return };
        client.cancel = NonInviteClient::Terminated.into();
        if client.is_pending(invite) {
            client.machine = InviteClient::Terminated.into();
            let code = if self.server.cancelled != 0 { 487 } else { 503 };
            self.failed(n, code, Which::Own);
        }
    }

    /// SCTP gave up what branch `n` sent, or lost the association it went over: the loss with this number. A request without any answer
    /// goes out once more, up to `retries` times. True when it does; else this is a transport error.
    pub fn undelivered(&mut self, n: usize, retries: u8, loss: u32) -> bool {
        let (invite, now) = (self.server.is_invite(), self.now);
        let over = self.is_over(n);
        match self.branches.client(n).filter(|client| !over && client.awaits_first_answer(invite)) {
            Some(client) if client.retries < retries && client.transport() == Transport::Sctp => {
                client.retries += 1;
                (client.sent, client.loss) = (now, loss);
                self.step(Step::Request(index(n)));
                true
            }
            _ => {
                self.transport_error(n);
                false
            }
        }
    }

    /// What branch `n` sent may never have left: its request, or its CANCEL, goes out once more.
    pub fn send_again(&mut self, n: usize) {
        let (invite, now) = (self.server.is_invite(), self.now);
        let Some(client) = self.branches.client(n) else { return };
        client.sent = now;
        let step = match NonInviteClient::from(client.cancel) {
            NonInviteClient::Trying { .. } => Step::Cancel(index(n)),
            _ if client.is_unanswered(invite) => Step::Request(index(n)),
            _ => return,
        };
        self.step(step);
    }

    /// Branch `n` ended with a failure: the next address (RFC 3263 §4.3), or a candidate for the best response.
    pub(super) fn failed(&mut self, n: usize, code: u16, which: Which) {
        if code == 503 && self.try_next(n) {
            return;
        }
        self.consider(code, which);
        if code >= 600 {
            self.cancel_pending(); // C07
        }
    }

    /// Starts a new branch to the next address of branch `n`'s target, if it has one.
    /// Not when the caller cancelled, has its answer, or will get a 6xx (C07).
    pub(super) fn try_next(&mut self, n: usize) -> bool {
        if self.is_over(n) {
            return false;
        }
        let Some(next) = self.branches.next_try(n) else { return false };
        self.start_branch(next);
        true
    }

    /// Does nobody wait for an answer of branch `n` any more?
    fn is_over(&mut self, n: usize) -> bool {
        let cancelled = self.branches.client(n).is_none_or(|client| client.cancelled != 0 || client.cancel_wanted != 0);
        cancelled || self.server.cancelled != 0 || self.server.answered != 0 || self.server.best >= 600
    }
}
