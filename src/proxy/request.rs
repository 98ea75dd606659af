//! What a request does to its context: it starts it, comes again, is acknowledged, is cancelled (RFC 3261 §16.6, §16.10).

use super::context::{Branches, Context, Step};
use super::upstream::Which;
use crate::message::Method;
use crate::transaction::{
    InviteClient, InviteServer, NonInviteClient, NonInviteServer, invite_server, non_invite_server,
};

impl<B: Branches> Context<'_, B> {
    /// A new request. Its branches have flows and nothing else yet.
    pub fn start(&mut self, method: Method) {
        self.server.method = method as u8;
        if method == Method::Invite {
            self.server.machine = InviteServer::start().into();
            // At once, not after 200 ms (§17.2.1): it is what stops the caller's retransmissions.
            self.answer(100, Which::Own);
        } else {
            self.server.machine = NonInviteServer::start(self.now, self.lengths).into();
        }
        for n in 0..self.branches.count() {
            self.start_branch(n);
        }
    }

    pub(super) fn start_branch(&mut self, n: usize) {
        let (now, lengths, invite) = (self.now, self.lengths, self.server.is_invite());
        let Some(client) = self.branches.client(n) else { return };
        let on = lengths.on(client.transport());
        client.sent = now;
        client.c = now + lengths.c;
        client.machine = if invite {
            InviteClient::start(now, lengths, on).into()
        } else {
            NonInviteClient::start(now, lengths, on).into()
        };
        self.step(Step::Request(index(n)));
    }

    /// The same request again.
    pub fn repeated(&mut self) {
        let again = if self.server.is_invite() {
            InviteServer::from(self.server.machine).repeated().1 == invite_server::Action::SendAgain
        } else {
            NonInviteServer::from(self.server.machine).repeated().1 == non_invite_server::Action::SendAgain
        };
        if again {
            self.resend();
        }
    }

    /// An ACK that matches this INVITE. True: it acknowledges a 2xx and is to be forwarded.
    #[must_use]
    pub fn ack(&mut self) -> bool {
        if !self.server.is_invite() {
            return false;
        }
        let (state, action) = InviteServer::from(self.server.machine).ack(self.now, &self.upstream());
        self.server.machine = state.into();
        action == invite_server::Action::Pass
    }

    /// The caller cancels (RFC 3261 §16.10). The INVITE is ended by the branches' 487.
    pub fn cancel(&mut self) {
        if self.server.is_invite() && self.server.answered == 0 {
            self.server.cancelled = 1;
            self.cancel_pending();
        }
    }

    /// CANCEL to every branch that has had a provisional and no final response; the others get theirs with the first
    /// provisional (RFC 3261 §9.1).
    pub(super) fn cancel_pending(&mut self) {
        for n in 0..self.branches.count() {
            self.cancel_branch(n);
        }
    }

    pub(super) fn cancel_branch(&mut self, n: usize) {
        if !self.server.is_invite() {
            return; // Nothing but an INVITE can be cancelled (§9.1).
        }
        let (now, lengths) = (self.now, self.lengths);
        let Some(client) = self.branches.client(n) else { return };
        if client.cancelled != 0 {
            return;
        }
        match InviteClient::from(client.machine) {
            InviteClient::Calling { .. } => client.cancel_wanted = 1,
            InviteClient::Proceeding => {
                client.cancelled = 1;
                client.cancel = NonInviteClient::start(now, lengths, lengths.on(client.transport())).into();
                // No final response within 64*T1 of the CANCEL: the branch counts as cancelled (§9.1).
                client.c = now + lengths.transaction;
                self.step(Step::Cancel(index(n)));
            }
            InviteClient::Accepted { .. } | InviteClient::Completed { .. } | InviteClient::Terminated => {}
        }
    }
}

/// There are at most `MAX_BRANCHES` first branches and as many further tries of each as there are addresses.
pub(super) fn index(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}
