//! The supervisor: holds every connection, reads none.
//!
//! Owns: a descriptor of each connection, who is next to own one (round-robin), and what it has to say to each
//! process. It answers every question at once and never waits: what a process has no room for stays in a bounded list here. It sends no
//! SIP message itself.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use slab::Slab;
use sys::datagram::Arena;
use sys::passing::Wait;

use super::LINES;
use super::ipc::{self, Note, Word};
use super::reader::let_go;
use crate::config::{self, Config};
use crate::shared::counters::Counter;
use crate::shared::flows::Judgement;
use crate::shared::mailbox::Kind;
use crate::timer::Tick;
use crate::transport::desk::{Desk, End};
use crate::transport::owned::post;
use crate::transport::tcp::acceptor::{Accepted, Acceptor};
use crate::transport::transports::CONNECTIONS;
use crate::transport::{FlowId, Inbox, Outgoing, Parts, Transport};

/// Notes that wait for one process. One that has no room for more gets no more connections; a sender has one question open.
pub(super) const WAITING: usize = 1_024;

pub struct Supervisor {
    pub(super) settings: config::Tcp,
    pub(super) registry: Registry,
    acceptor: Acceptor,
    pub(super) held: Slab<Held>,
    pub(super) by_id: HashMap<FlowId, usize>,
    /// By seat.
    pub(super) lines: Vec<Line>,
    /// The worker that was made an owner last.
    last_owner: usize,
}

/// A connection.
pub(super) struct Held {
    pub(super) stream: TcpStream,
    pub(super) id: FlowId,
    /// Our own seat: it was returned.
    pub(super) owner: usize,
    /// We wait for it to be readable: then it gets an owner again.
    pub(super) watched: bool,
}

/// The way to one process.
pub(super) struct Line {
    pub(super) asks: BorrowedFd<'static>,
    pub(super) news: BorrowedFd<'static>,
    /// What there was no room for.
    pub(super) answers: VecDeque<Note>,
    pub(super) assignments: VecDeque<Note>,
    /// A question for a connection that another process is opening.
    pub(super) parked: Option<Note>,
}

impl Supervisor {
    pub fn new(config: &Config, ends: &mut [End], parts: &Parts, registry: Registry) -> io::Result<Supervisor> {
        let mut lines = Vec::new();
        for (asks, news) in (0..).map_while(|seat| parts.supervision.supervisors_ends(seat)) {
            for (place, end) in [asks, news].into_iter().enumerate() {
                let token = Token(CONNECTIONS + LINES + 2 * lines.len() + place);
                registry.register(&mut SourceFd(&end.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)?;
            }
            lines.push(Line { asks, news, answers: VecDeque::new(), assignments: VecDeque::new(), parked: None });
        }
        Ok(Supervisor {
            settings: config.tcp.clone(),
            acceptor: Acceptor::new(ends, &registry)?,
            registry,
            held: Slab::new(),
            by_id: HashMap::new(),
            lines,
            last_owner: 0,
        })
    }

    pub fn accept(&mut self, desk: &mut Desk, listener: u8, inbox: &mut Inbox, now: Tick) -> bool {
        let (batch, more) = self.acceptor.accept(desk, listener, now);
        for Accepted { stream, id, .. } in batch {
            self.enter_queue(desk, id, now);
            self.hold(desk, id, stream, inbox, now);
        }
        more
    }

    pub(super) fn hold(&mut self, desk: &Desk, id: FlowId, stream: TcpStream, inbox: &mut Inbox, now: Tick) {
        let slot = self.held.insert(Held { stream, id, owner: desk.seat, watched: false });
        self.by_id.insert(id, slot);
        self.assign(desk, slot, inbox, now);
    }

    /// Makes the next worker its owner, and passes it a descriptor.
    pub(super) fn assign(&mut self, desk: &Desk, slot: usize, inbox: &mut Inbox, now: Tick) {
        let owner = self.next_owner(desk.workers);
        let Some(held) = self.held.get_mut(slot) else { return };
        let id = held.id;
        let Some(owner) = owner else {
            desk.count(Counter::ConnectionsRefused, 1);
            return self.end(desk, id, inbox);
        };
        if std::mem::take(&mut held.watched) {
            let _ = self.registry.deregister(&mut held.stream);
        }
        held.owner = owner;
        desk.parts.flows.judge(id, now, |_| Judgement::Give(owner));
        desk.count(Counter::ConnectionsAssigned, 1);
        if let Some(line) = self.lines.get_mut(owner) {
            line.assignments.push_back(Note::of(Word::Own, id));
        }
        self.say_what_waits(owner);
    }

    /// Round-robin, but for workers that take nothing.
    fn next_owner(&mut self, workers: usize) -> Option<usize> {
        for _ in 0..workers {
            self.last_owner = (self.last_owner + 1) % workers;
            if self.lines.get(self.last_owner).is_some_and(|line| line.assignments.len() < WAITING) {
                return Some(self.last_owner);
            }
        }
        None
    }

    /// Ends a connection, for all who have a descriptor of it.
    pub(super) fn end(&mut self, desk: &Desk, id: FlowId, inbox: &mut Inbox) {
        let_go(desk, id, inbox);
        if self.settings.priority_queue {
            desk.parts.supervision.queue.remove(id);
        }
        let slot = self.by_id.remove(&id);
        let Some(mut held) = slot.and_then(|slot| self.held.try_remove(slot)) else { return };
        if held.watched {
            let _ = self.registry.deregister(&mut held.stream);
        }
        // Fails when the peer is gone. Whoever reads it hears the end.
        let _ = held.stream.shutdown(Shutdown::Both);
    }

    /// A worker sends for us.
    pub fn flush(&mut self, desk: &mut Desk, list: &[u32], outgoing: &Outgoing, arena: &Arena, inbox: &mut Inbox) {
        for index in list.iter().copied() {
            let Some((sending, pieces)) = outgoing.item(index, arena) else { continue };
            let seat = index as usize % desk.workers.max(1);
            post(desk, seat, Kind::Send, &sending.to, sending.client, pieces, inbox);
        }
    }

    /// Each turn: who waits for room, and idle connections.
    pub fn tick(&mut self, desk: &mut Desk, inbox: &mut Inbox, now: Tick) {
        for listener in self.acceptor.due(now) {
            if self.accept(desk, listener, inbox, now) {
                self.acceptor.ask_again(listener, now);
            }
        }
        for seat in 0..self.lines.len() {
            self.say_what_waits(seat);
        }
        self.answer_parked(desk);
        self.close_idle(desk, inbox, now);
    }

    pub fn next_tick(&self, parts: &Parts) -> Tick {
        let again = self.acceptor.next_tick();
        if self.settings.priority_queue { parts.supervision.queue.next().min(again) } else { again }
    }

    /// Our predecessor's connections died with it, but for the descriptors of others: those hear of the new epoch.
    pub fn adopt(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        desk.parts.supervision.begin_epoch();
        // First: what others open from now on they enter anew.
        desk.parts.supervision.queue.clear();
        let mut all = Vec::new();
        desk.parts.flows.for_each(Transport::Tcp, |flow| all.push(flow.id));
        for id in all {
            let_go(desk, id, inbox);
        }
        for line in &self.lines {
            // Wakes whoever waits for an answer of the dead one; without room it is awake.
            let _ = ipc::say(line.asks, Note::of(Word::Gone, FlowId::NONE), None, Wait::No);
        }
    }

    pub fn close_all(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        let all: Vec<FlowId> = self.by_id.keys().copied().collect();
        all.into_iter().for_each(|id| self.end(desk, id, inbox));
    }
}
