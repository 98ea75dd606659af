//! What the TCP supervisor shares with the other processes (`tcp.architecture = "supervisor"`); nothing with any other architecture.
//!
//! Owns: a pair of sockets to each process, a lock for each connection that is held while a message is written to it, the
//! supervisor's queue of deadlines, and two counts: of supervisors, and of connections that ended. The connections themselves are in
//! `flows`.

mod queue;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sys::memory::{Locked, Mapping, Plan, Rebuild, Span};
use sys::passing;
use zerocopy::FromBytes;

use crate::config::{Architecture, Config};
use crate::transport::FlowId;

pub use queue::Queue;

/// Whose turn it is to write on a connection: messages of several processes must not mix. A death in the middle tears the stream.
#[derive(FromBytes)]
#[repr(C)]
pub struct Turn {
    /// Generation of the connection on which a message is being written; 0: none.
    pub writing: u32,
    /// Generation of one whose stream may end within a message.
    pub torn: u32,
}

impl Rebuild for Turn {
    fn rebuild(&mut self) {
        if self.writing != 0 {
            self.torn = self.writing;
        }
        self.writing = 0;
    }
}

/// Counts.
#[derive(FromBytes)]
#[repr(C, align(64))]
pub struct Head {
    epoch: AtomicU64,
    ended: AtomicU64,
}

/// Two ends of a pair: the supervisor's, and that of the process in a seat. They belong to the seats: a successor reads what its
/// predecessor was sent.
pub struct Pair {
    supervisor: OwnedFd,
    seat: OwnedFd,
}

/// What lies between the supervisor and one other process.
pub struct Line {
    /// A sender asks for descriptors, and gets them.
    asks: Pair,
    /// An owner gets connections, and gives them back.
    news: Pair,
}

#[derive(Clone, Copy)]
pub struct Supervision {
    head: &'static [Head],
    turns: &'static [Locked<Turn>],
    /// By seat; none for the supervisor's own.
    lines: &'static [Line],
    pub queue: Queue,
}

pub struct Spans {
    head: Span<Head>,
    turns: Span<Locked<Turn>>,
    queue: queue::Spans,
    seats: usize,
}

impl Supervision {
    /// For the supervisor after `config.seats() - 1` others, or nothing.
    pub fn plan(plan: &mut Plan, config: &Config) -> Spans {
        let on = config.tcp.architecture == Architecture::Supervisor;
        let places = if on { config.memory.flows + 1 } else { 0 };
        let seats = if on { config.seats() - 1 } else { 0 };
        Spans { head: plan.array(1), turns: plan.locks(places), queue: Queue::plan(plan, places), seats }
    }

    /// `patience`: what a process waits for the supervisor.
    ///
    /// # Errors
    /// No more descriptors, or the locks cannot be made.
    pub fn take(mapping: &Mapping, spans: &Spans, patience: Duration) -> io::Result<Supervision> {
        let pair = || -> io::Result<Pair> {
            let (supervisor, seat) = passing::pair()?;
            passing::set_patience(seat.as_fd(), patience)?;
            Ok(Pair { supervisor, seat })
        };
        let lines =
            (0..spans.seats).map(|_| Ok(Line { asks: pair()?, news: pair()? })).collect::<io::Result<Vec<_>>>()?;
        Ok(Supervision {
            head: mapping.array(&spans.head),
            turns: mapping.locks(&spans.turns)?,
            lines: lines.leak(),
            queue: Queue::take(mapping, &spans.queue)?,
        })
    }

    /// Processes beside the supervisor.
    #[must_use]
    pub fn seats(&self) -> usize {
        self.lines.len()
    }

    /// The lock of a connection's writers.
    #[must_use]
    pub fn turn(&self, id: FlowId) -> Option<&'static Locked<Turn>> {
        self.turns.get(id.index as usize)
    }

    /// How often there was a new supervisor: what an earlier one held is gone.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.head.first().map_or(0, |head| head.epoch.load(Ordering::Acquire))
    }

    pub fn begin_epoch(&self) {
        if let Some(head) = self.head.first() {
            head.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Connections that ended: whoever keeps descriptors may look whether one is among them.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.head.first().map_or(0, |head| head.ended.load(Ordering::Relaxed))
    }

    pub fn count_end(&self) {
        if let Some(head) = self.head.first() {
            head.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The ends of the process in `seat`: where it asks, and where it gets connections.
    #[must_use]
    pub fn ends_of(&self, seat: usize) -> Option<(BorrowedFd<'static>, BorrowedFd<'static>)> {
        self.lines.get(seat).map(|line| (line.asks.seat.as_fd(), line.news.seat.as_fd()))
    }

    /// The supervisor's ends of the same.
    #[must_use]
    pub fn supervisors_ends(&self, seat: usize) -> Option<(BorrowedFd<'static>, BorrowedFd<'static>)> {
        self.lines.get(seat).map(|line| (line.asks.supervisor.as_fd(), line.news.supervisor.as_fd()))
    }
}
