//! Associations that have no room now.
//!
//! Owns: a queue for each, tried again every few milliseconds, because the kernel gives no sign when one association has room again
//! (M08, M09). Every process has its own, but all that wait for one association have one bound together, counted in its entry of
//! `flows`. Never blocks another association.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;

use super::send::{self, Refused};
use super::way::{self, Way};
use super::{Desk, Item, SndInfo};
use crate::message::branch::BranchId;
use crate::shared::counters::Counter;
use crate::shared::flows::State;
use crate::timer::Tick;
use crate::transport::{Address, Inbox};

/// Milliseconds between two tries.
const RETRY_MS: u64 = 5;
/// Milliseconds after which nobody waits for a message any more: 64 * T1, with the T1 of RFC 3261. By then a request has failed with its
/// timer B or F here, and what a response answers, with the timer of whoever sent it, whose T1 is not ours to set: hence fixed.
const TOO_LATE_MS: u64 = 32_000;
/// Messages of one try.
const BATCH: usize = 32;

/// Which queue: an association, or a peer to whom there was none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub listener: u8,
    /// 0: by peer.
    pub association: u32,
    pub peer: Address,
}

struct Waiting {
    bytes: Vec<u8>,
    way: Way,
    client: Option<BranchId>,
    since: Tick,
}

#[derive(Default)]
struct Queue {
    bytes: usize,
    messages: VecDeque<Waiting>,
    /// The association is shutting down in good order.
    closing: bool,
}

#[derive(Default)]
pub struct Queues {
    by_key: HashMap<Key, Queue>,
    retry: Option<Tick>,
    bytes: usize,
}

impl Queues {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The usual state is that none is blocked.
    pub fn is_blocked(&self, key: &Key) -> bool {
        !self.by_key.is_empty() && self.by_key.contains_key(key)
    }

    /// Puts a message behind the others, or fails it when as much waits as may. The usual message does not come here, so the lock of
    /// `flows` is not taken for it.
    pub fn push(
        &mut self,
        desk: &Desk,
        key: Key,
        (way, client): (Way, Option<BranchId>),
        pieces: [&[u8]; 2],
        inbox: &mut Inbox,
        now: Tick,
    ) {
        let queue = self.by_key.entry(key).or_default();
        let bytes = pieces.concat();
        let most = desk.limits.association_queue_bytes;
        // Where there is no association yet, there is no entry, and the bound is this process's.
        if queue.bytes + bytes.len() <= most && desk.parts.flows.queue(key.association, bytes.len(), most) {
            desk.count(Counter::Queued, 1);
            queue.bytes += bytes.len();
            self.bytes += bytes.len();
            queue.messages.push_back(Waiting { bytes, way, client, since: now });
        } else {
            desk.count(Counter::QueueFull, 1);
            inbox.send_failed(client);
            if queue.messages.is_empty() {
                way::given_up(desk, key.listener, way.peer);
            }
        }
        self.retry.get_or_insert(now + RETRY_MS);
    }

    /// This one waits for the end of an association, not for room.
    pub fn closing(&mut self, key: &Key) {
        if let Some(queue) = self.by_key.get_mut(key) {
            queue.closing = true;
        }
    }

    pub fn next_tick(&self) -> Tick {
        self.retry.unwrap_or(Tick::NEVER)
    }

    /// Tries each blocked association once.
    pub fn retry(&mut self, desk: &mut Desk, sip: SndInfo, inbox: &mut Inbox, now: Tick) {
        if now < self.next_tick() {
            return;
        }
        let bytes = &mut self.bytes;
        self.by_key.retain(|key, queue| {
            let before = queue.bytes;
            let emptied = try_again(desk, key, queue, sip, inbox, now);
            *bytes = (*bytes + queue.bytes).saturating_sub(before);
            if key.association != 0 && queue.bytes != before {
                desk.parts.flows.unqueue(key.association, before - queue.bytes);
            }
            !emptied
        });
        self.retry = (!self.by_key.is_empty()).then(|| now + RETRY_MS);
    }
}

/// Requests that waited when the peer restarted have failed with what was under way (A19): none may leave after that.
fn forget_lost(desk: &Desk, key: &Key, queue: &mut Queue, inbox: &mut Inbox) {
    let flow = if key.association == 0 { None } else { desk.parts.flows.find_association(key.association) };
    let Some(flow) = flow else { return };
    let is_lost = |waiting: &Waiting| waiting.client.is_some() && waiting.since < flow.begun;
    for lost in queue.messages.iter().filter(|waiting| is_lost(waiting)) {
        inbox.undelivered(lost.client, true);
    }
    queue.messages.retain(|waiting| !is_lost(waiting));
    queue.bytes = queue.messages.iter().map(|waiting| waiting.bytes.len()).sum();
}

/// True when nothing waits any more.
fn try_again(desk: &mut Desk, key: &Key, queue: &mut Queue, sip: SndInfo, inbox: &mut Inbox, now: Tick) -> bool {
    forget_lost(desk, key, queue, inbox);
    while let Some(first) = queue.messages.front() {
        if first.way.association == 0 {
            // Meanwhile there may be an association, on whichever socket.
            match Way::by_address(desk, key.listener, first.way.peer, now) {
                Ok(way) => {
                    if let Some(first) = queue.messages.front_mut() {
                        first.way = way;
                    }
                }
                Err(counter) => {
                    desk.count(counter, 1);
                    fail_first(desk, key, queue, inbox);
                    continue;
                }
            }
        }
        let Some(first) = queue.messages.front() else { break };
        let (socket, association) = (first.way.socket, first.way.association);
        let fd = desk.ends.get(usize::from(key.listener)).and_then(|end| end.fds.get(usize::from(socket)));
        let Some(fd) = fd.map(AsFd::as_fd) else {
            fail_first(desk, key, queue, inbox);
            continue;
        };
        if now.since(first.since) > TOO_LATE_MS {
            desk.count(Counter::QueueFull, 1);
            fail_first(desk, key, queue, inbox);
            continue;
        }
        let messages = queue.messages.iter().take(BATCH);
        let count = messages
            .take_while(|message| (message.way.socket, message.way.association) == (socket, association))
            .count();
        let messages = &queue.messages;
        let (sent, error) = desk.sender.send(fd, count, false, |index| match messages.get(index) {
            Some(waiting) => Item {
                to: waiting.way.to(),
                pieces: [&waiting.bytes, b""],
                sctp: Some(SndInfo { context: waiting.client.map_or(0, |client| client.slot), ..sip }),
            },
            None => Item::NONE,
        });
        for sent in queue.messages.drain(..sent) {
            queue.bytes -= sent.bytes.len();
        }
        desk.parts.counters.add(desk.seat, Counter::SentSctp, sent as u64);
        if sent != 0 && key.association != 0 {
            // A plain send closes what MSG_MORE had left open.
            desk.parts.open_associations.strike(desk.seat, key.listener, key.association);
        }
        let Some(error) = error else { continue };
        match send::judge(&error) {
            Refused::NoRoom | Refused::Elsewhere => return false,
            Refused::Closing => {
                queue.closing = true;
                return false;
            }
            Refused::Gone => {
                desk.parts.open_associations.strike(desk.seat, key.listener, key.association);
                // After a shutdown in good order a new association takes over (M19), and a response always may use one (A17); a
                // request whose association was lost has failed with it (A19).
                let flow = desk.parts.flows.find_association(key.association);
                let closing = queue.closing || flow.is_some_and(|flow| flow.state == State::Closing);
                match queue.messages.front_mut() {
                    Some(first) if first.way.association != 0 && (closing || first.client.is_none()) => {
                        first.way.association = 0;
                        inbox.moved(first.client);
                    }
                    _ => {
                        if let Some(lost) = pop_first(queue) {
                            // Whether news of it still comes is not known.
                            inbox.undelivered(lost.client, false);
                            way::given_up(desk, key.listener, lost.way.peer);
                        }
                    }
                }
            }
            Refused::Failed => {
                desk.parts.counters.add(desk.seat, Counter::SendFailed, 1);
                fail_first(desk, key, queue, inbox);
            }
        }
    }
    true
}

fn fail_first(desk: &Desk, key: &Key, queue: &mut Queue, inbox: &mut Inbox) {
    if let Some(failed) = pop_first(queue) {
        inbox.send_failed(failed.client);
        way::given_up(desk, key.listener, failed.way.peer);
    }
}

fn pop_first(queue: &mut Queue) -> Option<Waiting> {
    let first = queue.messages.pop_front()?;
    queue.bytes -= first.bytes.len();
    Some(first)
}
