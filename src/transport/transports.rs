//! All transports of one process, behind one door.
//!
//! Owns: which source a token means, and the order of a flush. What a transport does is in its own room.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use sys::datagram::{Arena, Receiver, Sender};

use super::desk::{Carrier, Desk, End, SEND_BATCH};
use super::relay::Relay;
use super::sockets::Listener;
use super::{Address, Inbox, Outgoing, Ready, Sockets, Transport, sctp, tcp, udp};
use crate::config::{Architecture, Config, Live};
use crate::shared::broken::Broken;
use crate::shared::counters::{Counter, Counters};
use crate::shared::flows::Flows;
use crate::shared::mailbox::Mailboxes;
use crate::shared::open_associations::OpenAssociations;
use crate::shared::own_addresses::OwnAddresses;
use crate::shared::supervision::Supervision;
use crate::timer::Tick;

/// What the transports need of shared memory.
#[derive(Clone, Copy)]
pub struct Parts {
    pub flows: Flows,
    pub mailboxes: Mailboxes,
    pub broken: Broken,
    pub open_associations: OpenAssociations,
    pub own_addresses: OwnAddresses,
    pub supervision: Supervision,
    pub counters: Counters,
    /// Seals the cookies of SCTP in user space; the same in every process.
    pub cookie_key: [u8; 32],
}

/// Tokens below `BELL` are sockets of listeners: a listener's place in `Config::listen`, and so many times the number of its socket.
const LISTENERS: usize = 256;
const BELL: Token = Token(1 << 16);
/// From here on: connections.
pub(super) const CONNECTIONS: usize = 1 << 17;
/// From here on tokens are the caller's.
const FOREIGN: usize = 1 << 32;

/// The sockets, connections and queues of one process.
pub struct Transports {
    desk: Desk,
    /// By listener: places in `Outgoing::sendings`.
    lists: Vec<Vec<u32>>,
    kernel_sctp: sctp::Kernel,
    user_sctp: sctp::User,
    tcp: tcp::Tcp,
    relay: Relay,
    /// What was posted and is left alone for a moment (see `Relay::is_held`) is looked at again then.
    held_until: Tick,
}

impl Transports {
    /// Takes this seat's sockets. A worker (`seat < config.workers`) watches them on `poll`: shared ones level-triggered and
    /// exclusively, so that one message wakes one process; its own TCP listeners and connections, and its mailbox's bell, through
    /// mio. The timer process watches nothing: it only sends. The supervisor or owner of TCP watches what is TCP's, and its bell.
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
            let fds = listener.sockets(seat).iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
            if is_worker && listener.carrier != Carrier::Tcp {
                for (number, fd) in fds.iter().enumerate().filter(|(number, _)| listener.numbers.reads(seat, *number)) {
                    sys::epoll::add_exclusive(poll, fd.as_fd(), index + number * LISTENERS)?;
                }
            }
            let Listener { transport, carrier, most_bytes, .. } = *listener;
            let (addresses, numbers) = (listener.addresses.clone(), listener.numbers.clone());
            ends.push(End { transport, carrier, fds, numbers, addresses, most_bytes });
        }
        if (is_worker || Some(seat) == config.extra_seat())
            && let Some(bell) = parts.mailboxes.bell(seat)
        {
            let bell = std::os::fd::AsRawFd::as_raw_fd(&bell);
            poll.registry().register(&mut SourceFd(&bell), BELL, Interest::READABLE)?;
        }
        let tcp = tcp::Tcp::new(config, &mut ends, &parts, seat, poll.registry().try_clone()?)?;
        let user_sctp = sctp::User::new(config, &parts.cookie_key, &ends)?;
        let tcp_owner = config.extra_seat().filter(|_| config.tcp.architecture == Architecture::SingleOwner);
        let relay = Relay::new(&parts, seat, tcp_owner);
        let lists = ends.iter().map(|_| Vec::new()).collect();
        let desk = Desk {
            seat,
            workers: config.workers,
            tcp_owner,
            parts,
            limits: live.limits.clone(),
            next_hop: live.next_hop.clone(),
            ends,
            receiver: Receiver::new(1024),
            sender: Sender::new(SEND_BATCH),
        };
        Ok(Transports {
            desk,
            lists,
            kernel_sctp: sctp::Kernel::new(&config.sctp),
            user_sctp,
            tcp,
            relay,
            held_until: Tick::NEVER,
        })
    }

    /// Is this token ours? The others (`1 << 32` and above) are the caller's.
    #[must_use]
    pub fn owns(token: Token) -> bool {
        token.0 < FOREIGN
    }

    /// The listener that requests to this peer go out on: the first of its transport and IP family that is open.
    #[must_use]
    pub fn listener_for(&self, transport: Transport, peer: Address) -> Option<u8> {
        // The timer process has no such socket of its own but may still name one.
        let fits = |end: &End| {
            end.transport == transport && (!end.fds.is_empty() || end.carrier.has_owners()) && end.suits(peer)
        };
        self.desk.ends.iter().position(fits).and_then(|index| u8::try_from(index).ok())
    }

    /// Reads one batch from a source that the poll named, into the arena from slot `inbox.used` on. True: there may be more on
    /// it; call again (same `token`, same `ready`) when the inbox was worked off and flushed.
    pub fn receive(&mut self, token: Token, ready: Ready, arena: &mut Arena, inbox: &mut Inbox, now: Tick) -> bool {
        if token.0 >= CONNECTIONS {
            return self.tcp.receive(&mut self.desk, token.0 - CONNECTIONS, ready, arena, inbox, now);
        }
        let (listener, number) = ((token.0 % LISTENERS) as u8, token.0 / LISTENERS);
        let Ok(number) = u8::try_from(number) else { return false };
        let at = sctp::SocketId { listener, number };
        match self.desk.end(listener).map(|end| end.carrier) {
            Some(Carrier::Udp) => udp::receive(&mut self.desk, listener, arena, inbox),
            Some(Carrier::KernelSctp) => self.kernel_sctp.receive(&mut self.desk, at, arena, inbox, now),
            Some(Carrier::UserSctp) => self.user_sctp.receive(&mut self.desk, listener, arena, inbox, now),
            Some(Carrier::Tcp) => self.tcp.accept(&mut self.desk, listener, inbox, now),
            None => false,
        }
    }

    /// Sends what other processes posted for connections and associations that this one owns or shall open, and takes the packets they
    /// got for its own, and the messages that it is to work on. True: there is more, call again before sleeping. Call once each turn,
    /// and `worked_off` when the inbox was worked off. `losses`: of some connection's loss not all have been told; requests that leave
    /// only now, over another one, may look older than that, and are told as `Happening::Moved`.
    pub fn posted(&mut self, losses: bool, arena: &mut Arena, inbox: &mut Inbox, now: Tick) -> bool {
        let mut more = self.relay.read(arena, inbox);
        self.held_until = if self.relay.is_held() { now + 1 } else { Tick::NEVER };
        if !self.relay.is_empty() {
            let Transports { user_sctp, tcp, relay, .. } = self;
            for (from, (start, end)) in &relay.packets {
                user_sctp.posted(from, relay.outgoing.bytes.get(*start..*end).unwrap_or_default(), now);
            }
            if !relay.packets.is_empty() {
                // Before anything is sent: which associations there are is known again.
                more |= user_sctp.deliver_all(&mut self.desk, arena, inbox, now);
            }
            relay.ends.iter().for_each(|flow| tcp.end(flow.id));
            let mut outgoing = std::mem::take(&mut self.relay.outgoing);
            if losses {
                outgoing.sendings.iter().for_each(|sending| inbox.moved(sending.client));
            }
            self.flush(&mut outgoing, arena, inbox, now);
            self.relay.outgoing = outgoing;
            if !self.relay.has_frames() {
                self.relay.done(&self.desk, inbox);
            }
        }
        self.tcp.resume(&mut self.desk, arena, inbox, now);
        more |= self.user_sctp.deliver_all(&mut self.desk, arena, inbox, now);
        if let Some(mut again) = self.user_sctp.again() {
            self.flush(&mut again, arena, inbox, now);
        }
        more
    }

    /// The inbox was worked off and what came of it flushed: so are the messages that other processes posted.
    pub fn worked_off(&mut self, inbox: &mut Inbox) {
        if self.relay.has_frames() {
            self.relay.done(&self.desk, inbox);
        }
    }

    /// Call before the poll sleeps; false: do not sleep, something was posted. Call `woke` after the poll.
    pub fn announce_sleep(&self) -> bool {
        self.desk.parts.mailboxes.announce_sleep(self.desk.seat) || self.relay.is_held()
    }

    pub fn woke(&self) {
        self.desk.parts.mailboxes.woke(self.desk.seat);
    }

    /// Sends all messages of a turn and clears `outgoing`. What could not be sent is in `inbox.happenings`.
    pub fn flush(&mut self, outgoing: &mut Outgoing, arena: &Arena, inbox: &mut Inbox, now: Tick) {
        for (index, sending) in outgoing.sendings.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let listener = usize::from(sending.to.listener);
            let is_its = |end: &&End| end.transport as u8 == sending.to.transport;
            match (self.lists.get_mut(listener), self.desk.ends.get(listener).filter(is_its)) {
                (Some(list), Some(_)) => list.push(index),
                // A flow of another transport than its listener: cannot be sent.
                _ => {
                    self.desk.count(Counter::SendFailed, 1);
                    inbox.send_failed(sending.client);
                }
            }
        }
        for (listener, list) in self.lists.iter_mut().enumerate().filter(|(_, list)| !list.is_empty()) {
            let listener = listener as u8;
            let desk = &mut self.desk;
            match desk.end(listener).map(|end| end.carrier) {
                Some(Carrier::Udp) => udp::flush(desk, listener, list, outgoing, arena, inbox),
                Some(Carrier::KernelSctp) => {
                    self.kernel_sctp.flush(desk, listener, list, outgoing, arena, inbox, now);
                }
                Some(Carrier::UserSctp) => self.user_sctp.flush(desk, list, outgoing, arena, inbox, now),
                Some(Carrier::Tcp) => self.tcp.flush(desk, list, outgoing, arena, inbox, now),
                None => {}
            }
            list.clear();
        }
        self.tcp.end_what_ends(&self.desk, inbox, now);
        outgoing.clear();
    }

    /// Does what is due: blocked associations, connect time-outs, half messages, idle connections.
    pub fn tick(&mut self, inbox: &mut Inbox, now: Tick) {
        self.kernel_sctp.tick(&mut self.desk, inbox, now);
        self.user_sctp.tick(&mut self.desk, inbox, now);
        self.tcp.tick(&mut self.desk, inbox, now);
    }

    /// Has `tick` something to do?
    #[must_use]
    pub fn is_due(&self, now: Tick) -> bool {
        self.next_tick() <= now || self.looks_each_turn()
    }

    /// Is `tick` due in each turn of the loop, whatever the time?
    #[must_use]
    pub fn looks_each_turn(&self) -> bool {
        self.tcp.looks_each_turn()
    }

    /// When `tick` has something to do; `Tick::NEVER`: nothing is due.
    #[must_use]
    pub fn next_tick(&self) -> Tick {
        let owned = self.user_sctp.next_tick().min(self.tcp.next_tick(&self.desk.parts));
        self.kernel_sctp.next_tick().min(owned).min(self.held_until)
    }

    /// A process begins in a seat: the connections of the seat's last holder died with it and are reported lost; associations that it
    /// had left open are closed.
    pub fn adopt(&mut self, inbox: &mut Inbox) {
        self.kernel_sctp.adopt(&mut self.desk, inbox);
        self.user_sctp.adopt(&mut self.desk, inbox);
        self.tcp.adopt(&mut self.desk, inbox);
    }

    /// The drain is over: closes all connections of this process, and shuts the associations down in good order (each by the
    /// process that comes first).
    pub fn close_all(&mut self, inbox: &mut Inbox, now: Tick) {
        self.tcp.close_all(&mut self.desk, inbox);
        self.kernel_sctp.close_all(&mut self.desk);
        self.user_sctp.shut_down_all(&mut self.desk, now);
    }

    /// Does a peer still have to agree to the end of its association? The kernel waits for them by itself; in user space we must, and
    /// also for other workers' associations: their packets may come to this one's socket.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        if !self.desk.ends.iter().any(|end| end.carrier == Carrier::UserSctp) {
            return false;
        }
        let mut open = !self.user_sctp.is_empty();
        self.desk.parts.flows.for_each(Transport::Sctp, |flow| {
            open |= self.desk.end(flow.listener).is_some_and(|end| end.carrier == Carrier::UserSctp);
        });
        open
    }

    /// Ends what has not agreed.
    pub fn abort_all(&mut self, now: Tick) {
        self.user_sctp.abort_all(&mut self.desk, now);
    }

    /// Bytes that wait for connections and associations in this process.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.tcp.queued_bytes() + self.kernel_sctp.queued_bytes() + self.user_sctp.queued_bytes()
    }

    pub fn reload(&mut self, live: &Live) {
        self.desk.limits = live.limits.clone();
        self.desk.next_hop = live.next_hop.clone();
        self.user_sctp.reload(&live.limits, &self.desk.ends);
    }
}
