//! The transaction table: buckets of slots, found by key or by branch.
//!
//! Owns: which bucket a transaction lies in, and the way in and out of it: `Table::lock…`, then `Entry` methods, then the lock is
//! dropped and `Prepared` says what is to be sent. Never makes a system call while a bucket is locked.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use sys::memory::{Guard, Locked, Mapping, Plan, Span};
use zerocopy::{FromBytes, IntoBytes};

use super::bucket::{Bucket, CLIENTS, SERVERS, hop};
use super::numbers::Audit;
use super::slot::Key;
use super::text::Text;
use crate::message::BranchId;
use crate::proxy::{Branches, Client, Context, MAX_BRANCHES, Origin, Step, Steps};
use crate::timer::{Lengths, Tick};
use crate::transport::{Address, Flow, Transport};

/// What a bucket shows without its lock.
#[derive(FromBytes)]
#[repr(C, align(64))]
pub struct Published {
    /// Earliest deadline (a `Tick`), one more than it so that zeroed memory means none.
    earliest: AtomicU64,
    /// `Bucket::waited_on`.
    waited_on: AtomicU64,
    live: AtomicU32,
    unanswered: AtomicU32,
    ended: AtomicU32,
    unused: [u32; 9],
}

#[derive(Clone, Copy)]
pub struct Table {
    buckets: &'static [Locked<Bucket>],
    published: &'static [Published],
}

pub struct Spans {
    buckets: Span<Locked<Bucket>>,
    published: Span<Published>,
}

/// What one step of a context means in addresses and bytes; made under the lock, carried out after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Request(Branch),
    Ack(Branch),
    Cancel(Branch),
    Reply(u16),
    ReplyAgain(u16),
    /// The response at hand.
    Relay,
    /// A response that was kept.
    Kept(Range),
}

/// A client transaction as the composer of messages needs it. `uri` lies in `Prepared::scratch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    pub id: BranchId,
    pub flow: Flow,
    pub uri: Range,
}

/// Part of `Prepared::scratch`.
pub type Range = (u32, u32);

/// What is left of a visit to a context after its lock is gone. Reused, so its memory is taken once.
#[derive(Debug, Default)]
pub struct Prepared {
    pub acts: Vec<Act>,
    pub upstream: Flow,
    pub key: Key,
    /// The request from the store, when an act needs it and it was not at hand.
    pub request: Option<Range>,
    pub scratch: Vec<u8>,
}

impl Prepared {
    pub fn clear(&mut self) {
        self.acts.clear();
        self.request = None;
        self.scratch.clear();
    }

    #[must_use]
    pub fn bytes(&self, range: Range) -> &[u8] {
        self.scratch.get(range.0 as usize..range.1 as usize).unwrap_or_default()
    }

    fn keep(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Range {
        let start = self.scratch.len() as u32;
        fill(&mut self.scratch);
        (start, self.scratch.len() as u32)
    }
}

/// Which message is being worked on, if any: its bytes need not be fetched from the store.
#[derive(Clone, Copy)]
pub enum AtHand<'a> {
    Request,
    /// As it goes upstream, in pieces.
    Response(&'a [&'a [u8]]),
    Nothing,
}

/// A locked bucket.
pub struct Entry {
    guard: Guard<'static, Bucket>,
    number: u32,
    published: &'static Published,
    ended: u32,
}

impl Table {
    pub fn plan(plan: &mut Plan, transactions: usize) -> Spans {
        let buckets = transactions.div_ceil(SERVERS).max(1);
        Spans { buckets: plan.locks(buckets), published: plan.array(buckets) }
    }

    pub fn take(mapping: &Mapping, spans: &Spans) -> std::io::Result<Table> {
        Ok(Table { buckets: mapping.locks(&spans.buckets)?, published: mapping.array(&spans.published) })
    }

    /// The bucket of a server transaction.
    #[must_use]
    pub fn lock(&self, key: Key) -> Option<Entry> {
        self.lock_number((key[1] % self.buckets.len() as u64) as u32)
    }

    /// The bucket of the client transaction that a branch names; none when no such slot can exist.
    #[must_use]
    pub fn lock_branch(&self, id: BranchId) -> Option<Entry> {
        self.lock_number(id.slot.checked_sub(1)? / CLIENTS as u32)
    }

    fn lock_number(&self, number: u32) -> Option<Entry> {
        self.enter(number, self.buckets.get(number as usize)?.lock())
    }

    /// The lock, once mended, does not tell the next owner: so whoever meets it first publishes.
    fn enter(&self, number: u32, guard: Guard<'static, Bucket>) -> Option<Entry> {
        let published = self.published.get(number as usize)?;
        let ended = guard.ended.wrapping_sub(published.ended.load(Ordering::Relaxed));
        let entry = Entry { guard, number, published, ended };
        if entry.guard.recovered() {
            entry.publish();
        }
        Some(entry)
    }

    #[must_use]
    pub fn buckets(&self) -> u32 {
        self.buckets.len() as u32
    }

    /// The bucket with this number, if something in it is due. Looks without the lock.
    #[must_use]
    pub fn lock_due(&self, number: u32, now: Tick) -> Option<Entry> {
        let earliest = self.published.get(number as usize)?.earliest.load(Ordering::Acquire);
        (earliest != 0 && earliest - 1 <= now.0).then(|| self.lock_number(number))?
    }

    /// The earliest deadline of all buckets, without a lock.
    #[must_use]
    pub fn earliest(&self) -> Tick {
        let earliest =
            self.published.iter().map(|p| p.earliest.load(Ordering::Acquire)).filter(|earliest| *earliest != 0).min();
        earliest.map_or(Tick::NEVER, |earliest| Tick(earliest - 1))
    }

    /// The bucket with this number, if somebody in it may wait on this peer. Looks without the lock: whoever waits was published before
    /// its request was sent.
    #[must_use]
    pub fn lock_waited_on(&self, number: u32, peer: Address) -> Option<Entry> {
        let waited_on = self.published.get(number as usize)?.waited_on.load(Ordering::Acquire);
        (waited_on >> hop(peer) & 1 != 0).then(|| self.lock_number(number))?
    }

    /// Any bucket by number: to walk them all, one lock at a time.
    #[must_use]
    pub fn lock_any(&self, number: u32) -> Option<Entry> {
        self.lock_number(number)
    }

    #[must_use]
    pub fn fill(&self) -> super::Fill {
        let used = self.published.iter().map(|p| p.live.load(Ordering::Relaxed) as usize).sum();
        super::Fill { table: "transactions", used, size: self.buckets.len() * SERVERS }
    }

    /// Contexts without a final response: what a drain waits for.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.published.iter().map(|p| p.unanswered.load(Ordering::Relaxed) as usize).sum()
    }

    /// Slots and text blocks of all buckets, each live or free. Never waits: third, how many buckets were in use at the moment and
    /// are left out.
    #[must_use]
    pub fn audit(&self) -> (Audit, Audit, usize) {
        let mut sum = (Audit::default(), Audit::default(), 0);
        for (number, bucket) in (0..).zip(self.buckets) {
            // A bucket is held for a microsecond at a time, so asking a few times is enough but for one whose holder was stopped.
            match (0..100).find_map(|_| bucket.try_lock()).and_then(|guard| self.enter(number, guard)) {
                Some(entry) => {
                    let (slots, blocks) = entry.guard.audit();
                    sum = (sum.0 + slots, sum.1 + blocks, sum.2);
                }
                None => sum.2 += 1,
            }
        }
        sum
    }
}

impl Entry {
    /// The last owner of this bucket died in it, and so many contexts had to be ended; none: all is well.
    #[must_use]
    pub fn recovered(&self) -> Option<u32> {
        self.guard.recovered().then_some(self.ended)
    }

    #[must_use]
    pub fn find(&self, key: Key) -> Option<u32> {
        self.guard.find(key)
    }

    /// The context that a branch names, and which of its branches it is.
    #[must_use]
    pub fn find_branch(&self, id: BranchId) -> Option<(u32, usize)> {
        let number = id.slot.checked_sub(1)? % CLIENTS as u32 + 1;
        let slot = self.guard.client(number).filter(|slot| slot.generation == id.generation)?;
        Some((slot.head, self.guard.branches(slot.head).position(|branch| branch == number)?))
    }

    /// A context for a new request, marked busy; `visit` or `abandon` must follow.
    pub fn create(&mut self, key: Key, flow: Flow, request: &[&[u8]]) -> Option<u32> {
        self.guard.create(key, flow, request)
    }

    /// One more target. False: no room.
    pub fn add_branch(&mut self, head: u32, flow: Flow, uri: &[u8], others: &[Flow]) -> bool {
        let others: ArrayVec<&[u8], MAX_BRANCHES> =
            others.iter().take(MAX_BRANCHES).map(|flow| flow.as_bytes()).collect();
        self.guard.add_branch(head, flow, uri, &others).is_some()
    }

    /// Notes that a client's request was sent at `now`, not before.
    pub fn sent_again(&mut self, id: BranchId, now: Tick) {
        let Some(number) = id.slot.checked_sub(1).map(|slot| slot % CLIENTS as u32 + 1) else { return };
        if let Some(slot) = self.guard.client_mut(number).filter(|slot| slot.generation == id.generation) {
            slot.client.sent = now;
        }
    }

    /// Gives up a context that could not be completed.
    pub fn abandon(&mut self, head: u32) {
        self.guard.free(head);
        self.publish();
    }

    /// A context with something due.
    pub fn due(&mut self, now: Tick) -> Option<u32> {
        let due = self.guard.deadlines.pop_due(now);
        if due.is_none() {
            self.publish();
        }
        due
    }

    /// A context with a branch that waits on this peer since before `lost`; `unanswered`: for any answer. Not one that the loss with
    /// this number has sent out again.
    #[must_use]
    pub fn waiting_on(
        &self,
        transport: Transport,
        peer: Address,
        lost: Tick,
        unanswered: bool,
        loss: u32,
    ) -> Option<(u32, usize)> {
        let number = self.guard.waiting_on(transport, peer, lost, unanswered, loss)?;
        let head = self.guard.client(number)?.head;
        Some((head, self.guard.branches(head).position(|branch| branch == number)?))
    }

    /// Lets `event` change the context, then stores, frees and prepares what follows from its steps.
    pub fn visit<R>(
        &mut self,
        head: u32,
        now: Tick,
        lengths: &Lengths,
        at_hand: AtHand<'_>,
        prepared: &mut Prepared,
        event: impl FnOnce(&mut Context<'_, View<'_>>) -> R,
    ) -> Option<R> {
        let slot = self.guard.server(head)?;
        slot.busy.set();
        let mut server = slot.server;
        let unanswered = server.answered == 0;
        let mut steps = Steps::new();
        let mut view = View::new(&mut self.guard, head);
        let mut context = Context { server: &mut server, branches: &mut view, now, lengths, steps: &mut steps };
        let result = event(&mut context);
        let (deadline, finished, needed) = (context.deadline(), context.is_finished(), context.needed());
        if unanswered && server.answered != 0 {
            self.guard.answered();
        }
        if let Some(slot) = self.guard.server_mut(head) {
            slot.server = server;
            (prepared.upstream, prepared.key) = (server.flow, slot.key);
        }
        self.prepare(head, &steps, at_hand, prepared);
        if finished {
            self.guard.free(head);
            self.publish();
        } else {
            self.forget(head, [needed.request, needed.best, needed.last]);
            // Whatever was due has been looked at: what stays due must not keep the timer process in this one context.
            self.guard.deadlines.set(head, deadline.max(now + 1));
            // Before the mark goes: should we die in between, nobody would come to look at the deadline.
            self.publish();
            if let Some(slot) = self.guard.server(head) {
                slot.busy.clear();
            }
        }
        Some(result)
    }

    /// Stores the final response of a context without branches, as it is sent (the registrar's); `visit` must follow.
    pub fn keep_reply(&mut self, head: u32, reply: &[u8]) {
        let Some(text) = self.guard.texts.store(&[reply]) else { return };
        match self.guard.server_mut(head) {
            // `visit` follows, and takes the mark away.
            Some(slot) if slot.last.is_empty() => {
                slot.busy.set();
                slot.last = text;
            }
            _ => self.guard.texts.free(text),
        }
    }

    fn prepare(&mut self, head: u32, steps: &Steps, at_hand: AtHand<'_>, prepared: &mut Prepared) {
        let first_id = self.number * CLIENTS as u32;
        let branch = |bucket: &Bucket, prepared: &mut Prepared, n: u8| {
            let number = bucket.branches(head).nth(usize::from(n))?;
            let slot = bucket.client(number)?;
            let uri = prepared.keep(|out| {
                bucket.texts.read(slot.target, out);
            });
            let id = BranchId { slot: first_id + number, generation: slot.generation };
            Some(Branch { id, flow: slot.client.flow, uri })
        };
        let mut request = false;
        for step in steps {
            let act = match *step {
                Step::Request(n) => branch(&self.guard, prepared, n).map(Act::Request),
                Step::Ack(n) => branch(&self.guard, prepared, n).map(Act::Ack),
                Step::Cancel(n) => branch(&self.guard, prepared, n).map(Act::Cancel),
                Step::Reply(code) => Some(Act::Reply(code)),
                Step::ReplyAgain(code) => Some(Act::ReplyAgain(code)),
                Step::Relay => Some(Act::Relay),
                Step::RelayBest | Step::RelayLast => self.guard.server(head).map(|slot| {
                    // Once kept as the last one, the best is no longer the best.
                    let best = *step == Step::RelayBest && !slot.best.is_empty();
                    let text = if best { slot.best } else { slot.last };
                    Act::Kept(prepared.keep(|out| {
                        self.guard.texts.read(text, out);
                    }))
                }),
                Step::KeepBest | Step::KeepLast => {
                    self.store(head, *step, at_hand);
                    None
                }
                Step::KeepBestAsLast => {
                    if let Some(slot) = self.guard.server_mut(head) {
                        let last = std::mem::replace(&mut slot.last, std::mem::take(&mut slot.best));
                        self.guard.texts.free(last);
                    }
                    None
                }
            };
            request |= matches!(
                act,
                Some(Act::Request(_) | Act::Ack(_) | Act::Cancel(_) | Act::Reply(_) | Act::ReplyAgain(_))
            );
            prepared.acts.extend(act);
        }
        if request
            && !matches!(at_hand, AtHand::Request)
            && let Some(slot) = self.guard.server(head)
        {
            let text = slot.request;
            prepared.request = Some(prepared.keep(|out| {
                self.guard.texts.read(text, out);
            }));
        }
    }

    /// Keeps the response at hand. When no block is free, one of our own with the same status code will have to do.
    fn store(&mut self, head: u32, step: Step, at_hand: AtHand<'_>) {
        let AtHand::Response(pieces) = at_hand else { return };
        let stored = self.guard.texts.store(pieces);
        let text = stored.unwrap_or(Text::EMPTY);
        let Some(slot) = self.guard.server_mut(head) else { return };
        let place = if step == Step::KeepBest { &mut slot.best } else { &mut slot.last };
        if stored.is_none() {
            match step {
                Step::KeepBest => slot.server.best_is_own = 1,
                _ => slot.server.last_origin = Origin::Own as u8,
            }
        }
        let old = std::mem::replace(place, text);
        self.guard.texts.free(old);
    }

    /// Gives back the texts that are not needed any more, and the branches that have ended.
    fn forget(&mut self, head: u32, needed: [bool; 3]) {
        let Some(invite) = self.guard.server(head).map(|slot| slot.server.is_invite()) else { return };
        let mut number = self.guard.server(head).map_or(0, |slot| slot.branches);
        // A torn chain must not hold us.
        for _ in 0..64 {
            let Some(slot) = self.guard.client(number).filter(|slot| slot.head == head) else { break };
            let (next, finished, silent) = (slot.next, slot.client.is_finished(), !slot.client.may_send(invite));
            let waits = slot.client.waits(invite);
            match (finished, silent) {
                (true, _) => self.guard.free_branch(number),
                (false, true) => self.guard.forget_target(number),
                (false, false) => {}
            }
            self.guard.set_waits(number, waits);
            number = next;
        }
        let Some(slot) = self.guard.server_mut(head) else { return };
        let texts = [&mut slot.request, &mut slot.best, &mut slot.last];
        let mut freed = [Text::EMPTY; 3];
        for ((text, needed), freed) in texts.into_iter().zip(needed).zip(&mut freed) {
            if !needed {
                *freed = std::mem::take(text);
            }
        }
        for text in freed {
            self.guard.texts.free(text);
        }
    }

    fn publish(&self) {
        let earliest = self.guard.deadlines.earliest();
        let shown = if earliest == Tick::NEVER { 0 } else { earliest.0 + 1 };
        self.published.earliest.store(shown, Ordering::Release);
        self.published.waited_on.store(self.guard.waited_on(), Ordering::Release);
        self.published.live.store(self.guard.live() as u32, Ordering::Relaxed);
        self.published.unanswered.store(self.guard.unanswered(), Ordering::Relaxed);
        self.published.ended.store(self.guard.ended, Ordering::Relaxed);
    }
}

/// The branches of one context, in their slots.
pub struct View<'b> {
    bucket: &'b mut Bucket,
    head: u32,
    numbers: ArrayVec<u32, 64>,
}

impl<'b> View<'b> {
    fn new(bucket: &'b mut Bucket, head: u32) -> View<'b> {
        let mut view = View { bucket, head, numbers: ArrayVec::new() };
        // In place: collected, the list would be copied whole.
        let View { bucket, numbers, .. } = &mut view;
        numbers.extend(bucket.branches(head).take(64));
        view
    }
}

impl Branches for View<'_> {
    fn count(&self) -> usize {
        self.numbers.len()
    }

    fn client(&mut self, n: usize) -> Option<&mut Client> {
        let number = *self.numbers.get(n)?;
        self.bucket.client_mut(number).map(|slot| &mut slot.client)
    }

    fn next_try(&mut self, failed: usize) -> Option<usize> {
        if self.numbers.is_full() {
            return None;
        }
        let slot = self.bucket.client(*self.numbers.get(failed)?)?;
        let (target, others) = (slot.target, slot.others);
        // Only after a failure, so an allocation is no matter.
        let (mut uri, mut flows) = (Vec::new(), Vec::new());
        self.bucket.texts.read(target, &mut uri);
        self.bucket.texts.read(others, &mut flows);
        let (flow, rest) = Flow::read_from_prefix(&flows).ok()?;
        let number = self.bucket.add_branch(self.head, flow, &uri, &[rest])?;
        self.numbers.push(number);
        Some(self.numbers.len() - 1)
    }
}
