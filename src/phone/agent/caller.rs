//! The agent as client: REGISTER, INVITE, ACK, BYE and CANCEL (RFC 3261 §10.2, §13.2, §15.1.1, §9.1).

use std::time::Instant;

use rsip::Method as M;

use super::{Affair, Agent, CallId, Failure, State, Step, Then};
use crate::message::{Message, Method};
use crate::phone::compose::{self, Draft};

#[derive(Debug)]
pub(super) struct Registering {
    branch: String,
}

/// A call this agent placed.
#[derive(Debug)]
pub(super) struct Placed {
    began: Instant,
    /// Request-URI of the INVITE.
    uri: String,
    from: String,
    branch: String,
    stage: Stage,
    /// The end was already told.
    told: bool,
}

#[derive(Debug)]
enum Stage {
    /// INVITE is out; timer A runs over UDP.
    Calling,
    /// 1xx: nobody retransmits any more.
    Proceeding,
    /// 2xx acknowledged; until the deadline we talk.
    Talking(Dialog),
    HangingUp(Dialog),
    /// Other final response acknowledged; the ACK is repeated as often as it comes (timer D).
    Refused {
        ack: Vec<u8>,
    },
    /// Waited too long; what still comes is ended politely.
    Abandoned {
        cancelled: bool,
    },
}

/// What the 2xx taught us (RFC 3261 §12.1.2).
#[derive(Debug)]
struct Dialog {
    target: String,
    /// With the callee's tag.
    to: String,
    routes: Vec<String>,
    ack: Vec<u8>,
    bye_branch: String,
}

/// CSeq numbers of a call. An ACK has that of its INVITE, so has a CANCEL.
const INVITE: u32 = 1;
const BYE: u32 = 2;

impl Agent {
    /// Registers the agent's contact for `expires` seconds; 0 removes it.
    pub fn register(&mut self, expires: u32, now: Instant, steps: &mut Vec<Step>) {
        let serial = self.next_serial();
        let call = self.call_id(serial);
        let aor = self.me.address_of_record();
        let branch = self.me.branch(serial);
        let request = compose::request(
            &self.me,
            &Draft {
                method: M::Register,
                uri: &format!("sip:{}", self.me.domain),
                branch: &branch,
                from: &format!("<{aor}>;tag={}{serial:x}", self.me.seed),
                to: &format!("<{aor}>"),
                call_id: &text(&call),
                cseq: u32::try_from(serial).unwrap_or(1),
                routes: &[],
                expires: Some(expires),
                body: "",
            },
        );
        let repeat = self.repeat_capped(&request, now);
        let affair = Affair::new(State::Registering(Registering { branch }), repeat, now + self.manner.patience);
        steps.push(Step::Send(request));
        self.keep(call, affair, steps);
    }

    /// Calls `uri`, for example `sip:bob@example.test`. `Step::Ended` will tell how it went.
    pub fn call(&mut self, uri: &str, now: Instant, steps: &mut Vec<Step>) -> CallId {
        let serial = self.next_serial();
        let call = self.call_id(serial);
        let placed = Placed {
            began: now,
            uri: uri.to_owned(),
            from: format!("<{}>;tag={}{serial:x}", self.me.address_of_record(), self.me.seed),
            branch: self.me.branch(serial),
            stage: Stage::Calling,
            told: false,
        };
        let body = compose::session(&self.me);
        let to = placed.to();
        let request = compose::request(&self.me, &placed.draft(M::Invite, &text(&call), &to, &body));
        let repeat = self.repeat_invite(&request, now);
        let affair = Affair::new(State::Placed(placed), repeat, now + self.manner.patience);
        steps.push(Step::Send(request));
        self.keep(call.clone(), affair, steps);
        call
    }

    /// A response came.
    pub(super) fn told(&mut self, m: &Message, code: u16, now: Instant, steps: &mut Vec<Step>) {
        self.with(m.call_id.of(m.bytes), steps, |agent, call, affair, steps| match &mut affair.state {
            State::Registering(registering) => {
                if code < 200 || m.via.branch.of(m.bytes) != registering.branch.as_bytes() {
                    return Then::Keep;
                }
                steps.push(Step::Registered(if code < 300 { Ok(()) } else { Err(Failure::Refused(code)) }));
                Then::Forget
            }
            State::Placed(placed) => match m.cseq.method {
                Method::Invite if m.via.branch.of(m.bytes) == placed.branch.as_bytes() => {
                    agent.invite_told(m, code, call, affair, now, steps)
                }
                Method::Bye => bye_told(m, code, call, affair, steps, agent.manner.t2),
                Method::Cancel => {
                    affair.repeat = None;
                    Then::Keep
                }
                _ => Then::Keep,
            },
            State::Taken(_) => Then::Keep,
        });
    }

    fn invite_told(
        &mut self,
        m: &Message,
        code: u16,
        call: &CallId,
        affair: &mut Affair,
        now: Instant,
        steps: &mut Vec<Step>,
    ) -> Then {
        let State::Placed(placed) = &mut affair.state else { return Then::Keep };
        match (&mut placed.stage, code) {
            (Stage::Calling, 0..200) => {
                placed.stage = Stage::Proceeding;
                affair.repeat = None;
            }
            (Stage::Abandoned { cancelled: cancelled @ false }, 0..200) => {
                *cancelled = true;
                self.cancel(call, affair, now, steps);
            }
            (Stage::Calling | Stage::Proceeding | Stage::Abandoned { .. }, 200..300) => {
                let Some(dialog) = self.dialog(m, call, placed) else {
                    placed.tell(call.clone(), Err(Failure::Malformed), steps);
                    return Then::Forget;
                };
                if !placed.told {
                    steps.push(Step::Answered { call: call.clone(), after: now - placed.began });
                }
                steps.push(Step::Send(dialog.ack.clone()));
                let hang_up = placed.told || self.manner.talk.is_zero();
                placed.stage = Stage::Talking(dialog);
                affair.repeat = None;
                affair.deadline = Some(now + self.manner.talk);
                if hang_up {
                    return self.hang_up(call, affair, now, steps);
                }
            }
            // The callee has not heard our ACK yet (§13.2.2.4).
            (Stage::Talking(dialog) | Stage::HangingUp(dialog), 200..300) => {
                self.retransmitted += 1;
                steps.push(Step::Send(dialog.ack.clone()));
            }
            (Stage::Calling | Stage::Proceeding | Stage::Abandoned { .. }, 300..) => {
                let to = String::from_utf8_lossy(m.to.of(m.bytes));
                let ack = compose::request(&self.me, &placed.draft(M::Ack, &text(call), &to, ""));
                steps.push(Step::Send(ack.clone()));
                placed.tell(call.clone(), Err(Failure::Refused(code)), steps);
                if self.is_reliable() {
                    return Then::Forget;
                }
                placed.stage = Stage::Refused { ack };
                affair.repeat = None;
                affair.deadline = Some(now + self.long());
            }
            (Stage::Refused { ack }, 300..) => {
                self.retransmitted += 1;
                steps.push(Step::Send(ack.clone()));
            }
            _ => {}
        }
        Then::Keep
    }

    /// The deadline of a placed call.
    pub(super) fn placed_expired(
        &mut self,
        call: &CallId,
        affair: &mut Affair,
        now: Instant,
        steps: &mut Vec<Step>,
    ) -> Then {
        let State::Placed(placed) = &mut affair.state else { return Then::Keep };
        match &placed.stage {
            Stage::Calling | Stage::Proceeding => {
                let cancel = matches!(placed.stage, Stage::Proceeding);
                placed.tell(call.clone(), Err(Failure::Silence("INVITE")), steps);
                placed.stage = Stage::Abandoned { cancelled: cancel };
                affair.repeat = None;
                affair.deadline = Some(now + self.long());
                // Before a provisional response a CANCEL must wait for one (§9.1).
                if cancel {
                    self.cancel(call, affair, now, steps);
                }
                Then::Keep
            }
            Stage::Talking(_) => self.hang_up(call, affair, now, steps),
            Stage::HangingUp(_) => {
                placed.tell(call.clone(), Err(Failure::Silence("BYE")), steps);
                Then::Forget
            }
            Stage::Refused { .. } | Stage::Abandoned { .. } => Then::Forget,
        }
    }

    fn hang_up(&mut self, call: &CallId, affair: &mut Affair, now: Instant, steps: &mut Vec<Step>) -> Then {
        let State::Placed(placed) = &mut affair.state else { return Then::Keep };
        placed.stage = match std::mem::replace(&mut placed.stage, Stage::Proceeding) {
            Stage::Talking(dialog) => {
                let bye = dialog.request(self, placed, M::Bye, &text(call), &dialog.bye_branch);
                affair.repeat = self.repeat_capped(&bye, now);
                affair.deadline = Some(now + self.manner.patience);
                steps.push(Step::Send(bye));
                Stage::HangingUp(dialog)
            }
            other => other,
        };
        Then::Keep
    }

    fn cancel(&mut self, call: &CallId, affair: &mut Affair, now: Instant, steps: &mut Vec<Step>) {
        let State::Placed(placed) = &affair.state else { return };
        let cancel = compose::request(&self.me, &placed.draft(M::Cancel, &text(call), &placed.to(), ""));
        affair.repeat = self.repeat_capped(&cancel, now);
        steps.push(Step::Send(cancel));
    }

    /// The dialog that a 2xx makes, its ACK included; none without a Contact.
    fn dialog(&mut self, m: &Message, call: &CallId, placed: &Placed) -> Option<Dialog> {
        let target = m.contacts().next()?.uri;
        let mut routes = Vec::new();
        for line in m.header("Record-Route") {
            let line = String::from_utf8_lossy(line.of(m.bytes));
            routes.extend(compose::values(&line).map(str::to_owned));
        }
        // The caller's route set is the recorded one backwards (§12.1.2).
        routes.reverse();
        let ack_branch = self.me.branch(self.serial + 1);
        let bye_branch = self.me.branch(self.serial + 2);
        self.serial += 2;
        let mut dialog = Dialog {
            target: text(target.of(m.bytes)).into_owned(),
            to: text(m.to.of(m.bytes)).into_owned(),
            routes,
            ack: Vec::new(),
            bye_branch,
        };
        dialog.ack = dialog.request(self, placed, M::Ack, &text(call), &ack_branch);
        Some(dialog)
    }

    fn call_id(&self, serial: u64) -> CallId {
        format!("{}-{}-{serial:x}", self.me.seed, self.me.user).into_bytes().into()
    }
}

/// The answer to BYE ends the call, whatever it says (§15.1.1); only a 2xx is a good end.
fn bye_told(
    m: &Message,
    code: u16,
    call: &CallId,
    affair: &mut Affair,
    steps: &mut Vec<Step>,
    t2: std::time::Duration,
) -> Then {
    let State::Placed(placed) = &mut affair.state else { return Then::Keep };
    match &placed.stage {
        Stage::HangingUp(dialog) if m.via.branch.of(m.bytes) == dialog.bye_branch.as_bytes() => {}
        _ => return Then::Keep,
    }
    if code < 200 {
        // Timer E goes on, at T2 (§17.1.2.2).
        if let Some(repeat) = &mut affair.repeat {
            repeat.interval = t2;
        }
        return Then::Keep;
    }
    placed.tell(call.clone(), if code < 300 { Ok(()) } else { Err(Failure::Refused(code)) }, steps);
    Then::Forget
}

impl Placed {
    fn to(&self) -> String {
        format!("<{}>", self.uri)
    }

    /// INVITE, and what goes the same way with the same branch: its CANCEL and the ACK to a refusal (§9.1, §17.1.1.3).
    fn draft<'d>(&'d self, method: M, call_id: &'d str, to: &'d str, body: &'d str) -> Draft<'d> {
        Draft {
            method,
            uri: &self.uri,
            branch: &self.branch,
            from: &self.from,
            to,
            call_id,
            cseq: INVITE,
            routes: &[],
            expires: None,
            body,
        }
    }

    fn tell(&mut self, call: CallId, how: Result<(), Failure>, steps: &mut Vec<Step>) {
        if !std::mem::replace(&mut self.told, true) {
            steps.push(Step::Ended { call, how });
        }
    }

    pub(super) fn end(mut self, call: CallId, how: Result<(), Failure>, steps: &mut Vec<Step>) {
        self.tell(call, how, steps);
    }
}

impl Dialog {
    fn request(&self, agent: &Agent, placed: &Placed, method: M, call_id: &str, branch: &str) -> Vec<u8> {
        compose::request(
            &agent.me,
            &Draft {
                method,
                uri: &self.target,
                branch,
                from: &placed.from,
                to: &self.to,
                call_id,
                cseq: if method == M::Bye { BYE } else { INVITE },
                routes: &self.routes,
                expires: None,
                body: "",
            },
        )
    }
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
