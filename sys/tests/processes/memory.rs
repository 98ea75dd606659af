//! The shared mapping and its robust locks.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use sys::memory::{Locked, Mapping, Plan, Rebuild};
use zerocopy::FromBytes;

use crate::rig::{Test, child, joined, pause, until, wait};
use crate::tests;

pub const TESTS: &[Test] = tests![
    a_mapping_is_shared_with_children,
    no_increment_is_lost_between_processes,
    the_next_owner_finds_the_value_rebuilt_when_the_last_was_killed,
    one_who_waits_for_the_lock_gets_it_when_the_owner_dies,
    a_rebuild_that_dies_is_done_again_by_the_next_owner,
    a_guard_dropped_while_unwinding_aborts_and_the_value_is_rebuilt,
    a_rebuild_that_panics_aborts,
    locking_twice_in_one_thread_panics_instead_of_hanging,
    a_gigabyte_of_locks_costs_a_page_each,
    arrays_and_locks_begin_on_cache_lines,
    locks_taken_a_second_time_are_the_same_and_not_made_anew,
    a_span_of_another_plan_is_refused,
    a_plan_larger_than_the_address_space_is_refused,
];

/// Two numbers that must be equal whenever nobody holds the lock.
#[derive(FromBytes)]
#[repr(C)]
struct Pair {
    left: u64,
    right: u64,
    /// How often rebuild dies before it works.
    deaths: u64,
    panics: u64,
    rebuilt: u64,
}

impl Rebuild for Pair {
    fn rebuild(&mut self) {
        if self.deaths > 0 {
            self.deaths -= 1;
            raise(Signal::SIGKILL).unwrap();
        }
        assert_eq!(self.panics, 0);
        self.right = self.left;
        self.rebuilt += 1;
    }
}

fn pairs(n: usize) -> (&'static [Locked<Pair>], &'static [AtomicU64]) {
    let mut plan = Plan::new();
    let locks = plan.locks(n);
    let flags = plan.array(8);
    let mapping = plan.map().unwrap();
    (mapping.locks(&locks).unwrap(), mapping.array(&flags))
}

/// A child that changes half of the pair, raises the flag and never lets go.
fn half_way(pair: &'static Locked<Pair>, flag: &'static AtomicU64) -> i32 {
    child(|| {
        let mut pair = pair.lock();
        pair.left = 7;
        flag.store(1, Ordering::Release);
        pause(100_000);
    })
}

fn killed(child: i32) {
    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    assert!(matches!(wait(child), WaitStatus::Signaled(_, Signal::SIGKILL, _)));
}

fn a_mapping_is_shared_with_children() {
    let (_, flags) = pairs(1);
    assert_eq!(flags[3].load(Ordering::Relaxed), 0);
    joined(child(|| flags[3].store(42, Ordering::Release)));
    assert_eq!(flags[3].load(Ordering::Acquire), 42);
}

fn no_increment_is_lost_between_processes() {
    let (pairs, _) = pairs(2);
    let workers = [(); 4].map(|()| {
        child(|| {
            for _ in 0..5_000 {
                let mut pair = pairs[1].lock();
                assert_eq!(pair.left, pair.right);
                pair.left += 1;
                pair.right += 1;
            }
        })
    });
    workers.into_iter().for_each(joined);
    let pair = pairs[1].lock();
    assert_eq!((pair.left, pair.right, pair.recovered()), (20_000, 20_000, false));
}

fn the_next_owner_finds_the_value_rebuilt_when_the_last_was_killed() {
    let (pairs, flags) = pairs(3);
    let owner = half_way(&pairs[1], &flags[0]);
    until("the child has the lock", || flags[0].load(Ordering::Acquire) == 1);
    killed(owner);
    // The next owner is a process that did not exist when the lock was made, and is neither parent nor child of the dead one.
    joined(child(|| {
        let pair = pairs[1].lock();
        assert_eq!((pair.left, pair.right, pair.rebuilt), (7, 7, 1));
        assert!(pair.recovered());
    }));
    let pair = pairs[1].lock();
    assert!(!pair.recovered());
    assert_eq!((pair.left, pair.right, pair.rebuilt), (7, 7, 1));
    assert!(!pairs[0].lock().recovered(), "the neighbour is untouched");
}

fn one_who_waits_for_the_lock_gets_it_when_the_owner_dies() {
    let (pairs, flags) = pairs(1);
    let owner = half_way(&pairs[0], &flags[0]);
    until("the child has the lock", || flags[0].load(Ordering::Acquire) == 1);
    let waiting = child(|| {
        flags[1].store(1, Ordering::Release);
        assert!(pairs[0].lock().recovered());
    });
    until("the other is about to lock", || flags[1].load(Ordering::Acquire) == 1);
    pause(50);
    killed(owner);
    joined(waiting);
}

fn a_rebuild_that_dies_is_done_again_by_the_next_owner() {
    let (pairs, flags) = pairs(1);
    pairs[0].lock().deaths = 2;
    let owner = half_way(&pairs[0], &flags[0]);
    until("the child has the lock", || flags[0].load(Ordering::Acquire) == 1);
    killed(owner);
    for _ in 0..2 {
        let unlucky = child(|| drop(pairs[0].lock()));
        assert!(matches!(wait(unlucky), WaitStatus::Signaled(_, Signal::SIGKILL, _)));
    }
    let pair = pairs[0].lock();
    assert!(pair.recovered());
    assert_eq!((pair.left, pair.right, pair.rebuilt), (7, 7, 1));
}

fn a_guard_dropped_while_unwinding_aborts_and_the_value_is_rebuilt() {
    let (pairs, _) = pairs(1);
    let clumsy = child(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let mut pair = pairs[0].lock();
        pair.left = 9;
        panic!("half way");
    });
    assert!(matches!(wait(clumsy), WaitStatus::Signaled(_, Signal::SIGABRT, _)));
    let pair = pairs[0].lock();
    assert!(pair.recovered());
    assert_eq!((pair.left, pair.right), (9, 9));
}

fn a_rebuild_that_panics_aborts() {
    let (pairs, flags) = pairs(1);
    pairs[0].lock().panics = 1;
    let owner = half_way(&pairs[0], &flags[0]);
    until("the child has the lock", || flags[0].load(Ordering::Acquire) == 1);
    killed(owner);
    for _ in 0..2 {
        let clumsy = child(|| {
            std::panic::set_hook(Box::new(|_| {}));
            drop(pairs[0].lock());
        });
        assert!(matches!(wait(clumsy), WaitStatus::Signaled(_, Signal::SIGABRT, _)));
    }
}

fn locking_twice_in_one_thread_panics_instead_of_hanging() {
    let (pairs, _) = pairs(1);
    let clumsy = child(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let _first = pairs[0].lock();
        let _second = pairs[0].lock();
    });
    // The panic unwinds through the first guard.
    assert!(matches!(wait(clumsy), WaitStatus::Signaled(_, Signal::SIGABRT, _)));
}

/// 4 MB, as large as a bucket may be.
#[derive(FromBytes)]
#[repr(C)]
struct Bucket([u8; 4 << 20]);

impl Rebuild for Bucket {
    fn rebuild(&mut self) {}
}

/// Kilobytes of shared memory that this process has touched.
fn touched() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("RssShmem:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn a_gigabyte_of_locks_costs_a_page_each() {
    let before = touched();
    let mut plan = Plan::new();
    let span = plan.locks::<Bucket>(256);
    assert!(plan.bytes() > 1 << 30);
    let mapping: Mapping = plan.map().unwrap();
    assert_eq!(touched(), before);
    let buckets = mapping.locks(&span).unwrap();
    assert!(touched() - before <= 256 * 4, "touched {} kB", touched() - before);
    let mut bucket = buckets[100].lock();
    assert_eq!(bucket.0[(4 << 20) - 1], 0);
    bucket.0[3 << 20] = 1;
    assert!(touched() - before <= 256 * 4 + 8, "touched {} kB", touched() - before);
}

fn arrays_and_locks_begin_on_cache_lines() {
    let mut plan = Plan::new();
    let bytes = plan.array::<u8>(3);
    let locks = plan.locks::<Pair>(2);
    let more = plan.array::<u8>(1);
    let mapping = plan.map().unwrap();
    assert_eq!(mapping.array(&bytes).as_ptr().addr() % 64, 0);
    assert_eq!(mapping.array(&more).as_ptr().addr() % 64, 0);
    for lock in mapping.locks(&locks).unwrap() {
        assert_eq!(std::ptr::from_ref(lock).addr() % 64, 0);
    }
    assert_eq!((bytes.len(), mapping.array(&bytes), locks.is_empty()), (3, &[0, 0, 0][..], false));
}

fn locks_taken_a_second_time_are_the_same_and_not_made_anew() {
    let mut plan = Plan::new();
    let span = plan.locks::<Pair>(1);
    let mapping = plan.map().unwrap();
    let first = mapping.locks(&span).unwrap()[0].lock();
    let again = &mapping.locks(&span).unwrap()[0];
    let other = std::thread::spawn(|| again.lock().left);
    pause(20);
    assert!(!other.is_finished(), "the lock is still held");
    drop(first);
    assert_eq!(other.join().unwrap(), 0);
}

fn a_span_of_another_plan_is_refused() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut one = Plan::new();
    let span = one.array::<u64>(1_000_000);
    let mut other = Plan::new();
    other.array::<u64>(1);
    let mapping = other.map().unwrap();
    assert!(std::panic::catch_unwind(|| mapping.array(&span).len()).is_err());
}

fn a_plan_larger_than_the_address_space_is_refused() {
    let mut plan = Plan::new();
    plan.array::<u64>(usize::MAX / 8);
    plan.array::<u64>(100);
    assert_eq!(plan.bytes(), usize::MAX);
    assert!(plan.map().is_err());
}

/// madvise(2): what the kernel makes of it is the administrator's matter; that it was asked, it says in smaps (proc(5)).
#[test]
fn huge_pages_are_asked_for_where_they_can_begin() {
    let mut plan = Plan::new();
    let span = plan.array::<AtomicU64>(1 << 18);
    let mapping = plan.map().unwrap();
    let begin = std::ptr::from_ref(&mapping.array(&span)[0]) as usize;
    assert_eq!(begin % (2 << 20), 0);
    let asked = || {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = smaps.split_once(&format!("{begin:x}-")).unwrap().1;
        ours.lines().find(|line| line.starts_with("VmFlags:")).unwrap().split(' ').any(|flag| flag == "hg")
    };
    assert!(!asked());
    mapping.ask_for_huge_pages().unwrap();
    assert!(asked());
}
