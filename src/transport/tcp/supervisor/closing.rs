//! Idle connections of the supervisor: closed `tcp.supervisor_idle_s` after their worker returned them (the paper's §5.2, §5.3).
//!
//! Owns: finding them. OpenSER's way is a scan of the whole table under its lock after every return from the poll (`tcpconn_timeout`
//! behind `io_wait_loop_epoll` in `tcp_main.c`), so after every batch of questions; so is ours. With `tcp.priority_queue` it is the
//! shared queue: each connection is in it once, entered by the process that opened it or by the supervisor; one whose owner
//! has not returned it when its time comes goes back into the queue.

use super::holder::Supervisor;
use crate::shared::counters::Counter;
use crate::shared::flows::{FlowView, Judgement};
use crate::timer::Tick;
use crate::transport::desk::Desk;
use crate::transport::{FlowId, Inbox, Transport};

/// Connections of the queue that are looked at in one turn.
const BATCH: usize = 1_024;
/// Milliseconds after which one is looked at again that its owner should have returned by now.
const AGAIN_MS: u64 = 1_000;

impl Supervisor {
    pub(super) fn close_idle(&mut self, desk: &Desk, inbox: &mut Inbox, now: Tick) {
        if self.settings.priority_queue {
            self.close_due(desk, inbox, now);
        } else {
            self.scan(desk, inbox, now);
        }
    }

    fn scan(&mut self, desk: &Desk, inbox: &mut Inbox, now: Tick) {
        let idle = self.settings.supervisor_idle_s.saturating_mul(1000);
        desk.count(Counter::IdleScans, 1);
        let closed = desk.parts.flows.scan(now, |glance| {
            let is_idle = glance.owner == desk.seat && now.since(glance.last) >= idle;
            if is_idle { Judgement::Remove } else { Judgement::Keep }
        });
        for flow in closed {
            self.closed(desk, &flow, inbox);
        }
    }

    fn close_due(&mut self, desk: &Desk, inbox: &mut Inbox, now: Tick) {
        let queue = desk.parts.supervision.queue;
        if queue.was_lost() {
            // Also those that their openers have entered, and we have not heard of yet.
            desk.parts.flows.for_each(Transport::Tcp, |flow| self.enter_queue(desk, flow.id, now));
        }
        let (worker, idle) = (self.settings.idle_s * 1000, self.settings.supervisor_idle_s * 1000);
        for _ in 0..BATCH {
            let Some(id) = queue.due(now) else { break };
            let mut again = None;
            let closed = desk.parts.flows.judge(id, now, |glance| {
                again = match glance.owner == desk.seat {
                    true => Some(glance.last + idle),
                    false => Some((glance.last + worker + idle).max(now + AGAIN_MS)),
                };
                again = again.filter(|due| *due > now);
                if again.is_none() { Judgement::Remove } else { Judgement::Keep }
            });
            if let Some(due) = again {
                queue.enter(id, due);
            }
            if let Some(flow) = closed {
                self.closed(desk, &flow, inbox);
            }
        }
    }

    /// Its entry is gone; so goes the rest.
    fn closed(&mut self, desk: &Desk, flow: &FlowView, inbox: &mut Inbox) {
        desk.count(Counter::Idle, 1);
        desk.count(Counter::ConnectionsClosed, 1);
        desk.parts.supervision.count_end();
        if flow.requested {
            inbox.lost(Transport::Tcp, flow.peers, flow.id);
        }
        self.end(desk, flow.id, inbox);
    }

    pub(super) fn enter_queue(&self, desk: &Desk, id: FlowId, now: Tick) {
        if self.settings.priority_queue {
            let after = (self.settings.idle_s + self.settings.supervisor_idle_s).saturating_mul(1000);
            desk.parts.supervision.queue.enter(id, now + after);
        }
    }
}
