//! A worker as the owner of connections: it alone reads them.
//!
//! Owns: the connections that the supervisor assigned to it, their half messages, and what it has to say of them to the supervisor.
//! It never accepts, and never writes a message with its own descriptor: what it sends goes through `sender`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use slab::Slab;
use sys::datagram::Arena;
use sys::passing::Wait;

use super::LINES;
use super::ipc::{self, Note, Word};
use super::sender::Sender;
use crate::config::{self, Config};
use crate::shared::counters::Counter;
use crate::shared::flows::State;
use crate::timer::Tick;
use crate::transport::desk::Desk;
use crate::transport::tcp::connection::{Connection, Phase, recycle};
use crate::transport::tcp::reading::{Read, read};
use crate::transport::transports::CONNECTIONS;
use crate::transport::{FlowId, Inbox, Outgoing, Parts, Ready, Transport};

/// Connections taken over in one go.
const BATCH: usize = 64;

/// Any process but the supervisor; the timer process owns no connections, and sends only.
pub struct Worker {
    pub(super) settings: config::Tcp,
    registry: Registry,
    news: BorrowedFd<'static>,
    sender: Sender,
    pub(super) connections: Slab<Connection>,
    pub(super) by_id: HashMap<FlowId, usize>,
    /// (when, which connection): half messages, last words; with `tcp.priority_queue` idle ones, too.
    pub(super) deadlines: BTreeSet<(Tick, usize)>,
    /// Connections that end with the next flush.
    ending: Vec<usize>,
    /// What the supervisor has had no room for: at most a note for each connection.
    unsaid: VecDeque<Note>,
    /// Of the supervisor that the connections are from.
    epoch: u64,
    spare: Vec<Vec<u8>>,
}

impl Worker {
    pub fn new(config: &Config, parts: &Parts, seat: usize, registry: Registry) -> io::Result<Worker> {
        let (asks, news) = parts.supervision.ends_of(seat).ok_or(io::ErrorKind::NotFound)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&news.as_raw_fd()), Token(CONNECTIONS + LINES), both)?;
        Ok(Worker {
            settings: config.tcp.clone(),
            registry,
            news,
            sender: Sender::new(config.tcp.clone(), asks),
            connections: Slab::new(),
            by_id: HashMap::new(),
            deadlines: BTreeSet::new(),
            ending: Vec::new(),
            unsaid: VecDeque::new(),
            epoch: parts.supervision.epoch(),
            spare: Vec::new(),
        })
    }

    /// Goes on with the supervisor's news or a connection; true: there may be more.
    pub fn receive(
        &mut self,
        desk: &mut Desk,
        token: usize,
        ready: Ready,
        arena: &mut Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) -> bool {
        if token == LINES {
            return self.hear(desk, inbox, now);
        }
        let Some(connection) = self.connections.get_mut(token) else { return false };
        let taken = match read(connection, desk, ready.closed, arena, inbox, &mut self.spare, now) {
            Read::Taken(taken) => taken,
            Read::Nothing => return false,
            Read::Again => return true,
            Read::Ignored(more) => return more,
            Read::Over => {
                self.close(desk, token, inbox);
                return false;
            }
        };
        if taken.frames != 0 || taken.pings != 0 {
            desk.parts.flows.touch(connection.id, taken.frames, 0, 0, now);
        }
        if taken.bad {
            connection.phase = Phase::Ending;
            self.ending.push(token);
        }
        if taken.pings != 0 && !answer_ping(desk, connection) {
            self.close(desk, token, inbox);
            return false;
        }
        self.arm(token);
        taken.more
    }

    fn hear(&mut self, desk: &Desk, inbox: &mut Inbox, now: Tick) -> bool {
        self.look_for_a_new_supervisor(desk);
        for _ in 0..BATCH {
            match ipc::hear(self.news, Wait::No) {
                Ok((Note { word: Word::Own, id, .. }, descriptor)) => self.own(desk, id, descriptor, inbox, now),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// The supervisor made it ours.
    fn own(&mut self, desk: &Desk, id: FlowId, descriptor: Option<OwnedFd>, inbox: &mut Inbox, now: Tick) {
        // Meanwhile it may have ended.
        let Some(flow) = desk.parts.flows.find(id).filter(|flow| flow.owner == desk.seat) else { return };
        let Some(descriptor) = descriptor else {
            // No room for it in this process.
            desk.count(Counter::SocketErrors, 1);
            let_go(desk, id, inbox);
            return self.tell(Note::of(Word::Ended, id));
        };
        let mut stream = TcpStream::from_std(descriptor.into());
        let place = self.connections.vacant_entry();
        let slot = place.key();
        if self.registry.register(&mut stream, Token(CONNECTIONS + slot), Interest::READABLE).is_err() {
            desk.count(Counter::SocketErrors, 1);
            let_go(desk, id, inbox);
            return self.tell(Note::of(Word::Ended, id));
        }
        let peer = flow.peers.first().copied().unwrap_or_default();
        place.insert(Connection::new(stream, id, peer, flow.listener, Phase::Open, now));
        self.by_id.insert(id, slot);
        self.arm(slot);
    }

    pub fn flush(
        &mut self,
        desk: &mut Desk,
        list: &[u32],
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        self.sender.flush(desk, list, outgoing, arena, inbox, now);
    }

    /// After a flush: all is written; waits a moment for the peer's end, so that no reset destroys what it has not read yet.
    pub fn end_what_ends(&mut self, desk: &Desk, now: Tick) {
        while let Some(slot) = self.ending.pop() {
            // It may be over already, and another in its place.
            let ending = |connection: &&mut Connection| connection.phase == Phase::Ending;
            let Some(connection) = self.connections.get_mut(slot).filter(ending) else { continue };
            connection.say_end();
            (connection.phase, connection.last) = (Phase::Lingering, now);
            desk.parts.flows.set_state(connection.id, State::Closing);
            self.arm(slot);
        }
    }

    /// Ends a connection of ours.
    pub(super) fn close(&mut self, desk: &Desk, slot: usize, inbox: &mut Inbox) {
        let Some(id) = self.drop_connection(slot) else { return };
        let_go(desk, id, inbox);
        self.tell(Note::of(Word::Ended, id));
    }

    /// It is another's, or nobody's: our descriptor is closed.
    pub(super) fn drop_connection(&mut self, slot: usize) -> Option<FlowId> {
        let mut connection = self.connections.try_remove(slot)?;
        self.by_id.remove(&connection.id);
        self.deadlines.remove(&(connection.armed, slot));
        let _ = self.registry.deregister(&mut connection.stream);
        recycle(std::mem::take(&mut connection.stash), &mut self.spare);
        Some(connection.id)
    }

    /// Says it to the supervisor, now or when there is room: what is no question is not waited for.
    pub(super) fn tell(&mut self, note: Note) {
        self.unsaid.push_back(note);
        self.say_what_waits();
    }

    fn say_what_waits(&mut self) {
        while let Some(note) = self.unsaid.front() {
            if ipc::say(self.news, *note, None, Wait::No).is_err() {
                return;
            }
            self.unsaid.pop_front();
        }
    }

    /// Each turn: what waits, idle connections, deadlines, kept descriptors.
    pub fn tick(&mut self, desk: &mut Desk, inbox: &mut Inbox, now: Tick) {
        self.look_for_a_new_supervisor(desk);
        self.say_what_waits();
        self.end_what_is_due(desk, inbox, now);
        if !self.settings.priority_queue && desk.seat < desk.workers {
            self.scan(desk, now);
        }
        self.sender.tick(desk, now);
    }

    pub fn next_tick(&self) -> Tick {
        self.deadlines.first().map_or(Tick::NEVER, |(due, _)| *due)
    }

    /// A new one has closed every connection of the old one: so do we.
    fn look_for_a_new_supervisor(&mut self, desk: &Desk) {
        let epoch = desk.parts.supervision.epoch();
        if std::mem::replace(&mut self.epoch, epoch) != epoch {
            // Others may keep a descriptor of one for a while.
            for slot in self.say_end_on_all() {
                self.drop_connection(slot);
            }
            self.sender.forget();
            self.unsaid.clear();
        }
    }

    /// The connections of this seat's last holder died with it.
    pub fn adopt(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        self.sender.drain();
        for flow in desk.parts.flows.owned_by(Transport::Tcp, desk.seat) {
            let_go(desk, flow.id, inbox);
        }
        self.tell(Note::of(Word::Hello, FlowId::NONE));
    }

    pub fn close_all(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        for slot in self.say_end_on_all() {
            self.close(desk, slot, inbox);
        }
    }

    /// Gives back which they are.
    fn say_end_on_all(&self) -> Vec<usize> {
        self.connections.iter().for_each(|(_, connection)| connection.say_end());
        self.connections.iter().map(|(slot, _)| slot).collect()
    }
}

/// Ends the entry of a connection; who waits on it is told. False: somebody was quicker.
pub(super) fn let_go(desk: &Desk, id: FlowId, inbox: &mut Inbox) -> bool {
    let Some(last) = desk.parts.flows.close(id) else { return false };
    desk.count(Counter::ConnectionsClosed, 1);
    desk.parts.supervision.count_end();
    if last.requested {
        inbox.lost(Transport::Tcp, last.peers, id);
    }
    true
}

/// A line end (RFC 5626 §4.4.1), between messages and only if there is room. False: the connection is of no more use.
fn answer_ping(desk: &Desk, connection: &Connection) -> bool {
    let turn = desk.parts.supervision.turn(connection.id);
    // Somebody writes just now: that, too, says that we are here.
    let Some(mut turn) = turn.and_then(|turn| turn.try_lock()) else { return true };
    turn.writing = connection.id.generation;
    let written = io::Write::write_vectored(&mut &connection.stream, &[IoSlice::new(b"\r\n")]);
    turn.writing = 0;
    let whole = match written {
        Ok(written) => written == 2,
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    };
    if !whole {
        turn.torn = connection.id.generation;
    }
    whole
}
