//! The phones of one process: callers and callees in pairs, with their calls.
//!
//! Owns: who uses which line, the calls' places, and what is counted. A pair lives in one process: the callee's part of a call lies
//! beside the caller's and is found by the Call-ID, without a search. `caller`, `callee` and `register` are its three procedures.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;

use hdrhistogram::Histogram;

use super::id::Ids;
use super::lines::{At, Lines};
use super::read::{self, Start};
use super::register::Registering;
use super::write::{Dialog, Invite};
use crate::phone::bench::results::Arrival;
use crate::phone::bench::words::{Figures, Report, SetUp, histogram};

/// Microseconds since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);

impl Now {
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 / 1_000
    }

    /// Milliseconds, for deadlines.
    pub(super) fn tick(self) -> u32 {
        u32::try_from(self.0 / 1_000).unwrap_or(NEVER)
    }
}

/// A deadline that is none.
pub(super) const NEVER: u32 = u32::MAX;
/// Timers of RFC 3261 §17, milliseconds.
pub(super) const T1: u32 = 500;
pub(super) const T2: u32 = 4_000;
/// Whose call failed calls again after this, milliseconds: a proxy that refuses is not stormed.
const REST: u32 = 100;
/// A closed loop begins within this, milliseconds.
const ENTRY: u64 = 300;

pub struct Crowd {
    pub order: SetUp,
    pub(super) ids: Ids,
    /// Caller and callee of pair `n` are 2n and 2n + 1.
    pub(super) phones: Vec<Phone>,
    pub(super) calls: Vec<Call>,
    free: Vec<u32>,
    /// Deadlines of each call, of its caller and of its callee: beside the calls, so that looking at all of them is quick.
    pub(super) due: Vec<[u32; 2]>,
    serial: u32,
    /// Messages are made here.
    pub(super) out: Vec<u8>,
    /// Pairs that call again at this time.
    resting: VecDeque<(u32, u32)>,
    pub(super) registering: Registering,
    /// Calls may begin.
    placing: bool,
    /// Within the measured window.
    pub(super) counting: bool,
    /// When it begins and ends: a call belongs to it that was due then, whenever it is answered.
    window: Range<u64>,
    pub open_calls: u64,
    next_pair: u32,
    pub(super) figures: Figures,
    set_up: Histogram<u64>,
    /// Failures by reason, of the window or of the time after it.
    failures: BTreeMap<Failure, u64>,
    opened_before: u64,
    /// Why nothing goes on.
    pub trouble: Option<String>,
}

pub(super) struct Phone {
    pub(super) user: String,
    /// `user@domain`
    pub(super) address: String,
    /// What it uses: a callee is registered over it.
    pub(super) line: Option<At>,
    /// A callee's that is being registered.
    pub(super) coming: Option<At>,
    /// Operations over this line.
    pub(super) operations: u64,
    /// A caller's, for the line it was made for.
    pub(super) invite: Option<(At, Invite)>,
}

/// A call in its place, or an empty place.
#[derive(Default)]
pub(super) struct Call {
    pub(super) serial: u32,
    pub(super) pair: u32,
    pub(super) line: At,
    pub(super) stage: Stage,
    /// When it was due: set-up time counts from here.
    pub(super) due_us: u64,
    pub(super) give_up: u32,
    pub(super) interval: u32,
    pub(super) dialog: Dialog,
    pub(super) callee: super::callee::Part,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Free,
    Calling,
    Proceeding,
    HangingUp,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Refused(u16),
    Silence(&'static str),
    NoContact,
    LineLost,
    NoLine,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(code) => write!(f, "{code} {}", crate::message::reason_phrase(*code)),
            Failure::Silence(method) => write!(f, "no answer to {method} in time"),
            Failure::NoContact => f.write_str("a 200 without Contact"),
            Failure::LineLost => f.write_str("connection lost"),
            Failure::NoLine => f.write_str("no connection"),
        }
    }
}

impl Crowd {
    #[must_use]
    pub fn new(order: SetUp) -> Crowd {
        let phone = |what: &str, nth: u32| {
            // Other names in every run: a proxy may still know the phones of the last one, and would fork to them.
            let user = format!("{what}-{:06x}-{}", order.seed & 0x00ff_ffff, order.first + nth * order.step);
            let address = format!("{user}@{}", order.domain);
            Phone { user, address, line: None, coming: None, operations: 0, invite: None }
        };
        let phones: Vec<Phone> =
            (0..order.pairs).flat_map(|nth| [phone("caller", nth), phone("callee", nth)]).collect();
        Crowd {
            ids: Ids::new(order.seed, order.process),
            registering: Registering::new(phones.len()),
            order,
            phones,
            calls: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
            serial: 0,
            out: Vec::with_capacity(4_096),
            resting: VecDeque::new(),
            placing: false,
            counting: false,
            window: 0..0,
            open_calls: 0,
            next_pair: 0,
            figures: Figures::default(),
            set_up: histogram(),
            failures: BTreeMap::new(),
            opened_before: 0,
            trouble: None,
        }
    }

    /// Calls begin: a closed loop's within a moment, not all at once.
    pub fn begin(&mut self, now: Now) {
        self.placing = true;
        if self.order.arrival == Arrival::Closed {
            let pairs = u64::from(self.order.pairs.max(1));
            let at = |pair: u32| now.tick() + u32::try_from(u64::from(pair) * ENTRY / pairs).unwrap_or(0);
            self.resting = (0..self.order.pairs).map(|pair| (at(pair), pair)).collect();
        }
    }

    /// The window begins.
    pub fn open(&mut self, now: Now, lines: &Lines) {
        self.counting = true;
        self.window = now.0..u64::MAX;
        self.figures = Figures::default();
        self.set_up.reset();
        self.failures.clear();
        self.opened_before = lines.opened;
    }

    /// The window ends, and with it the calling.
    pub fn close(&mut self, now: Now, lines: &Lines) -> Figures {
        (self.counting, self.placing) = (false, false);
        self.window.end = now.0;
        self.resting.clear();
        let mut figures = std::mem::take(&mut self.figures);
        figures.connections = lines.opened - self.opened_before;
        figures.set_up = self.set_ups();
        figures.failures = self.failures();
        figures.failed_calls = figures.failures.values().sum();
        figures
    }

    /// What became of the calls that were open when the window ended. One that waits still has failed, and its time is a failure's.
    pub fn drained(&mut self, now: Now) -> Report {
        let waits = |call: &&Call| matches!(call.stage, Stage::Calling | Stage::Proceeding);
        let waiting: Vec<u64> = self.calls.iter().filter(waits).map(|call| call.due_us).collect();
        waiting.into_iter().for_each(|due_us| self.record_failure(due_us, now));
        Report::Drained { unfinished: self.open_calls, failures: self.failures(), set_up: self.set_ups() }
    }

    /// Failures since this was last asked.
    fn failures(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.failures).into_iter().map(|(why, n)| (why.to_string(), n)).collect()
    }

    /// Set-up times since this was last asked.
    fn set_ups(&mut self) -> Vec<(u64, u64)> {
        let all = self.set_up.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
        self.set_up.reset();
        all
    }

    /// Must somebody come round soon?
    #[must_use]
    pub fn is_restless(&self) -> bool {
        !self.resting.is_empty()
    }

    /// An open loop's call is due.
    pub fn place_one(&mut self, due: Now, now: Now, lines: &mut Lines) {
        if self.placing {
            let pair = self.next_pair;
            self.next_pair = (pair + 1) % self.order.pairs.max(1);
            self.figures.behind_us = self.figures.behind_us.max(now.0.saturating_sub(due.0));
            self.place(pair, due, now, lines);
        }
    }

    /// A message came over a line.
    pub fn heard(&mut self, bytes: &[u8], at: At, now: Now, lines: &mut Lines) {
        let Some(head) = read::read(bytes) else {
            self.figures.strays += 1;
            return;
        };
        match head.start {
            Start::Response(code) => self.answered(&head, code, now, lines),
            _ => self.asked(&head, at, now, lines),
        }
    }

    /// Does what is due.
    pub fn sweep(&mut self, now: Now, lines: &mut Lines) {
        let tick = now.tick();
        for place in 0..self.due.len() {
            let Some([caller, callee]) = self.due.get(place).copied() else { break };
            let place = u32::try_from(place).unwrap_or(NEVER);
            if caller <= tick {
                self.caller_due(place, now, lines);
            }
            if callee <= tick {
                self.callee_due(place, now, lines);
            }
        }
        self.register_due(now, lines);
        while let Some(&(at, pair)) = self.resting.front()
            && at <= tick
        {
            self.resting.pop_front();
            if self.placing {
                self.place(pair, now, now, lines);
            }
        }
    }

    /// The proxy closed a line, or it failed.
    pub fn lost(&mut self, at: At, now: Now, lines: &mut Lines) {
        let Some(line) = lines.close(at) else { return };
        let Some(owner) = line.owner else {
            self.trouble = Some("the proxy closed a trunk".to_owned());
            return;
        };
        if !line.ending {
            self.figures.closed_by_proxy += 1;
        }
        if line.calls > 0 {
            for place in 0..self.calls.len() {
                let hit = self.calls.get(place).is_some_and(|call| call.stage != Stage::Free && call.line == at);
                if hit {
                    self.end(u32::try_from(place).unwrap_or(NEVER), Err(Failure::LineLost), now, lines);
                }
            }
        }
        let Some(phone) = self.phones.get_mut(owner as usize) else { return };
        let used = phone.line == Some(at) || phone.coming == Some(at);
        if phone.line == Some(at) {
            phone.line = None;
        }
        if phone.coming == Some(at) {
            phone.coming = None;
        }
        // A caller opens another one with its next call; a callee must be reached.
        if used && (is_callee(owner) || self.registers_first(owner)) {
            self.register_again(owner, now);
        }
    }

    /// A new line for a phone. None: it is counted, and `trouble` says so when there will never be one again.
    pub(super) fn open_line(&mut self, phone: u32, now: Now, lines: &mut Lines) -> Option<At> {
        match lines.open(Some(phone), now.ms()) {
            Ok(at) => Some(at),
            Err(e) => {
                self.trouble = self.trouble.take().or_else(|| hopeless(&e, lines.opened));
                None
            }
        }
    }

    /// An empty place for a call, and the call's serial number.
    pub(super) fn take_place(&mut self) -> (u32, u32) {
        self.serial = self.serial.wrapping_add(1);
        let place = self.free.pop().unwrap_or_else(|| {
            self.calls.push(Call::default());
            self.due.push([NEVER; 2]);
            u32::try_from(self.calls.len() - 1).unwrap_or(NEVER)
        });
        self.open_calls += 1;
        (place, self.serial)
    }

    /// A call was set up. It counts when it was due within the window, however late it is answered: else the end of the window would cut
    /// off the long times.
    pub(super) fn record_set_up(&mut self, due_us: u64, now: Now) {
        if self.window.contains(&due_us) {
            self.set_up.saturating_record(now.0.saturating_sub(due_us).max(1));
        }
    }

    /// A call ended without being set up: among 99.9 % of the calls are also those that waited for nothing, and for no shorter time than one
    /// would have waited that heard nothing, or a proxy that refuses calls would have the better times.
    fn record_failure(&mut self, due_us: u64, now: Now) {
        if self.window.contains(&due_us) {
            let patience_us = u64::from(self.order.patience_ms) * 1_000;
            self.set_up.saturating_record(now.0.saturating_sub(due_us).max(patience_us));
        }
    }

    /// A call is over: its caller places the next one, or goes on over a new line first.
    pub(super) fn end(&mut self, place: u32, how: Result<(), Failure>, now: Now, lines: &mut Lines) {
        let Some(call) = self.calls.get_mut(place as usize).filter(|call| call.stage != Stage::Free) else { return };
        let inviting = matches!(call.stage, Stage::Calling | Stage::Proceeding);
        call.stage = Stage::Free;
        let (pair, at, due_us) = (call.pair, call.line, call.due_us);
        if let Some(due) = self.due.get_mut(place as usize) {
            *due = [NEVER; 2];
        }
        self.free.push(place);
        self.open_calls -= 1;
        if let Some(line) = lines.get_mut(at) {
            line.calls = line.calls.saturating_sub(1);
        }
        if self.order.connection_per_call {
            lines.end(at);
        }
        match how {
            Ok(()) => {
                self.used(2 * pair, now, lines);
                if self.placing && self.order.arrival == Arrival::Closed {
                    self.place(pair, now, now, lines);
                }
            }
            Err(why) => {
                if inviting {
                    self.record_failure(due_us, now);
                }
                *self.failures.entry(why).or_default() += 1;
                self.rest(pair, now);
            }
        }
    }

    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.phones.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn rest(&mut self, pair: u32, now: Now) {
        if self.placing && self.order.arrival == Arrival::Closed {
            self.resting.push_back((now.tick() + REST, pair));
        }
    }

    pub(super) fn failed_to_begin(&mut self, pair: u32, due: Now, now: Now) {
        self.record_failure(due.0, now);
        *self.failures.entry(Failure::NoLine).or_default() += 1;
        self.rest(pair, now);
    }

    /// A phone took part in a call; after so many operations it goes on over a new line. The old one stays open until the proxy closes
    /// it. A callee's new one must be registered first, or no INVITE would come over it.
    pub(super) fn used(&mut self, phone: u32, now: Now, lines: &mut Lines) {
        let Some(every) = self.order.renew_every.filter(|_| lines.wire().is_reliable()) else { return };
        let Some(of) = self.phones.get_mut(phone as usize) else { return };
        of.operations += 2;
        if of.operations < every || of.coming.is_some() {
            return;
        }
        of.operations = 0;
        if is_callee(phone) {
            self.register_over_new_line(phone, now, lines);
        } else if let Some(at) = self.open_line(phone, now, lines)
            && let Some(of) = self.phones.get_mut(phone as usize)
        {
            of.line = Some(at);
        }
    }
}

pub(super) fn is_callee(phone: u32) -> bool {
    phone % 2 == 1
}

/// What no patience mends.
fn hopeless(e: &io::Error, opened: u64) -> Option<String> {
    match e.raw_os_error().map(nix::errno::Errno::from_raw)? {
        nix::errno::Errno::EMFILE | nix::errno::Errno::ENFILE => Some(format!(
            "no file descriptor left after {opened} connections: raise `ulimit -Hn`, use more phone processes, renew less often, or \
             let the proxy close idle connections sooner"
        )),
        nix::errno::Errno::EADDRNOTAVAIL | nix::errno::Errno::EADDRINUSE => Some(format!(
            "no port left after {opened} connections: widen net.ipv4.ip_local_port_range, or renew less often"
        )),
        _ => None,
    }
}
