//! What a read of a connection brings: whole messages, keep-alives, half of a message.
//!
//! Owns: the way from the socket into the arena, and cutting (RFC 3261 §18.3). Never decides whether a connection lives on.

use std::io;

use sys::datagram::Arena;

use super::connection::{Connection, Phase, recycle};
use crate::shared::counters::Counter;
use crate::timer::Tick;
use crate::transport::desk::{self, Desk};
use crate::transport::framing::{Cut, cut_from};
use crate::transport::{Flow, Frame, Inbox, Transport};

/// What one read brought.
pub enum Read {
    /// Nothing.
    Nothing,
    /// Nothing yet: the arena is full, or a signal came.
    Again,
    /// Something that nobody waits for any more (the connection is ending). True: there may be more.
    Ignored(bool),
    /// The peer closed, or the connection failed.
    Over,
    Taken(Taken),
}

pub struct Taken {
    /// A full buffer, or a FIN behind the bytes: the edge will not come again.
    pub more: bool,
    pub frames: u64,
    /// Keep-alives that want an answer: one for all that came at once.
    pub pings: u64,
    /// Framing is lost (E13); the last frame is what there is of it.
    pub bad: bool,
}

/// Reads once and hands what is whole to the inbox. `closed`: as the poll said it.
pub fn read(
    connection: &mut Connection,
    desk: &Desk,
    closed: bool,
    arena: &mut Arena,
    inbox: &mut Inbox,
    spare: &mut Vec<Vec<u8>>,
    now: Tick,
) -> Read {
    let arena_slot = inbox.used;
    if arena_slot >= arena.slots() {
        return Read::Again;
    }
    let buffer = arena.slot_mut(arena_slot);
    let filled = match connection.read(buffer) {
        Ok(Some(filled)) => filled,
        Ok(None) => return Read::Over,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Read::Nothing,
        Err(e) if e.kind() == io::ErrorKind::Interrupted => return Read::Again,
        Err(_) => return Read::Over,
    };
    let more = filled == buffer.len() || closed;
    match connection.phase {
        Phase::Open => {}
        Phase::Connecting | Phase::Ending | Phase::Lingering => return Read::Ignored(more),
    }
    connection.last = now;
    let bytes = buffer.get(..filled).unwrap_or_default();
    let most = desk.most_bytes(connection.listener).min(buffer.len());
    let mut cutting =
        Cutting { at: 0, searched: connection.searched, wanted: connection.wanted, frames: 0, pings: 0, bad: false };
    cutting.run(bytes, most, |start, end, close_after| {
        let from = Flow {
            peer: connection.peer,
            id: connection.id,
            association: 0,
            transport: Transport::Tcp as u8,
            listener: connection.listener,
            fallback_port: 0,
        };
        let (start, end) = (start as u32, end as u32);
        inbox.frames.push(Frame { slot: arena_slot as u16, start, end, from, close_after });
    });
    (connection.searched, connection.wanted) = (cutting.searched, cutting.wanted);
    let rest = bytes.get(cutting.at..).unwrap_or_default();
    if rest.is_empty() {
        recycle(std::mem::take(&mut connection.stash), spare);
    } else {
        if connection.stash.capacity() == 0 {
            connection.stash = spare.pop().unwrap_or_default();
        }
        connection.stash.extend_from_slice(rest);
    }
    // Line ends between messages are half of nothing.
    let half = !desk::is_keep_alive(rest);
    connection.half_since = match connection.half_since {
        Some(since) if half && cutting.at == 0 => Some(since),
        _ => half.then_some(now),
    };
    if cutting.frames != 0 {
        inbox.used += 1;
        desk.count(Counter::ReceivedTcp, cutting.frames);
        desk.count(Counter::Batches, 1);
    }
    desk.count(Counter::KeepAlives, cutting.pings);
    desk.count(Counter::FramingLost, u64::from(cutting.bad));
    Read::Taken(Taken { more, frames: cutting.frames, pings: cutting.pings, bad: cutting.bad })
}

/// One walk through what was read. A message that comes byte by byte is not searched from its start each time.
struct Cutting {
    /// Up to here messages were cut off.
    at: usize,
    /// Of `Connection`, counted from `at`.
    searched: usize,
    wanted: usize,
    frames: u64,
    pings: u64,
    bad: bool,
}

impl Cutting {
    fn run(&mut self, bytes: &[u8], most: usize, mut frame: impl FnMut(usize, usize, bool)) {
        while let Some(rest) = bytes.get(self.at..).filter(|rest| !rest.is_empty() && rest.len() >= self.wanted) {
            let searched = std::mem::take(&mut self.searched);
            self.wanted = 0;
            match cut_from(rest, searched, most) {
                Cut::Message { start, end } => {
                    frame(self.at + start, self.at + end, false);
                    self.frames += 1;
                    self.at += end.max(1);
                }
                Cut::Ping { end } => {
                    self.pings += 1;
                    self.at += end.max(1);
                }
                Cut::Skip { end } => self.at += end.max(1),
                Cut::Need(more) => {
                    // `cut_from` must see the end of the head again, once it is there.
                    let fresh = rest.get(searched.saturating_sub(3)..).unwrap_or_default();
                    let head_is_whole = memchr::memmem::find(fresh, b"\r\n\r\n").is_some();
                    self.searched = if head_is_whole { 0 } else { rest.len() };
                    self.wanted = (rest.len() + more).min(most);
                    return;
                }
                Cut::Bad(_) => {
                    // E13: what there is may be enough for a 400. Never more than a message may have: one over the limit
                    // may lie here whole, and is to be found short of its Content-Length, not served.
                    frame(self.at, bytes.len().min(self.at.saturating_add(most)), true);
                    self.frames += 1;
                    self.at = bytes.len();
                    self.bad = true;
                }
            }
        }
    }
}
