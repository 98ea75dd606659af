//! Accepting connections, the same in every architecture.
//!
//! Owns: this process's listeners, and which of them are to be asked again. Who reads a connection, and who writes to it, is its
//! taker's business.

use std::io;

use arrayvec::ArrayVec;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::shared::counters::Counter;
use crate::timer::Tick;
use crate::transport::desk::{Desk, End};
use crate::transport::{Address, FlowId, Transport};

/// Connections accepted in one go; the listener is asked again after the turn's other work.
const BATCH: usize = 64;
/// Milliseconds until accepting is tried again when there is no descriptor left.
const PAUSE_MS: u64 = 100;

pub struct Acceptor {
    /// By listener; none for other transports and in a process that accepts nothing.
    listeners: Vec<Option<TcpListener>>,
    /// Listeners to ask again, and when: there was no descriptor left, and the edge is consumed.
    again: Vec<u8>,
    again_at: Tick,
}

/// A connection, entered in `flows` as this process's.
pub struct Accepted {
    pub stream: TcpStream,
    pub id: FlowId,
    pub peer: Address,
}

impl Acceptor {
    /// Takes this seat's listeners out of `ends` and watches them.
    pub fn new(ends: &mut [End], registry: &Registry) -> io::Result<Acceptor> {
        let mut listeners = Vec::new();
        for (index, end) in ends.iter_mut().enumerate() {
            let fd = if end.transport == Transport::Tcp { end.fds.pop() } else { None };
            let mut listener = fd.map(|fd| TcpListener::from_std(fd.into()));
            if let Some(listener) = &mut listener {
                registry.register(listener, Token(index), Interest::READABLE)?;
            }
            listeners.push(listener);
        }
        Ok(Acceptor { listeners, again: Vec::new(), again_at: Tick::NEVER })
    }

    /// Accepts connections; true: there may be more.
    pub fn accept(&mut self, desk: &Desk, listener: u8, now: Tick) -> (ArrayVec<Accepted, BATCH>, bool) {
        let mut batch = ArrayVec::new();
        let Some(Some(socket)) = self.listeners.get(usize::from(listener)) else { return (batch, false) };
        for _ in 0..BATCH {
            let (stream, peer) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return (batch, false),
                // The peer was quicker to leave than we to take it.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => continue,
                Err(_) => {
                    desk.count(Counter::SocketErrors, 1);
                    self.ask_again(listener, now + PAUSE_MS);
                    return (batch, false);
                }
            };
            let peer = peer.into();
            let entry = desk.parts.flows.accepted(Transport::Tcp, peer, listener, desk.seat, desk.connections(), now);
            match entry {
                Ok(id) => {
                    desk.count(Counter::ConnectionsAccepted, 1);
                    // SIP is small messages: none waits for another (Nagle).
                    let _ = stream.set_nodelay(true);
                    batch.push(Accepted { stream, id, peer });
                }
                // Dropping the stream closes it.
                Err(refusal) => desk.count_refusal(Counter::ConnectionsRefused, refusal),
            }
        }
        (batch, true)
    }

    /// Listeners that are to be asked again by now.
    pub fn due(&mut self, now: Tick) -> Vec<u8> {
        if self.again_at > now {
            return Vec::new();
        }
        self.again_at = Tick::NEVER;
        std::mem::take(&mut self.again)
    }

    /// It comes with `due` at this time: once, and no later because somebody knocks meanwhile.
    pub fn ask_again(&mut self, listener: u8, at: Tick) {
        if !self.again.contains(&listener) {
            self.again.push(listener);
        }
        self.again_at = self.again_at.min(at);
    }

    pub fn next_tick(&self) -> Tick {
        self.again_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_failed_often_is_asked_again_once_and_in_time() {
        let mut acceptor = Acceptor { listeners: Vec::new(), again: Vec::new(), again_at: Tick::NEVER };
        acceptor.ask_again(3, Tick(100));
        acceptor.ask_again(3, Tick(150));
        acceptor.ask_again(4, Tick(160));
        assert_eq!((acceptor.next_tick(), acceptor.due(Tick(99))), (Tick(100), vec![]));
        assert_eq!((acceptor.due(Tick(100)), acceptor.next_tick()), (vec![3, 4], Tick::NEVER));
        assert!(acceptor.due(Tick(1_000)).is_empty());
    }
}
