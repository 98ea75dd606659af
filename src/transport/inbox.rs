//! What one turn of the loop received: frames, and things that happened to connections and associations.
//!
//! Owns: where each message lies in the arena. Never a message's bytes, never a socket.

use arrayvec::ArrayVec;
use mio::event::Event;

use super::{Address, Flow, FlowId, Transport};
use crate::message::branch::BranchId;

/// The bytes of one message (RFC 3261 §18.3), in the arena that this turn received into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Slot of the arena; `start..end` are bytes of that slot.
    pub slot: u16,
    pub start: u32,
    pub end: u32,
    /// The way back. `peer` is the source; `fallback_port` is 0 (the sent-by port is the caller's to fill in).
    pub from: Flow,
    /// Framing is lost (E13): these bytes are no whole message. Answer them with 400 where that can be built; the
    /// connection is closed after the flush that follows.
    pub close_after: bool,
}

/// What else the transports report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A connection or association ended, or could not be opened: every client transaction whose request went to one of
    /// `peers` over `transport` has met a transport error (A19, RFC 3261 §18.4). May be told twice, and by any process (M27). Not told
    /// of those known to have carried no request of ours.
    /// `association`: the kernel's, else 0.
    Lost { transport: Transport, peers: ArrayVec<Address, 4>, id: FlowId, association: u32 },
    /// The process that held the association with these peers died, and the association with it, but neither the peers nor we: what was
    /// sent to them and not answered at all yet is sent again, over a new association.
    OwnerDied { transport: Transport, peers: ArrayVec<Address, 4> },
    /// The request of this client transaction did not leave us.
    SendFailed { client: BranchId },
    /// SCTP gave up the message with this client transaction's request. `lost`: because its association is gone, which `Lost` tells, too.
    Undelivered { client: BranchId, lost: bool },
    /// The request of this client transaction had been posted, or waited, for a connection or association that is gone, and goes over
    /// another one: the loss of the first is not its loss.
    Moved { client: BranchId },
}

/// Cleared, not freed, at each turn: no allocation in the steady state.
#[derive(Debug, Default)]
pub struct Inbox {
    pub frames: Vec<Frame>,
    pub happenings: Vec<Happening>,
    /// Slots of the arena that this turn has filled: `receive` goes on with the next.
    pub used: usize,
}

impl Inbox {
    /// The frames are worked off: their slots may be filled again. Happenings stay until they are taken.
    pub fn clear_frames(&mut self) {
        self.frames.clear();
        self.used = 0;
    }

    pub(super) fn send_failed(&mut self, client: Option<BranchId>) {
        if let Some(client) = client {
            self.happenings.push(Happening::SendFailed { client });
        }
    }

    pub(super) fn undelivered(&mut self, client: Option<BranchId>, lost: bool) {
        if let Some(client) = client {
            self.happenings.push(Happening::Undelivered { client, lost });
        }
    }

    pub(super) fn moved(&mut self, client: Option<BranchId>) {
        if let Some(client) = client {
            self.happenings.push(Happening::Moved { client });
        }
    }

    pub(super) fn owner_died(&mut self, transport: Transport, peers: impl IntoIterator<Item = Address>) {
        let peers = peers.into_iter().filter(|peer| !peer.is_none()).take(4).collect();
        self.happenings.push(Happening::OwnerDied { transport, peers });
    }

    pub(super) fn lost(&mut self, transport: Transport, peers: impl IntoIterator<Item = Address>, id: FlowId) {
        self.tell_lost(transport, peers, id, 0);
    }

    /// One of the kernel's, which another process may not have entered in `flows` yet, or just then (M27).
    pub(super) fn association_lost(&mut self, peers: impl IntoIterator<Item = Address>, id: FlowId, association: u32) {
        self.tell_lost(Transport::Sctp, peers, id, association);
    }

    fn tell_lost(
        &mut self,
        transport: Transport,
        peers: impl IntoIterator<Item = Address>,
        id: FlowId,
        association: u32,
    ) {
        let peers = peers.into_iter().filter(|peer| !peer.is_none()).take(4).collect();
        self.happenings.push(Happening::Lost { transport, peers, id, association });
    }
}

/// What the poll said of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    pub readable: bool,
    pub writable: bool,
    /// The peer will send no more, or the connection failed.
    pub closed: bool,
}

impl Ready {
    /// For sources whose registration can say nothing else.
    pub const READABLE: Ready = Ready { readable: true, writable: false, closed: false };
}

impl std::ops::BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Ready) {
        self.readable |= other.readable;
        self.writable |= other.writable;
        self.closed |= other.closed;
    }
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Ready {
        Ready {
            readable: event.is_readable(),
            writable: event.is_writable(),
            closed: event.is_read_closed() || event.is_error(),
        }
    }
}
