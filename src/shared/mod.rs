//! What the processes share: one mapping, made by the master before the first fork (design §5).
//!
//! Owns: the handles on every part, and the order in which they are laid out. Each part has its file, with `plan` (how much) and
//! `take` (the handle on it). Plain data only: no pointer, no `Drop`, no `std` lock.

use std::io;

use sys::memory::Plan;

use crate::config::Config;

pub mod bucket;
pub mod counters;
pub mod deadlines;
pub mod phase;
pub mod settings;
pub mod slot;
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
    pub table: Table,
}

impl Shared {
    /// Maps what `config` asks for, for `seats` processes (workers, then timer), and publishes `config.live`. Once, by the master,
    /// before the first fork.
    ///
    /// # Errors
    /// The kernel refused the mapping (mmap(2)), or a lock could not be made.
    pub fn new(config: &Config, seats: usize) -> io::Result<Shared> {
        let mut plan = Plan::new();
        let counters = Counters::plan(&mut plan, seats);
        let phases = Phases::plan(&mut plan, seats);
        let settings = Settings::plan(&mut plan);
        let table = Table::plan(&mut plan, config.memory.transactions);

        let mapping = plan.map()?;
        let shared = Shared {
            counters: Counters::take(&mapping, &counters)?,
            phases: Phases::take(&mapping, &phases)?,
            settings: Settings::take(&mapping, &settings)?,
            table: Table::take(&mapping, &table)?,
        };
        shared.settings.publish(&config.live)?;
        Ok(shared)
    }

    /// Transactions that have no final response yet: what a drain waits for. Reads atomics only: the master calls it, and a
    /// master that waits for a lock could not kill the hanging worker that holds it.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.table.unanswered()
    }

    /// How full the tables are, for `status`; atomics only, as above.
    #[must_use]
    pub fn fill(&self) -> Vec<Fill> {
        vec![self.table.fill()]
    }
}

/// One table's fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub table: &'static str,
    pub used: usize,
    pub size: usize,
}
