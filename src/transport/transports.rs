//! All transports of one process, behind one door.
//!
//! Owns: which source a token means, and the order of a flush. What a transport does is in its own room.

use std::io;
use std::os::fd::AsFd;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use sys::datagram::{Arena, Receiver, Sender};

use super::desk::{Desk, End, SEND_BATCH};
use super::{Address, Inbox, Outgoing, Ready, Sockets, Transport, sctp, tcp, udp};
use crate::config::{Config, Live};
use crate::shared::broken::Broken;
use crate::shared::counters::{Counter, Counters};
use crate::shared::flows::Flows;
use crate::shared::mailbox::Mailboxes;
use crate::shared::open_associations::OpenAssociations;
use crate::timer::Tick;

/// What the transports need of shared memory.
#[derive(Clone, Copy)]
pub struct Parts {
    pub flows: Flows,
    pub mailboxes: Mailboxes,
    pub broken: Broken,
    pub open_associations: OpenAssociations,
    pub counters: Counters,
}

/// Tokens below are listeners, in the order of `Config::listen`.
const BELL: Token = Token(256);
/// From here on: connections.
pub(super) const CONNECTIONS: usize = 512;
/// From here on tokens are the caller's.
const FOREIGN: usize = 1 << 32;

/// The sockets, connections and queues of one process.
pub struct Transports {
    desk: Desk,
    /// By listener: places in `Outgoing::sendings`.
    lists: Vec<Vec<u32>>,
    connected: Vec<u32>,
    sctp: sctp::Kernel,
    tcp: tcp::Tcp,
}

impl Transports {
    /// Takes this seat's sockets. A worker (`seat < config.workers`) watches them on `poll`: shared ones level-triggered and
    /// exclusively, so that one message wakes one process; its own TCP listeners and connections, and its mailbox's bell, through
    /// mio. The timer process watches nothing: it only sends.
    ///
    /// # Errors
    /// No more descriptors or memory.
    pub fn new(
        config: &Config,
        live: &Live,
        sockets: &Sockets,
        parts: Parts,
        seat: usize,
        poll: &Poll,
    ) -> io::Result<Transports> {
        let is_worker = seat < config.workers;
        let mut ends = Vec::new();
        for (index, listener) in sockets.listeners().iter().enumerate() {
            let fd = listener.socket(seat).map(|fd| fd.try_clone()).transpose()?;
            if let Some(fd) = &fd
                && is_worker
                && listener.transport != Transport::Tcp
            {
                sys::epoll::add_exclusive(poll, fd.as_fd(), index)?;
            }
            let (transport, most_bytes) = (listener.transport, listener.most_bytes);
            ends.push(End { transport, fd, addresses: listener.addresses.clone(), most_bytes });
        }
        if is_worker && let Some(bell) = parts.mailboxes.bell(seat) {
            let bell = std::os::fd::AsRawFd::as_raw_fd(&bell);
            poll.registry().register(&mut SourceFd(&bell), BELL, Interest::READABLE)?;
        }
        let tcp = tcp::Tcp::new(config, &parts, &mut ends, seat, poll.registry().try_clone()?)?;
        let lists = ends.iter().map(|_| Vec::new()).collect();
        let desk = Desk {
            seat,
            workers: config.workers,
            parts,
            limits: live.limits.clone(),
            ends,
            receiver: Receiver::new(1024),
            sender: Sender::new(SEND_BATCH),
        };
        Ok(Transports { desk, lists, connected: Vec::new(), sctp: sctp::Kernel::default(), tcp })
    }

    /// Is this token ours? The others (`1 << 32` and above) are the caller's.
    #[must_use]
    pub fn owns(token: Token) -> bool {
        token.0 < FOREIGN
    }

    /// The listener that requests to this peer go out on: the first of its transport and IP family that is open.
    #[must_use]
    pub fn listener_for(&self, transport: Transport, peer: Address) -> Option<u8> {
        // The timer process has no TCP listener of its own but may still name one.
        let fits = |end: &End| {
            end.transport == transport && (end.fd.is_some() || transport == Transport::Tcp) && end.suits(peer)
        };
        self.desk.ends.iter().position(fits).and_then(|index| u8::try_from(index).ok())
    }

    /// Reads one batch from a source that the poll named, into the arena from slot `inbox.used` on. True: there may be more on
    /// it; call again (same `token`, same `ready`) when the inbox was worked off and flushed.
    pub fn receive(&mut self, token: Token, ready: Ready, arena: &mut Arena, inbox: &mut Inbox, now: Tick) -> bool {
        if token.0 >= CONNECTIONS {
            return self.tcp.receive(&mut self.desk, token.0 - CONNECTIONS, ready, arena, inbox, now);
        }
        let Ok(listener) = u8::try_from(token.0) else { return false };
        match self.desk.end(listener).map(|end| end.transport) {
            Some(Transport::Udp) => udp::receive(&mut self.desk, listener, arena, inbox),
            Some(Transport::Sctp) => self.sctp.receive(&mut self.desk, listener, arena, inbox, now),
            Some(Transport::Tcp) => self.tcp.accept(&mut self.desk, listener, now),
            None => false,
        }
    }

    /// Sends what other processes posted for connections that this one owns or shall open. True: there is more, call again
    /// before sleeping. Call once each turn.
    pub fn posted(&mut self, arena: &Arena, inbox: &mut Inbox, now: Tick) -> bool {
        self.tcp.posted(&mut self.desk, arena, inbox, now)
    }

    /// Call before the poll sleeps; false: do not sleep, something was posted. Call `woke` after the poll.
    pub fn before_sleep(&self) -> bool {
        self.desk.parts.mailboxes.before_sleep(self.desk.seat)
    }

    pub fn woke(&self) {
        self.desk.parts.mailboxes.woke(self.desk.seat);
    }

    /// Sends all messages of a turn and clears `outgoing`. What could not be sent is in `inbox.happenings`.
    pub fn flush(&mut self, outgoing: &mut Outgoing, arena: &Arena, inbox: &mut Inbox, now: Tick) {
        for (index, sending) in outgoing.sendings.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if sending.to.transport == Transport::Tcp as u8 {
                self.connected.push(index);
            } else if let Some(list) = self.lists.get_mut(usize::from(sending.to.listener)) {
                list.push(index);
            } else {
                self.desk.count(Counter::SendFailed, 1);
                inbox.send_failed(sending.client);
            }
        }
        for (listener, list) in self.lists.iter_mut().enumerate().filter(|(_, list)| !list.is_empty()) {
            let listener = listener as u8;
            match self.desk.end(listener).map(|end| end.transport) {
                Some(Transport::Udp) => udp::flush(&mut self.desk, listener, list, outgoing, arena, inbox),
                Some(Transport::Sctp) => self.sctp.flush(&mut self.desk, listener, list, outgoing, arena, inbox, now),
                // A flow of another transport than its listener: cannot be sent.
                Some(Transport::Tcp) | None => {
                    self.desk.count(Counter::SendFailed, list.len() as u64);
                    for sending in list.iter().filter_map(|index| outgoing.sendings.get(*index as usize)) {
                        inbox.send_failed(sending.client);
                    }
                }
            }
            list.clear();
        }
        self.tcp.flush(&mut self.desk, &mut self.connected, outgoing, arena, inbox, now);
        self.connected.clear();
        outgoing.clear();
    }

    /// Does what is due: blocked associations, connect time-outs, half messages, idle connections.
    pub fn tick(&mut self, inbox: &mut Inbox, now: Tick) {
        self.sctp.tick(&mut self.desk, inbox, now);
        self.tcp.tick(&mut self.desk, inbox, now);
    }

    /// When `tick` has something to do; `Tick::NEVER`: nothing is due.
    #[must_use]
    pub fn next_tick(&self) -> Tick {
        self.sctp.next_tick().min(self.tcp.next_tick())
    }

    /// A process begins in a seat: the connections of the seat's last holder died with it and are reported lost; associations that it
    /// had left open are closed.
    pub fn adopt(&mut self, inbox: &mut Inbox) {
        self.sctp.adopt(&mut self.desk);
        self.tcp.adopt(&mut self.desk, inbox);
    }

    /// The drain is over: closes all connections of this process, and shuts the associations down in good order (each by the
    /// process that comes first).
    pub fn close_all(&mut self, inbox: &mut Inbox) {
        self.tcp.close_all(&mut self.desk, inbox);
        self.sctp.close_all(&mut self.desk);
    }

    /// Bytes that wait for connections and associations in this process.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.tcp.queued_bytes() + self.sctp.queued_bytes()
    }

    pub fn reload(&mut self, live: &Live) {
        self.desk.limits = live.limits.clone();
    }
}
