//! TCP, in one of several architectures (`tcp.architecture`).
//!
//! Owns: which of them this process plays which part in. Each has its folder: `symmetric` is ours, for service; `supervisor` is
//! OpenSER's, `single_owner` the one that its descendants have moved to: both are here to be compared with ours. What they share lies
//! beside: `acceptor`, `connection` (one of them, whoever has it) and `reading`.

mod acceptor;
mod connection;
mod reading;
mod single_owner;
mod supervisor;
mod symmetric;

use std::io;

use mio::Registry;
use sys::datagram::Arena;

use self::single_owner::SingleOwner;
pub use self::supervisor::SUPERVISOR_PATIENCE;
use self::supervisor::{Supervisor, Worker};
use self::symmetric::Symmetric;
use super::desk::{Desk, End};
use super::{FlowId, Inbox, Outgoing, Parts, Ready};
use crate::config::{Architecture, Config};
use crate::timer::Tick;

/// The TCP of one process.
pub enum Tcp {
    Symmetric(Symmetric),
    SingleOwner(SingleOwner),
    /// Of the supervisor's workers, and the timer process beside it.
    Supervised(Worker),
    Supervisor(Supervisor),
}

/// Calls the same method of whichever it is.
macro_rules! whichever {
    ($self:ident, $tcp:ident => $call:expr) => {
        match $self {
            Tcp::Symmetric($tcp) => $call,
            Tcp::SingleOwner($tcp) => $call,
            Tcp::Supervised($tcp) => $call,
            Tcp::Supervisor($tcp) => $call,
        }
    };
}

impl Tcp {
    /// Takes this seat's listeners out of `ends` and watches what this process reads.
    pub fn new(config: &Config, ends: &mut [End], parts: &Parts, seat: usize, registry: Registry) -> io::Result<Tcp> {
        Ok(match config.tcp.architecture {
            Architecture::Symmetric => Tcp::Symmetric(Symmetric::new(config, ends, registry)?),
            Architecture::Supervisor if Some(seat) == config.extra_seat() => {
                Tcp::Supervisor(Supervisor::new(config, ends, parts, registry)?)
            }
            Architecture::Supervisor => Tcp::Supervised(Worker::new(config, parts, seat, registry)?),
            Architecture::SingleOwner => Tcp::SingleOwner(SingleOwner::new(config, ends, seat, registry)?),
        })
    }

    /// Accepts connections; true: there may be more.
    pub fn accept(&mut self, desk: &mut Desk, listener: u8, inbox: &mut Inbox, now: Tick) -> bool {
        match self {
            Tcp::Symmetric(tcp) => tcp.accept(desk, listener, now),
            Tcp::SingleOwner(tcp) => tcp.accept(desk, listener, now),
            Tcp::Supervisor(tcp) => tcp.accept(desk, listener, inbox, now),
            Tcp::Supervised(_) => false,
        }
    }

    /// Goes on with the source of this process that the poll named; `token` counts from `CONNECTIONS`. True: there may be more to read.
    pub fn receive(
        &mut self,
        desk: &mut Desk,
        token: usize,
        ready: Ready,
        arena: &mut Arena,
        inbox: &mut Inbox,
        now: Tick,
    ) -> bool {
        match self {
            Tcp::Symmetric(tcp) => tcp.receive(desk, token, ready, arena, inbox, now),
            Tcp::SingleOwner(tcp) => tcp.receive(desk, token, ready, arena, inbox, now),
            Tcp::Supervised(tcp) => tcp.receive(desk, token, ready, arena, inbox, now),
            Tcp::Supervisor(tcp) => tcp.receive(desk, token, inbox, now),
        }
    }

    /// Wakes workers that messages were handed to, and goes on with what could not be. Call each turn, after what others posted was
    /// taken.
    pub fn resume(&mut self, desk: &mut Desk, arena: &mut Arena, inbox: &mut Inbox, now: Tick) {
        match self {
            Tcp::SingleOwner(tcp) => tcp.resume(desk, arena, inbox, now),
            Tcp::Symmetric(_) | Tcp::Supervised(_) | Tcp::Supervisor(_) => {}
        }
    }

    /// Another process posted the last answer for this connection: it ends with the next flush.
    pub fn end(&mut self, id: FlowId) {
        match self {
            Tcp::SingleOwner(tcp) => tcp.end(id),
            Tcp::Symmetric(_) | Tcp::Supervised(_) | Tcp::Supervisor(_) => {}
        }
    }

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
        match self {
            Tcp::Symmetric(tcp) => tcp.flush(desk, list, outgoing, arena, inbox, now),
            Tcp::SingleOwner(tcp) => tcp.flush(desk, list, outgoing, arena, inbox, now),
            Tcp::Supervised(tcp) => tcp.flush(desk, list, outgoing, arena, inbox, now),
            Tcp::Supervisor(tcp) => tcp.flush(desk, list, outgoing, arena, inbox),
        }
    }

    /// After a flush: connections that were to end with it.
    pub fn end_what_ends(&mut self, desk: &Desk, inbox: &mut Inbox, now: Tick) {
        match self {
            Tcp::Symmetric(tcp) => tcp.end_what_ends(desk, inbox, now),
            Tcp::SingleOwner(tcp) => tcp.end_what_ends(desk, inbox, now),
            Tcp::Supervised(tcp) => tcp.end_what_ends(desk, now),
            Tcp::Supervisor(_) => {}
        }
    }

    /// Until when the loop may sleep.
    pub fn next_tick(&self, parts: &Parts) -> Tick {
        match self {
            Tcp::Symmetric(tcp) => tcp.next_tick(),
            Tcp::SingleOwner(tcp) => tcp.next_tick(),
            Tcp::Supervised(tcp) => tcp.next_tick(),
            Tcp::Supervisor(tcp) => tcp.next_tick(parts),
        }
    }

    /// Is `tick` due in each turn of the loop, whatever the time?
    pub fn looks_each_turn(&self) -> bool {
        match self {
            Tcp::Symmetric(_) | Tcp::SingleOwner(_) => false,
            Tcp::Supervised(_) | Tcp::Supervisor(_) => true,
        }
    }

    pub fn tick(&mut self, desk: &mut Desk, inbox: &mut Inbox, now: Tick) {
        whichever!(self, tcp => tcp.tick(desk, inbox, now));
    }

    /// This process begins in a seat whose last holder died.
    pub fn adopt(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        whichever!(self, tcp => tcp.adopt(desk, inbox));
    }

    /// The daemon ends.
    pub fn close_all(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        whichever!(self, tcp => tcp.close_all(desk, inbox));
    }

    /// Bytes that wait in this process.
    pub fn queued_bytes(&self) -> usize {
        match self {
            Tcp::Symmetric(tcp) => tcp.queued_bytes(),
            Tcp::SingleOwner(tcp) => tcp.queued_bytes(),
            // Who writes waits.
            Tcp::Supervised(_) | Tcp::Supervisor(_) => 0,
        }
    }
}
