//! What other processes posted for connections and associations that only this one holds.
//!
//! Owns: the reading end of the mailboxes, and what was read until it is sent. Never decides where it goes.

use super::{Body, Flow, Outgoing, Parts};
use crate::shared::mailbox::{Kind, Reader};

/// Bytes taken from the mailboxes before they are worked off.
const BYTES: usize = 256 * 1024;

pub struct Relay {
    mailbox: Reader,
    seats: usize,
    /// Messages to send.
    pub outgoing: Outgoing,
    /// Packets: from where and on which listener, and where in `outgoing.bytes`.
    pub packets: Vec<(Flow, (usize, usize))>,
}

impl Relay {
    pub fn new(parts: &Parts, seat: usize) -> Relay {
        let mailbox = Reader::new(parts.mailboxes, seat);
        Relay { mailbox, seats: parts.mailboxes.seats(), outgoing: Outgoing::default(), packets: Vec::new() }
    }

    /// Takes what was posted; true: there is more.
    pub fn read(&mut self) -> bool {
        let Relay { mailbox, outgoing, packets, .. } = self;
        let mut more = false;
        for from in 0..self.seats {
            while let (begin, true) = (outgoing.begin(), outgoing.bytes.len() < BYTES) {
                let Some(posted) = mailbox.next(from, &mut outgoing.bytes) else { break };
                match posted.kind {
                    Kind::Send | Kind::Open => outgoing.finish(begin, posted.to, Body::Empty, posted.client),
                    Kind::Packet => packets.push((posted.to, (begin as usize, outgoing.bytes.len()))),
                }
            }
            more |= outgoing.bytes.len() >= BYTES;
        }
        more
    }

    pub fn is_empty(&self) -> bool {
        self.outgoing.sendings.is_empty() && self.packets.is_empty()
    }

    /// All of it was acted on. Only now: should we have died before, the next holder of this seat does it (SIP absorbs a repetition,
    /// SCTP a duplicate).
    pub fn done(&mut self) {
        self.mailbox.done();
        self.outgoing.clear();
        self.packets.clear();
    }
}
