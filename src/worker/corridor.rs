//! The corridor that every input walks: message → shared → transaction and proxy → (unlock) → message.
//!
//! Owns: the way of one frame, one deadline, one loss, one failure through the rooms, and the buffers it needs. Never reads a clock
//! (the time is an argument) and never touches a socket (what is to be sent lies in `outgoing`), so the simulation of the tests
//! walks the same corridor as the daemon.
//!
//! `input` lets messages in, `request`, `locate` and `register` decide on new ones, `act` carries out what was decided, `passing` is for time
//! and losses.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::config::{Listen, Live};
use crate::location::Location;
use crate::message::branch;
use crate::proxy::Identity;
use crate::shared::table::{Entry, Prepared, Table};
use crate::shared::{Counter, Counters};
use crate::timer::{Lengths, Tick};
use crate::transport::{Address, Body, Flow, FlowId, Outgoing, Transport};

/// One process's corridor.
pub struct Corridor {
    pub(super) table: Table,
    pub(super) location: Location,
    pub(super) counters: Counters,
    pub(super) seat: usize,
    pub(super) key: branch::Key,
    pub(super) listen: Vec<Listen>,
    pub(super) live: Live,
    pub(super) lengths: Lengths,
    pub(super) identity: Identity,
    /// New calls are refused: the daemon is about to end.
    pub draining: bool,
    /// `sctp.send_retries`; the loop sets it.
    pub send_retries: u8,
    /// Seconds since the epoch, for Date; the loop sets it.
    pub wall: u64,
    /// What is to be sent; the loop flushes it.
    pub outgoing: Outgoing,
    pub(super) prepared: Prepared,
    pub(super) lines: Vec<u8>,
    pub(super) targets: Targets,
    pub(super) losses: VecDeque<Loss>,
    pub(super) last_loss: u32,
    /// Bucket of the table that the next look at the deadlines begins with.
    pub(super) next_bucket: u32,
}

/// The targets of one request (RFC 3261 §16.5), gathered before the lock is taken.
#[derive(Default)]
pub(super) struct Targets {
    /// URIs, one after another.
    pub uris: Vec<u8>,
    /// Each: end of its URI, and its addresses as a range of `flows`.
    pub ends: Vec<(usize, usize)>,
    pub flows: Vec<Flow>,
    /// Addresses-of-record of ours that a contact named, one after another, where each ends, and the one that is being looked up.
    pub records: Vec<u8>,
    pub record_ends: Vec<usize>,
    pub record: Vec<u8>,
}

/// What becomes of client transactions whose association or connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They have met a transport error (A19), but for those without any answer that `send_retries` lets go out again.
    Fail,
    /// Those without any answer send their request again.
    SendAgain,
}

/// A peer that was lost: its waiting client transactions are looked for bucket by bucket.
pub(super) struct Loss {
    /// No other process's, nor any other of ours; never 0.
    pub number: u32,
    pub fate: Fate,
    pub transport: Transport,
    pub peer: Address,
    /// What was lost: connection or association.
    pub was: Was,
    pub until: Tick,
    pub next_bucket: u32,
}

/// A connection or association that is over; both 0 where nobody knew it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Was {
    pub id: FlowId,
    pub association: u32,
}

/// The message that is being worked on.
#[derive(Clone, Copy)]
pub struct Arrived<'a> {
    pub bytes: &'a [u8],
    /// Slot of the arena, and where in it `bytes` begins: so that a body can be sent from where it lies.
    pub slot: u16,
    pub start: u32,
    pub from: Flow,
}

impl Arrived<'_> {
    /// The body of the message scanned from these bytes, where it lies.
    pub(super) fn body(&self, m: &crate::message::Message<'_>) -> Body {
        let end = self.start + u32::try_from(m.bytes.len()).unwrap_or(0);
        let start = self.start + m.body_at;
        if start < end { Body::Arena { slot: self.slot, start, end } } else { Body::Empty }
    }
}

/// Another one in each process: a client transaction remembers the number of a loss, whoever worked it off.
fn first_loss() -> u32 {
    let mut bytes = [0; 4];
    // Fails only before the machine has any randomness.
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

impl Corridor {
    /// `seat` names the block of counters to write to; `interfaces` are the addresses that a wildcard listener has (see `Identity`).
    #[allow(clippy::too_many_arguments, reason = "the parts of a house, named once")]
    #[must_use]
    pub fn new(
        table: Table,
        location: Location,
        counters: Counters,
        seat: usize,
        key: branch::Key,
        listen: &[Listen],
        live: &Live,
        interfaces: &[IpAddr],
    ) -> Corridor {
        Corridor {
            table,
            location,
            counters,
            seat,
            key,
            listen: listen.to_vec(),
            live: live.clone(),
            lengths: Lengths::from(&live.timers),
            identity: Identity::new(listen, live, interfaces),
            draining: false,
            send_retries: 0,
            wall: 0,
            outgoing: Outgoing::default(),
            prepared: Prepared::default(),
            lines: Vec::new(),
            targets: Targets::default(),
            losses: VecDeque::new(),
            last_loss: first_loss(),
            next_bucket: 0,
        }
    }

    /// New settings (SIGHUP).
    pub fn reload(&mut self, live: Live, interfaces: &[IpAddr]) {
        self.lengths = Lengths::from(&live.timers);
        self.identity = Identity::new(&self.listen, &live, interfaces);
        self.live = live;
    }

    /// Other lengths than the configured ones: for tests that break a rule on purpose.
    pub fn set_lengths(&mut self, lengths: Lengths) {
        self.lengths = lengths;
    }

    /// Into a bucket of the table; says so when its last owner died in it.
    pub(super) fn entered(&self, entry: Option<Entry>) -> Option<Entry> {
        if let Some(ended) = entry.as_ref().and_then(Entry::recovered) {
            self.count(Counter::LocksRecovered);
            self.counters.add(self.seat, Counter::SlotsEnded, u64::from(ended));
        }
        entry
    }

    /// Looks into every bucket: what a dead process left locked is put right now, not when somebody comes by.
    pub fn inspect(&self) {
        let ended: Vec<u32> = (0..self.table.buckets())
            .filter_map(|number| self.entered(self.table.lock_any(number))?.recovered())
            .collect();
        if !ended.is_empty() {
            let (buckets, contexts) = (ended.len(), ended.iter().sum::<u32>());
            tracing::warn!(
                buckets,
                contexts,
                "put right what a dead process held: these contexts were being changed and are ended"
            );
        }
    }

    pub(super) fn count(&self, counter: Counter) {
        self.counters.add(self.seat, counter, 1);
    }
}
