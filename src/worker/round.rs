//! The loop: wait, read a batch, walk it through the corridor, send, look at the time.
//!
//! One round is: the poll; a batch from all sources that are ready, worked off and flushed before the next; what other processes posted;
//! what is due. All processes run the same loop; the timer has no listeners and looks at the deadlines of the whole table; the supervisor or
//! the owner of TCP, where there is one, has TCP's listeners and no others.

use std::io;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::AsRawFd;
use sys::datagram::Arena;
use tracing::{info, warn};

use super::corridor::{Arrived, Corridor, Was};
use super::sources::Sources;
use super::{Duty, House, Seat, clock};
use crate::config::exit;
use crate::log::{self, Role};
use crate::shared::flows::{FlowView, State};
use crate::shared::{Counter, Phase};
use crate::timer::Tick;
use crate::transport::{Happening, Inbox, Ready, Transports, interfaces};

/// Messages of one batch.
const ARENA_SLOTS: usize = 64;
/// The largest UDP datagram or SCTP message fits whole.
const ARENA_SLOT_BYTES: usize = 65_536;
/// The timer process looks at the deadlines no more often than this...
const TIMER_TURN_MS: u64 = 20;
/// ... nor, after a turn in which few were due, more often than a tenth of T1 and this: timers are late by so much at most. (T1 is no more
/// than an estimate, RFC 3261 §17.1.1.1. While many are due they leave in small portions; only the first of a burst come together.)
const QUIET_TURN_MS: u64 = 50;
/// Of 50 ms: some 600 a second, of which a turn of 20 ms would find a dozen.
const FEW_DUE: usize = 32;
/// Where idle TCP connections are looked for in each turn, as OpenSER does, turns come at least this often.
const TURN_MS: u64 = 500;
/// What is due later than this is left to the master's bell, which rings whoever has not come round for a second: a time-out costs the
/// kernel a timer at every sleep.
const DISTANT_MS: u64 = 2_000;
/// Peers have this long to agree to the end of an association (RFC 9260 §9.2): a few round trips.
const CLOSING_MS: u64 = 300;
/// Contexts whose timers fire in one turn; more wait for the next, after a flush.
const DUE_PER_TURN: usize = 256;
/// The master's word: a phase, new settings.
const WAKE: Token = Token(1 << 32);

/// One process's life in its seat; its value is the exit status.
pub fn run(seat: Seat, house: &House) -> u8 {
    let role = match seat.duty {
        Duty::Worker => Role::Worker(seat.number),
        Duty::Timer => Role::Timer,
        Duty::Supervisor => Role::Supervisor,
        Duty::Owner => Role::Owner,
    };
    if let Err(error) = log::take_role(role) {
        warn!("no log thread: {error}");
    }
    let nice = house.config.tcp.supervisor_nice;
    if seat.duty == Duty::Supervisor
        && nice != 0
        && let Err(error) = sys::process::set_nice(nice)
    {
        warn!("tcp.supervisor_nice = {nice}: {error}");
    }
    let status = match Round::new(seat, house).and_then(|mut round| round.walk()) {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!("{error}");
            exit::SYSTEM
        }
    };
    log::finish();
    status
}

struct Round<'h> {
    seat: Seat,
    house: &'h House,
    poll: Poll,
    transports: Transports,
    corridor: Corridor,
    arena: Arena,
    inbox: Inbox,
    sources: Sources,
    /// More was posted than the last turn took.
    posted: bool,
    settings: u64,
    next_deadlines: Tick,
    log_dropped: u64,
}

impl<'h> Round<'h> {
    fn new(seat: Seat, house: &'h House) -> io::Result<Round<'h>> {
        let shared = &house.shared;
        let poll = Poll::new()?;
        if let Some(bell) = house.wakes.descriptor(seat.number) {
            poll.registry().register(&mut SourceFd(&bell.as_raw_fd()), WAKE, Interest::READABLE)?;
        }
        let transports =
            Transports::new(&house.config, &house.config.live, &house.sockets, shared.parts(), seat.number, &poll)?;
        let mut corridor = Corridor::new(
            shared.table,
            shared.location,
            shared.counters,
            seat.number,
            shared.key,
            &house.config.listen,
            &house.config.live,
            &interfaces::wildcard(&house.config.listen),
        );
        corridor.send_retries = house.config.sctp.send_retries;
        Ok(Round {
            seat,
            house,
            poll,
            transports,
            corridor,
            arena: Arena::new(ARENA_SLOTS, ARENA_SLOT_BYTES)?,
            inbox: Inbox::default(),
            sources: Sources::default(),
            posted: false,
            // None: the first turn takes the master's newest, which `Shared::new` has published already.
            settings: 0,
            next_deadlines: Tick(0),
            log_dropped: 0,
        })
    }

    fn walk(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        if self.seat.successor {
            let now = clock::now();
            self.corridor.wall = clock::wall();
            self.transports.adopt(&mut self.inbox);
            self.corridor.inspect();
            // Before anybody hears of lost connections: what was posted to the dead one and never read goes over new ones.
            self.transports.posted(true, &mut self.arena, &mut self.inbox, now);
            info!("took over the seat");
            self.work_off(now);
        }
        loop {
            let now = clock::now();
            self.house.shared.phases.beat(self.seat.number, now);
            self.wait(&mut events, now)?;
            // After the wait: what comes in after the master's word is treated by it.
            match self.house.shared.phases.current() {
                Phase::Running => {}
                Phase::Draining => self.corridor.draining = true,
                Phase::Closing => return self.close(&mut events),
            }
            self.settings();
            self.round(&events);
        }
    }

    /// The drain is over: closes everything in good order, and waits a moment for peers that must agree.
    fn close(&mut self, events: &mut Events) -> io::Result<()> {
        let began = clock::now();
        if self.seat.duty == Duty::Owner {
            self.outlive_workers(events, began)?;
        }
        self.transports.close_all(&mut self.inbox, began);
        while self.transports.is_closing() && clock::now().since(began) < CLOSING_MS {
            self.wait(events, clock::now())?;
            self.round(events);
        }
        self.transports.abort_all(clock::now());
        Ok(())
    }

    /// The owner of TCP goes last: the last answers of the others leave through it.
    fn outlive_workers(&mut self, events: &mut Events, began: Tick) -> io::Result<()> {
        let phases = &self.house.shared.phases;
        let one_sits = || (0..self.house.config.workers).any(|n| phases.occupant(n).is_some_and(|one| one.pid != 0));
        while one_sits() && clock::now().since(began) < CLOSING_MS {
            match self.poll.poll(events, Some(Duration::from_millis(5))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.round(events),
            }
        }
        self.transports.posted(false, &mut self.arena, &mut self.inbox, clock::now());
        Ok(())
    }

    /// Sleeps until something comes or is due.
    fn wait(&mut self, events: &mut Events, now: Tick) -> io::Result<()> {
        let mut until = self.transports.next_tick();
        if self.transports.looks_each_turn() {
            until = until.min(now + TURN_MS);
        }
        if self.seat.duty == Duty::Timer {
            until = until.min(self.next_deadlines);
        }
        let to_do = self.sources.are_unfinished()
            || self.posted
            || self.corridor.has_losses()
            || !self.corridor.outgoing.sendings.is_empty()
            || !self.inbox.happenings.is_empty();
        let busy = !self.transports.announce_sleep() || to_do;
        let timeout = match until - now {
            _ if busy => Some(Duration::ZERO),
            far if far > Duration::from_millis(DISTANT_MS) => None,
            near => Some(near),
        };
        let polled = self.poll.poll(events, timeout);
        self.transports.woke();
        // Before anybody looks at what the bell rang for: cleared later, it would swallow the word after the one that was read.
        if events.iter().any(|event| event.token() == WAKE) {
            let _ = self.house.wakes.clear(self.seat.number);
        }
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    fn round(&mut self, events: &Events) {
        let now = clock::now();
        self.corridor.wall = clock::wall();
        let named = events.iter().filter(|event| Transports::owns(event.token()));
        let mut sources = self.sources.take(named.map(|event| (event.token(), Ready::from(event))));
        if !sources.is_empty() {
            self.count(Counter::WakeUps, 1);
        }
        // First read them all, until there is a batch: some connections with a message each are one like as many datagrams, and code and
        // data of each room stay at hand. No more than that: what is sent would come to its peer in one piece, larger than queues are.
        for (token, ready) in sources.drain(..) {
            if self.transports.receive(token, ready, &mut self.arena, &mut self.inbox, now) {
                self.sources.remember((token, ready));
            }
            let full = self.inbox.used >= ARENA_SLOTS || self.inbox.frames.len() >= ARENA_SLOTS;
            if full || !self.inbox.happenings.is_empty() {
                self.work_off(now);
            }
        }
        self.work_off(now);
        self.sources.give_back(sources);
        // Once: others may post faster than this process works it off, and it must come round to say that it is alive.
        let losses = self.corridor.has_losses();
        self.posted = self.transports.posted(losses, &mut self.arena, &mut self.inbox, now);
        if self.posted {
            self.work_off(now);
        }
        if self.transports.is_due(now) {
            self.transports.tick(&mut self.inbox, now);
        }
        if self.seat.duty == Duty::Timer && self.next_deadlines <= now {
            self.corridor.expire(now);
            self.next_deadlines = match self.corridor.deadlines(now, DUE_PER_TURN) {
                DUE_PER_TURN => now,
                fired => self.corridor.next_look(now).max(now + timer_turn(self.corridor.live.timers.t1_ms, fired)),
            };
        }
        // First what has moved from what is lost to another connection.
        self.work_off(now);
        if self.corridor.has_losses() {
            let flows = &self.house.shared.flows;
            self.corridor.work_off_losses(now, |transport, peer, was| {
                // An association whose peer restarted is lost and still there.
                let next = flows.find_by_peer(transport, peer);
                next.filter(|flow| flow.id != was.id && is_newer(flow, was.association)).map(|flow| flow.begun)
            });
            self.work_off(now);
        }
        self.log_dropped();
    }

    /// Walks what was received through the corridor and sends what comes out of it.
    fn work_off(&mut self, now: Tick) {
        for frame in &self.inbox.frames {
            let slot = self.arena.slot(usize::from(frame.slot));
            let bytes = slot.get(frame.start as usize..frame.end as usize).unwrap_or_default();
            let arrived = Arrived { bytes, slot: frame.slot, start: frame.start, from: frame.from };
            self.corridor.frame(arrived, now);
        }
        // Sending may fail, and a failure may have another address to try, which may fail too; what is left after a few times
        // waits for the next round.
        for _ in 0..4 {
            // Also when nothing is to be sent: it ends connections whose last frame got no answer.
            self.transports.flush(&mut self.corridor.outgoing, &self.arena, &mut self.inbox, now);
            if self.inbox.happenings.is_empty() {
                break;
            }
            for happening in self.inbox.happenings.drain(..) {
                match happening {
                    Happening::Lost { transport, peers, id, association } => {
                        for peer in peers {
                            // Until now: what another process has sent while this round went on, went over the lost one, too.
                            self.corridor.lost(transport, peer, Was { id, association }, clock::now());
                        }
                    }
                    Happening::OwnerDied { transport, peers } => {
                        for peer in peers {
                            // Not what is sent again in this very moment.
                            self.corridor.owner_died(transport, peer, Tick(now.0.saturating_sub(1)));
                        }
                    }
                    Happening::SendFailed { client } => self.corridor.send_failed(client, now),
                    Happening::Undelivered { client, lost } => self.corridor.undelivered(client, lost, now),
                    Happening::Moved { client } => self.corridor.moved(client, clock::now()),
                }
            }
        }
        self.inbox.clear_frames();
        self.transports.worked_off(&mut self.inbox);
    }

    /// The master's newest settings (SIGHUP).
    fn settings(&mut self) {
        if self.house.shared.settings.version() == self.settings {
            return;
        }
        if let Some((version, live)) = self.house.shared.settings.read() {
            self.settings = version;
            log::set_level(live.log.level);
            self.transports.reload(&live);
            self.corridor.reload(live, &interfaces::wildcard(&self.house.config.listen));
        }
    }

    fn log_dropped(&mut self) {
        let dropped = log::dropped();
        self.count(Counter::LogDropped, dropped - self.log_dropped);
        self.log_dropped = dropped;
    }

    fn count(&self, counter: Counter, n: u64) {
        if n > 0 {
            self.house.shared.counters.add(self.seat.number, counter, n);
        }
    }
}

/// Milliseconds until the timer process looks again, after a turn in which so many were due.
fn timer_turn(t1_ms: u64, fired: usize) -> u64 {
    if fired > FEW_DUE { TIMER_TURN_MS } else { (t1_ms / 10).clamp(TIMER_TURN_MS, QUIET_TURN_MS) }
}

/// Than the lost one? The kernel numbers its associations upwards (M42), when they come up; one that is older, or this very one, may just
/// have been entered by a process that has read of its beginning, but not of its end (M27). One is set up where the kernel has none.
fn is_newer(flow: &FlowView, association: u32) -> bool {
    association == 0
        || flow.state == State::Opening
        || (1..1 << 31).contains(&flow.association.wrapping_sub(association))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_process_looks_less_often_only_where_little_is_due_and_never_rarer_than_a_tenth_of_t1() {
        assert_eq!(timer_turn(500, 0), QUIET_TURN_MS);
        assert_eq!(timer_turn(500, FEW_DUE), QUIET_TURN_MS);
        assert_eq!(timer_turn(500, FEW_DUE + 1), TIMER_TURN_MS);
        assert_eq!((timer_turn(300, 0), timer_turn(100, 0), timer_turn(5_000, 0)), (30, TIMER_TURN_MS, QUIET_TURN_MS));
    }
}
