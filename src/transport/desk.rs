//! What the three transports of one process work with: the shared descriptors, the batch buffers, the shared memory.
//!
//! Owns: one `Receiver` and one `Sender` for all listeners. Never decides what to do with an error.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::datagram::{Receiver, Sender};

use super::sctp::{Numbers, SocketId};
use super::{Address, Parts, Transport};
use crate::config::{Limits, NextHop};
use crate::shared::counters::Counter;
use crate::shared::flows::{Limit, Refusal};

/// Messages of one `sendmmsg`; more take another.
pub const SEND_BATCH: usize = 128;

/// Who does a listener's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Udp,
    Tcp,
    KernelSctp,
    UserSctp,
}

impl Carrier {
    /// Do its connections and associations belong to processes?
    pub fn has_owners(self) -> bool {
        match self {
            Carrier::Udp | Carrier::KernelSctp => false,
            Carrier::Tcp | Carrier::UserSctp => true,
        }
    }
}

/// One `[[listen]]` as this process has it.
pub struct End {
    pub transport: Transport,
    pub carrier: Carrier,
    /// The shared socket (UDP), this seat's own (TCP; UDP with several; SCTP in user space, then of UDP), or all there are (the kernel's
    /// SCTP). None that the timer process does not need.
    pub fds: Vec<OwnedFd>,
    /// What each of several is for.
    pub numbers: Numbers,
    pub addresses: Vec<SocketAddr>,
    /// Bytes of the largest message that the socket can carry whole.
    pub most_bytes: usize,
}

impl End {
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.fds.first().map(AsFd::as_fd)
    }

    /// SIP's port on this listener.
    pub fn port(&self) -> u16 {
        self.addresses.first().map_or(0, SocketAddr::port)
    }

    /// Can it reach this peer: is the IP family the same?
    pub fn suits(&self, peer: Address) -> bool {
        self.addresses.iter().any(|address| address.is_ipv4() == peer.ip().is_ipv4())
    }
}

pub struct Desk {
    pub seat: usize,
    /// Worker seats are 0..workers.
    pub workers: usize,
    /// The seat that has all TCP connections (`Architecture::SingleOwner`).
    pub tcp_owner: Option<usize>,
    pub parts: Parts,
    pub limits: Limits,
    pub next_hop: Vec<NextHop>,
    pub ends: Vec<End>,
    pub receiver: Receiver,
    pub sender: Sender,
}

impl Desk {
    pub fn count(&self, counter: Counter, n: u64) {
        if n != 0 {
            self.parts.counters.add(self.seat, counter, n);
        }
    }

    /// A flow could not be entered: `counter` says of which kind.
    pub fn count_refusal(&self, counter: Counter, refusal: Refusal) {
        self.count(counter, 1);
        self.count(Counter::FlowsFull, u64::from(refusal == Refusal::Table));
    }

    pub fn end(&self, listener: u8) -> Option<&End> {
        self.ends.get(usize::from(listener))
    }

    /// One of the kernel's SCTP.
    pub fn socket(&self, at: SocketId) -> Option<BorrowedFd<'_>> {
        self.end(at.listener).and_then(|end| end.fds.get(usize::from(at.number))).map(AsFd::as_fd)
    }

    /// Bytes of the largest message accepted on this listener.
    pub fn most_bytes(&self, listener: u8) -> usize {
        self.end(listener).map_or(0, |end| end.most_bytes.min(self.limits.message_bytes))
    }

    /// The UDP port that the configuration names for this peer (RFC 6951).
    pub fn encapsulation(&self, peer: Address) -> Option<u16> {
        let is_there =
            |hop: &&NextHop| hop.targets.iter().any(|t| t.transport == Transport::Sctp && peer == t.address.into());
        self.next_hop.iter().find(is_there).and_then(|hop| hop.encapsulation_port)
    }

    /// Is it the SCTP address of one?
    pub fn is_next_hop(&self, peer: Address) -> bool {
        let mut targets = self.next_hop.iter().flat_map(|hop| &hop.targets);
        targets.any(|target| target.transport == Transport::Sctp && peer == target.address.into())
    }

    pub fn associations(&self) -> Limit {
        Limit { total: self.limits.associations, per_peer: self.limits.associations_per_peer }
    }

    pub fn connections(&self) -> Limit {
        Limit { total: self.limits.connections, per_peer: self.limits.connections_per_peer }
    }
}

/// Nothing but line ends (RFC 3261 §7.5): a keep-alive, no message.
pub fn is_keep_alive(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}
