//! Places calls among many phones, as many at once or as many a second as asked, and counts what becomes of them.
//!
//! Owns: the phones' loop (one mio `Poll`), their clock, their alarms, and the figures. Never looks into a message. The caller's side
//! is what counts: a call is placed once, and ends once, well or badly.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use super::agent::{Agent, CallId, Failure, Manner, Step};
use super::compose::Identity;
use super::ladder::{Ladder, Side, Way};
use super::line::{Buffers, Line, Stack};
use crate::transport::Transport;

/// When the next call begins.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Closed loop: this many calls at once; one ends, the next begins.
    AtOnce(usize),
    /// Open loop: this many begin a second, whatever becomes of them.
    PerSecond(f64),
}

/// What to place.
#[derive(Clone, Copy, Debug)]
pub struct Order<'o> {
    pub calls: u64,
    /// No call begins later than this after the first, so fewer may be placed.
    pub longest: Duration,
    pub pace: Pace,
    /// Phones that call, in turn.
    pub callers: &'o [usize],
    /// Phones that are called, in turn.
    pub callees: &'o [usize],
}

/// What became of an order.
#[derive(Clone, Debug)]
pub struct Tally {
    pub placed: u64,
    pub completed: u64,
    pub failed: u64,
    /// What failed calls failed of.
    pub failures: BTreeMap<Failure, u64>,
    /// 2xx that were never acknowledged, seen by the callees.
    pub unacknowledged: u64,
    /// INVITE to 200 as the caller saw it, in microseconds.
    pub set_up: Histogram<u64>,
    /// First INVITE to the end of the last call.
    pub took: Duration,
    /// Messages sent again, by all phones.
    pub retransmitted: u64,
    /// Open loop: the most that a call began after its time. More than a few ms means that these phones were the bottleneck.
    pub behind: Duration,
}

/// Phones on one poll.
pub struct Load {
    poll: Poll,
    events: Events,
    buffers: Buffers,
    phones: Vec<Phone>,
    /// Earliest first: when, which phone, what of it.
    alarms: BinaryHeap<Reverse<(Instant, usize, Alarm)>>,
    stack: Stack,
    steps: Vec<Step>,
    domain: String,
    seed: String,
    manner: Manner,
    tally: Tally,
    registered: u64,
    unregistered: BTreeMap<Failure, u64>,
    watch: Option<Watch>,
}

struct Phone {
    agent: Agent,
    /// None while the proxy cannot be reached.
    line: Option<Line>,
    proxy: SocketAddr,
    stack: Stack,
    /// Seconds to register for; 0: never registered. Used again when the line had to be opened anew.
    expires: u32,
    /// When `Alarm::Line` rings for it next.
    armed: Option<Instant>,
}

/// Why a line is served.
#[derive(Clone, Copy, Debug)]
enum Ready {
    Readable,
    Writable,
    /// Its own timer rang.
    Due,
}

/// What of a phone is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Call(CallId),
    /// Its line was lost and is opened again.
    Reopen,
    /// A timer of its line's own.
    Line,
}

/// The call whose ladder is drawn: the first one after `watch`.
struct Watch {
    caller: usize,
    callee: usize,
    ladder: Option<Ladder>,
}

/// UDP port of SCTP in user space (RFC 6951 §5.1).
const ENCAPSULATION_PORT: u16 = 9899;
/// A line that was lost is opened again this much later.
const REOPEN: Duration = Duration::from_millis(200);

#[allow(
    clippy::disallowed_methods,
    reason = "phones have a process and a clock of their own, outside the message path"
)]
fn now() -> Instant {
    Instant::now()
}

impl Load {
    /// Phones of `domain`, none yet.
    ///
    /// # Errors
    /// No poll, no memory, no random numbers.
    pub fn new(domain: &str, manner: Manner) -> io::Result<Load> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Load {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffers: Buffers::new()?,
            phones: Vec::new(),
            alarms: BinaryHeap::new(),
            stack: if sys::sctp::supported() { Stack::Kernel } else { Stack::User(ENCAPSULATION_PORT) },
            steps: Vec::new(),
            domain: domain.to_owned(),
            seed: format!("{:016x}", u64::from_ne_bytes(seed)),
            manner,
            tally: Tally::new(),
            registered: 0,
            unregistered: BTreeMap::new(),
            watch: None,
        })
    }

    /// Which SCTP the phones speak that are added from now on. At first: the kernel's; where it has none, in user space to UDP port
    /// 9899.
    pub fn speak(&mut self, stack: Stack) {
        self.stack = stack;
    }

    /// Adds a phone with a line from `ip` to `proxy`; returns its number.
    ///
    /// # Errors
    /// No socket, or nobody listens at `proxy`.
    pub fn add_phone(&mut self, user: &str, transport: Transport, ip: IpAddr, proxy: SocketAddr) -> io::Result<usize> {
        let at = self.phones.len();
        let line = Line::open(transport, ip, proxy, self.stack, self.poll.registry(), Token(at))?;
        let me = Identity {
            user: user.to_owned(),
            domain: self.domain.clone(),
            transport,
            local: line.local,
            seed: self.seed.clone(),
        };
        let (agent, stack) = (Agent::new(me, self.manner), self.stack);
        self.phones.push(Phone { agent, line: Some(line), proxy, stack, expires: 0, armed: None });
        Ok(at)
    }

    #[must_use]
    pub fn transport(&self, phone: usize) -> Option<Transport> {
        self.phones.get(phone).map(|phone| phone.agent.me.transport)
    }

    /// Registers `phones` for `expires` seconds, a hundred at once. Returns what went wrong, and how often.
    ///
    /// # Errors
    /// The poll failed.
    pub fn register(&mut self, phones: &[usize], expires: u32) -> io::Result<BTreeMap<Failure, u64>> {
        (self.registered, self.unregistered) = (0, BTreeMap::new());
        for group in phones.chunks(100) {
            let answered = |load: &Load| load.registered + load.unregistered.values().sum::<u64>();
            let target = answered(self) + group.len() as u64;
            for &at in group {
                let now = now();
                if let Some(phone) = self.phones.get_mut(at) {
                    phone.expires = expires;
                    phone.agent.register(expires, now, &mut self.steps);
                    self.carry_out(at, now);
                }
            }
            while answered(self) < target {
                self.turn(None)?;
            }
        }
        Ok(std::mem::take(&mut self.unregistered))
    }

    /// Draws the ladder of the next call, if it goes from `caller` to `callee`.
    pub fn watch(&mut self, caller: usize, callee: usize) {
        self.watch = Some(Watch { caller, callee, ladder: None });
    }

    /// The ladder of the watched call.
    pub fn ladder(&mut self) -> Option<Ladder> {
        self.watch.take().and_then(|watch| watch.ladder)
    }

    /// Lets the phones answer what has come, without waiting: an association in user space lives only as long as somebody attends to it.
    ///
    /// # Errors
    /// The poll failed.
    pub fn attend(&mut self) -> io::Result<()> {
        self.turn(Some(now()))
    }

    /// Places the calls and returns when the last one is over. `progress` hears of it ten times a second and after each call, and may
    /// break off.
    ///
    /// # Errors
    /// The poll failed, or `order` names no phones.
    pub fn place(&mut self, order: &Order, progress: &mut dyn FnMut(&Tally) -> ControlFlow<()>) -> io::Result<Tally> {
        if order.callers.is_empty() || order.callees.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an order without callers or callees"));
        }
        let again: u64 = self.phones.iter().map(|phone| phone.agent.retransmitted).sum();
        self.tally = Tally::new();
        let began = now();
        let (mut over, mut calls) = (0, order.calls);
        while self.tally.over() < calls {
            let mut next = None;
            while self.tally.placed < calls {
                let now = now();
                if now - began > order.longest {
                    calls = self.tally.placed;
                    break;
                }
                match order.pace {
                    Pace::AtOnce(most) if self.tally.open() >= most.max(1) as u64 => break,
                    Pace::AtOnce(_) => {}
                    Pace::PerSecond(rate) => {
                        let at = began + Duration::from_secs_f64(self.tally.placed as f64 / rate.max(1e-3));
                        if at > now {
                            next = Some(at);
                            break;
                        }
                        self.tally.behind = self.tally.behind.max(now - at);
                    }
                }
                self.place_one(order, now);
            }
            self.turn(next)?;
            if (self.tally.over() != over || self.tally.open() == 0 || self.events.is_empty())
                && progress(&self.tally).is_break()
            {
                break;
            }
            over = self.tally.over();
        }
        self.tally.took = now() - began;
        self.tally.retransmitted = self.phones.iter().map(|phone| phone.agent.retransmitted).sum::<u64>() - again;
        Ok(std::mem::replace(&mut self.tally, Tally::new()))
    }

    fn place_one(&mut self, order: &Order, now: Instant) {
        let nth = usize::try_from(self.tally.placed).unwrap_or(usize::MAX);
        self.tally.placed += 1;
        let pick = |list: &[usize]| list.get(nth % list.len()).copied().unwrap_or(usize::MAX);
        let (caller, callee) = (pick(order.callers), pick(order.callees));
        let uri = self.phones.get(callee).map(|phone| phone.agent.me.address_of_record());
        let (Some(uri), Some(phone)) = (uri, self.phones.get_mut(caller)) else {
            self.tally.fail(Failure::LineLost);
            return;
        };
        let call = phone.agent.call(&uri, now, &mut self.steps);
        if let Some(watch) = self.watch.as_mut()
            && (watch.caller, watch.callee) == (caller, callee)
            && watch.ladder.is_none()
        {
            watch.ladder = Some(Ladder::of(call));
        }
        self.carry_out(caller, now);
    }

    /// Waits for messages or the next alarm, at most until `until` and never longer than 100 ms, and works them off.
    fn turn(&mut self, until: Option<Instant>) -> io::Result<()> {
        let mut timeout = Duration::from_millis(100);
        let before = now();
        for at in self.alarms.peek().map(|Reverse((at, ..))| *at).into_iter().chain(until) {
            timeout = timeout.min(at.saturating_duration_since(before));
        }
        // epoll counts in milliseconds; mio rounds up. A wait of less would overshoot, so poll without waiting instead.
        if timeout < Duration::from_millis(1) {
            timeout = Duration::ZERO;
        }
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
        let ready = |e: &mio::event::Event| if e.is_writable() { Ready::Writable } else { Ready::Readable };
        let ready: Vec<(usize, Ready)> = self.events.iter().map(|e| (e.token().0, ready(e))).collect();
        for (at, ready) in ready {
            self.serve(at, ready);
        }
        let now = now();
        while let Some(Reverse((at, ..))) = self.alarms.peek()
            && *at <= now
        {
            let Some(Reverse((_, at, alarm))) = self.alarms.pop() else { break };
            match alarm {
                Alarm::Call(call) => {
                    if let Some(phone) = self.phones.get_mut(at) {
                        phone.agent.due(&call, now, &mut self.steps);
                    }
                }
                Alarm::Reopen => self.reopen(at, now),
                Alarm::Line => {
                    if let Some(phone) = self.phones.get_mut(at) {
                        phone.armed = None;
                    }
                    self.serve(at, Ready::Due);
                }
            }
            self.carry_out(at, now);
        }
        Ok(())
    }

    fn serve(&mut self, at: usize, ready: Ready) {
        let Load { phones, buffers, steps, watch, .. } = self;
        let Some(phone) = phones.get_mut(at) else { return };
        let Phone { agent, line: Some(line), .. } = phone else { return };
        let mut each = |bytes: &[u8]| {
            let now = now();
            note(watch.as_mut(), at, Way::FromProxy, bytes, now);
            agent.receive(bytes, now, steps);
        };
        let before = match ready {
            Ready::Readable => Ok(()),
            Ready::Writable => line.writable(buffers),
            Ready::Due => line.due(&mut each),
        };
        let state = before.and_then(|()| line.receive(buffers, &mut each));
        let now = now();
        self.carry_out(at, now);
        if state.is_err() {
            self.lose(at, now);
        }
    }

    /// Does what the agent of phone `at` decided.
    fn carry_out(&mut self, at: usize, now: Instant) {
        let mut lost = false;
        let mut steps = std::mem::take(&mut self.steps);
        for step in steps.drain(..) {
            match step {
                Step::Send(bytes) => {
                    let Some(phone) = self.phones.get_mut(at) else { continue };
                    note(self.watch.as_mut(), at, Way::ToProxy, &bytes, self::now());
                    lost |= phone.line.as_mut().is_none_or(|line| line.send(&bytes, &mut self.buffers).is_err());
                }
                Step::Wake { at: when, call } => self.alarms.push(Reverse((when, at, Alarm::Call(call)))),
                Step::Registered(Ok(())) => self.registered += 1,
                Step::Registered(Err(why)) => *self.unregistered.entry(why).or_default() += 1,
                Step::Answered { after, .. } => {
                    let _ = self.tally.set_up.record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
                }
                Step::Ended { how: Ok(()), .. } => self.tally.completed += 1,
                Step::Ended { how: Err(why), .. } => self.tally.fail(why),
                Step::Unacknowledged { .. } => self.tally.unacknowledged += 1,
            }
        }
        self.steps = steps;
        self.arm(at);
        if lost {
            self.lose(at, now);
        }
    }

    /// Rings when the line's own timers want it, if that is earlier than it would ring anyway.
    fn arm(&mut self, at: usize) {
        let Some(phone) = self.phones.get_mut(at) else { return };
        let Some(next) = phone.line.as_ref().and_then(Line::next) else { return };
        if phone.armed.is_none_or(|armed| next < armed) {
            phone.armed = Some(next);
            self.alarms.push(Reverse((next, at, Alarm::Line)));
        }
    }

    /// The line of phone `at` is gone: its calls fail now, the line is opened again soon.
    fn lose(&mut self, at: usize, now: Instant) {
        let Some(phone) = self.phones.get_mut(at) else { return };
        if phone.line.take().is_some() {
            self.alarms.push(Reverse((now + REOPEN, at, Alarm::Reopen)));
        }
        phone.agent.line_lost(&mut self.steps);
        self.carry_out(at, now);
    }

    fn reopen(&mut self, at: usize, now: Instant) {
        let Some(phone) = self.phones.get_mut(at) else { return };
        let me = &mut phone.agent.me;
        match Line::open(me.transport, me.local.ip(), phone.proxy, phone.stack, self.poll.registry(), Token(at)) {
            Ok(line) => {
                me.local = line.local;
                phone.line = Some(line);
                if phone.expires > 0 {
                    phone.agent.register(phone.expires, now, &mut self.steps);
                }
            }
            Err(_) => self.alarms.push(Reverse((now + REOPEN, at, Alarm::Reopen))),
        }
    }
}

fn note(watch: Option<&mut Watch>, phone: usize, way: Way, bytes: &[u8], now: Instant) {
    let Some(Watch { caller, callee, ladder: Some(ladder) }) = watch else { return };
    if phone == *caller {
        ladder.note(Side::Caller, way, bytes, now);
    } else if phone == *callee {
        ladder.note(Side::Callee, way, bytes, now);
    }
}

impl Tally {
    fn new() -> Tally {
        Tally {
            placed: 0,
            completed: 0,
            failed: 0,
            failures: BTreeMap::new(),
            unacknowledged: 0,
            set_up: histogram(),
            took: Duration::ZERO,
            retransmitted: 0,
            behind: Duration::ZERO,
        }
    }

    /// Calls that ended, well or badly.
    #[must_use]
    pub fn over(&self) -> u64 {
        self.completed + self.failed
    }

    /// Calls that were placed and have not ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.placed.saturating_sub(self.over())
    }

    /// Completed calls a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.completed as f64 / self.took.as_secs_f64().max(1e-9)
    }

    fn fail(&mut self, why: Failure) {
        self.failed += 1;
        *self.failures.entry(why).or_default() += 1;
    }
}

/// Microseconds up to ten minutes, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("1 to 600,000,000 with 3 digits are valid bounds")
}
