//! What others see of an entry: a copy, and the id that leads back to it.

use super::MOST;
use super::table::{ADDRESSES, Entry, PathNote, State};
use super::tally::Told;
use crate::timer::Tick;
use crate::transport::{Address, FlowId, Transport};

/// What one may know of an entry: a copy, already old.
#[derive(Clone, Copy, Debug)]
pub struct FlowView {
    pub id: FlowId,
    pub transport: Transport,
    pub state: State,
    pub listener: u8,
    /// Seat of the owner; the kernel's SCTP: number of its socket.
    pub owner: usize,
    /// SCTP association id (in user space: our verification tag), else 0.
    pub association: u32,
    /// UDP port of the peer (RFC 6951), 0 where there is none.
    pub encapsulation: u16,
    pub path: PathNote,
    /// A request of ours went out on it (TCP and SCTP in user space only).
    pub requested: bool,
    /// `Address::NONE` where there are fewer.
    pub peers: [Address; ADDRESSES],
    /// Bytes that wait for room.
    pub queued: u32,
    /// When its set-up began, as far as we know: what was sent before did not go over it.
    pub begun: Tick,
    /// When it was entered; of an association that we set up over the kernel's SCTP, when it came up.
    pub opened: Tick,
    /// When something last came or went (as often as its owner noted it).
    pub last: Tick,
    /// Messages.
    pub received: u64,
    pub sent: u64,
}

pub(super) fn number(transport: Transport) -> Option<usize> {
    match transport {
        Transport::Udp => None,
        Transport::Tcp => Some(0),
        Transport::Sctp => Some(1),
    }
}

/// A `FlowId` counts through both tables.
pub(super) fn join(transport: Transport, index: u32, generation: u32) -> FlowId {
    FlowId { index: index + number(transport).unwrap_or(0) as u32 * MOST as u32, generation }
}

pub(super) fn split(id: FlowId) -> Option<(Transport, u32)> {
    let from_0 = id.index.checked_sub(1)?;
    let transport = match from_0 / MOST as u32 {
        0 => Transport::Tcp,
        1 => Transport::Sctp,
        _ => return None,
    };
    Some((transport, from_0 % MOST as u32 + 1))
}

impl FlowView {
    pub(super) fn new(id: FlowId, transport: Transport, entry: &Entry, told: Told) -> FlowView {
        FlowView {
            id,
            transport,
            state: State::from_u8(entry.state).unwrap_or(State::Closing),
            listener: entry.listener,
            owner: usize::from(entry.owner),
            association: entry.association,
            encapsulation: entry.encapsulation,
            requested: entry.requested != 0,
            path: entry.path,
            peers: entry.peers,
            queued: told.queued,
            begun: Tick(entry.opened.0.saturating_sub(u64::from(entry.set_up_ms))),
            opened: entry.opened,
            last: told.last,
            received: told.received,
            sent: told.sent,
        }
    }
}
