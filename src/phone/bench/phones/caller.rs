//! The caller: INVITE, ACK, BYE (RFC 3261 §13.2, §15.1.1), with timers A and E over UDP (§17.1).
//!
//! Owns: the caller's part of a call. Over UDP the first retransmission comes after T1 and the interval doubles, for BYE up to T2; a
//! call without progress is given up after the patience of the phones.

use super::crowd::{Call, Crowd, Failure, Now, Stage, T1, T2};
use super::lines::{At, Lines};
use super::read::{Head, Start};
use super::write::{self, Invite, Origin};

impl Crowd {
    /// Places a call of `pair` that was due at `due`.
    pub(super) fn place(&mut self, pair: u32, due: Now, now: Now, lines: &mut Lines) {
        let caller = 2 * pair;
        let old = self.phones.get(caller as usize).and_then(|phone| phone.line);
        let line = match old.filter(|_| !self.order.connection_per_call) {
            Some(at) => Some(at),
            None => self.open_line(caller, now, lines),
        };
        let Some(at) = line else { return self.failed_to_begin(pair, due, now) };
        if let Some(phone) = self.phones.get_mut(caller as usize)
            && !self.order.connection_per_call
        {
            phone.line = Some(at);
        }
        let (place, serial) = self.take_place();
        self.figures.calls_placed += 1;
        let give_up = now.tick().saturating_add(self.order.patience_ms);
        if let Some(call) = self.calls.get_mut(place as usize) {
            (call.serial, call.pair, call.line, call.stage) = (serial, pair, at, Stage::Calling);
            (call.due_us, call.give_up, call.interval) = (due.0, give_up, T1);
            call.callee.forget();
        }
        if let Some(line) = lines.get_mut(at) {
            line.calls += 1;
        }
        self.arm_caller(place, now, lines);
        self.make_invite(caller, at, lines);
        self.send_invite(place, now, lines);
    }

    /// An INVITE names the line: it is made once for each.
    fn make_invite(&mut self, caller: u32, at: At, lines: &Lines) {
        let Some([phone, callee, ..]) = self.phones.get_mut(caller as usize..) else { return };
        let Some(line) = lines.get(at) else { return };
        if phone.invite.as_ref().is_none_or(|(of, _)| *of != at) {
            let origin = Origin { wire: lines.wire(), sent_by: &line.sent_by };
            phone.invite = Some((at, Invite::new(origin, &phone.user, &callee.user, &self.order.domain)));
        }
    }

    fn send_invite(&mut self, place: u32, now: Now, lines: &mut Lines) {
        let Some(call) = self.calls.get(place as usize) else { return };
        let id = self.ids.id(place, call.serial);
        if let Some((_, invite)) = self.phones.get_mut(2 * call.pair as usize).and_then(|phone| phone.invite.as_mut()) {
            lines.send(call.line, invite.of(&id), now.ms());
        }
    }

    /// A response came, to a caller or to whoever registers.
    pub(super) fn answered(&mut self, head: &Head<'_>, code: u16, now: Now, lines: &mut Lines) {
        let (Some((letter, id)), Some(method)) = (head.call_id.split_first(), head.cseq.rsplit(|b| *b == b' ').next())
        else {
            self.figures.strays += 1;
            return;
        };
        let Some((place, serial)) = self.ids.read(id) else {
            self.figures.strays += 1;
            return;
        };
        if *letter == b'r' {
            return self.register_answered(place, serial, code, now, lines);
        }
        let known =
            self.calls.get_mut(place as usize).filter(|call| call.serial == serial && call.stage != Stage::Free);
        let Some(call) = known else {
            self.figures.strays += u64::from(code >= 200);
            return;
        };
        match (method, call.stage, code) {
            (b"INVITE", Stage::Calling, 100..200) => {
                call.stage = Stage::Proceeding;
                if let Some([due, _]) = self.due.get_mut(place as usize) {
                    *due = call.give_up;
                }
            }
            (b"INVITE", Stage::Calling | Stage::Proceeding, 200..300) => self.connected(place, head, now, lines),
            (b"INVITE", Stage::Calling | Stage::Proceeding, 300..) => {
                self.refused(place, head, now, lines);
                self.end(place, Err(Failure::Refused(code)), now, lines);
            }
            // The callee has not heard our ACK yet (§13.2.2.4).
            (b"INVITE", Stage::HangingUp, 200..300) => {
                self.figures.retransmissions += 1;
                self.send_within(place, &[write::ack], now, lines);
            }
            (b"BYE", Stage::HangingUp, 100..200) => call.interval = T2,
            (b"BYE", Stage::HangingUp, 200..300) => {
                self.figures.byes += u64::from(self.counting);
                self.end(place, Ok(()), now, lines);
            }
            (b"BYE", Stage::HangingUp, 300..) => self.end(place, Err(Failure::Refused(code)), now, lines),
            _ => {}
        }
    }

    /// ACK and BYE leave one after the other.
    fn connected(&mut self, place: u32, head: &Head<'_>, now: Now, lines: &mut Lines) {
        let Some(call) = self.calls.get_mut(place as usize) else { return };
        if !call.dialog.set(head) {
            return self.end(place, Err(Failure::NoContact), now, lines);
        }
        let due_us = call.due_us;
        (call.stage, call.interval) = (Stage::HangingUp, T1);
        call.give_up = now.tick().saturating_add(self.order.patience_ms);
        self.record_set_up(due_us, now);
        self.figures.invites += u64::from(self.counting);
        self.send_within(place, &[write::ack, write::bye], now, lines);
        self.arm_caller(place, now, lines);
    }

    fn send_within(&mut self, place: u32, requests: &[Request], now: Now, lines: &mut Lines) {
        let Crowd { calls, phones, out, ids, .. } = self;
        let Some(Call { serial, pair, line: at, dialog, .. }) = calls.get(place as usize) else { return };
        let Some(phone) = phones.get(2 * *pair as usize) else { return };
        let id = ids.id(place, *serial);
        for request in requests {
            let Some(line) = lines.get(*at) else { return };
            out.clear();
            request(out, Origin { wire: lines.wire(), sent_by: &line.sent_by }, &phone.address, &id, dialog);
            lines.send(*at, out, now.ms());
        }
    }

    fn refused(&mut self, place: u32, head: &Head<'_>, now: Now, lines: &mut Lines) {
        debug_assert!(matches!(head.start, Start::Response(_)));
        let Crowd { calls, phones, out, ids, .. } = self;
        let Some(Call { serial, pair, line: at, .. }) = calls.get(place as usize) else { return };
        let pair = *pair as usize;
        let (Some(caller), Some(callee)) = (phones.get(2 * pair), phones.get(2 * pair + 1)) else { return };
        let Some(line) = lines.get(*at) else { return };
        let origin = Origin { wire: lines.wire(), sent_by: &line.sent_by };
        out.clear();
        write::ack_refusal(out, origin, &caller.address, &callee.address, &ids.id(place, *serial), head);
        lines.send(*at, out, now.ms());
    }

    fn arm_caller(&mut self, place: u32, now: Now, lines: &Lines) {
        let (Some(call), Some([due, _])) = (self.calls.get(place as usize), self.due.get_mut(place as usize)) else {
            return;
        };
        *due = match lines.wire().is_reliable() {
            true => call.give_up,
            false => call.give_up.min(now.tick().saturating_add(call.interval)),
        };
    }

    /// Timers A, E and the patience of the caller.
    pub(super) fn caller_due(&mut self, place: u32, now: Now, lines: &mut Lines) {
        let Some(call) = self.calls.get_mut(place as usize) else { return };
        let inviting = matches!(call.stage, Stage::Calling | Stage::Proceeding);
        if now.tick() >= call.give_up {
            let method = if inviting { "INVITE" } else { "BYE" };
            return self.end(place, Err(Failure::Silence(method)), now, lines);
        }
        call.interval *= 2;
        if call.stage == Stage::HangingUp {
            call.interval = call.interval.min(T2);
        }
        self.figures.retransmissions += 1;
        self.arm_caller(place, now, lines);
        if inviting {
            self.send_invite(place, now, lines);
        } else {
            self.send_within(place, &[write::bye], now, lines);
        }
    }
}

type Request = fn(&mut Vec<u8>, Origin<'_>, &str, &super::id::Id, &write::Dialog);
