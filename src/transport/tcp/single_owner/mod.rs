//! TCP, `single_owner`: one process has every connection, the shape that OpenSER's descendants have moved to.
//!
//! Owns: nothing of its own; the connections are `symmetric`'s, all in one process, the owner. What differs: the owner works on no
//! message. It cuts the streams and hands each whole message to a worker (`hand`), which posts what it sends back to the owner. So
//! no other process has a descriptor, and every message passes two mailboxes: what that costs is what this is here to show.
//!
//! Nobody ever waits for another. A worker that is behind is given no more; the owner then reads no more from its connections, and
//! TCP's own flow control stops the peers (so nothing is lost). A worker whose mailbox to the owner is half full works on nothing
//! more from there; the owner takes what is posted to it whatever else it does, so both cannot stand still.
//!
//! With the owner all connections end. Its successor tells those that waited on them, and goes on with what was posted.

mod hand;

use std::collections::VecDeque;
use std::io;

use mio::Registry;
use sys::datagram::Arena;

use self::hand::Hand;
use super::symmetric::Symmetric;
use crate::config::Config;
use crate::shared::counters::Counter;
use crate::shared::mailbox::Kind;
use crate::timer::Tick;
use crate::transport::desk::{Desk, End};
use crate::transport::{Flow, FlowId, Inbox, Outgoing, Ready, Transport};

/// Connections that are gone on with in one turn.
const RESUMED: usize = 64;
/// What no worker had room for is offered again so many milliseconds later, or with the next turn.
const PAUSE_MS: u64 = 1;

/// The TCP of one process.
pub struct SingleOwner {
    /// None in all others: they post to `seat`.
    owner: Option<Owner>,
    seat: usize,
}

impl SingleOwner {
    pub fn new(config: &Config, ends: &mut [End], seat: usize, registry: Registry) -> io::Result<SingleOwner> {
        let owners = config.extra_seat().ok_or(io::ErrorKind::InvalidInput)?;
        let owner = if seat == owners { Some(Owner::new(config, ends, registry)?) } else { None };
        Ok(SingleOwner { owner, seat: owners })
    }

    pub fn accept(&mut self, desk: &mut Desk, listener: u8, now: Tick) -> bool {
        self.owner.as_mut().is_some_and(|owner| owner.connections.accept(desk, listener, now))
    }

    pub fn receive(
        &mut self,
        desk: &mut Desk,
        slot: usize,
        ready: Ready,
        arena: &mut Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) -> bool {
        self.owner.as_mut().is_some_and(|owner| owner.receive(desk, slot, ready, arena, inbox, now))
    }

    pub fn resume(&mut self, desk: &mut Desk, arena: &mut Arena, inbox: &mut Inbox, now: Tick) {
        if let Some(owner) = &mut self.owner {
            owner.resume(desk, arena, inbox, now);
        }
    }

    pub fn end(&mut self, id: FlowId) {
        if let Some(owner) = &mut self.owner {
            owner.connections.end(id);
        }
    }

    pub fn flush(
        &mut self,
        desk: &mut Desk,
        list: &[u32],
        outgoing: &Outgoing,
        arena: &Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        match &mut self.owner {
            Some(owner) => owner.connections.flush(desk, list, outgoing, arena, inbox, now),
            None => post_all(desk, self.seat, list, outgoing, arena, inbox),
        }
    }

    pub fn end_what_ends(&mut self, desk: &Desk, inbox: &mut Inbox, now: Tick) {
        if let Some(owner) = &mut self.owner {
            owner.connections.end_what_ends(desk, inbox, now);
        }
    }

    pub fn next_tick(&self) -> Tick {
        self.owner.as_ref().map_or(Tick::NEVER, |owner| owner.connections.next_tick().min(owner.resume_at))
    }

    pub fn tick(&mut self, desk: &mut Desk, inbox: &mut Inbox, now: Tick) {
        if let Some(owner) = &mut self.owner {
            owner.connections.tick(desk, inbox, now);
        }
    }

    pub fn adopt(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        if let Some(owner) = &mut self.owner {
            owner.connections.adopt(desk, inbox);
        }
    }

    pub fn close_all(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        if let Some(owner) = &mut self.owner {
            owner.connections.close_all(desk, inbox);
        }
    }

    pub fn queued_bytes(&self) -> usize {
        self.owner.as_ref().map_or(0, |owner| owner.connections.queued_bytes())
    }
}

/// The process that has the connections.
pub struct Owner {
    connections: Symmetric,
    hand: Hand,
    left: Left,
    parked: Parked,
    resume_at: Tick,
}

impl Owner {
    fn new(config: &Config, ends: &mut [End], registry: Registry) -> io::Result<Owner> {
        let mut connections = Symmetric::new(config, ends, registry)?;
        connections.patient = true;
        Ok(Owner {
            connections,
            hand: Hand::new(config.workers),
            left: Left::default(),
            parked: Parked::default(),
            resume_at: Tick::NEVER,
        })
    }

    fn receive(
        &mut self,
        desk: &mut Desk,
        slot: usize,
        ready: Ready,
        arena: &mut Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) -> bool {
        if !self.left.is_empty() && (ready.readable || ready.closed) {
            // The edge will not come again.
            self.parked.add(slot, ready);
            self.resume_at = now + PAUSE_MS;
            let ready = Ready { readable: false, closed: false, ..ready };
            self.connections.receive(desk, slot, ready, arena, inbox, now);
            return false;
        }
        let more = self.connections.receive(desk, slot, ready, arena, inbox, now);
        self.hand_out(desk, slot, arena, inbox);
        more
    }

    /// Gives the workers what one connection has brought.
    fn hand_out(&mut self, desk: &Desk, slot: usize, arena: &Arena, inbox: &mut Inbox) {
        for frame in &inbox.frames {
            let bytes = arena.slot(usize::from(frame.slot)).get(frame.start as usize..frame.end as usize);
            let bytes = bytes.unwrap_or_default();
            let kind = if frame.close_after { Kind::LastMessage } else { Kind::Message };
            if !self.left.is_empty() || !self.hand.give(desk, slot, kind, &frame.from, bytes) {
                self.left.add(slot, kind, frame.from, bytes);
            }
        }
        inbox.clear_frames();
    }

    /// Wakes those who were given something in this turn; goes on where there was no room.
    fn resume(&mut self, desk: &mut Desk, arena: &mut Arena, inbox: &mut Inbox, now: Tick) {
        self.hand.wake(desk);
        if self.left.is_empty() && self.parked.is_empty() {
            return;
        }
        let Owner { left, hand, .. } = self;
        left.give(|slot, kind, from, bytes| hand.give(desk, slot, kind, from, bytes));
        for _ in 0..RESUMED {
            if !self.left.is_empty() {
                break;
            }
            let Some((slot, ready)) = self.parked.next() else { break };
            if self.receive(desk, slot, ready, arena, inbox, now) {
                self.parked.add(slot, ready);
            }
        }
        self.hand.wake(desk);
        self.resume_at = match (self.left.is_empty(), self.parked.is_empty()) {
            (true, true) => Tick::NEVER,
            (true, false) => now,
            (false, _) => now + PAUSE_MS,
        };
    }
}

/// Messages that were read and that no worker had room for: of one read, because nothing is read while there are any.
#[derive(Default)]
struct Left {
    bytes: Vec<u8>,
    /// Connection, what it is, and where its bytes end.
    messages: VecDeque<(usize, Kind, Flow, usize)>,
    /// Where the first one's begin.
    at: usize,
}

impl Left {
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn add(&mut self, slot: usize, kind: Kind, from: Flow, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.messages.push_back((slot, kind, from, self.bytes.len()));
    }

    /// As many as `give` takes.
    fn give(&mut self, mut give: impl FnMut(usize, Kind, &Flow, &[u8]) -> bool) {
        while let Some((slot, kind, from, end)) = self.messages.front() {
            if !give(*slot, *kind, from, self.bytes.get(self.at..*end).unwrap_or_default()) {
                return;
            }
            self.at = *end;
            self.messages.pop_front();
        }
        self.bytes.clear();
        self.at = 0;
    }
}

/// Connections that have something to read, in the order in which they had; each once.
#[derive(Default)]
struct Parked {
    slots: VecDeque<usize>,
    /// By connection. (One that was closed meanwhile is asked for nothing.)
    ready: Vec<Option<Ready>>,
}

impl Parked {
    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn add(&mut self, slot: usize, ready: Ready) {
        if slot >= self.ready.len() {
            self.ready.resize(slot + 1, None);
        }
        let Some(place) = self.ready.get_mut(slot) else { return };
        match place {
            Some(known) => *known |= ready,
            None => {
                *place = Some(ready);
                self.slots.push_back(slot);
            }
        }
    }

    fn next(&mut self) -> Option<(usize, Ready)> {
        let slot = self.slots.pop_front()?;
        let ready = self.ready.get_mut(slot).and_then(Option::take)?;
        Some((slot, ready))
    }
}

/// Posts the messages at these places of `outgoing` to the owner, which finds or opens the connection.
fn post_all(desk: &Desk, owner: usize, list: &[u32], outgoing: &Outgoing, arena: &Arena, inbox: &mut Inbox) {
    let mut posted = 0;
    for index in list {
        let Some((sending, pieces)) = outgoing.item(*index, arena) else { continue };
        let mut to = sending.to;
        if to.id == FlowId::NONE {
            // Here rather than there: of us there are many.
            to.id = desk.parts.flows.find_by_peer(Transport::Tcp, to.peer).map_or(FlowId::NONE, |flow| flow.id);
        }
        let kind = if to.id == FlowId::NONE { Kind::Open } else { Kind::Send };
        match desk.parts.mailboxes.put((desk.seat, owner), kind, &to, sending.client, pieces) {
            Ok(()) => posted += 1,
            Err(_) => {
                desk.count(Counter::MailboxFull, 1);
                inbox.send_failed(sending.client);
            }
        }
    }
    desk.count(Counter::Posted, posted);
    // Once, when all is there: one `writev` takes what is for one connection.
    desk.parts.mailboxes.wake(owner);
}
