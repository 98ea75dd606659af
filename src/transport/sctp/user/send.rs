//! Sending: a turn's messages, those of one association together so that they share packets, and the packets themselves.
//!
//! Owns: setting an association up for what is to be sent, and `sendmmsg` of packets. Whose an association is, `owned` says.

use std::io;
use std::net::SocketAddr;

use sys::datagram::{Arena, Item, To};

use super::User;
use super::endpoint::Event;
use super::news::note;
use crate::shared::counters::Counter;
use crate::shared::flows::State;
use crate::shared::mailbox::Kind;
use crate::timer::Tick;
use crate::transport::desk::{Desk, SEND_BATCH};
use crate::transport::owned::{self, Way, post};
use crate::transport::{Address, Flow, FlowId, Inbox, Outgoing, Transport};

impl User {
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
        for index in list {
            let Some((sending, pieces)) = outgoing.item(*index, arena) else { continue };
            let holds = |id| self.by_id.get(&id).copied();
            match owned::way(desk, Transport::Sctp, &sending.to, sending.client, holds, inbox, now) {
                Way::Here((listener, tag)) => routed.push((listener, tag, *index)),
                Way::Open(id, to) => match self.open(desk, id, &to, now) {
                    Some(tag) => routed.push((to.listener, tag, *index)),
                    None => {
                        desk.count(Counter::AssociationFailed, 1);
                        desk.parts.flows.close(id);
                        inbox.lost(Transport::Sctp, [to.peer], id);
                        inbox.send_failed(sending.client);
                    }
                },
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
        routed.sort_unstable();
        for run in routed.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
            self.send_on(desk, run, outgoing, arena, inbox, now);
        }
        // What this brought about: packets to send, now and then an end.
        for run in routed.chunk_by(|one, other| one.0 == other.0) {
            let Some((listener, ..)) = run.first() else { continue };
            self.deliver(desk, *listener, None, inbox, now);
        }
        routed.clear();
        self.routed = routed;
    }

    /// A run of messages to one association.
    fn send_on(
        &mut self,
        desk: &Desk,
        run: &[(u8, u32, u32)],
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        let Some((listener, tag, _)) = run.first() else { return };
        let Some(Some(line)) = self.lines.get_mut(usize::from(*listener)) else { return };
        let items: Vec<_> = run.iter().filter_map(|(.., index)| outgoing.item(*index, arena)).collect();
        if let Some(id) = line.ids.get(tag)
            && items.iter().any(|(sending, _)| sending.client.is_some())
        {
            desk.parts.flows.note_request(*id);
        }
        if line.endpoint.is_closing(*tag) {
            let most = desk.limits.association_queue_bytes;
            for (sending, pieces) in items {
                if !self.closing.wait(*tag, sending.to, sending.client, pieces, most) {
                    desk.count(Counter::QueueFull, 1);
                    inbox.send_failed(sending.client);
                }
            }
            return;
        }
        let messages = items.iter().map(|(_, pieces)| pieces.concat()).collect();
        match line.endpoint.send(*tag, messages, now) {
            Ok(failed) => {
                desk.count(Counter::QueueFull, failed.len() as u64);
                failed.iter().filter_map(|place| items.get(*place)).for_each(|item| inbox.send_failed(item.0.client));
                let sent = (items.len() - failed.len()) as u64;
                desk.count(Counter::SentSctp, sent);
                if let Some(id) = line.ids.get(tag).copied() {
                    desk.parts.flows.touch(id, 0, sent, line.endpoint.queued(*tag) as u32, now);
                    note(desk, line, id, *tag, now);
                }
            }
            // Its end has come in and is not worked off yet. Of a good one nobody is told.
            Err(_) => {
                let is_good = |event: &Event| matches!(event, Event::Closed { tag: closed, .. } if closed == tag);
                let lost = !line.endpoint.events.iter().any(is_good);
                desk.count(Counter::SendFailed, items.len() as u64);
                items.iter().for_each(|item| inbox.undelivered(item.0.client, lost));
            }
        }
    }

    /// Sets an association up under the entry `id`, unless there is one: its tag.
    fn open(&mut self, desk: &Desk, id: FlowId, to: &Flow, now: Tick) -> Option<u32> {
        let Some(Some(line)) = self.lines.get_mut(usize::from(to.listener)) else { return None };
        // There is one: nobody has read yet that it is up, or its entry is gone. This is its entry from now on; if it is being shut down,
        // what is sent waits for that.
        if let Some((tag, remote)) = line.endpoint.to(to.peer).and_then(|tag| Some((tag, line.endpoint.remote(tag)?))) {
            if let Some(gone) = line.ids.insert(tag, id) {
                self.by_id.remove(&gone);
                desk.parts.flows.close(gone);
                desk.parts.flows.set_state(id, State::Open);
            }
            desk.parts.flows.name(id, tag, remote.port());
            self.by_id.insert(id, (to.listener, tag));
            return Some(tag);
        }
        let encapsulation = desk.encapsulation(to.peer).unwrap_or(self.peer_port);
        let tag = line.endpoint.connect(to.peer, remote(to.peer, encapsulation), now)?;
        desk.parts.flows.name(id, tag, encapsulation);
        line.ids.insert(tag, id);
        self.by_id.insert(id, (to.listener, tag));
        Some(tag)
    }

    /// Sends the packets that an endpoint wants sent. What the socket has no room for is lost, as a network loses it.
    pub(super) fn leave(&mut self, desk: &mut Desk, listener: u8) {
        let Some(Some(line)) = self.lines.get_mut(usize::from(listener)) else { return };
        let packets = &mut line.endpoint.packets;
        let Some(fd) = desk.ends.get(usize::from(listener)).and_then(|end| end.socket()) else {
            packets.clear();
            return;
        };
        let mut at = 0;
        while let Some(rest) = packets.get(at..).filter(|rest| !rest.is_empty()) {
            let item = |index: usize| {
                rest.get(index).map_or(Item::NONE, |(to, bytes)| Item {
                    to: To::Peer(*to),
                    pieces: [bytes, b""],
                    sctp: None,
                })
            };
            let (sent, error) = desk.sender.send(fd, rest.len().min(SEND_BATCH), false, item);
            at += sent;
            if let Some(error) = error {
                if error.kind() == io::ErrorKind::WouldBlock {
                    break;
                }
                // This one cannot go (no route, ICMP); the others may.
                at += 1;
            } else if sent == 0 {
                break;
            }
        }
        packets.clear();
    }
}

fn remote(peer: Address, encapsulation: u16) -> SocketAddr {
    peer.with_port(encapsulation).into()
}
