//! The agent as server: it rings, answers, and lets the caller hang up (RFC 3261 §13.3, §15.1.2, §9.2).

use std::time::Instant;

use super::{Affair, Agent, CallId, State, Step, Then};
use crate::message::{self, Message, Method};
use crate::phone::compose::{self, Answer};

/// A call this agent was asked to take.
#[derive(Debug)]
pub(super) struct Taken {
    stage: Stage,
    tag: String,
    /// Of the INVITE.
    branch: Vec<u8>,
    /// The last response to the INVITE: a repeated INVITE gets it again (§17.2.1).
    last: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// 180 sent; answered at the deadline.
    Ringing {
        invite: Vec<u8>,
    },
    /// 200 sent again and again until the ACK comes.
    Answered,
    /// 487 sent, over UDP again and again until the ACK comes (timers G and H).
    Refused,
    Connected,
    /// A repeated BYE gets this again (timer J).
    HungUp {
        ok: Vec<u8>,
    },
}

impl Agent {
    /// A request came.
    pub(super) fn asked(&mut self, m: &Message, method: Method, now: Instant, steps: &mut Vec<Step>) {
        let known = self.with(m.call_id.of(m.bytes), steps, |agent, _, affair, steps| {
            let Affair { state: State::Taken(taken), repeat, deadline, .. } = affair else { return Then::Keep };
            let to_tag = m.to_tag.of(m.bytes);
            if !to_tag.is_empty() && to_tag != taken.tag.as_bytes() {
                if method != Method::Ack {
                    steps.push(Step::Send(outside(m, method)));
                }
                return Then::Keep;
            }
            match (method, &mut taken.stage) {
                // The same request by another way (§8.2.2.2). Another tag than ours, so that its ACK is not taken for that of our 200.
                (Method::Invite, _) if to_tag.is_empty() && m.via.branch.of(m.bytes) != taken.branch => {
                    steps.push(Step::Send(plain(m, 482, "Loop Detected", "merged")));
                }
                (Method::Invite, _) if !m.to_tag.is_empty() => {
                    // Phones have nothing to change in a session.
                    steps.push(Step::Send(plain(m, 488, "Not Acceptable Here", &taken.tag)));
                }
                (Method::Invite, Stage::HungUp { .. }) => {}
                (Method::Invite, _) => {
                    agent.retransmitted += 1;
                    steps.push(Step::Send(taken.last.clone()));
                }
                (Method::Ack, Stage::Answered) => {
                    taken.stage = Stage::Connected;
                    (*repeat, *deadline) = (None, None);
                }
                (Method::Ack, Stage::Refused) => return Then::Forget,
                (Method::Bye, Stage::HungUp { ok }) => {
                    agent.retransmitted += 1;
                    steps.push(Step::Send(ok.clone()));
                }
                // Also before the ACK, which a BYE may overtake: workers and unordered delivery keep no order.
                (Method::Bye, Stage::Answered | Stage::Connected) => {
                    let ok = plain(m, 200, "OK", &taken.tag);
                    steps.push(Step::Send(ok.clone()));
                    if agent.is_reliable() {
                        return Then::Forget;
                    }
                    taken.stage = Stage::HungUp { ok };
                    taken.last = Vec::new();
                    (*repeat, *deadline) = (None, Some(now + agent.long()));
                }
                (Method::Cancel, Stage::Ringing { invite }) => {
                    steps.push(Step::Send(plain(m, 200, "OK", &taken.tag)));
                    if let Ok(invite) = message::scan(invite) {
                        taken.last = plain(&invite, 487, "Request Terminated", &taken.tag);
                        steps.push(Step::Send(taken.last.clone()));
                    }
                    *repeat = agent.repeat_capped(&taken.last, now);
                    *deadline = Some(now + agent.long());
                    taken.stage = Stage::Refused;
                }
                // Too late to change anything, but known (§9.2).
                (Method::Cancel, _) => steps.push(Step::Send(plain(m, 200, "OK", &taken.tag))),
                (Method::Ack, _) => {}
                _ => steps.push(Step::Send(outside(m, method))),
            }
            Then::Keep
        });
        match method {
            _ if known => {}
            Method::Invite if m.to_tag.is_empty() => self.ring(m, now, steps),
            Method::Ack => {}
            _ => steps.push(Step::Send(outside(m, method))),
        }
    }

    fn ring(&mut self, m: &Message, now: Instant, steps: &mut Vec<Step>) {
        let serial = self.next_serial();
        let tag = format!("{}{serial:x}", self.me.seed);
        let answer = Answer { code: 180, phrase: "Ringing", tag: &tag, contact: &self.me.contact(), body: "" };
        let last = compose::response(m, &answer);
        steps.push(Step::Send(last.clone()));
        let call: CallId = m.call_id.of(m.bytes).into();
        let taken = Taken {
            stage: Stage::Ringing { invite: m.bytes.to_vec() },
            tag,
            branch: m.via.branch.of(m.bytes).to_vec(),
            last,
        };
        let mut affair = Affair::new(State::Taken(taken), None, now + self.manner.ring);
        if self.manner.ring.is_zero() {
            self.answer(&mut affair, now, steps);
        }
        self.keep(call, affair, steps);
    }

    fn answer(&mut self, affair: &mut Affair, now: Instant, steps: &mut Vec<Step>) {
        let State::Taken(taken) = &mut affair.state else { return };
        let Stage::Ringing { invite } = &taken.stage else { return };
        let Ok(invite) = message::scan(invite) else { return };
        let (contact, body) = (self.me.contact(), compose::session(&self.me));
        let answer = Answer { code: 200, phrase: "OK", tag: &taken.tag, contact: &contact, body: &body };
        taken.last = compose::response(&invite, &answer);
        taken.stage = Stage::Answered;
        steps.push(Step::Send(taken.last.clone()));
        affair.repeat = self.repeat_answer(&taken.last, now);
        affair.deadline = Some(now + self.long());
    }

    /// The deadline of a taken call.
    pub(super) fn taken_expired(
        &mut self,
        call: &CallId,
        affair: &mut Affair,
        now: Instant,
        steps: &mut Vec<Step>,
    ) -> Then {
        let State::Taken(taken) = &affair.state else { return Then::Keep };
        match taken.stage {
            Stage::Ringing { .. } => {
                self.answer(affair, now, steps);
                Then::Keep
            }
            Stage::Answered => {
                steps.push(Step::Unacknowledged { call: call.clone() });
                Then::Forget
            }
            Stage::Connected => Then::Keep,
            Stage::Refused | Stage::HungUp { .. } => Then::Forget,
        }
    }
}

/// The answer to a request that belongs to no call.
fn outside(m: &Message, method: Method) -> Vec<u8> {
    match method {
        Method::Options => plain(m, 200, "OK", "options"),
        Method::Invite | Method::Bye | Method::Cancel => plain(m, 481, "Call/Transaction Does Not Exist", "nobody"),
        _ => plain(m, 501, "Not Implemented", "nobody"),
    }
}

fn plain(m: &Message, code: u16, phrase: &str, tag: &str) -> Vec<u8> {
    compose::response(m, &Answer { code, phrase, tag, contact: "", body: "" })
}
