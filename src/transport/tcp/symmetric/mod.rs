//! TCP, `symmetric`: the worker that accepted or opened a connection is its only reader and writer.
//!
//! Owns: this process's connections, their deadlines in order (never a scan), accepting and reading. Its files: `connection` (one
//! of them), `send` (who sends a message, and opening), `end` (closing, deadlines). Never parses beyond framing.

mod end;
mod send;

use std::collections::{BTreeSet, HashMap};
use std::io;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use sys::datagram::Arena;

use super::connection::{Connection, Phase, recycle};
use super::reading::{Read, read};
use crate::config::{self, Config};
use crate::shared::counters::Counter;
use crate::timer::Tick;
use crate::transport::desk::{Desk, End};
use crate::transport::transports::CONNECTIONS;
use crate::transport::{Address, FlowId, Inbox, Ready, Transport};

/// Connections accepted in one go; the listener is asked again after the turn's other work.
const ACCEPT_BATCH: usize = 64;
/// Milliseconds until accepting is tried again when there is no descriptor left.
const ACCEPT_PAUSE_MS: u64 = 100;

pub struct Symmetric {
    settings: config::Tcp,
    registry: Registry,
    /// By listener; none for other transports and in the timer process.
    listeners: Vec<Option<TcpListener>>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    by_id: HashMap<FlowId, usize>,
    /// (when, which connection).
    deadlines: BTreeSet<(Tick, usize)>,
    /// Connections in `Phase::Ending`: to be closed when all is written.
    ending: Vec<usize>,
    /// They wait for `end`: not here is their last message answered.
    pub patient: bool,
    /// Listeners to ask again, and when: there was no descriptor left, and the edge is consumed.
    accept_again: Vec<u8>,
    accept_at: Tick,
    /// (connection, place in `Outgoing::sendings`); kept for its room.
    routed: Vec<(usize, u32)>,
    spare: Vec<Vec<u8>>,
}

impl Symmetric {
    pub fn new(config: &Config, ends: &mut [End], registry: Registry) -> io::Result<Symmetric> {
        let mut listeners = Vec::new();
        for (index, end) in ends.iter_mut().enumerate() {
            let fd = if end.transport == Transport::Tcp { end.fds.pop() } else { None };
            let mut listener = fd.map(|fd| TcpListener::from_std(fd.into()));
            if let Some(listener) = &mut listener {
                registry.register(listener, Token(index), Interest::READABLE)?;
            }
            listeners.push(listener);
        }
        Ok(Symmetric {
            settings: config.tcp.clone(),
            registry,
            listeners,
            connections: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            deadlines: BTreeSet::new(),
            ending: Vec::new(),
            patient: false,
            accept_again: Vec::new(),
            accept_at: Tick::NEVER,
            routed: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// Accepts connections; true: there may be more.
    pub fn accept(&mut self, desk: &mut Desk, listener: u8, now: Tick) -> bool {
        for _ in 0..ACCEPT_BATCH {
            let Some(Some(socket)) = self.listeners.get(usize::from(listener)) else { return false };
            let (stream, peer) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                // The peer was quicker to leave than we to take it.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => continue,
                Err(_) => {
                    desk.count(Counter::SocketErrors, 1);
                    self.accept_again.push(listener);
                    self.accept_at = now + ACCEPT_PAUSE_MS;
                    return false;
                }
            };
            let peer = peer.into();
            let entry = desk.parts.flows.accepted(Transport::Tcp, peer, listener, desk.seat, desk.connections(), now);
            match entry {
                Ok(id) => {
                    desk.count(Counter::ConnectionsAccepted, 1);
                    self.keep(desk, Connection::new(stream, id, peer, listener, Phase::Open, now));
                }
                // Dropping the stream closes it.
                Err(refusal) => desk.count_refusal(Counter::ConnectionsRefused, refusal),
            }
        }
        true
    }

    /// Goes on with a connection that the poll named; true: there may be more to read.
    pub fn receive(
        &mut self,
        desk: &mut Desk,
        slot: usize,
        ready: Ready,
        arena: &mut Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) -> bool {
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return false };
        if connection.phase == Phase::Connecting {
            match connection.connected() {
                Ok(Some(())) => self.opened(desk, slot, now),
                Ok(None) => return false,
                Err(_) => {
                    desk.count(Counter::ConnectFailed, 1);
                    self.close(desk, slot, inbox);
                    return false;
                }
            }
        }
        if ready.writable && !self.write_waiting(desk, slot, inbox, now) {
            return false;
        }
        if !ready.readable && !ready.closed {
            return false;
        }
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return false };
        let taken = match read(connection, desk, ready.closed, arena, inbox, &mut self.spare, now) {
            Read::Taken(taken) => taken,
            Read::Nothing => return false,
            Read::Again => return true,
            Read::Ignored(more) => return more,
            Read::Over => {
                self.close(desk, slot, inbox);
                return false;
            }
        };
        if taken.pings != 0 && connection.waiting() == 0 {
            // One for all that came at once, and none behind what waits: who pings without reading gets no memory for it.
            connection.queue(b"\r\n", &mut self.spare);
        }
        if taken.frames != 0 || taken.pings != 0 {
            desk.parts.flows.touch(connection.id, taken.frames, 0, connection.waiting() as u32, now);
        }
        if taken.pings != 0 && !self.write_waiting(desk, slot, inbox, now) {
            return false;
        }
        // Only now: with nothing left to write it would say its end before its last answer.
        if taken.bad
            && let Some(Some(connection)) = self.connections.get_mut(slot)
        {
            connection.phase = Phase::Ending;
            self.ending.push(slot);
        }
        self.arm(slot);
        taken.more
    }

    /// A new connection of ours: known to the poll, to `by_id`, and to the deadlines.
    fn keep(&mut self, desk: &Desk, mut connection: Connection) -> Option<usize> {
        let slot = self.free.pop().unwrap_or(self.connections.len());
        let token = Token(CONNECTIONS + slot);
        // SIP is small messages: none waits for another (Nagle).
        let _ = connection.stream.set_nodelay(true);
        // Edge-triggered and for both from the start: never registered again.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.registry.register(&mut connection.stream, token, interest).is_err() {
            desk.count(Counter::SocketErrors, 1);
            desk.parts.flows.close(connection.id);
            self.free.push(slot);
            return None;
        }
        self.by_id.insert(connection.id, slot);
        if slot == self.connections.len() {
            self.connections.push(Some(connection));
        } else if let Some(place) = self.connections.get_mut(slot) {
            *place = Some(connection);
        }
        self.arm(slot);
        Some(slot)
    }

    pub fn queued_bytes(&self) -> usize {
        self.connections.iter().flatten().map(Connection::waiting).sum()
    }
}

/// Opens a connection; it is up, or failed, when the poll says writable.
fn connect(peer: Address) -> io::Result<TcpStream> {
    TcpStream::connect(peer.into())
}
