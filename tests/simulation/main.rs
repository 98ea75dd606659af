//! The corridor (message, transaction, proxy, table) under a fake clock and a lossy network: a thousand seeds, and after each the
//! same questions: did every call end as the callee wanted, and is everything given back?
//!
//! A failing seed is printed; `SIMULATION_SEED=n cargo test --test simulation` runs it alone.

mod agent;
mod network;

use network::{Fault, World};
use strowger::timer::{Lengths, OFF};
use strowger::transport::Transport;

const SEEDS: u64 = 1_000;

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    }
}

fn first_fault(lengths: Lengths) -> Option<(u64, Fault)> {
    seeds().find_map(|seed| World::new(seed, lengths).run().err().map(|fault| (seed, fault)))
}

#[test]
fn a_thousand_lossy_worlds_lose_no_call_and_leak_no_slot() {
    if let Some((seed, fault)) = first_fault(Lengths::default()) {
        panic!("seed {seed}: {fault}; SIMULATION_SEED={seed} cargo test --test simulation runs it alone");
    }
}

#[test]
fn a_proxy_that_never_repeats_an_invite_is_found_out() {
    let mut lengths = Lengths::default();
    lengths.unreliable.a = OFF; // D02 broken on purpose
    assert!(matches!(first_fault(lengths), Some((_, Fault::CallLost { .. }))));
}

#[test]
fn a_proxy_that_never_repeats_a_failure_is_found_out() {
    let mut lengths = Lengths::default();
    lengths.unreliable.g = OFF; // D17 broken on purpose
    lengths.unreliable.a = 500;
    assert!(first_fault(lengths).is_some());
}

fn first_fault_of_retries(send_retries: u8) -> Option<(u64, Fault)> {
    seeds().find_map(|seed| {
        let world = World::new(seed, Lengths::default()).giving_up(send_retries);
        world.run().err().map(|fault| (seed, fault))
    })
}

#[test]
fn what_sctp_gives_up_is_sent_again_and_no_call_is_lost() {
    if let Some((seed, fault)) = first_fault_of_retries(2) {
        panic!("seed {seed}: {fault}; SIMULATION_SEED={seed} cargo test --test simulation runs it alone");
    }
}

#[test]
fn a_proxy_that_retries_too_seldom_is_found_out() {
    for send_retries in [0, 1] {
        assert!(matches!(
            first_fault_of_retries(send_retries),
            Some((_, Fault::CallLost { .. } | Fault::ByeLost { .. }))
        ));
    }
}

#[test]
fn both_transports_take_part() {
    let mut seen = [false; 2];
    for seed in 0..50 {
        let world = World::new(seed, Lengths::default());
        seen[usize::from(world.caller_transport() == Transport::Sctp)] = true;
    }
    assert_eq!(seen, [true, true]);
}
