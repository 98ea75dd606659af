//! Torn states, as a death at any instant may leave them, and what a rebuild makes of them.

use sys::memory::Plan;

use super::*;
use crate::message::Method;
use crate::proxy::{Client, Server};
use crate::transaction::{InviteClient, InviteServer};

const ALL: Audit = Audit { live: 0, free: SERVERS + CLIENTS, lost: 0 };

/// In a mapping, because it is larger than a stack.
fn bucket() -> &'static mut Bucket {
    let mut plan = Plan::new();
    let span = plan.locks::<Bucket>(1);
    let locks = plan.map().unwrap().locks(&span).unwrap();
    std::ops::DerefMut::deref_mut(Box::leak(Box::new(locks[0].lock())))
}

/// A ringing INVITE with this many branches, not busy.
fn ringing(bucket: &mut Bucket, key: u64, branches: usize) -> u32 {
    let head = busy(bucket, key, branches);
    bucket.server(head).unwrap().busy.clear();
    head
}

fn busy(bucket: &mut Bucket, key: u64, branches: usize) -> u32 {
    let head = bucket.create([key, key], Flow::default(), &[&[b'i'; 700]]).unwrap();
    let server = Server { machine: InviteServer::start().into(), method: Method::Invite as u8, ..Default::default() };
    bucket.server_mut(head).unwrap().server = server;
    for n in 0..branches {
        let number = bucket.add_branch(head, Flow::default(), b"sip:a", &[b"more"]).unwrap();
        let client =
            Client { machine: InviteClient::Proceeding.into(), c: Tick(1_000 + n as u64), ..Default::default() };
        bucket.client_mut(number).unwrap().client = client;
    }
    head
}

fn branches(bucket: &Bucket, head: u32) -> Vec<u32> {
    bucket.branches(head).collect()
}

/// Rebuilds, and sees that these contexts are whole and are all there is.
#[track_caller]
fn only(bucket: &mut Bucket, contexts: &[(u64, u32, usize)]) {
    bucket.rebuild();
    let (slots, texts) = bucket.audit();
    assert_eq!((slots.lost, texts.lost), (0, 0));
    let clients: usize = contexts.iter().map(|(_, _, branches)| branches).sum();
    assert_eq!((bucket.live(), slots.live), (contexts.len(), contexts.len() + clients));
    assert_eq!(bucket.unanswered() as usize, contexts.len());
    for (key, head, n) in contexts {
        assert_eq!(bucket.find([*key, *key]), Some(*head));
        assert_eq!(bucket.branches(*head).count(), *n);
        assert_eq!(bucket.deadlines.due(*head), Tick(1_000));
    }
    // What was given back can be had again, and what is left can be freed.
    let more = ringing(bucket, 99, 3);
    bucket.free(more);
    contexts.iter().for_each(|(_, head, _)| bucket.free(*head));
    let (slots, texts) = bucket.audit();
    assert_eq!((slots, texts.live, texts.lost), (ALL, 0, 0));
    assert_eq!((bucket.waited_on(), bucket.hops), (0, [0; HOPS]));
}

#[test]
fn a_context_being_made_is_ended_and_the_others_stay() {
    let bucket = bucket();
    let a = ringing(bucket, 1, 2);
    busy(bucket, 2, 3);
    let z = ringing(bucket, 3, 1);
    only(bucket, &[(1, a, 2), (3, z, 1)]);
    assert_eq!(bucket.ended, 1);
}

#[test]
fn a_slot_taken_but_not_yet_live_is_free_again() {
    let bucket = bucket();
    let a = ringing(bucket, 1, 2);
    // As `create` leaves it just before `live = 1`, from the free list and from the fresh ones.
    let gone = ringing(bucket, 2, 1);
    bucket.free(gone);
    for _ in 0..2 {
        bucket.texts.store(&[&[b'x'; 900]]).unwrap();
        let number = take(&mut bucket.servers_free, &mut bucket.servers_fresh, &mut bucket.servers).unwrap();
        bucket.chains[chain([7, 7])] = number;
        let slot = &mut bucket.servers[number as usize - 1];
        slot.busy.set();
        slot.key = [7, 7];
        slot.request = Text { first: 3, len: 9_999 };
    }
    only(bucket, &[(1, a, 2)]);
    assert_eq!(bucket.find([7, 7]), None);
}

#[test]
fn a_client_slot_that_still_names_the_context_of_its_last_life_harms_nobody() {
    let bucket = bucket();
    let a = ringing(bucket, 1, 2);
    let ended = *branches(bucket, a).last().unwrap();
    bucket.free_branch(ended);
    let (target, others) = (bucket.clients[ended as usize - 1].target, bucket.clients[ended as usize - 1].others);
    assert!(!target.is_empty() && !others.is_empty());
    // Live, with the head and the texts of its last life: as a slot of any order of stores could be found.
    bucket.clients[ended as usize - 1].live = 1;
    only(bucket, &[(1, a, 1)]);
}

#[test]
fn a_context_being_freed_is_gone_wherever_its_owner_died() {
    // In the order of `free`: branches one by one, texts, the slot itself.
    for died_after in 0..5 {
        let bucket = bucket();
        let a = ringing(bucket, 1, 2);
        let dying = ringing(bucket, 2, 2);
        bucket.server(dying).unwrap().busy.set();
        for branch in branches(bucket, dying).into_iter().take(died_after) {
            bucket.free_branch(branch);
        }
        if died_after >= 3 {
            let text = bucket.server(dying).unwrap().request;
            bucket.texts.free(text);
            // Taken at once by another, who is alive: the dying one's claim must not count.
            let other = bucket.texts.store(&[&[b'y'; 700]]).unwrap();
            let slot = bucket.server_mut(a).unwrap();
            let old = std::mem::replace(&mut slot.request, other);
            bucket.texts.free(old);
        }
        if died_after >= 4 {
            give(dying, &mut bucket.servers_free, &mut bucket.servers);
        }
        only(bucket, &[(1, a, 2)]);
    }
}

#[test]
fn a_torn_text_ends_its_context_and_no_other() {
    for which in 0..3 {
        let bucket = bucket();
        let a = ringing(bucket, 1, 1);
        let torn = ringing(bucket, 2, 2);
        let branch = branches(bucket, torn)[1];
        match which {
            0 => bucket.server_mut(torn).unwrap().request.len += 5_000,
            1 => bucket.client_mut(branch).unwrap().target.first = 0,
            _ => bucket.server_mut(torn).unwrap().last = Text { first: u32::MAX, len: 1 },
        }
        only(bucket, &[(1, a, 1)]);
    }
}

#[test]
fn lists_and_deadlines_are_made_anew_from_what_lives() {
    let bucket = bucket();
    let heads: Vec<_> = (1..=20).map(|key| (key, ringing(bucket, key, 2), 2)).collect();
    bucket.chains.fill(u32::MAX);
    bucket.hops.fill(7);
    (bucket.servers_free, bucket.clients_free) = (3, 900);
    (bucket.servers_live, bucket.clients_live, bucket.unanswered) = (0, 9, 77);
    for number in 0..20 {
        bucket.servers[number].next = number as u32 + 1;
        (bucket.clients[number].hop_next, bucket.clients[number].hop_previous) = (number as u32 + 1, 5);
    }
    only(bucket, &heads);
}

/// Finished transactions stay for 32 s: a loss must not walk over them.
#[test]
fn who_waits_no_more_is_in_no_chain_of_hops() {
    let bucket = bucket();
    let head = ringing(bucket, 1, 3);
    let [first, second, third] = branches(bucket, head).try_into().unwrap();
    let peer = Flow::default().peer;
    let waiting = |bucket: &Bucket| {
        let mut chain = vec![bucket.hops[hop(peer)]];
        assert_eq!(bucket.waited_on(), u64::from(chain[0] != 0) << hop(peer));
        while let Some(slot) = bucket.client(*chain.last().unwrap()) {
            chain.push(slot.hop_next);
        }
        chain
    };
    assert_eq!(waiting(bucket), [third, second, first, 0]);
    // In the middle, at the head, told twice, and again, as a branch that is started late.
    for (number, waits, left) in [
        (second, false, vec![third, first, 0]),
        (second, false, vec![third, first, 0]),
        (third, false, vec![first, 0]),
        (second, true, vec![second, first, 0]),
        (first, false, vec![second, 0]),
        (second, true, vec![second, 0]),
        (second, false, vec![0]),
    ] {
        bucket.set_waits(number, waits);
        assert_eq!(waiting(bucket), left);
    }
    bucket.set_waits(first, true);
    bucket.free_branch(second);
    assert_eq!(waiting(bucket), [first, 0]);
    bucket.free(head);
    assert_eq!(waiting(bucket), [0]);
}

#[test]
fn an_owner_that_dies_in_a_rebuild_is_followed_by_one_that_finishes_it() {
    let bucket = bucket();
    let a = ringing(bucket, 1, 2);
    let torn = ringing(bucket, 2, 2);
    let branch = branches(bucket, torn)[0];
    // The first rebuild got as far as ending the context of a torn branch.
    bucket.client_mut(branch).unwrap().target.len = 5_000;
    bucket.server_mut(torn).unwrap().live = 0;
    only(bucket, &[(1, a, 2)]);
}

/// RFC 6026's timer L and M, timer H where nothing is repeated, timer J with an answer without a body: most of what a busy table holds.
#[test]
fn a_transaction_that_only_waits_takes_512_bytes_at_most() {
    let shared = size_of::<Deadlines<SERVERS>>() / SERVERS + size_of::<[u32; CHAINS]>() / SERVERS;
    let server = size_of::<ServerSlot>() + shared;
    let answer = 300_usize.div_ceil(BLOCK_BYTES) * (BLOCK_BYTES + size_of::<u32>());
    println!(
        "server transaction {server}, with its answer {}, client transaction {}",
        server + answer,
        size_of::<ClientSlot>()
    );
    assert!(server + answer <= 512 && size_of::<ClientSlot>() <= 512);
}

#[test]
fn a_client_that_sends_nothing_any_more_holds_no_text() {
    let bucket = bucket();
    let a = ringing(bucket, 1, 2);
    let before = bucket.audit().1.live;
    let branch = branches(bucket, a)[0];
    bucket.forget_target(branch);
    bucket.forget_target(branch);
    // Its target and its other addresses.
    assert_eq!(bucket.audit().1.live, before - 2);
    only(bucket, &[(1, a, 2)]);
}
