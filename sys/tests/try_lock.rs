//! A lock that is only tried: for the process that must go on when the holder was stopped.

#![allow(clippy::disallowed_methods, reason = "tests measure time")]

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use sys::memory::{Locked, Plan, Rebuild};
use zerocopy::FromBytes;

#[derive(FromBytes)]
#[repr(C)]
struct Number(u64);

impl Rebuild for Number {
    fn rebuild(&mut self) {
        self.0 = 7;
    }
}

fn number() -> &'static Locked<Number> {
    let mut plan = Plan::new();
    let span = plan.locks::<Number>(1);
    &plan.map().unwrap().locks(&span).unwrap()[0]
}

#[test]
fn a_held_lock_is_not_waited_for() {
    let number = number();
    let (held, is_held) = channel();
    let (done, is_done) = channel::<()>();
    let holder = thread::spawn(move || {
        let _guard = number.lock();
        held.send(()).unwrap();
        is_done.recv().unwrap();
    });
    is_held.recv().unwrap();
    assert!(number.try_lock().is_none());
    done.send(()).unwrap();
    holder.join().unwrap();
    assert!(number.try_lock().is_some());
}

#[test]
fn a_held_lock_is_waited_for_no_longer_than_one_has_time() {
    let number = number();
    let (held, is_held) = channel();
    let holder = thread::spawn(move || {
        let _guard = number.lock();
        held.send(()).unwrap();
        thread::sleep(Duration::from_millis(300));
    });
    is_held.recv().unwrap();
    let began = Instant::now();
    assert!(number.lock_within(Duration::from_millis(50)).is_none());
    assert!((50..250).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert!(number.lock_within(Duration::from_secs(20)).is_some_and(|guard| !guard.recovered()));
    holder.join().unwrap();
}

#[test]
fn what_a_dead_owner_left_is_rebuilt() {
    let number = number();
    // A thread that ends with the lock is a dead owner too (pthread_mutexattr_setrobust(3)).
    thread::spawn(move || std::mem::forget(number.lock())).join().unwrap();
    let guard = number.try_lock().unwrap();
    assert!(guard.recovered());
    assert_eq!(guard.0, 7);
}
