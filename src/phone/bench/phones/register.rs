//! Registering (RFC 3261 §10.2): every phone once before the calls, a callee again with each new line.
//!
//! A callee's new line is registered in one REGISTER, which also takes the old line's contact away: else every INVITE would be
//! forked to both. Until its 200 the old line serves.

use std::collections::BTreeMap;

use super::crowd::{Crowd, Failure, NEVER, Now, T1, T2};
use super::lines::Lines;
use super::write::{self, Origin};

/// Phones that register at once.
const AT_ONCE: usize = 100;
/// A callee whose line was lost tries again after this, milliseconds.
const AGAIN: u32 = 200;

/// What is under way.
pub(super) struct Registering {
    /// Deadline of each phone's REGISTER.
    due: Vec<u32>,
    pending: Vec<Pending>,
    /// Phase 1: the next phone, and how many have no answer yet. None: not begun, or told.
    first: Option<First>,
}

#[derive(Clone, Copy, Default)]
struct Pending {
    serial: u32,
    interval: u32,
    give_up: u32,
    is_first: bool,
}

struct First {
    next: usize,
    open: usize,
    failures: BTreeMap<Failure, u64>,
}

impl Registering {
    pub(super) fn new(phones: usize) -> Registering {
        Registering { due: vec![NEVER; phones], pending: vec![Pending::default(); phones], first: None }
    }
}

impl Crowd {
    /// Phase 1 begins. With trunks they are opened here: as many for the callers as for the callees.
    pub fn register_all(&mut self, now: Now, lines: &mut Lines) {
        if let Some(trunks) = self.order.trunks {
            let mut open = || (0..trunks.max(1)).map(|_| lines.open(None, now.ms())).collect::<Result<Vec<_>, _>>();
            let (for_callers, for_callees) = match (open(), open()) {
                (Ok(callers), Ok(callees)) => (callers, callees),
                (Err(e), _) | (_, Err(e)) => {
                    self.trouble = Some(format!("no trunk: {e}"));
                    return;
                }
            };
            for (nth, pair) in self.phones.chunks_mut(2).enumerate() {
                for (phone, trunks) in pair.iter_mut().zip([&for_callers, &for_callees]) {
                    phone.line = trunks.get(nth % trunks.len()).copied();
                }
            }
        }
        self.registering.first = Some(First { next: 0, open: 0, failures: BTreeMap::new() });
        self.register_more(now, lines);
    }

    /// What phase 1 came to, once, when it is over.
    pub fn registered(&mut self) -> Option<BTreeMap<String, u64>> {
        let all = self.phones.len();
        let first = self.registering.first.take_if(|first| first.next >= all && first.open == 0)?;
        Some(first.failures.into_iter().map(|(why, n)| (why.to_string(), n)).collect())
    }

    /// Does a phone wait for the answer of phase 1?
    pub(super) fn registers_first(&self, phone: u32) -> bool {
        self.registering.pending.get(phone as usize).is_some_and(|pending| pending.is_first)
    }

    fn register_more(&mut self, now: Now, lines: &mut Lines) {
        while let Some(first) = self.registering.first.as_mut()
            && first.open < AT_ONCE
            && first.next < self.phones.len()
        {
            let phone = u32::try_from(first.next).unwrap_or(NEVER);
            first.next += 1;
            first.open += 1;
            let old = self.phones.get(phone as usize).and_then(|phone| phone.line);
            let line = match old {
                Some(at) => Some(at),
                None => self.open_line(phone, now, lines),
            };
            if let Some(of) = self.phones.get_mut(phone as usize) {
                (of.line, of.coming) = (line, None);
            }
            self.send_register(phone, true, true, now, lines);
        }
    }

    /// A callee goes on over a new line.
    pub(super) fn register_over_new_line(&mut self, phone: u32, now: Now, lines: &mut Lines) {
        let line = self.open_line(phone, now, lines);
        if let Some(of) = self.phones.get_mut(phone as usize) {
            of.coming = line;
        }
        match line {
            Some(_) => self.send_register(phone, true, false, now, lines),
            None => self.register_again(phone, now),
        }
    }

    /// The line that a callee was, or would be, reached over is lost: soon it opens another.
    pub(super) fn register_again(&mut self, phone: u32, now: Now) {
        if let (Some(due), Some(pending)) =
            (self.registering.due.get_mut(phone as usize), self.registering.pending.get_mut(phone as usize))
        {
            *due = now.tick() + AGAIN;
            pending.give_up = NEVER;
        }
    }

    fn send_register(&mut self, phone: u32, anew: bool, is_first: bool, now: Now, lines: &mut Lines) {
        let Crowd { phones, ids, registering, out, order, .. } = self;
        let (Some(of), Some(pending), Some(due)) = (
            phones.get(phone as usize),
            registering.pending.get_mut(phone as usize),
            registering.due.get_mut(phone as usize),
        ) else {
            return;
        };
        if anew {
            let give_up = now.tick().saturating_add(order.patience_ms);
            *pending = Pending { serial: pending.serial + 1, interval: T1, give_up, is_first };
        }
        *due = match lines.wire().is_reliable() {
            true => pending.give_up,
            false => pending.give_up.min(now.tick() + pending.interval),
        };
        let (at, old) = match of.coming {
            Some(coming) => (coming, of.line.and_then(|at| lines.get(at))),
            None => (of.line.unwrap_or(usize::MAX), None),
        };
        let Some(line) = lines.get(at) else { return };
        let origin = Origin { wire: lines.wire(), sent_by: &line.sent_by };
        let old = old.map(|line| line.sent_by.as_slice());
        out.clear();
        let id = ids.id(phone, pending.serial);
        let register = write::Register { user: &of.user, domain: &order.domain, expires_s: order.expires_s, old };
        register.put(out, origin, &id, pending.serial);
        lines.send(at, out, now.ms());
    }

    pub(super) fn register_answered(&mut self, phone: u32, serial: u32, code: u16, now: Now, lines: &mut Lines) {
        let Registering { due, pending, .. } = &mut self.registering;
        let (Some(due), Some(pending)) = (due.get_mut(phone as usize), pending.get_mut(phone as usize)) else { return };
        if code < 200 || pending.serial != serial || *due == NEVER {
            return;
        }
        *due = NEVER;
        if std::mem::take(&mut pending.is_first) {
            return self.first_answered(if code < 300 { Ok(()) } else { Err(Failure::Refused(code)) }, now, lines);
        }
        let Some(of) = self.phones.get_mut(phone as usize) else { return };
        if code < 300 {
            of.line = of.coming.take().or(of.line);
            self.figures.registrations += 1;
        } else if let Some(at) = of.coming.take() {
            // The old line goes on.
            lines.end(at);
        }
    }

    fn first_answered(&mut self, how: Result<(), Failure>, now: Now, lines: &mut Lines) {
        if let Some(first) = self.registering.first.as_mut() {
            first.open = first.open.saturating_sub(1);
            if let Err(why) = how {
                *first.failures.entry(why).or_default() += 1;
            }
        }
        self.register_more(now, lines);
    }

    /// Timers E and F of REGISTERs, and callees that look for a line.
    pub(super) fn register_due(&mut self, now: Now, lines: &mut Lines) {
        let tick = now.tick();
        let mut phone = 0;
        while let Some(found) =
            self.registering.due.get(phone..).and_then(|due| due.iter().position(|due| *due <= tick))
        {
            phone += found;
            let place = u32::try_from(phone).unwrap_or(NEVER);
            self.register_due_of(place, now, lines);
            phone += 1;
        }
    }

    fn register_due_of(&mut self, phone: u32, now: Now, lines: &mut Lines) {
        let Some(pending) = self.registering.pending.get_mut(phone as usize) else { return };
        let looks_for_a_line = pending.give_up == NEVER;
        let is_first = pending.is_first;
        if looks_for_a_line && !is_first {
            return self.register_over_new_line(phone, now, lines);
        }
        if looks_for_a_line || now.tick() >= pending.give_up {
            pending.is_first = false;
            if let Some(due) = self.registering.due.get_mut(phone as usize) {
                *due = NEVER;
            }
            if is_first {
                let why = if looks_for_a_line { Failure::LineLost } else { Failure::Silence("REGISTER") };
                return self.first_answered(Err(why), now, lines);
            }
            return self.register_again(phone, now);
        }
        pending.interval = (2 * pending.interval).min(T2);
        self.figures.retransmissions += 1;
        self.send_register(phone, false, is_first, now, lines);
    }
}
