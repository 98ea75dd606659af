//! Whose a connection or association is: TCP's, and those of SCTP in user space.
//!
//! Owns: the choice of the way a message takes to the one process that may send it. Opening is claimed in `flows` first, so that no
//! two processes open to one peer at once. The kernel's SCTP and UDP need none of this. Never sends, never waits.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::desk::Desk;
use super::{Flow, FlowId, Happening, Inbox, Transport};
use crate::message::branch::BranchId;
use crate::shared::counters::Counter;
use crate::shared::flows::{Claim, FlowView, State};
use crate::shared::mailbox::Kind;
use crate::timer::Tick;

/// Where a message leaves.
pub enum Way<H> {
    /// Through a handle of this process.
    Here(H),
    /// Nobody has one: this process opens it, under this entry of `flows`.
    Open(FlowId, Flow),
    /// Another process has it, or is opening it.
    There(usize, FlowId),
    /// The timer process owns nothing: this worker shall open one.
    Ask(usize, Flow),
    /// No way.
    Nowhere,
}

/// Finds the way of a message. `holds`: this process's handle of an entry, if it can still be sent through.
pub fn way<H>(
    desk: &mut Desk,
    transport: Transport,
    to: &Flow,
    client: Option<BranchId>,
    holds: impl Fn(FlowId) -> Option<H>,
    inbox: &mut Inbox,
    now: Tick,
) -> Way<H> {
    let mut to = *to;
    if to.id != FlowId::NONE {
        // The usual case: ours, and no lock taken.
        if let Some(handle) = holds(to.id) {
            return Way::Here(handle);
        }
        match desk.parts.flows.find(to.id) {
            Some(flow) if usable(&flow) && flow.owner != desk.seat => return Way::There(flow.owner, flow.id),
            _ => {}
        }
        // It is gone. A request is for whoever is there, over any connection; a response goes to the same IP at the sent-by port
        // (E08, A17).
        match client {
            Some(client) => inbox.happenings.push(Happening::Moved { client }),
            None if to.fallback_port == 0 => return Way::Nowhere,
            None => to.peer = to.peer.with_port(to.fallback_port),
        }
        to.id = FlowId::NONE;
    }
    if !opens(desk, transport) {
        let found = match transport {
            Transport::Sctp => desk.parts.flows.find_on(to.listener, transport, to.peer),
            Transport::Tcp | Transport::Udp => desk.parts.flows.find_by_peer(transport, to.peer),
        };
        return match found {
            Some(flow) => Way::There(flow.owner, flow.id),
            None => Way::Ask(any_worker(desk, &to), to),
        };
    }
    let (limit, refused) = match transport {
        Transport::Sctp => (desk.associations(), Counter::AssociationsRefused),
        Transport::Tcp | Transport::Udp => (desk.connections(), Counter::ConnectionsRefused),
    };
    loop {
        return match desk.parts.flows.claim(transport, to.peer, to.listener, desk.seat, limit, now) {
            Claim::Mine(id) => Way::Open(id, to),
            Claim::Other(flow) if flow.owner == desk.seat => match holds(flow.id) {
                Some(handle) => Way::Here(handle),
                // An entry with nothing behind it, left from a predecessor: in its place this process opens one.
                None if desk.parts.flows.close(flow.id).is_some() => continue,
                None => Way::Nowhere,
            },
            Claim::Other(flow) => Way::There(flow.owner, flow.id),
            Claim::Full(refusal) => {
                desk.count_refusal(refused, refusal);
                Way::Nowhere
            }
        };
    }
}

/// May this process have connections or associations of this transport?
fn opens(desk: &Desk, transport: Transport) -> bool {
    desk.seat < desk.workers || (transport == Transport::Tcp && desk.tcp_owner == Some(desk.seat))
}

fn usable(flow: &FlowView) -> bool {
    matches!(flow.state, State::Opening | State::Open)
}

/// The worker that opens to this peer for the timer process: always the same, so that two are not asked.
fn any_worker(desk: &Desk, to: &Flow) -> usize {
    let mut hasher = DefaultHasher::new();
    to.peer.hash(&mut hasher);
    (hasher.finish() % desk.workers.max(1) as u64) as usize
}

/// Hands a message to the process in `seat`.
pub fn post(
    desk: &Desk,
    seat: usize,
    kind: Kind,
    to: &Flow,
    client: Option<BranchId>,
    pieces: [&[u8]; 2],
    inbox: &mut Inbox,
) {
    match desk.parts.mailboxes.post((desk.seat, seat), kind, to, client, pieces) {
        Ok(()) => desk.count(Counter::Posted, 1),
        Err(_) => {
            desk.count(Counter::MailboxFull, 1);
            inbox.send_failed(client);
        }
    }
}
