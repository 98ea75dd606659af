//! What the processes share: one mapping, made by the master before the first fork (design §5).
//!
//! Owns: the handles on every part, and the order in which they are laid out. Each part has its file, with `plan`
//! (how much) and `take` (the handle on it). Plain data only: no pointer, no `Drop`, no `std` lock.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64};

use sys::memory::{Locked, Plan, Span};

use crate::config::Config;
use crate::transport::Transport;

pub mod broken;
pub mod counters;
pub mod flows;
pub mod mailbox;
pub mod open_associations;
pub mod phase;
pub mod settings;
mod wake;

pub use broken::Broken;
pub use counters::{Counter, Counters};
pub use flows::Flows;
pub use mailbox::Mailboxes;
pub use open_associations::OpenAssociations;
pub use phase::{Phase, Phases};
pub use settings::Settings;
pub use wake::Wakes;

/// Every part of the mapping. A handle: copying it copies references.
#[derive(Clone, Copy)]
pub struct Shared {
    pub counters: Counters,
    pub phases: Phases,
    pub settings: Settings,
    pub flows: Flows,
    pub mailboxes: Mailboxes,
    pub broken: Broken,
    pub open_associations: OpenAssociations,
    // table, bindings: one field each.
}

/// Where each part lies.
struct Places {
    counters: counters::Place,
    phases: phase::Place,
    settings: settings::Place,
    flows: Span<Locked<flows::FlowTable>>,
    mailboxes: mailbox::Spans,
    broken: Span<AtomicU32>,
    open_associations: Span<AtomicU64>,
}

impl Places {
    fn plan(config: &Config) -> (Plan, Places) {
        let (mut plan, seats) = (Plan::new(), config.seats());
        let places = Places {
            counters: Counters::plan(&mut plan, seats),
            phases: Phases::plan(&mut plan, seats),
            settings: Settings::plan(&mut plan),
            flows: Flows::plan(&mut plan),
            mailboxes: Mailboxes::plan(&mut plan, seats, config.memory.mailbox_bytes),
            broken: Broken::plan(&mut plan),
            open_associations: OpenAssociations::plan(&mut plan, seats),
        };
        (plan, places)
    }
}

/// The most shared memory that the daemon can touch with this configuration, bytes.
#[must_use]
pub fn memory_bytes(config: &Config) -> u64 {
    Places::plan(config).0.bytes() as u64
}

impl Shared {
    /// Maps what `config` asks for and publishes `config.live`. Once, by the master, before the first fork.
    ///
    /// # Errors
    /// The kernel refused the mapping (mmap(2)), or a lock could not be made.
    pub fn new(config: &Config) -> io::Result<Shared> {
        let (plan, places) = Places::plan(config);
        let mapping = plan.map()?;
        let shared = Shared {
            counters: Counters::take(&mapping, &places.counters)?,
            phases: Phases::take(&mapping, &places.phases)?,
            settings: Settings::take(&mapping, &places.settings)?,
            flows: Flows::take(&mapping, &places.flows, config.memory.flows)?,
            mailboxes: Mailboxes::take(&mapping, &places.mailboxes)?,
            broken: Broken::take(&mapping, &places.broken)?,
            open_associations: OpenAssociations::take(&mapping, &places.open_associations)?,
        };
        shared.settings.publish(&config.live)?;
        Ok(shared)
    }

    /// Transactions that have no final response yet: what a drain waits for. Reads atomics only: the master calls it,
    /// and a master that waits for a lock could not kill the hanging worker that holds it.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        0 // table: `self.table.unanswered()`
    }

    /// How full the tables are, for `status`. Never waits for a lock, for the same reason: a table that somebody
    /// holds just now is left out.
    #[must_use]
    pub fn fill(&self, config: &Config) -> Vec<Fill> {
        let flows = [("connections", Transport::Tcp), ("associations", Transport::Sctp)];
        let flows = flows.into_iter().filter_map(|(table, transport)| {
            Some(Fill { table, used: self.flows.live_now(transport)?, size: config.memory.flows })
        });
        flows.collect() // table, bindings: one more each
    }
}

/// One table's fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub table: &'static str,
    pub used: usize,
    pub size: usize,
}
