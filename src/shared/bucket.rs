//! `Bucket`: a part of the transaction table under one lock, with its own slots, texts and deadlines.
//!
//! Slot numbers begin at 1 and 0 is none, so zeroed memory is an empty bucket, and pages of slots never used are never touched.

use std::sync::atomic::{Ordering, compiler_fence};

use sys::memory::Rebuild;
use zerocopy::{FromBytes, KnownLayout};

use super::deadlines::Deadlines;
use super::numbers::Audit;
use super::slot::{ClientSlot, Key, ServerSlot};
use super::text::{Text, TextPool};
use crate::timer::Tick;
use crate::transport::{Address, Flow, Transport};

/// Large, so that buckets fill evenly: with 2,048 slots a bucket is 4.6 standard deviations from full when the table is 90 % full.
pub const SERVERS: usize = 2_048;
pub const CLIENTS: usize = 2_048;
/// Small, so that little of a text's last block is empty: finished transactions stay for 32 s and are most of what lies here, and
/// what they keep is a target of 40 bytes or a response of 300.
pub const BLOCK_BYTES: usize = 64;
/// A ringing INVITE of a kilobyte (16 blocks), its target (one) and the last provisional response (eight or so) fit in each slot,
/// so that the slots are used up first.
pub const BLOCKS: usize = 28 * SERVERS;
const CHAINS: usize = 4_096;
/// One for each bit of `Bucket::waited_on`.
const HOPS: usize = 64;

pub type Texts = TextPool<BLOCKS, BLOCK_BYTES>;

#[derive(FromBytes, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    servers_fresh: u32,
    servers_free: u32,
    servers_live: u32,
    clients_fresh: u32,
    clients_free: u32,
    clients_live: u32,
    /// Contexts that have not yet sent a final response.
    unanswered: u32,
    /// Contexts that a rebuild had to end because their owner died while changing them.
    pub ended: u32,
    /// Bit n: somebody is in `hops[n]`.
    waited_on: u64,
    chains: [u32; CHAINS],
    /// Clients that wait, by the hash of where their request went.
    hops: [u32; HOPS],
    pub deadlines: Deadlines<SERVERS>,
    servers: [ServerSlot; SERVERS],
    clients: [ClientSlot; CLIENTS],
    pub texts: Texts,
}

impl Bucket {
    #[must_use]
    pub fn live(&self) -> usize {
        self.servers_live as usize
    }

    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Bit `hop` of a peer: some client may wait on it.
    #[must_use]
    pub fn waited_on(&self) -> u64 {
        self.waited_on
    }

    pub fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    pub fn server(&self, number: u32) -> Option<&ServerSlot> {
        self.servers.get((number as usize).checked_sub(1)?).filter(|slot| slot.live != 0)
    }

    pub fn server_mut(&mut self, number: u32) -> Option<&mut ServerSlot> {
        self.servers.get_mut((number as usize).checked_sub(1)?).filter(|slot| slot.live != 0)
    }

    pub fn client(&self, number: u32) -> Option<&ClientSlot> {
        self.clients.get((number as usize).checked_sub(1)?).filter(|slot| slot.live != 0)
    }

    pub fn client_mut(&mut self, number: u32) -> Option<&mut ClientSlot> {
        self.clients.get_mut((number as usize).checked_sub(1)?).filter(|slot| slot.live != 0)
    }

    /// The server transaction with this key.
    #[must_use]
    pub fn find(&self, key: Key) -> Option<u32> {
        let mut number = *self.chains.get(chain(key))?;
        // A chain is never longer than there are slots; a torn one must not hold us.
        for _ in 0..SERVERS {
            let slot = self.server(number)?;
            if slot.key == key {
                return Some(number);
            }
            number = slot.next;
        }
        None
    }

    /// A new server slot, marked busy. None: the bucket is full.
    pub fn create(&mut self, key: Key, flow: Flow, request: &[&[u8]]) -> Option<u32> {
        let text = self.texts.store(request)?;
        let Some(number) = take(&mut self.servers_free, &mut self.servers_fresh, &mut self.servers) else {
            self.texts.free(text);
            return None;
        };
        let head = self.chains.get_mut(chain(key))?;
        let next = std::mem::replace(head, number);
        let slot = self.servers.get_mut(number as usize - 1)?;
        // Until it is live nobody misses it after our death: it is free again, and its text with it.
        slot.busy.set();
        slot.key = key;
        slot.server = crate::proxy::Server { flow, ..Default::default() };
        slot.request = text;
        slot.best = Text::EMPTY;
        slot.last = Text::EMPTY;
        slot.branches = 0;
        slot.next = next;
        compiler_fence(Ordering::SeqCst);
        slot.live = 1;
        self.servers_live += 1;
        self.unanswered += 1;
        Some(number)
    }

    /// A new client slot at the end of the branches of a context that is marked busy. None: the bucket is full.
    pub fn add_branch(&mut self, head: u32, flow: Flow, uri: &[u8], others: &[&[u8]]) -> Option<u32> {
        let target = self.texts.store(&[uri])?;
        let Some(others) = self.texts.store(others) else {
            self.texts.free(target);
            return None;
        };
        let Some(number) = take(&mut self.clients_free, &mut self.clients_fresh, &mut self.clients) else {
            self.texts.free(target);
            self.texts.free(others);
            return None;
        };
        let slot = self.clients.get_mut(number as usize - 1)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.client = crate::proxy::Client { flow, ..Default::default() };
        slot.target = target;
        slot.others = others;
        slot.head = head;
        slot.next = 0;
        // Not before it is whole: with the head of its last life it would drag down a context that is not ours.
        compiler_fence(Ordering::SeqCst);
        slot.live = 1;
        self.clients_live += 1;
        self.link_hop(number);
        match self.branches(head).last() {
            Some(last) => {
                if let Some(slot) = self.client_mut(last) {
                    slot.next = number;
                }
            }
            None => {
                if let Some(slot) = self.server_mut(head) {
                    slot.branches = number;
                }
            }
        }
        Some(number)
    }

    /// The client slots of a context, in the order they were added.
    pub fn branches(&self, head: u32) -> impl Iterator<Item = u32> + '_ {
        let mut number = self.server(head).map_or(0, |slot| slot.branches);
        let mut left = CLIENTS;
        std::iter::from_fn(move || {
            let slot = self.client(number).filter(|slot| slot.head == head)?;
            left = left.checked_sub(1)?;
            Some(std::mem::replace(&mut number, slot.next))
        })
    }

    /// Gives a client slot and its texts back.
    pub fn free_branch(&mut self, number: u32) {
        let Some(slot) = self.client(number) else { return };
        let (head, next, target, others) = (slot.head, slot.next, slot.target, slot.others);
        let before = self.branches(head).take_while(|branch| *branch != number).last();
        match before {
            Some(before) => {
                if let Some(slot) = self.client_mut(before) {
                    slot.next = next;
                }
            }
            None => {
                if let Some(slot) = self.server_mut(head) {
                    slot.branches = next;
                }
            }
        }
        self.unlink_hop(number);
        self.texts.free(target);
        self.texts.free(others);
        give(number, &mut self.clients_free, &mut self.clients);
        self.clients_live = self.clients_live.saturating_sub(1);
    }

    /// Gives the texts of a client back that will send nothing any more.
    pub fn forget_target(&mut self, number: u32) {
        let Some(slot) = self.client_mut(number) else { return };
        let (target, others) = (std::mem::take(&mut slot.target), std::mem::take(&mut slot.others));
        self.texts.free(target);
        self.texts.free(others);
    }

    /// Gives a whole context back. Its mark stays until it is dead: half of it given back, and found unmarked, it would live for ever.
    pub fn free(&mut self, head: u32) {
        loop {
            let Some(branch) = self.branches(head).next() else { break };
            self.free_branch(branch);
        }
        let Some(slot) = self.server(head) else { return };
        slot.busy.set();
        let (key, next, texts) = (slot.key, slot.next, [slot.request, slot.best, slot.last]);
        if slot.server.answered == 0 {
            self.answered();
        }
        self.unlink_key(key, head, next);
        for text in texts {
            self.texts.free(text);
        }
        self.deadlines.set(head, Tick::NEVER);
        give(head, &mut self.servers_free, &mut self.servers);
        self.servers_live = self.servers_live.saturating_sub(1);
        if let Some(slot) = self.servers.get(head as usize - 1) {
            slot.busy.clear();
        }
    }

    fn unlink_key(&mut self, key: Key, number: u32, next: u32) {
        let Some(first) = self.chains.get_mut(chain(key)) else { return };
        if *first == number {
            *first = next;
            return;
        }
        let mut before = *first;
        for _ in 0..SERVERS {
            let Some(slot) = self.server_mut(before) else { return };
            if slot.next == number {
                slot.next = next;
                return;
            }
            before = slot.next;
        }
    }

    /// Clients that wait on connections or associations are found by their hop when one is lost. Those that wait no more, most of
    /// what a busy table holds, are not there: `waits` says after each change whether this one does.
    pub fn set_waits(&mut self, number: u32, waits: bool) {
        let linked = self.client(number).is_some_and(|slot| slot.hop_previous != number);
        match (linked, waits) {
            (false, true) => self.link_hop(number),
            (true, false) => self.unlink_hop(number),
            _ => {}
        }
    }

    fn link_hop(&mut self, number: u32) {
        let Some(slot) = self.client(number) else { return };
        let hop = hop(slot.client.flow.peer);
        self.waited_on |= 1 << hop;
        let Some(head) = self.hops.get_mut(hop) else { return };
        let next = std::mem::replace(head, number);
        if let Some(slot) = self.client_mut(next) {
            slot.hop_previous = number;
        }
        if let Some(slot) = self.client_mut(number) {
            slot.hop_next = next;
            slot.hop_previous = 0;
        }
    }

    fn unlink_hop(&mut self, number: u32) {
        let Some(slot) = self.client(number) else { return };
        let (hop, next, previous) = (hop(slot.client.flow.peer), slot.hop_next, slot.hop_previous);
        if previous == number {
            return;
        }
        match self.client_mut(previous) {
            Some(slot) => slot.hop_next = next,
            None => {
                if let Some(head) = self.hops.get_mut(hop)
                    && *head == number
                {
                    *head = next;
                    if next == 0 {
                        self.waited_on &= !(1 << hop);
                    }
                }
            }
        }
        if let Some(slot) = self.client_mut(next) {
            slot.hop_previous = previous;
        }
        if let Some(slot) = self.client_mut(number) {
            // Its own neighbour: in no chain.
            (slot.hop_next, slot.hop_previous) = (0, number);
        }
    }

    /// A client whose request went to this peer over this transport before `lost`, and that still waits; `unanswered`: for any answer.
    /// Not one that the loss with this number has sent out again.
    #[must_use]
    pub fn waiting_on(
        &self,
        transport: Transport,
        peer: Address,
        lost: Tick,
        unanswered: bool,
        loss: u32,
    ) -> Option<u32> {
        let mut number = *self.hops.get(hop(peer))?;
        for _ in 0..CLIENTS {
            let slot = self.client(number)?;
            let flow = &slot.client.flow;
            let there = flow.transport == transport as u8 && flow.peer == peer;
            if there && slot.client.sent <= lost && slot.client.loss != loss {
                let invite = self.server(slot.head).is_some_and(|head| head.server.is_invite());
                let waits = match unanswered {
                    true => slot.client.is_unanswered(invite),
                    false => slot.client.waits(invite),
                };
                if waits {
                    return Some(number);
                }
            }
            number = slot.hop_next;
        }
        None
    }

    /// Slots and text blocks, each either live or free.
    #[must_use]
    pub fn audit(&self) -> (Audit, Audit) {
        let mut census = self.texts.census();
        let mut slots = Audit::default();
        let heads = 1..=(self.servers_fresh.min(SERVERS as u32));
        for slot in heads.filter_map(|number| self.server(number)) {
            slots.live += 1;
            for text in [slot.request, slot.best, slot.last] {
                self.texts.claim(&mut census, text);
            }
        }
        let branches: Vec<u32> = (1..=(self.clients_fresh.min(CLIENTS as u32))).collect();
        for slot in branches.iter().filter_map(|number| self.client(*number)) {
            // A branch whose context is gone would be a leak: count it as nothing, so that it shows as lost.
            if self.server(slot.head).is_some() {
                slots.live += 1;
                self.texts.claim(&mut census, slot.target);
                self.texts.claim(&mut census, slot.others);
            }
        }
        slots.free = free_count(self.servers_free, self.servers_fresh, &self.servers)
            + free_count(self.clients_free, self.clients_fresh, &self.clients);
        slots.lost = (SERVERS + CLIENTS).saturating_sub(slots.live + slots.free);
        (slots, self.texts.audit(&census))
    }
}

/// Puts a bucket right whose owner died: contexts being changed are ended, all lists are made anew from what lives.
impl Rebuild for Bucket {
    fn rebuild(&mut self) {
        self.servers_fresh = self.servers_fresh.min(SERVERS as u32);
        self.clients_fresh = self.clients_fresh.min(CLIENTS as u32);
        let mut census = self.texts.census();
        let mut ended = 0;
        for slot in self.servers.iter_mut().take(self.servers_fresh as usize) {
            // What a busy one claims is not asked: it may have given it back, and another may have taken it.
            let texts = [slot.request, slot.best, slot.last];
            let is_whole = |census: &mut _| texts.map(|text| self.texts.claim(census, text)) == [true; 3];
            if slot.live != 0 && (slot.busy.is_set() || !is_whole(&mut census)) {
                slot.live = 0;
                ended += 1;
            }
            // Last: should we die here, too, the next owner must find the same.
            slot.busy.clear();
        }
        let reached = self.reached();
        for number in 1..=self.clients_fresh {
            let Some(slot) = self.client(number) else { continue };
            let (head, texts) = (slot.head, [slot.target, slot.others]);
            let belongs = self.server(head).is_some() && reached.get(number as usize) == Some(&true);
            if belongs && texts.map(|text| self.texts.claim(&mut census, text)) == [true; 2] {
                continue;
            }
            // The context first: without this branch it could wait for ever.
            if belongs && let Some(slot) = self.server_mut(head) {
                slot.live = 0;
                ended += 1;
            }
            compiler_fence(Ordering::SeqCst);
            if let Some(slot) = self.client_mut(number) {
                slot.live = 0;
            }
        }
        // Contexts may have been ended after some of their branches had been looked at.
        for number in 1..=self.clients_fresh {
            if self.client(number).is_some_and(|slot| self.server(slot.head).is_none())
                && let Some(slot) = self.client_mut(number)
            {
                slot.live = 0;
            }
        }
        self.ended = self.ended.wrapping_add(ended);
        self.relist();
    }
}

impl Bucket {
    /// By number: is this client slot among the branches of a live context?
    fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; CLIENTS + 1];
        for head in 1..=self.servers_fresh {
            for branch in self.branches(head) {
                match reached.get_mut(branch as usize) {
                    Some(place) if !*place => *place = true,
                    // A chain that comes back to itself.
                    _ => break,
                }
            }
        }
        reached
    }

    /// Makes chains, free lists, counts, texts and deadlines anew from the live slots.
    fn relist(&mut self) {
        self.chains.fill(0);
        self.hops.fill(0);
        self.waited_on = 0;
        let mut census = self.texts.census();
        (self.servers_live, self.servers_free, self.unanswered) = (0, 0, 0);
        (self.clients_live, self.clients_free) = (0, 0);
        for number in 1..=self.servers_fresh {
            let Some(slot) = self.server(number) else {
                give(number, &mut self.servers_free, &mut self.servers);
                continue;
            };
            let (key, texts, answered) = (slot.key, [slot.request, slot.best, slot.last], slot.server.answered);
            for text in texts {
                self.texts.claim(&mut census, text);
            }
            self.servers_live += 1;
            self.unanswered += u32::from(answered == 0);
            if let Some(head) = self.chains.get_mut(chain(key)) {
                let next = std::mem::replace(head, number);
                if let Some(slot) = self.server_mut(number) {
                    slot.next = next;
                }
            }
        }
        for number in 1..=self.clients_fresh {
            let Some(slot) = self.client(number) else {
                give(number, &mut self.clients_free, &mut self.clients);
                continue;
            };
            let texts = [slot.target, slot.others];
            for text in texts {
                self.texts.claim(&mut census, text);
            }
            self.clients_live += 1;
            self.link_hop(number);
        }
        self.texts.rebuild(&census);
        let deadlines: Vec<(u32, Tick)> = (1..=self.servers_fresh)
            .filter_map(|number| {
                let slot = self.server(number)?;
                let invite = slot.server.is_invite();
                let branches = self.branches(number).filter_map(|branch| self.client(branch));
                Some((
                    number,
                    branches.map(|b| b.client.deadline(invite)).fold(slot.server.machine.deadline(), Tick::min),
                ))
            })
            .collect();
        self.deadlines.rebuild(deadlines.into_iter());
    }
}

/// What free lists need to know of a slot.
trait Listed {
    fn next(&mut self) -> &mut u32;
    fn live(&mut self) -> &mut u32;
    fn peek(&self) -> (u32, u32);
}

impl Listed for ServerSlot {
    fn next(&mut self) -> &mut u32 {
        &mut self.next
    }
    fn live(&mut self) -> &mut u32 {
        &mut self.live
    }
    fn peek(&self) -> (u32, u32) {
        (self.live, self.next)
    }
}

impl Listed for ClientSlot {
    fn next(&mut self) -> &mut u32 {
        &mut self.next
    }
    fn live(&mut self) -> &mut u32 {
        &mut self.live
    }
    fn peek(&self) -> (u32, u32) {
        (self.live, self.next)
    }
}

/// The number of a slot that is not in use.
fn take<S: Listed>(free: &mut u32, fresh: &mut u32, slots: &mut [S]) -> Option<u32> {
    if let Some(slot) = (*free as usize).checked_sub(1).and_then(|index| slots.get_mut(index)) {
        return Some(std::mem::replace(free, *slot.next()));
    }
    ((*fresh as usize) < slots.len()).then(|| {
        *fresh += 1;
        *fresh
    })
}

fn give<S: Listed>(number: u32, free: &mut u32, slots: &mut [S]) {
    if let Some(slot) = (number as usize).checked_sub(1).and_then(|index| slots.get_mut(index)) {
        *slot.live() = 0;
        // Dead before it is of another list.
        compiler_fence(Ordering::SeqCst);
        *slot.next() = std::mem::replace(free, number);
    }
}

fn free_count<S: Listed>(free: u32, fresh: u32, slots: &[S]) -> usize {
    let mut number = free;
    let mut count = 0;
    while let Some((0, next)) = (number as usize).checked_sub(1).and_then(|index| slots.get(index)).map(Listed::peek)
        && count < slots.len()
    {
        number = next;
        count += 1;
    }
    count + slots.len() - (fresh as usize).min(slots.len())
}

fn chain(key: Key) -> usize {
    key[0] as usize % CHAINS
}

/// Of a peer, 0 to 63: its place in `hops`, and its bit in `waited_on`.
pub fn hop(peer: Address) -> usize {
    // Not secret and not under attack: an attacker who chooses ports only lengthens the walk after a loss.
    let ip = match peer.ip() {
        std::net::IpAddr::V4(v4) => u32::from(v4),
        std::net::IpAddr::V6(v6) => v6.to_bits() as u32,
    };
    let mixed = (u64::from(ip) << 16 | u64::from(peer.port())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % HOPS
}

#[cfg(test)]
mod tests;
