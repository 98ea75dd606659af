//! Sending, in any process but the supervisor: as OpenSER's `tcp_send`.
//!
//! Owns: finding the connection under the table's lock, asking the supervisor for its descriptor and waiting for it, and closing
//! it afterwards (or keeping it: `cache`). Each message by itself, and the owner of a connection asks like everybody else: both as in
//! OpenSER ("todo: see if this is not the same process holding c").

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;

use sys::datagram::Arena;
use sys::passing::Wait;

use super::cache::Cache;
use super::ipc::{self, Note, Word};
use super::patience::{Patience, SUPERVISOR_PATIENCE};
use super::writing;
use crate::config;
use crate::message::branch::BranchId;
use crate::shared::counters::Counter;
use crate::shared::flows::Claim;
use crate::timer::Tick;
use crate::transport::desk::Desk;
use crate::transport::{Flow, FlowId, Happening, Inbox, Outgoing, Transport};

/// Milliseconds between two looks for kept descriptors whose connection is over.
const PURGE_MS: u64 = 500;

/// Answers to earlier questions that are read before ours; there is one for each question that was given up.
const STALE: usize = 1_000;

pub struct Sender {
    pub(super) settings: config::Tcp,
    pub(super) asks: BorrowedFd<'static>,
    pub(super) patience: Patience,
    pub(super) cache: Option<Cache>,
    /// What the supervisor has had no room for: each connection is bad once.
    unsaid: VecDeque<Note>,
    /// Of the last question: no successor or predecessor of this process asks with the same.
    number: u64,
    /// Of `Supervision::ended`, when the cache was looked through.
    ended: u64,
    purged: Tick,
}

/// Where a message goes.
enum Found {
    There(FlowId),
    /// This process opens it.
    Open(FlowId, Flow),
    Nowhere,
}

impl Sender {
    pub fn new(settings: config::Tcp, asks: BorrowedFd<'static>) -> Sender {
        let cache = settings.descriptor_cache.then(|| Cache::new(settings.descriptor_cache_size));
        let number = u64::from(std::process::id()) << 32;
        Sender {
            settings,
            asks,
            patience: Patience::default(),
            cache,
            unsaid: VecDeque::new(),
            number,
            ended: 0,
            purged: Tick(0),
        }
    }

    /// When the supervisor looks at a connection again that is used now.
    pub(super) fn supervisors_deadline(&self, now: Tick) -> Tick {
        now + (self.settings.idle_s + self.settings.supervisor_idle_s).saturating_mul(1000)
    }

    /// Sends the messages at these places of `outgoing`.
    pub fn flush(
        &mut self,
        desk: &mut Desk,
        list: &[u32],
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        for index in list.iter().copied() {
            let Some((sending, pieces)) = outgoing.item(index, arena) else { continue };
            self.send(desk, &sending.to, sending.client, pieces, inbox, now);
        }
    }

    fn send(
        &mut self,
        desk: &mut Desk,
        to: &Flow,
        client: Option<BranchId>,
        pieces: [&[u8]; 2],
        inbox: &mut Inbox,
        now: Tick,
    ) {
        let (id, opened) = match self.find(desk, to, client, inbox, now) {
            Found::There(id) => (id, None),
            Found::Open(id, to) => match self.open(desk, id, to.peer, now) {
                Some(stream) => {
                    // A request on it is somebody's loss when it ends.
                    desk.parts.flows.take_up(id, client.is_some(), now);
                    (id, Some(stream))
                }
                None => return self.failed(desk, client, inbox),
            },
            Found::Nowhere => return self.failed(desk, client, inbox),
        };
        match self.send_on(desk, id, opened, pieces, now) {
            Ok(()) => {
                desk.count(Counter::SentTcp, 1);
                desk.parts.flows.touch(id, 0, 1, 0, now);
            }
            // The supervisor does not answer, or there is no room for what it gives: that says nothing of the connection.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.failed(desk, client, inbox),
            Err(e) => {
                desk.count(Counter::Stalled, u64::from(e.kind() == io::ErrorKind::TimedOut));
                self.bad(desk, id, inbox);
                self.failed(desk, client, inbox);
            }
        }
    }

    /// Writes it, with a descriptor that is at hand or that the supervisor gives.
    fn send_on(
        &mut self,
        desk: &Desk,
        id: FlowId,
        opened: Option<TcpStream>,
        pieces: [&[u8]; 2],
        now: Tick,
    ) -> io::Result<()> {
        let supervision = &desk.parts.supervision;
        if opened.is_none()
            && let Some(kept) = self.cache.as_mut().and_then(|cache| cache.get(id))
        {
            desk.count(Counter::DescriptorsKept, 1);
            return writing::write(supervision, id, kept, pieces, &mut self.patience, now);
        }
        let stream = opened.map_or_else(|| self.descriptor(desk, id, now), Ok)?;
        writing::write(supervision, id, &stream, pieces, &mut self.patience, now)?;
        if let Some(cache) = &mut self.cache {
            cache.keep(id, stream);
        }
        // Else it is closed here.
        Ok(())
    }

    /// Finds a connection, or claims one to open (A15, E08, A17; as `owned::way`).
    fn find(&mut self, desk: &Desk, to: &Flow, client: Option<BranchId>, inbox: &mut Inbox, now: Tick) -> Found {
        let flows = &desk.parts.flows;
        let mut to = *to;
        if to.id != FlowId::NONE {
            if flows.take_up(to.id, client.is_some(), now).is_some() {
                return Found::There(to.id);
            }
            // It is gone. A request is for whoever is there; a response goes to the sent-by port.
            match client {
                Some(client) => inbox.happenings.push(Happening::Moved { client }),
                None if to.fallback_port == 0 => return Found::Nowhere,
                None => to.peer = to.peer.with_port(to.fallback_port),
            }
            to.id = FlowId::NONE;
        }
        match flows.claim(Transport::Tcp, to.peer, to.listener, desk.seat, desk.connections(), now) {
            Claim::Mine(id) => Found::Open(id, to),
            Claim::Other(flow) => match flows.take_up(flow.id, client.is_some(), now) {
                Some(flow) => Found::There(flow.id),
                None => Found::Nowhere,
            },
            Claim::Full(refusal) => {
                desk.count_refusal(Counter::ConnectionsRefused, refusal);
                Found::Nowhere
            }
        }
    }

    /// One from the supervisor; `WouldBlock`: it cannot be had now.
    fn descriptor(&mut self, desk: &Desk, id: FlowId, now: Tick) -> io::Result<TcpStream> {
        desk.count(Counter::DescriptorsAsked, 1);
        self.supervised(desk, now, |sender| sender.ask(desk, id))?.ok_or_else(|| {
            desk.count(Counter::SocketErrors, 1);
            io::ErrorKind::WouldBlock.into()
        })
    }

    /// Says something to the supervisor that may take as long as it has patience; `WouldBlock`: it was silent.
    pub(super) fn supervised<R>(
        &mut self,
        desk: &Desk,
        now: Tick,
        say: impl FnOnce(&mut Sender) -> io::Result<R>,
    ) -> io::Result<R> {
        let patience = u64::try_from(SUPERVISOR_PATIENCE.as_millis()).unwrap_or(u64::MAX);
        if self.patience.left(now) < patience {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let said = say(self);
        if said.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
            self.patience.spend(patience);
            desk.count(Counter::SupervisorSilent, 1);
        }
        said
    }

    /// Asks and waits. None: there is one, but this process has no room for it (EMFILE).
    fn ask(&mut self, desk: &Desk, id: FlowId) -> io::Result<Option<TcpStream>> {
        let epoch = desk.parts.supervision.epoch();
        self.number += 1;
        let question = Note { word: Word::Get, number: self.number, id };
        ipc::say(self.asks, question, None, Wait::Yes)?;
        for _ in 0..STALE {
            let (answer, descriptor) = ipc::hear(self.asks, Wait::Yes)?;
            if answer.number == self.number {
                return match answer.word {
                    Word::Here if answer.id == id => Ok(descriptor.map(TcpStream::from)),
                    _ => Err(io::ErrorKind::NotConnected.into()),
                };
            }
            // An answer that came too late, or the word of a new supervisor: it does not know what the old one was asked.
            if desk.parts.supervision.epoch() != epoch {
                return Err(io::ErrorKind::NotConnected.into());
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// It cannot be written: nobody finds it any more, and the supervisor ends it.
    fn bad(&mut self, desk: &Desk, id: FlowId, inbox: &mut Inbox) {
        let is_first = super::reader::let_go(desk, id, inbox);
        if let Some(cache) = &mut self.cache {
            cache.remove(id);
        }
        if is_first {
            self.say_bad(id);
        }
    }

    pub(super) fn say_bad(&mut self, id: FlowId) {
        self.unsaid.push_back(Note::of(Word::Bad, id));
        self.say_what_waits();
    }

    /// What is no question is not waited for.
    fn say_what_waits(&mut self) {
        while let Some(note) = self.unsaid.front() {
            if ipc::say(self.asks, *note, None, Wait::No).is_err() {
                return;
            }
            self.unsaid.pop_front();
        }
    }

    fn failed(&self, desk: &Desk, client: Option<BranchId>, inbox: &mut Inbox) {
        desk.count(Counter::SendFailed, 1);
        inbox.send_failed(client);
    }

    /// Each turn.
    pub fn tick(&mut self, desk: &Desk, now: Tick) {
        self.say_what_waits();
        self.purge(desk, now);
    }

    /// Kept descriptors whose connection is over go, once some have ended.
    fn purge(&mut self, desk: &Desk, now: Tick) {
        let Some(cache) = &mut self.cache else { return };
        let ended = desk.parts.supervision.ended();
        if ended == self.ended || now.since(self.purged) < PURGE_MS {
            return;
        }
        (self.ended, self.purged) = (ended, now);
        cache.purge(|ids| desk.parts.flows.over(Transport::Tcp, ids));
    }

    /// A new supervisor: what the old one gave is worth nothing.
    pub fn forget(&mut self) {
        self.unsaid.clear();
        if let Some(cache) = &mut self.cache {
            cache.clear();
        }
    }

    /// Answers to a predecessor go.
    pub fn drain(&self) {
        while ipc::hear(self.asks, Wait::No).is_ok() {}
    }
}
