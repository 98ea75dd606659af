//! What the processes share: one mapping, made by the master before the first fork.
//!
//! Owns: the handles on every part, and the order in which they are laid out. Each part has its file, with `plan` (how much) and
//! `take` (the handle on it). Plain data only: no pointer, no `Drop`, no `std` lock.
//!
//! Two parts will join these: the workers' receive buffers and the outbox of decided steps, so that a successor finishes what a dead
//! worker had read and decided. Until then a worker's batch lies in its own `sys::datagram::Arena` and `transport::Outgoing`, and
//! what it held when it died is lost with it.

use std::io;

use sys::memory::{Plan, Span};

use crate::config::Config;
use crate::location::Location;
use crate::message::branch;
use crate::transport::{Parts, SUPERVISOR_PATIENCE, Transport};

pub mod bindings;
pub mod broken;
pub mod bucket;
pub mod counters;
pub mod deadlines;
pub mod flows;
pub mod mailbox;
pub mod numbers;
pub mod open_associations;
pub mod own_addresses;
pub mod phase;
pub mod settings;
pub mod slot;
pub mod supervision;
pub mod table;
pub mod text;
mod wake;

pub use counters::{Counter, Counters};
pub use phase::{Phase, Phases};
pub use settings::Settings;
pub use table::Table;
pub use wake::Wakes;

/// Every part of the mapping. A handle: copying it copies references.
#[derive(Clone, Copy)]
pub struct Shared {
    pub counters: Counters,
    pub phases: Phases,
    pub settings: Settings,
    /// Transactions, their texts and deadlines.
    pub table: Table,
    /// Bindings.
    pub location: Location,
    /// Connections and associations, and what their owners say to each other.
    pub flows: flows::Flows,
    pub mailboxes: mailbox::Mailboxes,
    pub broken: broken::Broken,
    pub open_associations: open_associations::OpenAssociations,
    pub own_addresses: own_addresses::OwnAddresses,
    pub supervision: supervision::Supervision,
    /// Drawn at daemon start: no branch recurs after a restart.
    pub key: branch::Key,
    /// Seals SCTP cookies in user space.
    pub cookie_key: [u8; 32],
}

/// Where each part lies.
struct Places {
    counters: counters::Place,
    phases: phase::Place,
    settings: settings::Place,
    table: table::Spans,
    bindings: bindings::Spans,
    flows: flows::Spans,
    mailboxes: mailbox::Spans,
    broken: Span<std::sync::atomic::AtomicU32>,
    open_associations: Span<std::sync::atomic::AtomicU64>,
    own_addresses: Span<std::sync::atomic::AtomicU64>,
    supervision: supervision::Spans,
}

impl Places {
    fn plan(plan: &mut Plan, config: &Config, seats: usize) -> Places {
        Places {
            counters: Counters::plan(plan, seats),
            phases: Phases::plan(plan, seats),
            settings: Settings::plan(plan),
            table: Table::plan(plan, config.memory.transactions),
            bindings: bindings::Bindings::plan(plan, config.memory.bindings),
            flows: flows::Flows::plan(plan, config.memory.flows),
            mailboxes: mailbox::Mailboxes::plan(plan, seats, config.mailbox_bytes()),
            broken: broken::Broken::plan(plan),
            open_associations: open_associations::OpenAssociations::plan(plan, seats),
            own_addresses: own_addresses::OwnAddresses::plan(plan),
            supervision: supervision::Supervision::plan(plan, config),
        }
    }
}

/// Bytes of the mapping that a daemon with this configuration can touch.
#[must_use]
pub fn memory_bytes(config: &Config) -> u64 {
    let mut plan = Plan::new();
    Places::plan(&mut plan, config, config.seats());
    plan.bytes() as u64
}

impl Shared {
    /// Maps what `config` asks for, for `seats` processes (`Config::seats`), and publishes `config.live`. Once, by the master,
    /// before the first fork.
    ///
    /// # Errors
    /// The kernel refused the mapping (mmap(2)), or a lock could not be made.
    pub fn new(config: &Config, seats: usize) -> io::Result<Shared> {
        let mut plan = Plan::new();
        let places = Places::plan(&mut plan, config, seats);
        let mapping = plan.map()?;
        if config.memory.huge_pages {
            // A kernel that has none serves as well, only slower; `check` says what this one does.
            let _ = mapping.ask_for_huge_pages();
        }
        let mut cookie_key = [0; 32];
        getrandom::fill(&mut cookie_key).map_err(|error| io::Error::other(error.to_string()))?;
        let drawn = getrandom::u64().and_then(|low| Ok([low, getrandom::u64()?]));
        let shared = Shared {
            counters: Counters::take(&mapping, &places.counters)?,
            phases: Phases::take(&mapping, &places.phases)?,
            settings: Settings::take(&mapping, &places.settings)?,
            table: Table::take(&mapping, &places.table)?,
            location: Location::new(bindings::Bindings::take(&mapping, &places.bindings)?),
            flows: flows::Flows::take(&mapping, &places.flows, config.memory.flows)?,
            mailboxes: mailbox::Mailboxes::take(&mapping, &places.mailboxes)?,
            broken: broken::Broken::take(&mapping, &places.broken)?,
            open_associations: open_associations::OpenAssociations::take(&mapping, &places.open_associations)?,
            own_addresses: own_addresses::OwnAddresses::take(&mapping, &places.own_addresses)?,
            supervision: supervision::Supervision::take(&mapping, &places.supervision, SUPERVISOR_PATIENCE)?,
            key: branch::Key(drawn.map_err(|error| io::Error::other(error.to_string()))?),
            cookie_key,
        };
        shared.settings.publish(&config.live)?;
        Ok(shared)
    }

    /// What the transports work with.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts {
            flows: self.flows,
            mailboxes: self.mailboxes,
            broken: self.broken,
            open_associations: self.open_associations,
            own_addresses: self.own_addresses,
            supervision: self.supervision,
            counters: self.counters,
            cookie_key: self.cookie_key,
        }
    }

    /// Transactions that have no final response yet: what a drain waits for. Reads atomics only: the master calls it, and a
    /// master that waits for a lock could not kill the hanging worker that holds it.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.table.unanswered()
    }

    /// How full the tables are, for `status`. Takes no lock, for the same reason.
    #[must_use]
    pub fn fill(&self, config: &Config) -> Vec<Fill> {
        let bindings = Fill { table: "bindings", used: self.location.count(), size: config.memory.bindings };
        let mut fills = vec![self.table.fill(), bindings];
        for (table, transport) in [("connections", Transport::Tcp), ("associations", Transport::Sctp)] {
            fills.push(Fill { table, used: self.flows.live(transport), size: config.memory.flows });
        }
        fills
    }
}

/// One table's fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub table: &'static str,
    pub used: usize,
    pub size: usize,
}
