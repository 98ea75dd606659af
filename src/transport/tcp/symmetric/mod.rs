//! TCP, `symmetric`: the worker that accepted or opened a connection is its only reader and writer.
//!
//! Owns: this process's connections, their deadlines in order (never a scan), and reading. Its files: `send` (who sends a message,
//! and opening), `end` (closing, deadlines). Never parses beyond framing.

mod end;
mod send;

use std::collections::{BTreeSet, HashMap};
use std::io;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;
use sys::datagram::Arena;

use super::acceptor::{Accepted, Acceptor};
use super::connection::{Connection, Phase, recycle};
use super::reading::{Read, read};
use crate::config::{self, Config};
use crate::shared::counters::Counter;
use crate::timer::Tick;
use crate::transport::desk::{Desk, End};
use crate::transport::transports::CONNECTIONS;
use crate::transport::{Address, FlowId, Inbox, Ready, Transport};

pub struct Symmetric {
    settings: config::Tcp,
    registry: Registry,
    acceptor: Acceptor,
    connections: Slab<Connection>,
    by_id: HashMap<FlowId, usize>,
    /// (when, which connection).
    deadlines: BTreeSet<(Tick, usize)>,
    /// Connections in `Phase::Ending`: to be closed when all is written.
    ending: Vec<usize>,
    /// They wait for `end`: not here is their last message answered.
    pub patient: bool,
    /// (connection, place in `Outgoing::sendings`); kept for its room.
    routed: Vec<(usize, u32)>,
    spare: Vec<Vec<u8>>,
}

impl Symmetric {
    pub fn new(config: &Config, ends: &mut [End], registry: Registry) -> io::Result<Symmetric> {
        Ok(Symmetric {
            settings: config.tcp.clone(),
            acceptor: Acceptor::new(ends, &registry)?,
            registry,
            connections: Slab::new(),
            by_id: HashMap::new(),
            deadlines: BTreeSet::new(),
            ending: Vec::new(),
            patient: false,
            routed: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// Accepts connections; true: there may be more.
    pub fn accept(&mut self, desk: &mut Desk, listener: u8, now: Tick) -> bool {
        let (batch, more) = self.acceptor.accept(desk, listener, now);
        for Accepted { stream, id, peer } in batch {
            self.keep(desk, Connection::new(stream, id, peer, listener, Phase::Open, now));
        }
        more
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
        let Some(connection) = self.connections.get_mut(slot) else { return false };
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
        let Some(connection) = self.connections.get_mut(slot) else { return false };
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
            && let Some(connection) = self.connections.get_mut(slot)
        {
            connection.phase = Phase::Ending;
            self.ending.push(slot);
        }
        self.arm(slot);
        taken.more
    }

    /// A new connection of ours: known to the poll, to `by_id`, and to the deadlines.
    fn keep(&mut self, desk: &Desk, mut connection: Connection) -> Option<usize> {
        let place = self.connections.vacant_entry();
        let slot = place.key();
        let token = Token(CONNECTIONS + slot);
        // Edge-triggered and for both from the start: never registered again.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.registry.register(&mut connection.stream, token, interest).is_err() {
            desk.count(Counter::SocketErrors, 1);
            desk.parts.flows.close(connection.id);
            return None;
        }
        self.by_id.insert(connection.id, slot);
        place.insert(connection);
        self.arm(slot);
        Some(slot)
    }

    pub fn queued_bytes(&self) -> usize {
        self.connections.iter().map(|(_, connection)| connection.waiting()).sum()
    }
}

/// Opens a connection; it is up, or failed, when the poll says writable.
fn connect(peer: Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(peer.into())?;
    // SIP is small messages: none waits for another (Nagle).
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
