//! The callee: 180 and 200 at once, 200 to the BYE (RFC 3261 §13.3, §15.1.2).
//!
//! Owns: the callee's part of a call. Over UDP a 200 is sent again until the ACK comes (§13.3.1.4); what is repeated gets the same
//! answer again, made from the repetition.

use super::crowd::{Crowd, NEVER, Now, Stage, T1, T2};
use super::lines::{At, Lines};
use super::read::{Head, Start};
use super::write::{self, Origin};

/// The callee's side of a call in its place.
#[derive(Default)]
pub(super) struct Part {
    stage: Taken,
    /// Where the INVITE came from, and its 200.
    line: At,
    answer: Vec<u8>,
    interval: u32,
    give_up: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Taken {
    #[default]
    Not,
    Answered,
    Connected,
    HungUp,
}

impl Part {
    pub(super) fn forget(&mut self) {
        self.stage = Taken::Not;
    }
}

impl Crowd {
    /// A request came.
    pub(super) fn asked(&mut self, head: &Head<'_>, at: At, now: Now, lines: &mut Lines) {
        let id = head.call_id.strip_prefix(b"c").and_then(|id| self.ids.read(id));
        let call = id.and_then(|(place, serial)| {
            let call = self.calls.get_mut(place as usize)?;
            (call.serial == serial && call.stage != Stage::Free).then_some((place, call))
        });
        let Some((place, call)) = call else {
            return self.outside(head, at, now, lines);
        };
        match (head.start, call.callee.stage) {
            (Start::Invite, Taken::HungUp) | (Start::Ack, Taken::Not | Taken::Connected | Taken::HungUp) => {}
            (Start::Invite, Taken::Not) => self.take(place, head, at, now, lines),
            (Start::Invite, _) => {
                self.figures.retransmissions += 1;
                lines.send(at, &call.callee.answer, now.ms());
            }
            (Start::Ack, Taken::Answered) => {
                call.callee.stage = Taken::Connected;
                self.disarm_callee(place);
            }
            // Also before the ACK, which a BYE may overtake: workers and unordered delivery keep no order.
            (Start::Bye, stage) => {
                call.callee.stage = Taken::HungUp;
                let callee = 2 * call.pair + 1;
                self.disarm_callee(place);
                self.answer_plainly(head, b"200 OK", at, now, lines);
                match stage {
                    Taken::HungUp => self.figures.retransmissions += 1,
                    _ => self.used(callee, now, lines),
                }
            }
            (Start::Options, _) => self.answer_plainly(head, b"200 OK", at, now, lines),
            _ => self.answer_plainly(head, b"501 Not Implemented", at, now, lines),
        }
    }

    fn take(&mut self, place: u32, head: &Head<'_>, at: At, now: Now, lines: &mut Lines) {
        let Crowd { calls, phones, out, ids, due, order, .. } = self;
        let (Some(call), Some([_, due])) = (calls.get_mut(place as usize), due.get_mut(place as usize)) else { return };
        let Some(phone) = phones.get(2 * call.pair as usize + 1) else { return };
        // The registered line: requests of the dialog shall come over a connection that the proxy knows.
        let Some(line) = phone.line.and_then(|of| lines.get(of)).or_else(|| lines.get(at)) else { return };
        let origin = Origin { wire: lines.wire(), sent_by: &line.sent_by };
        let id = ids.id(place, call.serial);
        let tag = (!write::has_tag(head.to)).then_some(&id);
        out.clear();
        write::answer(out, head, b"180 Ringing", tag, Some((origin, &phone.user)), false);
        let part = &mut call.callee;
        part.answer.clear();
        write::answer(&mut part.answer, head, b"200 OK", tag, Some((origin, &phone.user)), true);
        (part.stage, part.line, part.interval) = (Taken::Answered, at, T1);
        part.give_up = now.tick().saturating_add(order.patience_ms);
        *due = if lines.wire().is_reliable() { NEVER } else { now.tick().saturating_add(T1) };
        lines.send(at, out, now.ms());
        lines.send(at, &part.answer, now.ms());
    }

    /// The 200 again (timer G's intervals); after the patience the caller is left to find out.
    pub(super) fn callee_due(&mut self, place: u32, now: Now, lines: &mut Lines) {
        let (Some(call), Some([_, due])) = (self.calls.get_mut(place as usize), self.due.get_mut(place as usize))
        else {
            return;
        };
        let part = &mut call.callee;
        if part.stage != Taken::Answered || now.tick() >= part.give_up {
            *due = NEVER;
            return;
        }
        part.interval = (2 * part.interval).min(T2);
        *due = now.tick().saturating_add(part.interval);
        self.figures.retransmissions += 1;
        lines.send(part.line, &part.answer, now.ms());
    }

    fn disarm_callee(&mut self, place: u32) {
        if let Some([_, due]) = self.due.get_mut(place as usize) {
            *due = NEVER;
        }
    }

    /// A request of no call, or of one that is over.
    fn outside(&mut self, head: &Head<'_>, at: At, now: Now, lines: &mut Lines) {
        self.figures.strays += u64::from(head.start != Start::Options);
        match head.start {
            Start::Ack => {}
            Start::Options => self.answer_plainly(head, b"200 OK", at, now, lines),
            Start::Invite | Start::Bye => {
                self.answer_plainly(head, b"481 Call/Transaction Does Not Exist", at, now, lines);
            }
            _ => self.answer_plainly(head, b"501 Not Implemented", at, now, lines),
        }
    }

    fn answer_plainly(&mut self, head: &Head<'_>, status: &[u8], at: At, now: Now, lines: &mut Lines) {
        let tag = (!write::has_tag(head.to)).then(|| self.ids.id(0, 0));
        self.out.clear();
        write::answer(&mut self.out, head, status, tag.as_ref(), None, false);
        lines.send(at, &self.out, now.ms());
    }
}
