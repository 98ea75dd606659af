//! The look at every connection under the table's lock, as OpenSER took it.
//!
//! Owns: what is seen of a connection, and what becomes of it. Only for `tcp.architecture = "supervisor"`, which is there to show
//! what that costs; nobody else looks at what it does not need.

use super::table::FlowTable;
use super::view::{join, split};
use super::{FlowView, Flows, State};
use crate::timer::Tick;
use crate::transport::{FlowId, Transport};

/// What becomes of a connection that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    Keep,
    /// It is this seat's from now on.
    Give(usize),
    Remove,
}

/// What one looks at to find idle connections.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    pub id: FlowId,
    pub owner: usize,
    pub state: State,
    pub last: Tick,
}

impl Flows {
    /// Looks at every connection, all of them under the table's lock, as OpenSER does; gives back those that did not stay as they were,
    /// as they were.
    pub fn scan(&self, now: Tick, mut each: impl FnMut(&Glance) -> Judgement) -> Vec<FlowView> {
        let mut changed = Vec::new();
        let Some(mut held) = self.lock(Transport::Tcp) else { return changed };
        let mut table = held.table();
        for index in 1..=table.used() {
            changed.extend(self.look_at(&mut table, index, now, &mut each));
        }
        changed
    }

    /// The same for one connection.
    pub fn judge(&self, id: FlowId, now: Tick, mut each: impl FnMut(&Glance) -> Judgement) -> Option<FlowView> {
        let (transport, index) = split(id)?;
        let mut held = self.lock(transport).filter(|_| transport == Transport::Tcp)?;
        let mut table = held.table();
        table.get(index, id.generation)?;
        self.look_at(&mut table, index, now, &mut each)
    }

    fn look_at(
        &self,
        table: &mut FlowTable<'_>,
        index: u32,
        now: Tick,
        each: &mut impl FnMut(&Glance) -> Judgement,
    ) -> Option<FlowView> {
        let entry = table.entry_mut(index)?;
        let id = join(Transport::Tcp, index, entry.generation);
        let tally = self.tally(id)?;
        let glance = Glance {
            id,
            owner: usize::from(entry.owner),
            state: State::from_u8(entry.state).unwrap_or(State::Closing),
            last: tally.told().last,
        };
        match each(&glance) {
            Judgement::Keep => None,
            Judgement::Give(seat) => {
                let was = self.view(Transport::Tcp, index, entry);
                entry.owner = seat as u16;
                tally.use_at(now);
                Some(was)
            }
            Judgement::Remove => {
                let was = self.view(Transport::Tcp, index, entry);
                table.remove(index);
                Some(was)
            }
        }
    }
}
