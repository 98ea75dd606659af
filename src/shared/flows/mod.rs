//! Flows: one entry per TCP connection or SCTP association of the whole daemon.
//!
//! Owns: who they are with, in what state, and which process a connection belongs to; the limits on their number, total and per peer IP
//! (M20). These are behind one lock for each transport; what is counted with every message is not (`tally`). Opening a connection is
//! claimed here first, so no two workers connect to one peer at once. Never a socket.

mod scan;
mod size;
mod table;
mod tally;
mod view;

use std::hash::Hasher;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use siphasher::sip::SipHasher13;
use sys::memory::{Mapping, Plan, Span};

use crate::timer::Tick;
use crate::transport::{Address, FlowId, Transport};

pub use scan::{Glance, Judgement};
pub use size::MOST;
use size::{Held, Sizes, Tables};
pub use table::{ADDRESSES, PathNote, State};
use table::{Entry, FlowTable, Hashed, New};
use tally::{Tally, Told};
pub use view::FlowView;
use view::{join, number, split};

/// Entries that are looked at while the lock is held once, where there are many.
const SLICE: u32 = 256;

/// Most flows of one transport: all together, and with one IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub total: usize,
    pub per_peer: usize,
}

/// Why there is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `Limit::total` is reached.
    Total,
    /// `Limit::per_peer` is reached.
    Peer,
    /// No entry is free.
    Table,
}

#[derive(Clone, Copy, Debug)]
pub enum Claim {
    /// Nobody has one: the caller opens it.
    Mine(FlowId),
    /// Open, or being opened by its owner.
    Other(FlowView),
    Full(Refusal),
}

/// Where the tables lie in the plan.
#[derive(Clone, Copy)]
pub struct Spans {
    tables: Sizes,
    live: Span<AtomicU32>,
    tallies: Span<Tally>,
}

/// A locked table. When it is let go, everybody may see how many are in it, also if somebody died in it and it was rebuilt.
struct HeldTable {
    held: Held,
    live: &'static AtomicU32,
}

impl HeldTable {
    fn table(&mut self) -> FlowTable<'_> {
        self.held.table()
    }
}

impl Drop for HeldTable {
    fn drop(&mut self) {
        let live = self.held.table().live() as u32;
        // Mostly it is what it was, and others' caches need not hear of it.
        if self.live.load(Ordering::Relaxed) != live {
            self.live.store(live, Ordering::Relaxed);
        }
    }
}

#[derive(Clone, Copy)]
pub struct Flows {
    /// TCP, SCTP: one table each.
    tables: Tables,
    /// How many are in each, seen without its lock.
    live: &'static [AtomicU32],
    /// TCP's, then SCTP's.
    tallies: &'static [Tally],
    /// Entries allowed in each table.
    most: usize,
    key: (u64, u64),
}

impl Flows {
    /// `most`: entries of each transport (`memory.flows`), at most `MOST`.
    pub fn plan(plan: &mut Plan, most: usize) -> Spans {
        let tables = Sizes::plan(plan, most);
        Spans { live: plan.array(2), tallies: plan.array(2 * tables.places()), tables }
    }

    /// `most` as planned. Call once, before the first fork.
    ///
    /// # Errors
    /// No randomness, or the locks cannot be made.
    pub fn take(mapping: &Mapping, spans: &Spans, most: usize) -> io::Result<Flows> {
        let mut keys = [[0; 8]; 2];
        for key in &mut keys {
            getrandom::fill(key).map_err(|cause| io::Error::other(cause.to_string()))?;
        }
        let [k0, k1] = keys.map(u64::from_ne_bytes);
        Ok(Flows {
            tables: spans.tables.take(mapping)?,
            live: mapping.array(&spans.live),
            tallies: mapping.array(&spans.tallies),
            most,
            key: (k0, k1),
        })
    }

    /// Flows of a transport now. Takes no lock.
    #[must_use]
    pub fn live(&self, transport: Transport) -> usize {
        let live = number(transport).and_then(|number| self.live.get(number));
        live.map_or(0, |live| live.load(Ordering::Relaxed) as usize)
    }

    #[must_use]
    pub fn find(&self, id: FlowId) -> Option<FlowView> {
        let (transport, index) = split(id)?;
        let mut held = self.lock(transport)?;
        held.table().get(index, id.generation).map(|entry| self.view(transport, index, entry))
    }

    /// Those of `ids` that are over. The lock is taken once for many of them, and never held for long.
    #[must_use]
    pub fn over(&self, transport: Transport, ids: &[FlowId]) -> Vec<FlowId> {
        let mut over = Vec::new();
        for slice in ids.chunks(SLICE as usize) {
            let Some(mut held) = self.lock(transport) else { return over };
            let table = held.table();
            over.extend(slice.iter().copied().filter(|id| {
                let index = split(*id).filter(|(its, _)| *its == transport).map(|(_, index)| index);
                index.and_then(|index| table.get(index, id.generation)).is_none()
            }));
        }
        over
    }

    /// The newest flow to this address and port that takes new requests (A15), on any listener.
    #[must_use]
    pub fn find_by_peer(&self, transport: Transport, peer: Address) -> Option<FlowView> {
        let hashed = self.hashed(peer);
        let mut held = self.lock(transport)?;
        held.table().by_peer(hashed, usable).map(|(index, entry)| self.view(transport, index, entry))
    }

    /// The same on one listener: a peer may have associations with several, and over SCTP's two stacks.
    #[must_use]
    pub fn find_on(&self, listener: u8, transport: Transport, peer: Address) -> Option<FlowView> {
        let hashed = self.hashed(peer);
        let mut held = self.lock(transport)?;
        let table = held.table();
        let found = table.by_peer(hashed, |entry| usable(entry) && entry.listener == listener);
        found.map(|(index, entry)| self.view(transport, index, entry))
    }

    #[must_use]
    pub fn find_association(&self, association: u32) -> Option<FlowView> {
        let mut held = self.lock(Transport::Sctp)?;
        let table = held.table();
        let index = table.by_association(association)?;
        table.entry(index).map(|entry| self.view(Transport::Sctp, index, entry))
    }

    /// Finds a flow to `peer` that takes new requests, or enters one as `Opening` for the caller to open.
    pub fn claim(
        &self,
        transport: Transport,
        peer: Address,
        listener: u8,
        seat: usize,
        limit: Limit,
        now: Tick,
    ) -> Claim {
        let hashed = self.hashed(peer);
        let ip_hash = self.ip_hash(peer);
        let Some(mut held) = self.lock(transport) else { return Claim::Full(Refusal::Table) };
        let mut table = held.table();
        // SCTP's listeners may be of two kinds, the kernel's and in user space: each has its own associations.
        let its_own = |entry: &Entry| usable(entry) && (transport == Transport::Tcp || entry.listener == listener);
        if let Some((index, entry)) = table.by_peer(hashed, its_own) {
            return Claim::Other(self.view(transport, index, entry));
        }
        let (peers, owner, state) = (&[hashed], seat as u16, State::Opening);
        let new = New { peers, ip_hash, association: 0, encapsulation: 0, owner, listener, state, now };
        match self.enter(transport, &mut table, &new, limit) {
            Ok(id) => Claim::Mine(id),
            Err(refusal) => Claim::Full(refusal),
        }
    }

    /// A peer opened a connection to us.
    ///
    /// # Errors
    /// A limit is reached: close it.
    pub fn accepted(
        &self,
        transport: Transport,
        peer: Address,
        listener: u8,
        seat: usize,
        limit: Limit,
        now: Tick,
    ) -> Result<FlowId, Refusal> {
        self.enter_open(transport, peer, (0, 0), listener, seat, limit, now)
    }

    /// A peer set up an association that belongs to the process in `seat`; `tag` and the peer's UDP port name it.
    ///
    /// # Errors
    /// A limit is reached: abort it.
    pub fn accepted_association(
        &self,
        (tag, encapsulation): (u32, u16),
        peer: Address,
        listener: u8,
        seat: usize,
        limit: Limit,
        now: Tick,
    ) -> Result<FlowId, Refusal> {
        self.enter_open(Transport::Sctp, peer, (tag, encapsulation), listener, seat, limit, now)
    }

    #[allow(clippy::too_many_arguments)]
    fn enter_open(
        &self,
        transport: Transport,
        peer: Address,
        (association, encapsulation): (u32, u16),
        listener: u8,
        seat: usize,
        limit: Limit,
        now: Tick,
    ) -> Result<FlowId, Refusal> {
        let new = New {
            peers: &[self.hashed(peer)],
            ip_hash: self.ip_hash(peer),
            association,
            encapsulation,
            owner: seat as u16,
            listener,
            state: State::Open,
            now,
        };
        let mut held = self.lock(transport).ok_or(Refusal::Table)?;
        self.enter(transport, &mut held.table(), &new, limit)
    }

    /// An association, of which the kernel knows none, is about to be set up to this peer, on this socket of the listener: it counts from
    /// now on. Once only, while it is being set up.
    ///
    /// # Errors
    /// A limit is reached: do not.
    pub fn opening(
        &self,
        peer: Address,
        (listener, socket): (u8, u8),
        limit: Limit,
        now: Tick,
    ) -> Result<FlowId, Refusal> {
        let (hashed, ip_hash) = (self.hashed(peer), self.ip_hash(peer));
        let transport = Transport::Sctp;
        let mut held = self.lock(transport).ok_or(Refusal::Table)?;
        let mut table = held.table();
        if let Some((index, _)) = table.by_peer(hashed, |entry| is_opening(entry, listener))
            && let Some(entry) = table.entry_mut(index)
        {
            // The kernel knows of none, so this begins anew: that the one before failed may not have been read yet.
            entry.opened = now;
            return Ok(join(transport, index, entry.generation));
        }
        let (peers, owner, state) = (&[hashed], u16::from(socket), State::Opening);
        let new = New { peers, ip_hash, association: 0, encapsulation: 0, owner, listener, state, now };
        self.enter(transport, &mut table, &new, limit)
    }

    /// The association that is being set up to this peer.
    #[must_use]
    pub fn find_opening(&self, peer: Address, listener: u8) -> Option<FlowView> {
        let hashed = self.hashed(peer);
        let mut held = self.lock(Transport::Sctp)?;
        let table = held.table();
        let found = table.by_peer(hashed, |entry| is_opening(entry, listener));
        found.map(|(index, entry)| self.view(Transport::Sctp, index, entry))
    }

    /// An association came up on this socket of the listener, whoever set it up, or its addresses changed. True with it: it was not
    /// known, or only as one that was being set up.
    ///
    /// # Errors
    /// A limit is reached: abort it.
    pub fn associated(
        &self,
        association: u32,
        peers: &[Address],
        (listener, socket): (u8, u8),
        limit: Limit,
        now: Tick,
    ) -> Result<(FlowId, bool), Refusal> {
        let mut hashed = [Hashed { address: Address::NONE, hash: 0 }; ADDRESSES];
        let known = peers.len().min(ADDRESSES);
        for (place, peer) in hashed.iter_mut().zip(peers) {
            *place = self.hashed(*peer);
        }
        let hashed = hashed.get(..known).unwrap_or_default();
        let transport = Transport::Sctp;
        let mut held = self.lock(transport).ok_or(Refusal::Table)?;
        let mut table = held.table();
        let mut known = table.by_association(association);
        let is_new = known.is_none();
        // What was being set up to one of its addresses has become this one: two of one peer, too.
        for peer in hashed {
            while let Some(index) = table.by_peer(*peer, |entry| is_opening(entry, listener)).map(|(index, _)| index) {
                if known.is_some() {
                    table.remove(index);
                    continue;
                }
                if let Some(entry) = table.entry_mut(index) {
                    entry.set_up_ms = u32::try_from(now.since(entry.opened)).unwrap_or(u32::MAX);
                    (entry.state, entry.owner, entry.opened) = (State::Open as u8, u16::from(socket), now);
                }
                // Last, so that none that has its id is ever being set up.
                table.set_association(index, association);
                known = Some(index);
            }
        }
        if let Some(index) = known {
            table.set_peers(index, hashed);
            let generation = table.entry(index).map_or(0, |entry| entry.generation);
            return Ok((join(transport, index, generation), is_new));
        }
        let ip_hash = peers.first().map_or(0, |peer| self.ip_hash(*peer));
        let (owner, state) = (u16::from(socket), State::Open);
        let new = New { peers: hashed, ip_hash, association, encapsulation: 0, owner, listener, state, now };
        Ok((self.enter(transport, &mut table, &new, limit)?, true))
    }

    /// Messages came in on an association: its flow, or none when it is not known here.
    pub fn touch_association(&self, association: u32, received: u64, now: Tick) -> Option<FlowId> {
        self.on_association(association, |id, tally| {
            tally.count(received, 0, now);
            id
        })
    }

    /// Under the lock: what is counted here is counted on no other.
    fn on_association<R>(&self, association: u32, with: impl FnOnce(FlowId, &Tally) -> R) -> Option<R> {
        let mut held = self.lock(Transport::Sctp)?;
        let table = held.table();
        let index = table.by_association(association)?;
        let id = join(Transport::Sctp, index, table.entry(index)?.generation);
        Some(with(id, self.tally(id)?))
    }

    /// Its peer has forgotten it and began anew: what was sent or queued before belongs to the one that is over.
    pub fn restarted(&self, association: u32, now: Tick) {
        let Some(mut held) = self.lock(Transport::Sctp) else { return };
        let mut table = held.table();
        if let Some(entry) = table.by_association(association).and_then(|index| table.entry_mut(index)) {
            (entry.opened, entry.set_up_ms) = (now, 0);
        }
    }

    /// So many bytes more wait for room on an association of the kernel's, in one process or another. False: with them it would be more
    /// than `most`. What waits for one that is not known here is not counted.
    #[must_use]
    pub fn queue(&self, association: u32, bytes: usize, most: usize) -> bool {
        let more = |queued| Some(queued + bytes).filter(|queued| *queued <= most);
        self.on_association(association, |_, tally| tally.change_queued(more)).unwrap_or(true)
    }

    /// So many wait no more.
    pub fn unqueue(&self, association: u32, bytes: usize) {
        self.on_association(association, |_, tally| {
            tally.change_queued(|queued| Some(queued.saturating_sub(bytes)));
        });
    }

    /// Messages came or went on a connection, and so many bytes wait there. Takes no lock: it is called for each message.
    pub fn touch(&self, id: FlowId, received: u64, sent: u64, queued: u32, now: Tick) {
        if let Some(tally) = self.tally(id) {
            tally.count(received, sent, now);
            tally.set_queued(queued);
        }
    }

    /// The owner's news of the path.
    pub fn note_path(&self, id: FlowId, path: PathNote, queued: u32) {
        let known = self.change(id, |entry| entry.path = path).is_some();
        if let Some(tally) = self.tally(id).filter(|_| known) {
            tally.set_queued(queued);
        }
    }

    /// A request of ours is about to leave on it: from now on its end is a loss, also to whoever succeeds its owner.
    pub fn note_request(&self, id: FlowId) {
        self.change(id, |entry| entry.requested = 1);
    }

    /// Sets the state; false when it was in that state already, or is gone.
    pub fn set_state(&self, id: FlowId, state: State) -> bool {
        self.change(id, |entry| std::mem::replace(&mut entry.state, state as u8) != state as u8).unwrap_or(false)
    }

    /// The association of this entry is named `association` from now on, and its peer reached at this UDP port.
    pub fn name(&self, id: FlowId, association: u32, encapsulation: u16) {
        let Some((transport, index)) = split(id) else { return };
        let Some(mut held) = self.lock(transport) else { return };
        let mut table = held.table();
        if let Some(entry) = table.get_mut(index, id.generation) {
            entry.encapsulation = encapsulation;
            table.set_association(index, association);
        }
    }

    /// Ends the entry, which is given back as it was; none when another was quicker.
    pub fn close(&self, id: FlowId) -> Option<FlowView> {
        let (transport, index) = split(id)?;
        let mut held = self.lock(transport)?;
        let mut table = held.table();
        let last = table.get(index, id.generation).map(|entry| self.view(transport, index, entry))?;
        table.remove(index);
        Some(last)
    }

    /// Somebody is about to send on it: it is not idle, and with a `request` its end is a loss. None when it takes nothing any more.
    pub fn take_up(&self, id: FlowId, request: bool, now: Tick) -> Option<FlowView> {
        let (transport, index) = split(id)?;
        let mut held = self.lock(transport)?;
        let mut table = held.table();
        let entry = table.get_mut(index, id.generation).filter(|entry| usable(entry))?;
        entry.requested |= u8::from(request);
        if let Some(tally) = self.tally(id) {
            tally.use_at(now);
        }
        Some(self.view(transport, index, entry))
    }

    /// Up to `most` flows of a transport, without waiting: what could be had while nobody else held the table.
    #[must_use]
    pub fn some_now(&self, transport: Transport, most: usize) -> Vec<FlowView> {
        let mut views = Vec::new();
        let mut from = Some(1);
        while let Some(start) = from.filter(|_| views.len() < most) {
            let held = number(transport).and_then(|n| self.tables.try_lock(n));
            let Some(mut held) = held else { break };
            from = held.table().slice(start, SLICE, |index, entry| views.push(self.view(transport, index, entry)));
        }
        views.truncate(most);
        views
    }

    /// The connections of a seat; associations only mean something where they belong to processes.
    #[must_use]
    pub fn owned_by(&self, transport: Transport, seat: usize) -> Vec<FlowView> {
        let mut owned = Vec::new();
        self.for_each(transport, |flow| {
            if flow.owner == seat {
                owned.push(*flow);
            }
        });
        owned
    }

    /// Every flow, copied in slices: the lock is never held for long, nor while `each` runs.
    pub fn for_each(&self, transport: Transport, mut each: impl FnMut(&FlowView)) {
        let mut slice = Vec::new();
        let mut from = Some(1);
        while let Some(start) = from {
            let Some(mut held) = self.lock(transport) else { return };
            from = held.table().slice(start, SLICE, |index, entry| slice.push(self.view(transport, index, entry)));
            drop(held);
            slice.iter().for_each(&mut each);
            slice.clear();
        }
    }

    fn enter(
        &self,
        transport: Transport,
        table: &mut FlowTable<'_>,
        new: &New<'_>,
        limit: Limit,
    ) -> Result<FlowId, Refusal> {
        if table.live() >= limit.total {
            return Err(Refusal::Total);
        }
        if table.of_ip(new.ip_hash) >= limit.per_peer {
            return Err(Refusal::Peer);
        }
        if table.live() >= self.most {
            return Err(Refusal::Table);
        }
        let (index, generation) = table.insert(new).ok_or(Refusal::Table)?;
        let id = join(transport, index, generation);
        if let Some(tally) = self.tally(id) {
            tally.begin(new.now);
        }
        Ok(id)
    }

    fn tally(&self, id: FlowId) -> Option<&'static Tally> {
        let (transport, index) = split(id)?;
        self.tallies.get(number(transport)? * (self.tallies.len() / 2) + index as usize)
    }

    fn view(&self, transport: Transport, index: u32, entry: &Entry) -> FlowView {
        let id = join(transport, index, entry.generation);
        let told = self.tally(id).map_or(Told::NOTHING, Tally::told);
        FlowView::new(id, transport, entry, told)
    }

    fn change<R>(&self, id: FlowId, with: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let (transport, index) = split(id)?;
        self.lock(transport)?.table().get_mut(index, id.generation).map(with)
    }

    fn lock(&self, transport: Transport) -> Option<HeldTable> {
        let number = number(transport)?;
        Some(HeldTable { held: self.tables.lock(number)?, live: self.live.get(number)? })
    }

    fn hashed(&self, address: Address) -> Hashed {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(zerocopy::IntoBytes::as_bytes(&address));
        Hashed { address, hash: hasher.finish() as u32 }
    }

    fn ip_hash(&self, address: Address) -> u32 {
        self.hashed(address.with_port(0)).hash
    }
}

fn usable(entry: &Entry) -> bool {
    matches!(State::from_u8(entry.state), Some(State::Opening | State::Open))
}

/// Is it being set up, over the kernel's SCTP, from this listener?
fn is_opening(entry: &Entry, listener: u8) -> bool {
    entry.state == State::Opening as u8 && entry.listener == listener
}
