//! The entries of one transport's flows, and how they are found.
//!
//! Owns: chains by peer address and by association id, the free list, the count per peer IP; all rebuilt from the live
//! entries when a process died in here. Never a system call, never a clock.

use std::sync::atomic::{Ordering, compiler_fence};

use sys::memory::Rebuild;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::timer::Tick;
use crate::transport::Address;

/// A peer may have this many addresses that we know (multi-homing); more are not found by address.
pub const ADDRESSES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Opening = 1,
    Open = 2,
    /// Takes no new request.
    Closing = 3,
    /// Being aborted (M13).
    Broken = 4,
}

impl State {
    pub fn from_u8(byte: u8) -> Option<State> {
        [State::Opening, State::Open, State::Closing, State::Broken].into_iter().find(|state| *state as u8 == byte)
    }
}

/// What the owner of an association in user space last noted of its one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PathNote {
    /// Microseconds.
    pub srtt_us: u32,
    /// Bytes.
    pub cwnd: u32,
    /// Packets with data that was sent again.
    pub retransmitted: u32,
    /// The peer's receive window, bytes.
    pub peer_window: u32,
    /// Chunks that the peer has not acknowledged yet, those that wait for room among them.
    pub unacknowledged: u32,
}

/// One connection or association. All zero: free and never used. Index 0 is no entry; "link" is an entry's index times
/// ADDRESSES plus the number of one of its addresses.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    pub peers: [Address; ADDRESSES],
    hashes: [u32; ADDRESSES],
    next: [u32; ADDRESSES],
    ip_hash: u32,
    next_association: u32,
    next_free: u32,
    pub generation: u32,
    pub association: u32,
    /// Seat of the process that alone reads and writes it (TCP, SCTP in user space), or number of the socket that it belongs to (the
    /// kernel's SCTP).
    pub owner: u16,
    pub listener: u8,
    /// A `State`; 0 is free.
    pub state: u8,
    /// UDP port that the peer's packets come from (RFC 6951); 0: none.
    pub encapsulation: u16,
    /// Not 0: a request of ours went out on it, so its end may be somebody's loss.
    pub requested: u8,
    unused: u8,
    pub path: PathNote,
    /// How long before `opened` its set-up began, milliseconds.
    pub set_up_ms: u32,
    pub opened: Tick,
}

// `transport::tcp::connection` counts on it.
const _: () = assert!(size_of::<Entry>() <= 192);

/// A table as it lies in shared memory: `PLACES` - 1 entries, of which only those ever used at once are touched.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stored<const PLACES: usize> {
    count: Count,
    heads: [u32; PLACES],
    association_heads: [u32; PLACES],
    per_ip: [u32; PLACES],
    entries: [Entry; PLACES],
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Count {
    /// Entries ever used: those behind are still zero, and their pages untouched.
    used: u32,
    free: u32,
    live: u32,
    /// The entry that is being entered or removed.
    busy: u32,
}

impl<const PLACES: usize> Stored<PLACES> {
    pub fn table(&mut self) -> FlowTable<'_> {
        FlowTable {
            count: &mut self.count,
            heads: &mut self.heads,
            association_heads: &mut self.association_heads,
            per_ip: &mut self.per_ip,
            entries: &mut self.entries,
        }
    }
}

impl<const PLACES: usize> Rebuild for Stored<PLACES> {
    fn rebuild(&mut self) {
        self.table().rebuild();
    }
}

/// A table of any size, under its lock.
pub struct FlowTable<'t> {
    count: &'t mut Count,
    heads: &'t mut [u32],
    association_heads: &'t mut [u32],
    per_ip: &'t mut [u32],
    entries: &'t mut [Entry],
}

/// An address with its keyed hash; the key is drawn at start so that no peer can choose where it is chained.
#[derive(Clone, Copy)]
pub struct Hashed {
    pub address: Address,
    pub hash: u32,
}

/// What a new entry begins with.
pub struct New<'n> {
    pub peers: &'n [Hashed],
    pub ip_hash: u32,
    pub association: u32,
    pub encapsulation: u16,
    pub owner: u16,
    pub listener: u8,
    pub state: State,
    pub now: Tick,
}

impl FlowTable<'_> {
    /// The highest index that was ever in use.
    pub fn used(&self) -> u32 {
        self.count.used
    }

    pub fn live(&self) -> usize {
        self.count.live as usize
    }

    /// Entries of peers whose IP hashes alike: their IP's own, but for a collision (there are as many cells as entries).
    pub fn of_ip(&self, ip_hash: u32) -> usize {
        self.per_ip.get(cell(ip_hash, self.per_ip)).map_or(0, |count| *count as usize)
    }

    pub fn get(&self, index: u32, generation: u32) -> Option<&Entry> {
        self.entries.get(index as usize).filter(|entry| entry.state != 0 && entry.generation == generation)
    }

    pub fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut Entry> {
        self.entries.get_mut(index as usize).filter(|entry| entry.state != 0 && entry.generation == generation)
    }

    /// Live entries with an index of `from` or more, at most `limit` places looked at; and where to go on.
    pub fn slice(&self, from: u32, limit: u32, mut each: impl FnMut(u32, &Entry)) -> Option<u32> {
        let end = (from + limit).min(self.count.used + 1);
        for index in from.max(1)..end {
            if let Some(entry) = self.entries.get(index as usize).filter(|entry| entry.state != 0) {
                each(index, entry);
            }
        }
        (end <= self.count.used).then_some(end)
    }

    /// The newest entry with this peer address that `fits`.
    pub fn by_peer(&self, peer: Hashed, fits: impl Fn(&Entry) -> bool) -> Option<(u32, &Entry)> {
        let mut link = *self.heads.get(cell(peer.hash, self.heads))?;
        while link != 0 {
            let (index, which) = (link as usize / ADDRESSES, link as usize % ADDRESSES);
            let entry = self.entries.get(index)?;
            if entry.peers.get(which) == Some(&peer.address) && fits(entry) {
                return Some((index as u32, entry));
            }
            link = *entry.next.get(which)?;
        }
        None
    }

    pub fn by_association(&self, association: u32) -> Option<u32> {
        let mut index = *self.association_heads.get(cell(association, self.association_heads))?;
        while index != 0 {
            let entry = self.entries.get(index as usize)?;
            if entry.association == association {
                return Some(index);
            }
            index = entry.next_association;
        }
        None
    }

    pub fn entry(&self, index: u32) -> Option<&Entry> {
        self.entries.get(index as usize).filter(|entry| entry.state != 0)
    }

    pub fn entry_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.entries.get_mut(index as usize).filter(|entry| entry.state != 0)
    }

    /// Index and generation of the new entry; none when all are in use.
    pub fn insert(&mut self, new: &New<'_>) -> Option<(u32, u32)> {
        let index = if self.count.free != 0 { self.count.free } else { self.count.used + 1 };
        if index as usize >= self.entries.len() {
            return None;
        }
        self.begin(index);
        if self.count.free == 0 {
            self.count.used = index;
        }
        let entry = self.entries.get_mut(index as usize)?;
        let generation = entry.generation.wrapping_add(1).max(1);
        if self.count.free != 0 {
            self.count.free = entry.next_free;
        }
        *entry = Entry {
            peers: Default::default(),
            hashes: [0; ADDRESSES],
            next: [0; ADDRESSES],
            ip_hash: new.ip_hash,
            next_association: 0,
            next_free: 0,
            generation,
            association: new.association,
            owner: new.owner,
            listener: new.listener,
            state: new.state as u8,
            encapsulation: new.encapsulation,
            requested: 0,
            unused: 0,
            path: PathNote::default(),
            set_up_ms: 0,
            opened: new.now,
        };
        for (place, peer) in entry.peers.iter_mut().zip(new.peers) {
            *place = peer.address;
        }
        for (place, peer) in entry.hashes.iter_mut().zip(new.peers) {
            *place = peer.hash;
        }
        self.link(index);
        self.finish();
        Some((index, generation))
    }

    pub fn remove(&mut self, index: u32) {
        if self.entry(index).is_none() {
            return;
        }
        self.begin(index);
        self.unlink(index);
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.state = 0;
            entry.next_free = self.count.free;
            self.count.free = index;
        }
        self.finish();
    }

    /// The peer told its addresses, or changed them.
    pub fn set_peers(&mut self, index: u32, peers: &[Hashed]) {
        if self.entry(index).is_none() {
            return;
        }
        self.begin(index);
        self.unlink(index);
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.peers = Default::default();
            entry.hashes = [0; ADDRESSES];
            for (place, peer) in entry.peers.iter_mut().zip(peers) {
                *place = peer.address;
            }
            for (place, peer) in entry.hashes.iter_mut().zip(peers) {
                *place = peer.hash;
            }
        }
        self.link(index);
        self.finish();
    }

    /// The association has another id from now on.
    pub fn set_association(&mut self, index: u32, association: u32) {
        if self.entry(index).is_none() {
            return;
        }
        self.begin(index);
        self.unlink(index);
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.association = association;
        }
        self.link(index);
        self.finish();
    }

    /// The order of these stores is what a rebuild relies on, should this process die between them: hence the fences (the
    /// next owner's view is ordered by the kernel's hand-over of the lock).
    fn begin(&mut self, index: u32) {
        self.count.busy = index;
        compiler_fence(Ordering::SeqCst);
    }

    fn finish(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.count.busy = 0;
    }

    fn link(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        for which in 0..ADDRESSES {
            let (Some(address), Some(hash)) = (entry.peers.get(which), entry.hashes.get(which)) else { continue };
            let (Some(head), Some(next)) = (self.heads.get_mut(cell(*hash, self.heads)), entry.next.get_mut(which))
            else {
                continue;
            };
            if address.is_none() {
                continue;
            }
            *next = *head;
            *head = (index as usize * ADDRESSES + which) as u32;
        }
        if entry.association != 0
            && let Some(head) = self.association_heads.get_mut(cell(entry.association, self.association_heads))
        {
            entry.next_association = *head;
            *head = index;
        }
        if let Some(count) = self.per_ip.get_mut(cell(entry.ip_hash, self.per_ip)) {
            *count += 1;
        }
        self.count.live += 1;
    }

    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.entries.get(index as usize).copied() else { return };
        for which in 0..ADDRESSES {
            let (Some(hash), Some(next)) = (entry.hashes.get(which), entry.next.get(which)) else { continue };
            let link = (index as usize * ADDRESSES + which) as u32;
            let Some(head) = self.heads.get_mut(cell(*hash, self.heads)) else { continue };
            if *head == link {
                *head = *next;
                continue;
            }
            let mut at = *head;
            while at != 0 {
                let (before, its) = (at as usize / ADDRESSES, at as usize % ADDRESSES);
                let Some(place) = self.entries.get_mut(before).and_then(|entry| entry.next.get_mut(its)) else { break };
                if *place == link {
                    *place = *next;
                    break;
                }
                at = *place;
            }
        }
        if entry.association != 0
            && let Some(head) = self.association_heads.get_mut(cell(entry.association, self.association_heads))
        {
            let mut at = *head;
            if at == index {
                *head = entry.next_association;
                at = 0;
            }
            while at != 0 {
                let Some(before) = self.entries.get_mut(at as usize) else { break };
                if before.next_association == index {
                    before.next_association = entry.next_association;
                    break;
                }
                at = before.next_association;
            }
        }
        if let Some(count) = self.per_ip.get_mut(cell(entry.ip_hash, self.per_ip)) {
            *count = count.saturating_sub(1);
        }
        self.count.live = self.count.live.saturating_sub(1);
    }
}

impl FlowTable<'_> {
    /// Everything but the entries is made anew; the entry that was busy is ended. (An association ended so comes back with
    /// its next message; a connection ended so died with its owner, or is missed by it at its next use.)
    fn rebuild(&mut self) {
        self.heads.fill(0);
        self.association_heads.fill(0);
        self.per_ip.fill(0);
        self.count.live = 0;
        self.count.free = 0;
        self.count.used = self.count.used.max(self.count.busy).min(self.entries.len() as u32 - 1);
        let busy = self.count.busy;
        if let Some(entry) = self.entries.get_mut(busy as usize) {
            entry.state = 0;
            entry.generation = entry.generation.wrapping_add(1);
        }
        for index in 1..=self.count.used {
            let Some(entry) = self.entries.get_mut(index as usize) else { break };
            if entry.state == 0 {
                entry.next_free = self.count.free;
                self.count.free = index;
            } else {
                entry.next = [0; ADDRESSES];
                entry.next_association = 0;
                self.link(index);
            }
        }
        self.finish();
    }
}

/// Where in `cells`, which are never none.
fn cell(hash: u32, cells: &[u32]) -> usize {
    hash as usize % cells.len()
}
