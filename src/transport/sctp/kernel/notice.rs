//! Notifications: what the kernel says of associations (RFC 6458 §6.1).
//!
//! Owns: entering and ending associations in `flows`, and telling client transactions what failed (A19). Any process may read any
//! notification, in any order (M27): everything here may come twice or late.

use sys::sctp::{AssociationState, Notification, PathState, PeerAddressState, parse_notification};

use super::{Desk, SocketId, abort, socket_of, way};
use crate::message::branch::{self, BranchId};
use crate::shared::counters::Counter;
use crate::shared::flows::{FlowView, State};
use crate::timer::Tick;
use crate::transport::desk::Carrier;
use crate::transport::{Address, FlowId, Inbox, Transport};

/// `peer`: the address the kernel gave with it, which is the association's primary one.
pub fn take(desk: &mut Desk, at: SocketId, bytes: &[u8], peer: Option<Address>, inbox: &mut Inbox, now: Tick) {
    match parse_notification(bytes) {
        Some(Notification::AssociationChange { state, association, .. }) => match state {
            AssociationState::Up => {
                desk.parts.broken.clear(association);
                if enter(desk, at, association, now) == FlowId::NONE {
                    end(desk, at, association, peer);
                }
            }
            AssociationState::Restart => {
                // What the peer had of ours is forgotten (M38): its outstanding requests fail, the association goes on. What waits in
                // some process's queue fails with them, and is thrown away there.
                let flow = desk.parts.flows.find_association(association);
                desk.parts.flows.restarted(association, now);
                tell_lost(flow.as_ref(), association, peer, inbox);
                enter(desk, at, association, now);
            }
            AssociationState::Lost => {
                desk.count(Counter::AssociationsLost, 1);
                lost(desk, at, association, peer, inbox);
            }
            AssociationState::ShutdownComplete => {
                // Closed in good order, which is no failure (A19): responses still to come use a new association (A17).
                end(desk, at, association, peer);
                desk.count(Counter::AssociationsClosed, 1);
            }
            AssociationState::CannotStart => {
                desk.count(Counter::AssociationFailed, 1);
                lost(desk, at, association, peer, inbox);
            }
            AssociationState::Other(_) => {}
        },
        Some(Notification::SendFailed { association, context, payload, .. }) => {
            desk.count(Counter::SendFailed, 1);
            inbox.undelivered(client_of(context, payload), is_gone(desk, at, association));
        }
        Some(Notification::Shutdown { association }) => {
            desk.count(Counter::AssociationsClosedByPeer, 1);
            // Takes nothing new from us; SHUTDOWN_COMP follows.
            if let Some(flow) = desk.parts.flows.find_association(association) {
                desk.parts.flows.set_state(flow.id, State::Closing);
            }
        }
        Some(Notification::PeerAddressChange { association, state, address, .. }) => {
            path_changed(desk, at, association, address, state);
            if matches!(state, PeerAddressState::Confirmed | PeerAddressState::Added | PeerAddressState::Removed)
                && desk.parts.flows.find_association(association).is_some()
            {
                enter(desk, at, association, now);
            }
        }
        // Its pieces were refused when they came.
        Some(Notification::PartialDelivery { .. } | Notification::Other(_)) | None => {}
    }
}

/// A path goes down or comes up; the association goes on over another one as long as it has one (A27).
fn path_changed(desk: &Desk, at: SocketId, association: u32, path: std::net::SocketAddr, state: PeerAddressState) {
    match state {
        PeerAddressState::Unreachable => {
            desk.count(Counter::PathsDown, 1);
            tracing::warn!(%path, association, listener = at.listener, "SCTP path is down");
        }
        PeerAddressState::Available => {
            desk.count(Counter::PathsUp, 1);
            tracing::info!(%path, association, listener = at.listener, "SCTP path is up again");
        }
        _ => {}
    }
}

/// The flow of an association that just brought a message. One that is not known (its COMM_UP is still unread, or its entry was lost
/// with a process that died while changing it) is entered.
pub fn known(desk: &Desk, at: SocketId, association: u32, now: Tick) -> FlowId {
    let touch = || desk.parts.flows.touch_association(association, 1, now);
    if let Some(id) = touch() {
        return id;
    }
    let id = enter(desk, at, association, now);
    touch().unwrap_or(id)
}

pub fn enter(desk: &Desk, at: SocketId, association: u32, now: Tick) -> FlowId {
    let Some(fd) = desk.socket(at) else { return FlowId::NONE };
    // Fails when it is gone again.
    let Ok(addresses) = sys::sctp::peer_addresses(fd, association) else { return FlowId::NONE };
    // A peer may claim any address (M39): requests are sent by address only to those that were confirmed.
    let confirmed = addresses.iter().filter(|address| {
        sys::sctp::path(fd, association, **address).is_ok_and(|path| path.state != PathState::Unconfirmed)
    });
    let peers: arrayvec::ArrayVec<Address, 4> = confirmed.take(4).map(|address| Address::from(*address)).collect();
    choose_primary(desk, at, association, &peers);
    match desk.parts.flows.associated(association, &peers, (at.listener, at.number), desk.associations(), now) {
        Ok((id, is_new)) => {
            desk.count(Counter::AssociationsUp, u64::from(is_new));
            // Another process may have handled its end before we entered it (M27): its notification will not come again.
            if is_new && is_gone(desk, at, association) {
                desk.parts.flows.close(id);
                return FlowId::NONE;
            }
            id
        }
        Err(refusal) => {
            // M20: the kernel has no limit of its own.
            desk.count_refusal(Counter::AssociationsRefused, refusal);
            // What it has said already is not heard either.
            desk.parts.broken.mark(association);
            abort(desk, at, association);
            FlowId::NONE
        }
    }
}

/// Asks the kernel: what `flows` says may be older.
fn is_gone(desk: &Desk, at: SocketId, association: u32) -> bool {
    desk.socket(at).is_none_or(|fd| sys::sctp::status(fd, association).is_err())
}

fn lost(desk: &mut Desk, at: SocketId, association: u32, peer: Option<Address>, inbox: &mut Inbox) {
    let flow = end(desk, at, association, peer);
    tell_lost(flow.as_ref(), association, peer, inbox);
}

fn end(desk: &Desk, at: SocketId, association: u32, peer: Option<Address>) -> Option<FlowView> {
    desk.parts.open_associations.strike(desk.seat, at.listener, association);
    let closed = desk.parts.flows.find_association(association).and_then(|flow| desk.parts.flows.close(flow.id));
    // One that never came up (then its id may be 0), or of which nobody has read that it did; and it came up with other addresses.
    let given_up = peer.and_then(|peer| way::given_up(desk, at.listener, peer));
    closed.or(given_up)
}

fn tell_lost(flow: Option<&FlowView>, association: u32, peer: Option<Address>, inbox: &mut Inbox) {
    // One that never came up, is not entered yet, or ended while it was entered, so that none of its addresses could be asked for: the
    // notification's own address is all that is known.
    match flow.filter(|flow| flow.peers.iter().any(|peer| !peer.is_none())) {
        Some(flow) => inbox.association_lost(flow.peers, flow.id, association),
        None => inbox.association_lost(peer, flow.map_or(FlowId::NONE, |flow| flow.id), association),
    }
}

/// RFC 9260 §6.4: of a peer with several addresses the one that the configuration names first is sent to, as long as it works; else
/// the kernel's own choice stands.
fn choose_primary(desk: &Desk, at: SocketId, association: u32, confirmed: &[Address]) {
    if confirmed.len() < 2 {
        return;
    }
    let mut targets = desk.next_hop.iter().flat_map(|hop| &hop.targets);
    let named =
        targets.find(|target| target.transport == Transport::Sctp && confirmed.contains(&target.address.into()));
    if let (Some(target), Some(fd)) = (named, desk.socket(at))
        && sys::sctp::status(fd, association).is_ok_and(|status| status.primary != Some(target.address))
    {
        // Fails when the association has just ended.
        let _ = sys::sctp::set_primary(fd, association, target.address);
    }
}

/// Associations whose end a dead predecessor had read of and not told; and what else it left of its own in `flows`.
pub fn find_ended(desk: &mut Desk, inbox: &mut Inbox) {
    let mut ended = Vec::new();
    desk.parts.flows.for_each(Transport::Sctp, |flow| {
        let at = socket_of(flow);
        let is_kernel = desk.end(flow.listener).is_some_and(|end| end.carrier == Carrier::KernelSctp);
        if !is_kernel {
            return;
        }
        // What waited in its queues died with it, and how much of the count was its own nobody knows: the others' is forgotten, too.
        if flow.queued > 0 {
            desk.parts.flows.unqueue(flow.association, flow.queued as usize);
        }
        if flow.state == State::Opening {
            way::given_up(desk, flow.listener, flow.peers[0]);
        } else if flow.association == 0 {
            // It died in `Flows::associated`. What is up is entered again when it is met.
            desk.parts.flows.close(flow.id);
        } else if is_gone(desk, at, flow.association) {
            ended.push((at, flow.association));
        }
    });
    for (at, association) in ended {
        desk.count(Counter::AssociationsLost, 1);
        lost(desk, at, association, None, inbox);
    }
}

/// Whose request it was. The context is its slot; the generation stands in the branch of the message itself, in its first
/// fragment (M28; further fragments only repeat the news).
fn client_of(context: u32, payload: &[u8]) -> Option<BranchId> {
    if context == 0 {
        return None;
    }
    let at = memchr::memmem::find(payload, b"z9hG4bK")?;
    let text = payload.get(at..)?;
    let end = text.iter().position(|byte| b";, \t\r\n".contains(byte)).unwrap_or(text.len());
    branch::read(text.get(..end)?).map(|ours| ours.id).filter(|id| id.slot == context)
}
