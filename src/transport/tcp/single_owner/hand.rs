//! Which worker a message is handed to.
//!
//! Owns: the choice, and whom to wake. Any worker can work on any message, since the transactions are shared; so the choice is for speed
//! and order only:
//!
//! - A worker that is awake anyway, while it has little to do: waking another costs more than the message. So an idle house works in
//!   one worker, a busy one in all.
//! - Else one that sleeps; else the one with the least to do.
//! - While a worker has messages of a connection that it is not done with, it gets the next, too: else a CANCEL could overtake its
//!   INVITE. Not where that would be much: a trunk's messages are for all workers, and over UDP nobody orders them either.
//!
//! Never waits: when no worker has room, the caller hears so.

use crate::shared::counters::Counter;
use crate::shared::mailbox::Kind;
use crate::transport::Flow;
use crate::transport::desk::Desk;

/// Bytes that a worker is not done with: a few messages.
const FEW: usize = 4 * 1024;
/// ... and as many as it may have for the sake of order.
const MANY: usize = 16 * 1024;

pub struct Hand {
    workers: usize,
    /// Who got the last message.
    latest: usize,
    /// By connection: who got its last message, and what its mailbox had been given then.
    had: Vec<Option<(usize, u64)>>,
    /// Workers that were given something and not woken.
    given: Vec<usize>,
}

impl Hand {
    pub fn new(workers: usize) -> Hand {
        Hand { workers, latest: 0, had: Vec::new(), given: Vec::new() }
    }

    /// Hands a message of this connection to a worker; `wake` is still to be called. False: none has room.
    pub fn give(&mut self, desk: &Desk, slot: usize, kind: Kind, from: &Flow, bytes: &[u8]) -> bool {
        let mailboxes = &desk.parts.mailboxes;
        let first = self.choose(desk, slot);
        for worker in (first..self.workers).chain(0..first) {
            if mailboxes.put((desk.seat, worker), kind, from, None, [bytes, b""]).is_err() {
                if mailboxes.undone((desk.seat, worker)) == 0 {
                    // It will never fit.
                    desk.count(Counter::MailboxFull, 1);
                    return true;
                }
                continue;
            }
            desk.count(Counter::Posted, 1);
            self.latest = worker;
            if !self.given.contains(&worker) {
                self.given.push(worker);
            }
            if slot >= self.had.len() {
                self.had.resize(slot + 1, None);
            }
            if let Some(had) = self.had.get_mut(slot) {
                *had = Some((worker, mailboxes.written((desk.seat, worker))));
            }
            return true;
        }
        false
    }

    /// Wakes those who were given something: once a turn, when it is all there. (Where processors are few, who is woken goes on at
    /// once, and would find one message.)
    pub fn wake(&mut self, desk: &Desk) {
        self.given.drain(..).for_each(|worker| desk.parts.mailboxes.wake(worker));
    }

    fn choose(&self, desk: &Desk, slot: usize) -> usize {
        let mailboxes = &desk.parts.mailboxes;
        let undone = |worker| mailboxes.undone((desk.seat, worker));
        if let Some(Some((worker, written))) = self.had.get(slot)
            && !mailboxes.is_done((desk.seat, *worker), *written)
            && undone(*worker) <= MANY
        {
            return *worker;
        }
        // Who has something to do will look before it sleeps.
        let is_awake = |worker, undone| undone != 0 || !mailboxes.is_asleep(worker);
        let latest = undone(self.latest);
        if latest <= FEW && is_awake(self.latest, latest) {
            return self.latest;
        }
        let order = |worker: usize| {
            let undone = undone(worker);
            let turn = (worker + self.workers - self.latest) % self.workers;
            match is_awake(worker, undone) {
                true if undone <= FEW => (0, undone, turn),
                false => (1, 0, turn),
                true => (2, undone, turn),
            }
        };
        (0..self.workers).min_by_key(|worker| order(*worker)).unwrap_or(0)
    }
}
