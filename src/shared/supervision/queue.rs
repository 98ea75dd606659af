//! The shared priority queue: connections in the order of their deadlines (`tcp.priority_queue`).
//!
//! Owns: a binary heap under one lock, and where in it each connection is, so that each is there once. Never closes anything: it
//! says whose deadline has come.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sys::memory::{Guard, Locked, Mapping, Plan, Rebuild, Span};
use zerocopy::FromBytes;

use crate::timer::Tick;
use crate::transport::FlowId;

/// Behind the lock: how many are in the heap. The heap itself lies beside, because its size is configured; only who holds the lock
/// touches it.
#[derive(FromBytes)]
#[repr(C)]
pub struct Count {
    used: u32,
    /// Not 0 while the heap is being changed.
    changing: u32,
    /// Not 0: somebody died within a change, and the heap was emptied.
    lost: u32,
}

impl Rebuild for Count {
    fn rebuild(&mut self) {
        if self.changing != 0 {
            (self.used, self.changing, self.lost) = (0, 0, 1);
        }
    }
}

#[derive(Clone, Copy)]
pub struct Queue {
    count: &'static [Locked<Count>],
    /// Two words for each place: deadline, and index and generation of the connection.
    heap: &'static [AtomicU64],
    /// By index of the connection: its place and 1; what is elsewhere is not in the queue.
    places: &'static [AtomicU32],
}

pub struct Spans {
    count: Span<Locked<Count>>,
    heap: Span<AtomicU64>,
    places: Span<AtomicU32>,
}

impl Queue {
    /// Connections have indexes below `most`.
    pub fn plan(plan: &mut Plan, most: usize) -> Spans {
        Spans { count: plan.locks(usize::from(most != 0)), heap: plan.array(2 * most), places: plan.array(most) }
    }

    /// # Errors
    /// The lock cannot be made.
    pub fn take(mapping: &Mapping, spans: &Spans) -> io::Result<Queue> {
        Ok(Queue {
            count: mapping.locks(&spans.count)?,
            heap: mapping.array(&spans.heap),
            places: mapping.array(&spans.places),
        })
    }

    /// Enters a connection, or moves it to another deadline. What is over makes room for the one that has its index now, and does not
    /// come back in its place: the two may be entered in any order, by different processes.
    pub fn enter(&self, id: FlowId, due: Tick) {
        let Some(mut heap) = self.lock() else { return };
        heap.begin();
        heap.enter(id, due);
        heap.end();
    }

    /// Not what has its index by now.
    pub fn remove(&self, id: FlowId) {
        let Some(mut heap) = self.lock() else { return };
        if let Some((place, _)) = heap.find(id.index).filter(|(_, entered)| *entered == id) {
            heap.begin();
            heap.remove(place);
            heap.end();
        }
    }

    /// Takes the first connection out whose deadline has come.
    #[must_use]
    pub fn due(&self, now: Tick) -> Option<FlowId> {
        let mut heap = self.lock()?;
        let (due, id) = heap.get(0).filter(|_| heap.used() != 0)?;
        if due > now {
            return None;
        }
        heap.begin();
        heap.remove(0);
        heap.end();
        Some(id)
    }

    /// When the first deadline comes.
    #[must_use]
    pub fn next(&self) -> Tick {
        let heap = self.lock();
        heap.and_then(|heap| heap.get(0).filter(|_| heap.used() != 0)).map_or(Tick::NEVER, |(due, _)| due)
    }

    /// Was it emptied, because a process died while it changed it? Says so once.
    #[must_use]
    pub fn was_lost(&self) -> bool {
        self.lock().is_some_and(|mut heap| std::mem::take(&mut heap.count.lost) != 0)
    }

    pub fn clear(&self) {
        if let Some(mut heap) = self.lock() {
            heap.count.used = 0;
        }
    }

    fn lock(&self) -> Option<Heap> {
        let count = self.count.first()?.lock();
        Some(Heap { count, heap: self.heap, places: self.places })
    }
}

/// The heap, locked.
struct Heap {
    count: Guard<'static, Count>,
    heap: &'static [AtomicU64],
    places: &'static [AtomicU32],
}

impl Heap {
    fn used(&self) -> usize {
        (self.count.used as usize).min(self.places.len())
    }

    fn begin(&mut self) {
        self.count.changing = 1;
    }

    fn end(&mut self) {
        self.count.changing = 0;
    }

    fn get(&self, place: usize) -> Option<(Tick, FlowId)> {
        let word = |at: usize| Some(self.heap.get(at)?.load(Ordering::Relaxed));
        let (due, id) = (word(2 * place)?, word(2 * place + 1)?);
        Some((Tick(due), FlowId { index: (id >> 32) as u32, generation: id as u32 }))
    }

    fn set(&self, place: usize, (due, id): (Tick, FlowId)) {
        let put =
            |at: usize, value| self.heap.get(at).into_iter().for_each(|word| word.store(value, Ordering::Relaxed));
        put(2 * place, due.0);
        put(2 * place + 1, u64::from(id.index) << 32 | u64::from(id.generation));
        if let Some(its) = self.places.get(id.index as usize) {
            its.store(place as u32 + 1, Ordering::Relaxed);
        }
    }

    /// Where the connection with this index is, and of which generation.
    fn find(&self, index: u32) -> Option<(usize, FlowId)> {
        let place = (self.places.get(index as usize)?.load(Ordering::Relaxed) as usize).checked_sub(1)?;
        let (_, entered) = self.get(place).filter(|_| place < self.used())?;
        (entered.index == index).then_some((place, entered))
    }

    fn enter(&mut self, id: FlowId, due: Tick) {
        if let Some((place, entered)) = self.find(id.index) {
            if is_later(entered.generation, id.generation) {
                return;
            }
            self.remove(place);
        }
        let place = self.used();
        // No more than there are connections.
        if place < self.places.len() {
            self.count.used += 1;
            self.rise(place, (due, id));
        }
    }

    fn remove(&mut self, place: usize) {
        let last = self.used() - 1;
        self.count.used -= 1;
        let Some(moved) = self.get(last).filter(|_| place != last) else { return };
        self.sink(place, moved);
        // It may have come from another branch, and be earlier than what is above it.
        if let Some(item) = self.get(place) {
            self.rise(place, item);
        }
    }

    /// Puts `item` at `place` or above it.
    fn rise(&mut self, mut place: usize, item: (Tick, FlowId)) {
        while place != 0 {
            let above = (place - 1) / 2;
            let Some(other) = self.get(above).filter(|other| other.0 > item.0) else { break };
            self.set(place, other);
            place = above;
        }
        self.set(place, item);
    }

    /// Puts `item` at `place` or below it.
    fn sink(&mut self, mut place: usize, item: (Tick, FlowId)) {
        loop {
            let below = (2 * place + 1..2 * place + 3).filter(|below| *below < self.used());
            let earliest = below.filter_map(|below| Some((below, self.get(below)?))).min_by_key(|(_, other)| other.0);
            let Some((below, other)) = earliest.filter(|(_, other)| other.0 < item.0) else { break };
            self.set(place, other);
            place = below;
        }
        self.set(place, item);
    }
}

/// Generations wrap around.
fn is_later(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(most: usize) -> Queue {
        let mut plan = Plan::new();
        let spans = Queue::plan(&mut plan, most);
        Queue::take(&plan.map().unwrap(), &spans).unwrap()
    }

    fn id(index: u32, generation: u32) -> FlowId {
        FlowId { index, generation }
    }

    #[test]
    fn connections_come_out_in_the_order_of_their_deadlines_each_once() {
        let queue = queue(500);
        let mut random = fastrand::Rng::with_seed(3);
        let mut wanted = std::collections::BTreeMap::new();
        for round in 1..20_000_u32 {
            let index = random.u32(1..500);
            if random.u8(..4) == 0 {
                if let Some((_, generation)) = wanted.remove(&index) {
                    queue.remove(id(index, generation));
                }
            } else {
                let due = Tick(random.u64(..10_000));
                queue.enter(id(index, round), due);
                wanted.insert(index, (due, round));
            }
            if round % 1_000 == 0 {
                assert_eq!(queue.next(), wanted.values().map(|(due, _)| *due).min().unwrap());
            }
        }
        let mut last = Tick(0);
        while let Some(first) = queue.due(Tick(20_000)) {
            let (due, generation) = wanted.remove(&first.index).unwrap();
            assert!(due >= last && generation == first.generation);
            last = due;
        }
        assert!(wanted.is_empty() && queue.next() == Tick::NEVER);
    }

    #[test]
    fn the_end_of_a_connection_takes_nothing_from_the_next_one_with_its_index() {
        let queue = queue(4);
        queue.enter(id(1, 1), Tick(10));
        queue.enter(id(1, 2), Tick(20));
        // Only now the supervisor hears of the end of the first; or it has just found that one not due yet.
        queue.remove(id(1, 1));
        queue.enter(id(1, 1), Tick(30));
        assert_eq!((queue.due(Tick(50)), queue.due(Tick(50))), (Some(id(1, 2)), None));
        queue.enter(id(1, u32::MAX), Tick(10));
        queue.enter(id(1, 1), Tick(20));
        queue.enter(id(1, u32::MAX), Tick(30));
        assert_eq!(queue.next(), Tick(20));
        queue.remove(id(1, 1));
        assert_eq!(queue.next(), Tick::NEVER);
    }

    #[test]
    fn what_is_not_due_stays() {
        let queue = queue(4);
        queue.enter(id(1, 1), Tick(10));
        queue.enter(id(2, 1), Tick(20));
        queue.enter(id(1, 2), Tick(30));
        assert_eq!((queue.due(Tick(9)), queue.due(Tick(25)), queue.due(Tick(25))), (None, Some(id(2, 1)), None));
        assert_eq!(queue.due(Tick(30)), Some(id(1, 2)));
    }

    #[test]
    fn a_death_within_a_change_empties_it_and_is_said() {
        let queue = queue(4);
        queue.enter(id(1, 1), Tick(10));
        // A thread that ends with the lock is a dead owner too (pthread_mutexattr_setrobust(3)).
        let die = move |within: bool| {
            let die = move || {
                let mut heap = queue.lock().unwrap();
                heap.count.changing = u32::from(within);
                std::mem::forget(heap);
            };
            std::thread::spawn(die).join().unwrap();
        };
        die(false);
        assert_eq!((queue.next(), queue.was_lost()), (Tick(10), false));
        die(true);
        assert_eq!((queue.next(), queue.was_lost(), queue.was_lost()), (Tick::NEVER, true, false));
    }

    #[test]
    fn without_a_supervisor_there_is_none() {
        let queue = queue(0);
        queue.enter(id(1, 1), Tick(1));
        assert_eq!((queue.next(), queue.due(Tick(9))), (Tick::NEVER, None));
    }
}
