//! The way of a message: over which association, or to whom one is set up.
//!
//! Owns: finding it, and refusing it where an address is only claimed (M39) or the limit of associations is reached (M20); those being
//! set up are entered in `flows`, because they count. Never sends.

use std::os::fd::{AsFd, BorrowedFd};

use sys::datagram::To;
use sys::sctp::{Path, PathState};

use super::{Desk, SocketId, notice, socket_of};
use crate::shared::counters::Counter;
use crate::shared::flows::{FlowView, Limit, Refusal, State};
use crate::timer::Tick;
use crate::transport::desk::{Carrier, End};
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

    /// By address, as the kernel knows it now: over the association that has it, or to where one may be set up. What is set up counts
    /// from here on: whoever does not begin it says so (`given_up`). What is up, and nobody has read of it yet, is entered: the news of
    /// an older one's end may be read first, and must not be taken for this one's (`FlowView::begun`).
    ///
    /// # Errors
    /// There is no way: what to count.
    pub fn by_address(desk: &Desk, listener: u8, peer: Address, now: Tick) -> Result<Way, Counter> {
        if let Some(known) = known(desk, listener, peer, now) {
            let way = known?;
            let flows = &desk.parts.flows;
            if way.association != 0
                && flows.find_association(way.association).is_none()
                && flows.find_opening(peer, listener).is_none()
            {
                // Over a limit it is aborted, which is met when the message is sent.
                notice::enter(desk, SocketId { listener, number: way.socket }, way.association, now);
            }
            return Ok(way);
        }
        let opener = desk.end(listener).and_then(|end| end.numbers.opener(peer, desk.encapsulation(peer)));
        // Without one it is no socket's number, and fails.
        let Some(socket) = opener else { return Ok(Way { association: 0, peer, socket: u8::MAX }) };
        match desk.parts.flows.opening(peer, (listener, socket), limit(desk), now) {
            Ok(_) => Ok(Way { association: 0, peer, socket }),
            Err(refusal) => {
                desk.count(Counter::FlowsFull, u64::from(refusal == Refusal::Table));
                Err(Counter::AssociationsRefused)
            }
        }
    }

    /// A15: over the association with this address that is known to be open on this listener.
    fn open(desk: &Desk, listener: u8, peer: Address) -> Option<Way> {
        let flow = desk.parts.flows.find_on(listener, Transport::Sctp, peer)?;
        (flow.state == State::Open).then(|| Way {
            association: flow.association,
            peer,
            socket: socket_of(&flow).number,
        })
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
}

impl Ways {
    pub fn new(listener: u8) -> Ways {
        Ways { listener, by_address: None, by_association: None }
    }

    /// # Errors
    /// There is none: what to count.
    pub fn of(&mut self, desk: &Desk, sending: &Sending, now: Tick) -> Result<Way, Counter> {
        let (association, peer) = (sending.to.association, address_of(sending));
        if association == 0 {
            if let Some((_, known)) = self.by_address.filter(|(address, _)| *address == peer) {
                return known;
            }
            let open = Way::open(desk, self.listener, peer);
            let found = open.map_or_else(|| Way::by_address(desk, self.listener, peer, now), Ok);
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
}

/// Where it goes when there is no association: a request to the address it is meant for, a response to the same IP at the sent-by
/// port (A17).
fn address_of(sending: &Sending) -> Address {
    let is_response = sending.to.association != 0;
    match sending.to.fallback_port {
        port if is_response && port != 0 => sending.to.peer.with_port(port),
        _ => sending.to.peer,
    }
}

/// The association that the kernel would take for this address, on whichever socket: one whose news is still unread, or that is being
/// set up. A message must not go over that of a peer that only claims to have the address (M39, L20). Who has claimed it for long is
/// aborted, so that it does not keep others from the address's owner; but not a next hop, one of whose networks may be down.
fn known(desk: &Desk, listener: u8, peer: Address, now: Tick) -> Option<Result<Way, Counter>> {
    let (fd, socket, path) = path(desk, listener, peer)?;
    if path.state != PathState::Unconfirmed {
        // Of one that we set up the id is 0 until INIT is answered: then by address.
        return Some(Ok(Way { association: path.association, peer, socket }));
    }
    let flow = desk.parts.flows.find_association(path.association);
    let is_next_hop = |flow: &FlowView| flow.peers.iter().any(|peer| desk.is_next_hop(*peer));
    if flow.is_some_and(|flow| now.since(flow.opened) >= CONFIRMED_BY_MS && !is_next_hop(&flow)) {
        tracing::warn!(%peer, association = path.association, "aborted: its peer claims an address that it does not answer on");
        if sys::sctp::abort(fd, path.association).is_ok() {
            return None;
        }
    }
    Some(Err(Counter::ClaimedAddress))
}

/// What the kernel knows of this address, and on which of the sockets: each knows its own associations only.
fn path(desk: &Desk, listener: u8, peer: Address) -> Option<(BorrowedFd<'_>, u8, Path)> {
    let fds = desk.end(listener)?.fds.iter().map(AsFd::as_fd).zip(0..);
    fds.filter_map(|(fd, socket)| Some((fd, socket, sys::sctp::path(fd, 0, peer.into()).ok()?))).next()
}

/// An association with this peer could not be set up, or has ended before anybody read that it is up: unless the kernel has one, none
/// is being set up any more, and it does not count.
pub fn given_up(desk: &Desk, listener: u8, peer: Address) -> Option<FlowView> {
    let opening = desk.parts.flows.find_opening(peer, listener)?;
    if path(desk, listener, peer).is_some() { None } else { desk.parts.flows.close(opening.id) }
}

/// How many there may be in `flows`. The kernel has some that are not there: peers set them up, and nobody has read of it yet.
fn limit(desk: &Desk) -> Limit {
    let is_kernels = |end: &&End| end.carrier == Carrier::KernelSctp;
    let fds = desk.ends.iter().filter(is_kernels).flat_map(|end| &end.fds);
    let of_kernel: usize = fds.map(|fd| sys::sctp::association_count(fd.as_fd()).unwrap_or(0)).sum();
    let (limit, live) = (desk.associations(), desk.parts.flows.live(Transport::Sctp));
    // Even if none of them is in `flows` there is room for one more: the usual case, in which nothing is counted.
    if live + of_kernel < limit.total {
        return limit;
    }
    let unread = of_kernel.saturating_sub(live.saturating_sub(in_user_space(desk)));
    Limit { total: limit.total.saturating_sub(unread), ..limit }
}

/// How many in `flows` are not the kernel's.
fn in_user_space(desk: &Desk) -> usize {
    let is_user = |end: &End| end.carrier == Carrier::UserSctp;
    let mut count = 0;
    if desk.ends.iter().any(is_user) {
        desk.parts
            .flows
            .for_each(Transport::Sctp, |flow| count += usize::from(desk.end(flow.listener).is_some_and(is_user)));
    }
    count
}
