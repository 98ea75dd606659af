//! How connections begin to be open, and how they end.
//!
//! Owns: deadlines in their order, the last words of a connection whose framing is lost, and telling who is concerned when
//! one closes.

use super::{Connection, Desk, Inbox, Phase, Symmetric, Tick, Transport, recycle};
use crate::shared::counters::Counter;
use crate::shared::flows::State;
use crate::transport::FlowId;

impl Symmetric {
    /// Our connect has succeeded. What waits is written by the caller.
    pub(super) fn opened(&mut self, desk: &Desk, slot: usize, now: Tick) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.phase = Phase::Open;
            connection.last = now;
            desk.parts.flows.set_state(connection.id, State::Open);
            desk.count(Counter::ConnectionsOpened, 1);
        }
        self.arm(slot);
    }

    /// Writes what waits for room; false when the connection is gone.
    pub(super) fn write_waiting(&mut self, desk: &Desk, slot: usize, inbox: &mut Inbox, now: Tick) -> bool {
        let Some(connection) = self.connections.get_mut(slot) else { return false };
        if connection.waiting() != 0 {
            match connection.drain(&mut self.spare) {
                Ok(true) => {
                    connection.last = now;
                    desk.parts.flows.touch(connection.id, 0, 0, connection.waiting() as u32, now);
                }
                Ok(false) => {}
                Err(_) => {
                    self.close(desk, slot, inbox);
                    return false;
                }
            }
        }
        let answered = connection.answered || !self.patient;
        if connection.phase == Phase::Ending && connection.waiting() == 0 && answered {
            self.linger(desk, slot, now);
        }
        true
    }

    /// After a flush: connections that were to end with it.
    pub fn end_what_ends(&mut self, desk: &Desk, inbox: &mut Inbox, now: Tick) {
        while let Some(slot) = self.ending.pop() {
            self.write_waiting(desk, slot, inbox, now);
        }
    }

    /// Others have answered the last message of this connection: it ends with the next flush.
    pub fn end(&mut self, id: FlowId) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        if let Some(connection) = self.connections.get_mut(slot)
            && connection.phase == Phase::Ending
        {
            connection.answered = true;
            self.ending.push(slot);
        }
    }

    /// Our last word is said; waits a moment for the peer's end, so that no reset destroys what it has not read yet.
    fn linger(&mut self, desk: &Desk, slot: usize, now: Tick) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.phase = Phase::Lingering;
            connection.last = now;
            connection.say_end();
            desk.parts.flows.set_state(connection.id, State::Closing);
        }
        self.arm(slot);
    }

    /// Ends a connection: its entry, its client transactions, its descriptor.
    pub(super) fn close(&mut self, desk: &Desk, slot: usize, inbox: &mut Inbox) {
        let Some(mut connection) = self.connections.try_remove(slot) else { return };
        // One that never came up is `connect_failed`.
        desk.count(Counter::ConnectionsClosed, u64::from(connection.phase != Phase::Connecting));
        // First the entry: from now on nobody finds it.
        desk.parts.flows.close(connection.id);
        for client in connection.unsent() {
            desk.count(Counter::SendFailed, 1);
            inbox.send_failed(Some(client));
        }
        // Nobody waits on one that carried no request: a thousand idle phones may leave at once, and looking for each in the whole
        // table would hold up, or push out, those that matter.
        if connection.requested {
            inbox.lost(Transport::Tcp, [connection.peer], connection.id);
        }
        self.by_id.remove(&connection.id);
        self.deadlines.remove(&(connection.armed, slot));
        let _ = self.registry.deregister(&mut connection.stream);
        recycle(std::mem::take(&mut connection.stash), &mut self.spare);
    }

    /// When this connection ends by itself if nothing happens.
    fn deadline(&self, connection: &Connection) -> Tick {
        match connection.phase {
            Phase::Connecting => connection.last + self.settings.connect_timeout_ms,
            Phase::Ending | Phase::Lingering => connection.last + self.settings.message_timeout_ms,
            Phase::Open => {
                let idle = connection.last + self.settings.idle_s.saturating_mul(1000);
                let half = connection.half_since.map_or(Tick::NEVER, |since| since + self.settings.message_timeout_ms);
                idle.min(half)
            }
        }
    }

    /// Enters an earlier deadline at once; a later one is found out when the entered one comes, so traffic costs nothing here.
    pub(super) fn arm(&mut self, slot: usize) {
        let Some(connection) = self.connections.get(slot) else { return };
        let (armed, due) = (connection.armed, self.deadline(connection));
        if due < armed {
            self.enter(slot, armed, due);
        }
    }

    fn enter(&mut self, slot: usize, armed: Tick, due: Tick) {
        self.deadlines.remove(&(armed, slot));
        self.deadlines.insert((due, slot));
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.armed = due;
        }
    }

    pub fn next_tick(&self) -> Tick {
        let deadline = self.deadlines.first().map_or(Tick::NEVER, |(due, _)| *due);
        deadline.min(self.acceptor.next_tick())
    }

    pub fn tick(&mut self, desk: &mut Desk, inbox: &mut Inbox, now: Tick) {
        for listener in self.acceptor.due(now) {
            if self.accept(desk, listener, now) {
                self.acceptor.ask_again(listener, now);
            }
        }
        while let Some((armed, slot)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) {
            let Some(connection) = self.connections.get(slot) else {
                self.deadlines.remove(&(armed, slot));
                continue;
            };
            let due = self.deadline(connection);
            if due > now {
                self.enter(slot, armed, due);
                continue;
            }
            match connection.phase {
                Phase::Connecting => desk.count(Counter::ConnectFailed, 1),
                Phase::Open if connection.half_since.is_some() => desk.count(Counter::HalfMessages, 1),
                Phase::Open => desk.count(Counter::Idle, 1),
                Phase::Ending | Phase::Lingering => {}
            }
            self.close(desk, slot, inbox);
        }
    }

    /// The connections of this seat's last holder died with it.
    pub fn adopt(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        for flow in desk.parts.flows.owned_by(Transport::Tcp, desk.seat) {
            if !self.by_id.contains_key(&flow.id) && desk.parts.flows.close(flow.id).is_some_and(|last| last.requested)
            {
                inbox.lost(Transport::Tcp, flow.peers, flow.id);
            }
        }
    }

    pub fn close_all(&mut self, desk: &mut Desk, inbox: &mut Inbox) {
        self.connections.iter().for_each(|(_, connection)| connection.say_end());
        let all: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        all.into_iter().for_each(|slot| self.close(desk, slot, inbox));
    }
}
