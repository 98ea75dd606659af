//! What passing time does to a context: every timer of its transactions, and timer C (RFC 3261 §16.8).

use super::context::{Branches, Context, Step};
use super::request::index;
use super::upstream::Which;
use crate::transaction::{
    InviteClient, InviteServer, NonInviteClient, NonInviteServer, invite_client, invite_server, non_invite_client,
    non_invite_server,
};

impl<B: Branches> Context<'_, B> {
    /// Fires all that is due. A stale alarm is harmless: due-ness is read from the states.
    pub fn timers(&mut self) {
        self.server_timers();
        for n in 0..self.branches.count() {
            if self.server.is_invite() {
                self.invite_branch_timers(n);
            } else {
                self.other_branch_timers(n);
            }
        }
    }

    fn server_timers(&mut self) {
        if self.server.is_invite() {
            let (state, action) = InviteServer::from(self.server.machine).timer(self.now, self.lengths);
            self.server.machine = state.into();
            if action == invite_server::Action::SendAgain {
                self.resend();
            }
            return;
        }
        let (state, action) = NonInviteServer::from(self.server.machine).timer(self.now);
        self.server.machine = state.into();
        if action == non_invite_server::Action::SendTrying {
            if self.any_pending() {
                self.server.last = 100;
                self.server.last_origin = super::context::Origin::Own as u8;
                self.step(Step::Reply(100)); // D25
            } else {
                // Whoever was to answer it died: nobody will.
                self.server.machine = NonInviteServer::Terminated.into();
            }
        }
    }

    fn invite_branch_timers(&mut self, n: usize) {
        let (now, lengths) = (self.now, self.lengths);
        let Some(client) = self.branches.client(n) else { return };
        let (cancel, again) = NonInviteClient::from(client.cancel).timer(now, lengths);
        client.cancel = cancel.into();
        let (state, action) = InviteClient::from(client.machine).timer(now);
        client.machine = state.into();
        let (answered, cancelled) = (client.answered != 0, client.cancelled != 0);
        let c = state == InviteClient::Proceeding && client.c <= now;
        if c && cancelled {
            client.machine = InviteClient::Terminated.into();
        }
        if again == non_invite_client::Action::SendAgain {
            self.step(Step::Cancel(index(n)));
        }
        match action {
            invite_client::Action::SendAgain => self.step(Step::Request(index(n))),
            invite_client::Action::TimedOut => self.timed_out(n, answered),
            _ if c && cancelled => {
                let code = if self.server.cancelled != 0 { 487 } else { 408 };
                self.consider(code, Which::Own); // C23
            }
            _ if c => self.cancel_branch(n), // C18
            _ => {}
        }
    }

    fn other_branch_timers(&mut self, n: usize) {
        let (now, lengths) = (self.now, self.lengths);
        let Some(client) = self.branches.client(n) else { return };
        let (state, action) = NonInviteClient::from(client.machine).timer(now, lengths);
        client.machine = state.into();
        let answered = client.answered != 0;
        match action {
            non_invite_client::Action::SendAgain => self.step(Step::Request(index(n))),
            non_invite_client::Action::TimedOut => self.timed_out(n, answered),
            non_invite_client::Action::Nothing | non_invite_client::Action::Pass => {}
        }
    }

    /// Timer B or F. With no response at all the next address is tried (RFC 3263 §4.3); else, or when there is none, the
    /// branch counts as a 408 (RFC 3261 §16.7 item 2, §16.8).
    fn timed_out(&mut self, n: usize, answered: bool) {
        if answered || !self.try_next(n) {
            self.consider(if self.server.cancelled != 0 { 487 } else { 408 }, Which::Own);
        }
    }
}
