//! What one turn of the loop wants to send, in the order it was decided.
//!
//! Owns: the assembled heads of messages, and where their bodies lie. Never a socket, never a copy of a body that still lies in
//! the arena the message was received in.

use sys::datagram::Arena;

use super::Flow;
use crate::message::branch::BranchId;

/// Where the bytes after the head are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// None, or already part of the head.
    Empty,
    /// In slot `slot` of the arena that this turn received into.
    Arena { slot: u16, start: u32, end: u32 },
}

/// One message to send.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    pub to: Flow,
    /// Range of `Outgoing::bytes`.
    pub head: (u32, u32),
    pub body: Body,
    /// The client transaction that wants to hear of a failure (A19); none for responses and ACKs.
    pub client: Option<BranchId>,
}

/// All messages of one turn. Cleared, not freed, after the flush: no allocation in the steady state.
#[derive(Debug, Default)]
pub struct Outgoing {
    pub bytes: Vec<u8>,
    pub sendings: Vec<Sending>,
}

impl Outgoing {
    /// Where a head begins that is written to `bytes` next; give it to `finish`.
    #[must_use]
    pub fn begin(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// The head that began at `begin` is complete.
    pub fn finish(&mut self, begin: u32, to: Flow, body: Body, client: Option<BranchId>) {
        let end = self.begin();
        self.sendings.push(Sending { to, head: (begin, end), body, client });
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sendings.clear();
    }

    #[must_use]
    pub fn head(&self, sending: &Sending) -> &[u8] {
        self.bytes.get(sending.head.0 as usize..sending.head.1 as usize).unwrap_or_default()
    }

    /// The message as it leaves: head and body.
    #[must_use]
    pub fn pieces<'o>(&'o self, sending: &Sending, arena: &'o Arena) -> [&'o [u8]; 2] {
        let body = match sending.body {
            Body::Empty => &[],
            Body::Arena { slot, start, end } => {
                arena.slot(usize::from(slot)).get(start as usize..end as usize).unwrap_or_default()
            }
        };
        [self.head(sending), body]
    }

    /// The message with this place in `sendings`.
    pub(super) fn item<'o>(&'o self, index: u32, arena: &'o Arena) -> Option<(&'o Sending, [&'o [u8]; 2])> {
        let sending = self.sendings.get(index as usize)?;
        Some((sending, self.pieces(sending, arena)))
    }
}
