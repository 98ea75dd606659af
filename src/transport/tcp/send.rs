//! Who sends a message over which connection.
//!
//! Owns: finding or opening the connection, one `writev` per connection and turn, and posting to the process that owns it. Opening
//! is claimed in `flows` first, so that no two processes connect to one peer at once; what is sent meanwhile waits in the
//! connection's bounded queue. Never waits.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IoSlice;

use arrayvec::ArrayVec;
use sys::datagram::Arena;

use super::{Connection, Desk, Inbox, Phase, Tcp, Tick, Transport, connect};
use crate::message::branch::BranchId;
use crate::shared::counters::Counter;
use crate::shared::flows::{Claim, FlowView, State};
use crate::shared::mailbox::Kind;
use crate::transport::outgoing::Body;
use crate::transport::{Flow, FlowId, Happening, Outgoing};

/// Messages of one `writev`; more take another.
const BATCH: usize = 64;
/// Bytes taken from the mailboxes before they are sent.
const RELAY_BYTES: usize = 256 * 1024;

/// Where a message leaves.
enum Way {
    /// A connection of this process.
    Here(usize),
    /// Another process has it, or is opening it.
    There(usize, FlowId),
    /// The timer process owns no connection: this worker shall open one.
    Ask(usize, Flow),
    /// No way.
    Nowhere,
}

impl Tcp {
    /// Sends the messages at these places of `outgoing`.
    pub fn flush(
        &mut self,
        desk: &mut Desk,
        list: &mut Vec<u32>,
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        let mut routed = std::mem::take(&mut self.routed);
        for index in list.drain(..) {
            let Some((sending, pieces)) = outgoing.item(index, arena) else { continue };
            match self.way(desk, &sending.to, sending.client, inbox, now) {
                Way::Here(slot) => routed.push((slot, index)),
                Way::There(seat, id) => {
                    let to = Flow { id, ..sending.to };
                    post(desk, seat, Kind::Send, &to, sending.client, pieces, inbox);
                }
                Way::Ask(seat, to) => post(desk, seat, Kind::Open, &to, sending.client, pieces, inbox),
                Way::Nowhere => {
                    desk.count(Counter::SendFailed, 1);
                    inbox.send_failed(sending.client);
                }
            }
        }
        // A connection's messages together, each in the order in which it was decided.
        routed.sort_unstable();
        for run in routed.chunk_by(|one, other| one.0 == other.0) {
            let Some((slot, _)) = run.first() else { continue };
            self.send_on(desk, *slot, run, outgoing, arena, inbox, now);
        }
        routed.clear();
        self.routed = routed;
        self.end_what_ends(desk, inbox, now);
    }

    /// Takes what other processes posted and sends it; true: there is more.
    pub fn posted(&mut self, desk: &mut Desk, arena: &Arena, inbox: &mut Inbox, now: Tick) -> bool {
        let mut relay = std::mem::take(&mut self.relay);
        let mut more = false;
        for from in 0..desk.parts.mailboxes.seats() {
            while let (begin, true) = (relay.begin(), relay.bytes.len() < RELAY_BYTES) {
                let Some(posted) = self.mailbox.next(from, &mut relay.bytes) else { break };
                relay.finish(begin, posted.to, Body::Empty, posted.client);
            }
            more |= relay.bytes.len() >= RELAY_BYTES;
        }
        if !relay.sendings.is_empty() {
            let mut list = std::mem::take(&mut self.relayed);
            list.extend((0..).take(relay.sendings.len()));
            self.flush(desk, &mut list, &relay, arena, inbox, now);
            self.relayed = list;
            // Only now: should we die before, the next holder of this seat sends them (SIP absorbs a repetition).
            self.mailbox.done();
            relay.clear();
        }
        self.relay = relay;
        more
    }

    /// Finds the connection a message belongs on, or opens one.
    fn way(&mut self, desk: &mut Desk, to: &Flow, client: Option<BranchId>, inbox: &mut Inbox, now: Tick) -> Way {
        let mut to = *to;
        if to.id != FlowId::NONE {
            // The usual case: ours, and no lock taken.
            if let Some(slot) = self.by_id.get(&to.id).copied().filter(|slot| self.takes(*slot)) {
                return Way::Here(slot);
            }
            match desk.parts.flows.find(to.id) {
                Some(flow) if usable(&flow) && flow.owner != desk.seat => return Way::There(flow.owner, flow.id),
                _ => {}
            }
            // The connection is gone. A request is for whoever is there, over any connection; a response goes to the same IP at the
            // sent-by port (E08).
            match client {
                Some(client) => inbox.happenings.push(Happening::Moved { client }),
                None if to.fallback_port == 0 => return Way::Nowhere,
                None => to.peer = to.peer.with_port(to.fallback_port),
            }
            to.id = FlowId::NONE;
        }
        if desk.seat >= desk.workers {
            return match desk.parts.flows.find_by_peer(Transport::Tcp, to.peer) {
                Some(flow) => Way::There(flow.owner, flow.id),
                None => Way::Ask(any_worker(desk, &to), to),
            };
        }
        match desk.parts.flows.claim(Transport::Tcp, to.peer, to.listener, desk.seat, desk.connections(), now) {
            Claim::Mine(id) => self.open(desk, id, &to, inbox, now).map_or(Way::Nowhere, Way::Here),
            Claim::Other(flow) if flow.owner == desk.seat => match self.by_id.get(&flow.id) {
                Some(slot) => Way::Here(*slot),
                None => {
                    // An entry without a connection, left from a predecessor: the next message opens one.
                    desk.parts.flows.close(flow.id);
                    Way::Nowhere
                }
            },
            Claim::Other(flow) => Way::There(flow.owner, flow.id),
            Claim::Full(refusal) => {
                desk.count_refusal(Counter::ConnectionsRefused, refusal);
                Way::Nowhere
            }
        }
    }

    /// Has it not said its last word?
    fn takes(&self, slot: usize) -> bool {
        self.connections.get(slot).is_some_and(|place| place.as_ref().is_some_and(|one| one.phase != Phase::Lingering))
    }

    fn open(&mut self, desk: &Desk, id: FlowId, to: &Flow, inbox: &mut Inbox, now: Tick) -> Option<usize> {
        match connect(to.peer) {
            Ok(stream) => self.keep(desk, Connection::new(stream, id, to.peer, to.listener, Phase::Connecting, now)),
            Err(_) => {
                desk.count(Counter::ConnectFailed, 1);
                desk.parts.flows.close(id);
                inbox.lost(Transport::Tcp, [to.peer], id);
                None
            }
        }
    }

    /// Writes a run of messages to one connection, behind what waits there.
    #[allow(clippy::too_many_arguments)]
    fn send_on(
        &mut self,
        desk: &Desk,
        slot: usize,
        run: &[(usize, u32)],
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        for run in run.chunks(BATCH) {
            let batch: ArrayVec<_, BATCH> = run.iter().filter_map(|(_, index)| outgoing.item(*index, arena)).collect();
            let Some(Some(connection)) = self.connections.get_mut(slot) else {
                batch.iter().for_each(|(sending, _)| inbox.send_failed(sending.client));
                continue;
            };
            let pieces = batch.iter().flat_map(|(_, pieces)| pieces).filter(|piece| !piece.is_empty());
            let slices: ArrayVec<_, { 2 * BATCH }> = pieces.map(|piece| IoSlice::new(piece)).collect();
            let mut written = match connection.write(&slices) {
                Ok(written) => written,
                Err(_) => {
                    batch.iter().for_each(|(sending, _)| inbox.send_failed(sending.client));
                    desk.count(Counter::SendFailed, batch.len() as u64);
                    self.close(desk, slot, inbox);
                    continue;
                }
            };
            if written != 0 {
                connection.last = now;
            }
            for (sending, pieces) in &batch {
                for piece in pieces {
                    let taken = written.min(piece.len());
                    written -= taken;
                    connection.queue(piece.get(taken..).unwrap_or_default(), &mut self.spare);
                }
                connection.note_client(sending.client);
            }
            desk.count(Counter::SentTcp, batch.len() as u64);
            let waiting = connection.waiting();
            desk.parts.flows.touch(connection.id, 0, batch.len() as u64, waiting as u32, now);
            if waiting > desk.limits.connection_queue_bytes {
                // A peer that does not read: it keeps nobody's memory.
                desk.count(Counter::Stalled, 1);
                self.close(desk, slot, inbox);
            }
        }
    }
}

fn usable(flow: &FlowView) -> bool {
    matches!(flow.state, State::Opening | State::Open)
}

/// The worker that opens connections to this peer for the timer process: always the same, so that two are not asked.
fn any_worker(desk: &Desk, to: &Flow) -> usize {
    let mut hasher = DefaultHasher::new();
    to.peer.hash(&mut hasher);
    (hasher.finish() % desk.workers.max(1) as u64) as usize
}

fn post(
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
