//! Idle connections of a worker: returned to the supervisor after `tcp.idle_s` (the paper's §5.2, §5.3).
//!
//! Owns: finding them. OpenSER's way is a scan after every return from the poll (`tcp_receive_timeout` behind `io_wait_loop_epoll`
//! in `tcp_read.c`), so after every batch of events and not only when time has passed; so is ours. It looks at every connection of the
//! daemon under the table's lock, as the paper describes it; later sources of OpenSER scan a list of the worker's own there. With
//! `tcp.priority_queue` it is a queue of this worker's own, in the order of the deadlines.

use super::ipc::{Note, Word};
use super::reader::Worker;
use crate::shared::counters::Counter;
use crate::shared::flows::{Judgement, State};
use crate::timer::Tick;
use crate::transport::desk::Desk;
use crate::transport::tcp::connection::{Connection, Phase};
use crate::transport::{FlowId, Inbox};

impl Worker {
    /// Looks at all connections for idle ones of ours.
    pub(super) fn scan(&mut self, desk: &Desk, now: Tick) {
        let (idle, supervisor) = (self.settings.idle_s.saturating_mul(1000), desk.parts.supervision.seats());
        desk.count(Counter::IdleScans, 1);
        let returned = desk.parts.flows.scan(now, |glance| {
            let is_idle = glance.owner == desk.seat && glance.state == State::Open && now.since(glance.last) >= idle;
            if is_idle && self.may_return(glance.id) { Judgement::Give(supervisor) } else { Judgement::Keep }
        });
        for flow in returned {
            self.give_back(desk, flow.id);
        }
    }

    /// Half a message stays with who has its first half.
    fn may_return(&self, id: FlowId) -> bool {
        let connection = self.by_id.get(&id).and_then(|slot| self.connections.get(*slot));
        connection.is_some_and(|connection| connection.phase == Phase::Open && connection.half_since.is_none())
    }

    fn give_back(&mut self, desk: &Desk, id: FlowId) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        self.drop_connection(slot);
        desk.count(Counter::ConnectionsReturned, 1);
        self.tell(Note::of(Word::Return, id));
    }

    /// When something is to be done with this connection if nothing happens.
    fn deadline(&self, connection: &Connection) -> Tick {
        match connection.phase {
            Phase::Connecting | Phase::Ending | Phase::Lingering => connection.last + self.settings.message_timeout_ms,
            Phase::Open => match connection.half_since {
                Some(since) => since + self.settings.message_timeout_ms,
                None if self.settings.priority_queue => connection.last + self.settings.idle_s.saturating_mul(1000),
                None => Tick::NEVER,
            },
        }
    }

    /// Enters an earlier deadline at once; a later one is found out when the entered one comes.
    pub(super) fn arm(&mut self, slot: usize) {
        let Some(connection) = self.connections.get(slot) else { return };
        let (armed, due) = (connection.armed, self.deadline(connection));
        if due < armed {
            self.enter(slot, armed, due);
        }
    }

    fn enter(&mut self, slot: usize, armed: Tick, due: Tick) {
        self.deadlines.remove(&(armed, slot));
        if due != Tick::NEVER {
            self.deadlines.insert((due, slot));
        }
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.armed = due;
        }
    }

    pub(super) fn end_what_is_due(&mut self, desk: &Desk, inbox: &mut Inbox, now: Tick) {
        while let Some((armed, slot)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) {
            let Some(connection) = self.connections.get(slot) else {
                self.deadlines.remove(&(armed, slot));
                continue;
            };
            let due = self.deadline(connection);
            if due > now {
                self.enter(slot, armed, due);
            } else if connection.phase != Phase::Open || connection.half_since.is_some() {
                desk.count(Counter::HalfMessages, u64::from(connection.phase == Phase::Open));
                self.close(desk, slot, inbox);
            } else {
                self.return_if_idle(desk, slot, now);
            }
        }
    }

    /// Others may have sent on it since we read.
    fn return_if_idle(&mut self, desk: &Desk, slot: usize, now: Tick) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let (idle, supervisor) = (self.settings.idle_s.saturating_mul(1000), desk.parts.supervision.seats());
        let (id, mut used) = (connection.id, None);
        let returned = desk.parts.flows.judge(id, now, |glance| {
            if now.since(glance.last) >= idle && glance.state == State::Open {
                return Judgement::Give(supervisor);
            }
            used = Some(glance.last);
            Judgement::Keep
        });
        match (returned, used) {
            (Some(_), _) => self.give_back(desk, id),
            (None, Some(used)) if now.since(used) < idle => connection.last = used,
            // Its entry is gone, or it is ending: the supervisor has shut it down, and reading will say so.
            (None, _) => connection.last = now,
        }
        if let Some(connection) = self.connections.get(slot) {
            self.enter(slot, connection.armed, self.deadline(connection));
        }
    }
}
