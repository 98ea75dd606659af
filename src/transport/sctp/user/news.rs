//! What became of associations, and the messages they brought.
//!
//! Owns: entering and ending associations in `flows`, telling client transactions what failed (A19), and placing messages in the
//! arena. Never sends a packet but through `leave`.

use sys::datagram::Arena;

use super::endpoint::{Counts, Event};
use super::{Line, User};
use crate::shared::counters::Counter;
use crate::shared::flows::{PathNote, State};
use crate::timer::Tick;
use crate::transport::desk::{Desk, is_keep_alive};
use crate::transport::{Address, Flow, FlowId, Frame, Inbox, Transport};

impl User {
    /// Works off the events of one endpoint and sends what it wants sent. False: messages wait for room in the arena.
    pub(super) fn deliver(
        &mut self,
        desk: &mut Desk,
        listener: u8,
        mut arena: Option<&mut Arena>,
        inbox: &mut Inbox,
        now: Tick,
    ) -> bool {
        let most = desk.most_bytes(listener);
        let Some(Some(line)) = self.lines.get_mut(usize::from(listener)) else { return true };
        let mut placing = Placing::default();
        let mut all = true;
        while let Some(event) = line.endpoint.events.pop_front() {
            match event {
                Event::Up { tag, peer } => {
                    if let Some(id) = up(desk, line, listener, tag, peer, now) {
                        self.by_id.insert(id, (listener, tag));
                    }
                }
                Event::Message { tag, peer, bytes } => {
                    // One that we refused may still have spoken.
                    let Some(id) = line.ids.get(&tag).copied() else { continue };
                    if bytes.len() > most {
                        desk.count(Counter::TooLarge, 1);
                        continue;
                    }
                    if is_keep_alive(&bytes) {
                        desk.count(Counter::KeepAlives, 1);
                        if bytes.starts_with(b"\r\n\r\n") {
                            // A29; one that finds no room goes without.
                            let _ = line.endpoint.send(tag, vec![b"\r\n".to_vec()], now);
                        }
                        continue;
                    }
                    let place = arena.as_deref_mut().and_then(|arena| placing.place(arena, inbox, &bytes));
                    let Some((slot, start, end)) = place else {
                        line.endpoint.events.push_front(Event::Message { tag, peer, bytes });
                        all = false;
                        break;
                    };
                    desk.parts.flows.touch(id, 1, 0, line.endpoint.queued(tag) as u32, now);
                    note(desk, line, id, tag, now);
                    let transport = Transport::Sctp as u8;
                    // By its flow: the tag changes when the peer restarts.
                    let from = Flow { peer, id, association: 0, transport, listener, fallback_port: 0 };
                    inbox.frames.push(Frame { slot, start, end, from, close_after: false });
                }
                Event::Restarted { was, tag } => {
                    self.closing.ended(was, true);
                    let Some(id) = renamed(desk, line, was, tag) else { continue };
                    self.by_id.insert(id, (listener, tag));
                    // What the peer had of ours is forgotten (M38): its outstanding requests fail, the association goes on.
                    inbox.lost(Transport::Sctp, line.endpoint.peer(tag), id);
                }
                Event::Renamed { was, tag } => {
                    if let Some(id) = renamed(desk, line, was, tag) {
                        self.by_id.insert(id, (listener, tag));
                    }
                }
                Event::Closed { tag, by_peer } => {
                    self.closing.ended(tag, false);
                    // Closed in good order, which is no failure (A19): responses still to come use a new association (A17).
                    if let Some(id) = line.ids.remove(&tag) {
                        self.by_id.remove(&id);
                        desk.parts.flows.close(id);
                        desk.count(Counter::AssociationsClosed, 1);
                        desk.count(Counter::AssociationsClosedByPeer, u64::from(by_peer));
                    }
                }
                Event::Lost { tag, peer } => {
                    self.closing.ended(tag, true);
                    let Some(id) = line.ids.remove(&tag) else { continue };
                    self.by_id.remove(&id);
                    let last = desk.parts.flows.close(id);
                    let was_opening = last.is_some_and(|flow| flow.state == State::Opening);
                    let counter = if was_opening { Counter::AssociationFailed } else { Counter::AssociationsLost };
                    desk.count(counter, 1);
                    if last.is_some_and(|flow| flow.requested) {
                        inbox.lost(Transport::Sctp, [peer], id);
                    }
                }
            }
        }
        desk.count(Counter::ReceivedSctp, placing.messages);
        desk.count(Counter::Batches, u64::from(placing.messages != 0));
        let Counts { damaged, out_of_the_blue, forged_cookies, stale_cookies } =
            std::mem::take(&mut line.endpoint.counts);
        desk.count(Counter::SctpDamaged, damaged);
        desk.count(Counter::OutOfTheBlue, out_of_the_blue);
        desk.count(Counter::ForgedCookies, forged_cookies);
        desk.count(Counter::StaleCookies, stale_cookies);
        self.leave(desk, listener);
        all
    }
}

/// An association came up: ours, whose entry was claimed before, or a peer's, which is entered or refused.
fn up(desk: &mut Desk, line: &mut Line, listener: u8, tag: u32, peer: Address, now: Tick) -> Option<FlowId> {
    let encapsulation = line.endpoint.remote(tag).map_or(0, |remote| remote.port());
    if let Some(id) = line.ids.get(&tag).copied() {
        desk.parts.flows.set_state(id, State::Open);
        desk.parts.flows.name(id, tag, encapsulation);
        desk.count(Counter::AssociationsUp, 1);
        return Some(id);
    }
    let (seat, limit) = (desk.seat, desk.associations());
    match desk.parts.flows.accepted_association((tag, encapsulation), peer, listener, seat, limit, now) {
        Ok(id) => {
            desk.count(Counter::AssociationsUp, 1);
            line.ids.insert(tag, id);
            Some(id)
        }
        Err(refusal) => {
            desk.count_refusal(Counter::AssociationsRefused, refusal);
            line.endpoint.abort(tag, now);
            None
        }
    }
}

/// For `status`: what this process alone knows of the association, when it has not said so for a second.
pub(super) fn note(desk: &Desk, line: &mut Line, id: FlowId, tag: u32, now: Tick) {
    if let Some(metrics) = line.endpoint.news(tag, now) {
        let number = |n: u128| u32::try_from(n).unwrap_or(u32::MAX);
        let path = PathNote {
            srtt_us: number(metrics.srtt.as_micros()),
            cwnd: number(metrics.cwnd_bytes as u128),
            retransmitted: number(metrics.rtx_packets_count as u128),
            peer_window: metrics.peer_rwnd_bytes,
            unacknowledged: number(metrics.unack_data_count as u128),
        };
        desk.parts.flows.note_path(id, path, line.endpoint.queued(tag) as u32);
    }
}

fn renamed(desk: &Desk, line: &mut Line, was: u32, tag: u32) -> Option<FlowId> {
    let id = line.ids.remove(&was)?;
    line.ids.insert(tag, id);
    desk.parts.flows.name(id, tag, line.endpoint.remote(tag).map_or(0, |remote| remote.port()));
    Some(id)
}

/// Puts messages one behind another into the arena.
#[derive(Default)]
struct Placing {
    /// Filled so far of the slot that was begun last.
    filled: Option<(usize, usize)>,
    messages: u64,
}

impl Placing {
    /// Slot, start and end; none: no slot is free.
    fn place(&mut self, arena: &mut Arena, inbox: &mut Inbox, bytes: &[u8]) -> Option<(u16, u32, u32)> {
        let fits = |arena: &Arena, (slot, filled): (usize, usize)| filled + bytes.len() <= arena.slot(slot).len();
        let (slot, start) = match self.filled.filter(|filled| fits(arena, *filled)) {
            Some(filled) => filled,
            None if inbox.used < arena.slots() => {
                inbox.used += 1;
                (inbox.used - 1, 0)
            }
            None => return None,
        };
        let end = start + bytes.len();
        arena.slot_mut(slot).get_mut(start..end)?.copy_from_slice(bytes);
        self.filled = Some((slot, end));
        self.messages += 1;
        Some((slot as u16, start as u32, end as u32))
    }
}
