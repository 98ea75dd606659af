//! Who sends a message over which connection.
//!
//! Owns: opening a connection, and one `writev` per connection and turn. What is sent while it opens waits in the connection's
//! bounded queue. Whose connection it is, `owned` says. Never waits.

use std::io::IoSlice;

use arrayvec::ArrayVec;
use sys::datagram::Arena;

use super::{Connection, Desk, Inbox, Phase, Symmetric, Tick, Transport, connect};
use crate::message::branch::BranchId;
use crate::shared::counters::Counter;
use crate::shared::mailbox::Kind;
use crate::transport::owned::{self, Way, post};
use crate::transport::{Flow, FlowId, Outgoing};

/// Messages of one `writev`; more take another.
const BATCH: usize = 64;

impl Symmetric {
    /// Sends the messages at these places of `outgoing`.
    pub fn flush(
        &mut self,
        desk: &mut Desk,
        list: &[u32],
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        let mut routed = std::mem::take(&mut self.routed);
        // A trunk's messages follow one another: look it up once.
        let mut found = None;
        for index in list.iter().copied() {
            let Some((sending, pieces)) = outgoing.item(index, arena) else { continue };
            if let Some((to, slot)) = found
                && to == sending.to
            {
                routed.push((slot, index));
                continue;
            }
            let holds = |id| self.by_id.get(&id).copied().filter(|slot| self.takes(*slot));
            match owned::way(desk, Transport::Tcp, &sending.to, sending.client, holds, inbox, now) {
                Way::Here(slot) => {
                    routed.push((slot, index));
                    // Not where its own connection is gone: each of its requests is to be told of as moved.
                    let id = sending.to.id;
                    if id == FlowId::NONE || self.by_id.get(&id) == Some(&slot) {
                        found = Some((sending.to, slot));
                    }
                }
                Way::Open(id, to) => match self.open(desk, id, &to, now) {
                    Some(slot) => routed.push((slot, index)),
                    None => nowhere(desk, sending.client, inbox),
                },
                Way::There(seat, id) => {
                    let to = Flow { id, ..sending.to };
                    post(desk, seat, Kind::Send, &to, sending.client, pieces, inbox);
                }
                Way::Ask(seat, to) => post(desk, seat, Kind::Open, &to, sending.client, pieces, inbox),
                Way::Nowhere => nowhere(desk, sending.client, inbox),
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
    }

    /// Has it not said its last word?
    fn takes(&self, slot: usize) -> bool {
        self.connections.get(slot).is_some_and(|connection| connection.phase != Phase::Lingering)
    }

    fn open(&mut self, desk: &Desk, id: FlowId, to: &Flow, now: Tick) -> Option<usize> {
        match connect(to.peer) {
            Ok(stream) => self.keep(desk, Connection::new(stream, id, to.peer, to.listener, Phase::Connecting, now)),
            Err(_) => {
                // Nothing was sent over it: the caller tells the one request that this fails.
                desk.count(Counter::ConnectFailed, 1);
                desk.parts.flows.close(id);
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
            // In place, both: collected, the lists would be copied whole.
            let mut batch = ArrayVec::<_, BATCH>::new();
            batch.extend(run.iter().filter_map(|(_, index)| outgoing.item(*index, arena)));
            let Some(connection) = self.connections.get_mut(slot) else {
                batch.iter().for_each(|(sending, _)| inbox.send_failed(sending.client));
                continue;
            };
            if !connection.requested && batch.iter().any(|(sending, _)| sending.client.is_some()) {
                // Before it leaves: a successor must know of it.
                connection.requested = true;
                desk.parts.flows.note_request(connection.id);
            }
            let pieces = batch.iter().flat_map(|(_, pieces)| pieces).filter(|piece| !piece.is_empty());
            let mut slices = ArrayVec::<_, { 2 * BATCH }>::new();
            slices.extend(pieces.map(|piece| IoSlice::new(piece)));
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

fn nowhere(desk: &Desk, client: Option<BranchId>, inbox: &mut Inbox) {
    desk.count(Counter::SendFailed, 1);
    inbox.send_failed(client);
}
