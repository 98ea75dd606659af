//! UDP: RFC 3261 §18, one datagram, one message.
//!
//! Owns: nothing that lasts. One turn is one `recvmmsg` and one `sendmmsg` per listener. Never retransmits.

use std::io;
use std::net::SocketAddr;

use sys::datagram::{Arena, Item, To};

use super::desk::{Desk, SEND_BATCH, is_keep_alive};
use super::{Flow, Frame, Inbox, Outgoing, Transport};
use crate::shared::counters::Counter;

/// Reads one batch; true when it was full: there may be more.
pub fn receive(desk: &mut Desk, listener: u8, arena: &mut Arena, inbox: &mut Inbox) -> bool {
    let most = desk.most_bytes(listener);
    let room = arena.slots().saturating_sub(inbox.used);
    let Some(end) = desk.ends.get(usize::from(listener)) else { return false };
    let Some(fd) = end.socket() else { return false };
    let received = match desk.receiver.receive(fd, arena, inbox.used, room) {
        Ok(received) => received,
        Err(_) => {
            desk.count(Counter::SocketErrors, 1);
            return false;
        }
    };
    for index in 0..received {
        let datagram = desk.receiver.get(index);
        let Some(peer) = datagram.peer else { continue };
        if datagram.truncated || datagram.len > most {
            desk.count(Counter::TooLarge, 1);
            continue;
        }
        if is_keep_alive(arena.slot(datagram.slot).get(..datagram.len).unwrap_or_default()) {
            desk.count(Counter::KeepAlives, 1);
            continue;
        }
        // Known where the socket is bound to all our addresses: the answer must come from this one (E05).
        let association = datagram.own.map_or(0, |own| desk.parts.own_addresses.number(own));
        let transport = Transport::Udp as u8;
        let from = Flow { peer: peer.into(), association, transport, listener, ..Flow::default() };
        let (slot, end) = (datagram.slot as u16, datagram.len as u32);
        inbox.frames.push(Frame { slot, start: 0, end, from, close_after: false });
    }
    inbox.used += received;
    desk.count(Counter::ReceivedUdp, received as u64);
    desk.count(Counter::Batches, u64::from(received != 0));
    received == room && room != 0
}

/// Sends the messages at these places of `outgoing`, all of one listener.
pub fn flush(desk: &mut Desk, listener: u8, list: &[u32], outgoing: &Outgoing, arena: &Arena, inbox: &mut Inbox) {
    let fd = desk.ends.get(usize::from(listener)).and_then(|end| end.socket());
    let mut at = 0;
    let mut sent_all = 0;
    let mut failed = 0;
    let mut full = 0;
    // Which message, if any, could not leave from its own address: the address may have gone with its interface.
    let mut from_any = None;
    let own_addresses = desk.parts.own_addresses;
    let own = |place: usize| {
        let sending = list.get(place).and_then(|index| outgoing.sendings.get(*index as usize))?;
        own_addresses.ip(sending.to.association)
    };
    while let Some(rest) = list.get(at..).filter(|rest| !rest.is_empty()) {
        let item = |index: usize| {
            let message = rest.get(index).and_then(|index| outgoing.item(*index, arena));
            let Some((sending, pieces)) = message else { return Item::NONE };
            let to: SocketAddr = sending.to.peer.into();
            let to = match own(at + index).filter(|_| from_any != Some(at + index)) {
                Some(own) => To::PeerFrom(to, own),
                None => To::Peer(to),
            };
            Item { to, pieces, sctp: None }
        };
        let (sent, error) = match fd {
            Some(fd) => desk.sender.send(fd, rest.len().min(SEND_BATCH), false, item),
            None => (0, Some(io::ErrorKind::NotConnected.into())),
        };
        at += sent;
        sent_all += sent;
        let Some(error) = error.or_else(|| (sent == 0).then(|| io::ErrorKind::Other.into())) else { continue };
        if error.kind() != io::ErrorKind::WouldBlock && from_any != Some(at) && own(at).is_some() {
            from_any = Some(at);
            continue;
        }
        // This one will not go; the rest may. No room is no transport error: SIP sends again over UDP.
        if error.kind() == io::ErrorKind::WouldBlock {
            full += 1;
        } else {
            failed += 1;
            inbox.send_failed(list.get(at).and_then(|index| outgoing.sendings.get(*index as usize)?.client));
        }
        at += 1;
    }
    desk.count(Counter::SentUdp, sent_all as u64);
    desk.count(Counter::SendFailed, failed);
    desk.count(Counter::QueueFull, full);
}
