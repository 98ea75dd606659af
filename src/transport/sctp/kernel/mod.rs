//! SCTP by the kernel: RFC 4168 over one-to-many sockets (RFC 6458 §3).
//!
//! Owns: reading batches, refusing what is in pieces, and (in its files) opening the sockets, notifications, bundled sending, the
//! queues of associations that have no room. No association belongs to a process: any of them sends on any, and with the shared
//! layout reads and hears of any. Never waits, never gates on EPOLLOUT (M08).

mod notice;
mod opening;
mod queue;
mod send;
mod way;

use std::os::fd::{AsFd, BorrowedFd};

pub use self::opening::{Numbers, open, prepare};

use sys::datagram::{Arena, Item, SndInfo, To};

use self::queue::Queues;
use self::send::Planned;
use crate::config::Sctp;
use crate::shared::counters::Counter;
use crate::shared::flows::{FlowView, State};
use crate::timer::Tick;
use crate::transport::desk::{Carrier, Desk, is_keep_alive};
use crate::transport::{Flow, FlowId, Frame, Inbox, Transport};

/// A socket: its listener, and which of those it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId {
    pub listener: u8,
    pub number: u8,
}

pub struct Kernel {
    /// How SIP is sent: payload protocol 0 (A06), unordered on stream 0 unless configured (A08).
    sip: SndInfo,
    queues: Queues,
    /// This flush's messages; kept for its room.
    planned: Vec<Planned>,
}

impl Kernel {
    #[must_use]
    pub fn new(sctp: &Sctp) -> Kernel {
        let sip = SndInfo { stream: sctp.stream, unordered: sctp.unordered, ..SndInfo::default() };
        Kernel { sip, queues: Queues::default(), planned: Vec::new() }
    }

    /// Reads one batch; true when it was full: there may be more.
    pub fn receive(&mut self, desk: &mut Desk, at: SocketId, arena: &mut Arena, inbox: &mut Inbox, now: Tick) -> bool {
        let most = desk.most_bytes(at.listener);
        let room = arena.slots().saturating_sub(inbox.used);
        let fd = desk.ends.get(usize::from(at.listener)).and_then(|end| end.fds.get(usize::from(at.number)));
        let Some(fd) = fd.map(AsFd::as_fd) else { return false };
        let received = match desk.receiver.receive(fd, arena, inbox.used, room) {
            Ok(received) => received,
            Err(_) => {
                desk.count(Counter::SocketErrors, 1);
                return false;
            }
        };
        let before = inbox.frames.len();
        let mut run = Run::default();
        for index in 0..received {
            let message = desk.receiver.get(index);
            let bytes = arena.slot(message.slot).get(..message.len).unwrap_or_default();
            if message.notification {
                notice::take(desk, at, bytes, message.peer.map(Into::into), inbox, now);
                continue;
            }
            let Some(info) = message.info else { continue };
            let association = info.association;
            if desk.parts.broken.contains(association) {
                desk.count(Counter::Broken, 1);
                continue;
            }
            if !message.end_of_record {
                refuse_pieces(desk, at, association);
                continue;
            }
            if message.len > most {
                desk.count(Counter::TooLarge, 1);
                continue;
            }
            if is_keep_alive(bytes) {
                desk.count(Counter::KeepAlives, 1);
                if bytes.starts_with(b"\r\n\r\n") {
                    answer_ping(desk, at, association, self.sip);
                }
                continue;
            }
            if run.association != association {
                run.end(desk, now);
                run = Run { association, id: notice::known(desk, at, association, now), further: 0 };
            } else {
                run.further += 1;
            }
            if is_refused(desk, run.id, association) {
                desk.count(Counter::Broken, 1);
                continue;
            }
            let from = Flow {
                peer: message.peer.map(Into::into).unwrap_or_default(),
                id: run.id,
                association,
                transport: Transport::Sctp as u8,
                listener: at.listener,
                fallback_port: 0,
            };
            let (slot, end) = (message.slot as u16, message.len as u32);
            inbox.frames.push(Frame { slot, start: 0, end, from, close_after: false });
        }
        run.end(desk, now);
        inbox.used += received;
        desk.count(Counter::ReceivedSctp, (inbox.frames.len() - before) as u64);
        desk.count(Counter::Batches, u64::from(received != 0));
        received == room && room != 0
    }

    /// A dead predecessor may have left associations open with MSG_MORE: whatever it held back leaves now. What it had read of the end
    /// of others is told.
    pub fn adopt(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        for (listener, association) in desk.parts.open_associations.noted(desk.seat) {
            // Which of the sockets it is on is not noted: the others do not know it.
            for fd in desk.end(listener).iter().flat_map(|end| &end.fds) {
                send_held_back(fd.as_fd(), association);
            }
            desk.parts.open_associations.strike(desk.seat, listener, association);
        }
        notice::find_ended(desk, inbox);
    }

    /// Shuts down every association that nobody shut down yet (SCTP_EOF; never shutdown(2), M33).
    pub fn close_all(&mut self, desk: &mut Desk) {
        let desk = &*desk;
        desk.parts.flows.for_each(Transport::Sctp, |flow| {
            if desk.end(flow.listener).is_some_and(|end| end.carrier == Carrier::KernelSctp)
                && flow.state != State::Opening
                && let Some(fd) = desk.socket(socket_of(flow))
                && desk.parts.flows.set_state(flow.id, State::Closing)
            {
                let _ = sys::sctp::shutdown(fd, flow.association);
            }
        });
    }

    pub fn queued_bytes(&self) -> usize {
        self.queues.bytes()
    }
}

/// Messages in a row from one association: it is looked up with the first of them, and the others are noted at once.
#[derive(Default)]
struct Run {
    association: u32,
    id: FlowId,
    /// Behind the first.
    further: u64,
}

impl Run {
    fn end(&self, desk: &Desk, now: Tick) {
        if self.further != 0 {
            desk.parts.flows.touch_association(self.association, self.further, now);
        }
    }
}

/// Was an association aborted, this moment, because a limit is reached? Then it has no flow.
fn is_refused(desk: &Desk, id: FlowId, association: u32) -> bool {
    id == FlowId::NONE && desk.parts.broken.contains(association)
}

/// The socket that an association belongs to.
fn socket_of(flow: &FlowView) -> SocketId {
    SocketId { listener: flow.listener, number: flow.owner as u8 }
}

/// A piece came without its end (M11, M13): this peer sends what we cannot take whole. Marked first, so that every process drops
/// what still arrives, then aborted.
fn refuse_pieces(desk: &Desk, at: SocketId, association: u32) {
    desk.count(Counter::Pieces, 1);
    if !desk.parts.broken.mark(association) {
        return;
    }
    if let Some(flow) = desk.parts.flows.find_association(association) {
        desk.parts.flows.set_state(flow.id, State::Broken);
    }
    abort(desk, at, association);
}

/// Sends what MSG_MORE left open, when there is no message left to close it with: a heartbeat takes along what waits. Two are needed:
/// messages that fill their packet so well that the first finds no room beside them stay for the second.
fn send_held_back(fd: BorrowedFd<'_>, association: u32) {
    for _ in 0..2 {
        // Fails when the association is gone, and what it held with it.
        let _ = sys::sctp::heartbeat_now(fd, association);
    }
}

fn abort(desk: &Desk, at: SocketId, association: u32) {
    if let Some(fd) = desk.socket(at) {
        // EPIPE: it is gone already.
        let _ = sys::sctp::abort(fd, association);
    }
}

/// A29: one CRLF back on the same association, at once.
fn answer_ping(desk: &mut Desk, at: SocketId, association: u32, sip: SndInfo) {
    let fd = desk.ends.get(usize::from(at.listener)).and_then(|end| end.fds.get(usize::from(at.number)));
    let Some(fd) = fd.map(AsFd::as_fd) else { return };
    let pong = Item { to: To::Association(association), pieces: [b"\r\n", b""], sctp: Some(sip) };
    // A ping that finds no room for its answer goes without.
    let _ = desk.sender.send(fd, 1, false, |_| pong);
}
