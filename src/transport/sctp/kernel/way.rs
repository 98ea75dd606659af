//! The way of a message: over which association, or to whom one is set up.
//!
//! Owns: finding it, and refusing it where an address is only claimed (M39) or the limit of associations is reached (M20). Never sends.

use std::os::fd::AsFd;

use sys::datagram::To;
use sys::sctp::PathState;

use super::{Desk, socket_of};
use crate::shared::counters::Counter;
use crate::shared::flows::State;
use crate::timer::Tick;
use crate::transport::desk::End;
use crate::transport::outgoing::Sending;
use crate::transport::{Address, Transport};

/// Milliseconds after which an address that nobody has confirmed is taken for a lie: the kernel's first heartbeats are answered, or
/// lost several times, by then.
const CONFIRMED_BY_MS: u64 = 5_000;

#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// 0: by `peer`; the kernel finds the association or sets one up (M01, M02).
    pub association: u32,
    /// To whom when there is no association.
    pub peer: Address,
    /// The number of the socket: that of the association, or the one that sets it up.
    pub socket: u8,
}

impl Way {
    pub fn to(self) -> To {
        if self.association != 0 { To::Association(self.association) } else { To::Peer(self.peer.into()) }
    }

    /// The association is gone: by address from now on.
    pub fn fall_back(&mut self, desk: &Desk, listener: u8) {
        *self = Way::opening(desk, listener, self.peer);
    }

    /// A15: over the open association with this address on this listener, or to where one is set up.
    pub fn to_address(desk: &Desk, listener: u8, peer: Address) -> Way {
        let flow = desk.parts.flows.find_by_peer(Transport::Sctp, peer);
        match flow.filter(|flow| flow.state == State::Open && flow.listener == listener) {
            Some(flow) => Way { association: flow.association, peer, socket: socket_of(&flow).number },
            None => Way::opening(desk, listener, peer),
        }
    }

    fn opening(desk: &Desk, listener: u8, peer: Address) -> Way {
        let opener = |end: &End| end.numbers.opener(peer, desk.encapsulation(peer));
        // Without one it is no socket's number, and fails.
        Way { association: 0, peer, socket: desk.end(listener).and_then(opener).unwrap_or(u8::MAX) }
    }

    fn over(desk: &Desk, listener: u8, association: u32, peer: Address) -> Way {
        let several = desk.end(listener).is_some_and(|end| end.fds.len() > 1);
        let flow = if several { desk.parts.flows.find_association(association) } else { None };
        Way { association, peer, socket: flow.map_or(0, |flow| socket_of(&flow).number) }
    }
}

/// The ways of one flush on one listener. A trunk's messages follow one another: each is looked up once.
pub struct Ways {
    listener: u8,
    by_address: Option<(Address, Result<Way, Counter>)>,
    by_association: Option<Way>,
    /// Peers that associations are set up to by what was planned so far.
    opening: Vec<Address>,
}

impl Ways {
    pub fn new(listener: u8) -> Ways {
        Ways { listener, by_address: None, by_association: None, opening: Vec::new() }
    }

    /// # Errors
    /// There is none: what to count.
    pub fn of(&mut self, desk: &Desk, sending: &Sending, now: Tick) -> Result<Way, Counter> {
        let (association, peer) = (sending.to.association, by_address(sending));
        if association == 0 {
            if let Some((_, known)) = self.by_address.filter(|(address, _)| *address == peer) {
                return known;
            }
            let found = self.look_up(desk, peer, now);
            self.by_address = Some((peer, found));
            return found;
        }
        if desk.parts.broken.contains(association) {
            return Err(Counter::Broken);
        }
        let way = match self.by_association.filter(|way| way.association == association) {
            Some(known) => Way { peer, ..known },
            None => Way::over(desk, self.listener, association, peer),
        };
        self.by_association = Some(way);
        Ok(way)
    }

    fn look_up(&mut self, desk: &Desk, peer: Address, now: Tick) -> Result<Way, Counter> {
        let way = Way::to_address(desk, self.listener, peer);
        if way.association != 0 || self.opening.contains(&peer) {
            return Ok(way);
        }
        match standing(desk, self.listener, peer, now) {
            Standing::Claimed => Err(Counter::ClaimedAddress),
            Standing::Known => Ok(way),
            Standing::Stranger => {
                if associations(desk, self.listener) + self.opening.len() >= desk.limits.associations {
                    return Err(Counter::AssociationsRefused);
                }
                self.opening.push(peer);
                Ok(way)
            }
        }
    }
}

/// Where it goes when there is no association: a request to the address it is meant for, a response to the same IP at the sent-by
/// port (A17).
fn by_address(sending: &Sending) -> Address {
    let is_response = sending.to.association != 0;
    match sending.to.fallback_port {
        port if is_response && port != 0 => sending.to.peer.with_port(port),
        _ => sending.to.peer,
    }
}

/// What the kernel knows of an address that we have no open association with.
enum Standing {
    Stranger,
    /// An association is being set up, or its news is still unread.
    Known,
    /// The peer of some association has only said that it is there (M39, L20).
    Claimed,
}

/// A message must not go over the association of a peer that only claims to have its address. Who has claimed it for long is aborted,
/// so that it does not keep others from the address's owner.
fn standing(desk: &Desk, listener: u8, peer: Address, now: Tick) -> Standing {
    // Each socket knows its own associations only.
    let fds = desk.end(listener).into_iter().flat_map(|end| &end.fds).map(AsFd::as_fd);
    let mut known = fds.filter_map(|fd| Some((fd, sys::sctp::path(fd, 0, peer.into()).ok()?))).peekable();
    if known.peek().is_none() {
        return Standing::Stranger;
    }
    let Some((fd, path)) = known.find(|(_, path)| path.state == PathState::Unconfirmed) else { return Standing::Known };
    let since = desk.parts.flows.find_association(path.association).map_or(now, |flow| flow.opened);
    if now.since(since) < CONFIRMED_BY_MS {
        return Standing::Claimed;
    }
    tracing::warn!(%peer, association = path.association, "aborted: its peer claims an address that it does not answer on");
    if sys::sctp::abort(fd, path.association).is_err() { Standing::Claimed } else { Standing::Stranger }
}

/// All that count against the limit: those that are up, or this listener's with those being set up, which only the kernel knows.
fn associations(desk: &Desk, listener: u8) -> usize {
    let fds = desk.end(listener).into_iter().flat_map(|end| &end.fds);
    let of_kernel: usize = fds.map(|fd| sys::sctp::association_count(fd.as_fd()).unwrap_or(0)).sum();
    of_kernel.max(desk.parts.flows.live(Transport::Sctp))
}
