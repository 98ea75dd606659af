//! What goes upstream: responses to the server transaction, and the choice of the best one (RFC 3261 §16.7 items 5 and 6).
//!
//! Never changes one: where several branches ask for credentials, the caller hears one branch's 401 or 407 with its challenges alone
//! (item 7 would put them together; a user agent then answers one of them, and the next with its next attempt).

use super::context::{Branches, Context, Origin, Step};
use crate::transaction::{InviteServer, NonInviteServer, invite_server, non_invite_server};

/// Which response is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The one at hand.
    Current,
    /// The one kept.
    Best,
    /// One that we make.
    Own,
}

/// The better of two final failures has the lower rank (RFC 3261 §16.7 item 6): any 6xx, else the lowest class; among 4xx
/// those first that tell the caller what to change.
fn rank(code: u16) -> u32 {
    match code {
        600.. => 0,
        401 | 407 | 415 | 420 | 484 => 4_000,
        400..=499 => 4_001 + u32::from(code - 400),
        _ => u32::from(code) * 10,
    }
}

impl<B: Branches> Context<'_, B> {
    /// Gives the server transaction a response; it decides whether that is sent.
    pub(super) fn answer(&mut self, code: u16, which: Which) {
        let on = self.upstream();
        if self.server.is_invite() && self.server.answered >= 300 && (200..300).contains(&code) {
            // A 2xx that lost the race against a failure: it goes out, and timer G keeps repeating the failure (C06).
            if which == Which::Current && !self.server.machine.is_terminated() {
                self.step(Step::Relay);
            }
            return;
        }
        let send = if self.server.is_invite() {
            let (state, action) = InviteServer::from(self.server.machine).respond(code, self.now, self.lengths, &on);
            self.server.machine = state.into();
            action == invite_server::Action::Send
        } else {
            let (state, action) = NonInviteServer::from(self.server.machine).respond(code, self.now, &on);
            self.server.machine = state.into();
            action == non_invite_server::Action::Send
        };
        if !send {
            return;
        }
        self.server.last = code;
        self.server.last_origin = if which == Which::Own { Origin::Own } else { Origin::Kept } as u8;
        if code >= 200 && self.server.answered == 0 {
            self.server.answered = code;
        }
        let resend = self.server.may_resend();
        match which {
            Which::Own => self.step(Step::Reply(code)),
            Which::Current => {
                if resend {
                    self.step(Step::KeepLast);
                }
                self.step(Step::Relay);
            }
            Which::Best => {
                if resend {
                    self.step(Step::KeepBestAsLast);
                }
                self.step(Step::RelayBest);
            }
        }
    }

    /// A branch has ended with this failure. Once all have, the best of them goes upstream.
    pub(super) fn consider(&mut self, code: u16, which: Which) {
        if self.server.answered != 0 {
            return;
        }
        let better = self.server.best == 0 || rank(code) < rank(self.server.best);
        if better {
            self.server.best = code;
            self.server.best_is_own = u8::from(which == Which::Own);
        }
        if self.any_pending() {
            if better && which == Which::Current {
                self.step(Step::KeepBest);
            }
            return;
        }
        let which = match which {
            Which::Current if better => Which::Current,
            _ if self.server.best_is_own != 0 => Which::Own,
            _ => Which::Best,
        };
        match self.server.best {
            // A lone 503 would stop the caller from asking us at all (§16.7 item 6).
            503 => self.answer(500, Which::Own),
            // A 408 to a non-INVITE only makes storms: it just ends (RFC 4320 §4.2).
            408 if !self.server.is_invite() => self.server.machine = NonInviteServer::Terminated.into(),
            best => self.answer(best, which),
        }
    }

    /// The TU answered by itself (the registrar), and keeps the text of its answer.
    pub fn answered(&mut self, code: u16, origin: Origin) {
        let on = self.upstream();
        self.server.machine = NonInviteServer::from(self.server.machine).respond(code, self.now, &on).0.into();
        (self.server.last, self.server.answered) = (code, code);
        self.server.last_origin = origin as u8;
    }

    /// The last response once more.
    pub(super) fn resend(&mut self) {
        match self.server.last {
            0 => {}
            code if self.server.last_origin == Origin::Own as u8 => self.step(Step::ReplyAgain(code)),
            _ => self.step(Step::RelayLast),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn the_best_response_is_chosen_by_class_and_use() {
        // C08: 6xx before all, then the lowest class, and in it what the caller can act on.
        let mut codes = [503, 486, 404, 302, 603, 401, 480, 500];
        codes.sort_by_key(|code| rank(*code));
        assert_eq!(codes, [603, 302, 401, 404, 480, 486, 500, 503]);
    }
}
