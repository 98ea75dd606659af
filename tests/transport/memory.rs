//! Mailboxes and flows between processes.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::message::branch::BranchId;
use strowger::shared::flows::{Claim, Limit, PathNote, State};
use strowger::shared::mailbox::{Full, Kind, Reader};
use strowger::timer::Tick;
use strowger::transport::{Address, Flow, FlowId, Transport};

use crate::rig::{Test, child, joined, pause, wait};
use crate::seat::{parts, parts_with};
use crate::tests;

pub const TESTS: &[Test] = tests![
    a_million_records_pass_between_two_processes,
    a_full_mailbox_says_so_and_takes_again_what_was_read,
    a_reader_killed_midway_leaves_the_rest_to_its_successor,
    a_sleeping_reader_is_woken_once,
    two_processes_claim_one_peer_and_one_of_them_gets_it,
    limits_hold_in_total_and_per_peer_ip,
    a_table_of_any_size_takes_as_many_flows_and_no_more,
    of_many_flows_those_that_are_over_are_named,
    each_listener_has_its_own_associations_with_a_peer,
    what_was_counted_on_one_flow_is_not_the_next_ones,
    an_association_is_found_by_each_of_its_addresses,
    an_association_that_is_set_up_counts_until_it_is_up_or_given_up,
    what_waits_for_an_association_is_counted_together,
    flows_are_right_again_after_processes_died_in_them,
];

const WIDE: Limit = Limit { total: 100_000, per_peer: 100_000 };

fn flow(n: u64) -> Flow {
    Flow { association: n as u32, id: FlowId { index: n as u32, generation: 3 }, ..Flow::default() }
}

/// Bytes that show whose they are.
fn bytes(n: u64) -> Vec<u8> {
    (0..n % 97).map(|i| (n + i) as u8).collect()
}

fn a_million_records_pass_between_two_processes() {
    const RECORDS: u64 = 1_000_000;
    let boxes = parts(2, 64 << 10).mailboxes;
    let writer = child(|| {
        for n in 0..RECORDS {
            let bytes = bytes(n);
            let (head, body) = bytes.split_at(bytes.len() / 3);
            let client = (n % 3 != 0).then_some(BranchId { slot: n as u32, generation: 9 });
            while boxes.post((0, 1), Kind::Send, &flow(n), client, [head, body]).is_err() {
                std::thread::yield_now();
            }
        }
    });
    let mut reader = Reader::new(boxes, 1);
    let mut out = Vec::new();
    let mut n = 0;
    while n < RECORDS {
        out.clear();
        let Some(posted) = reader.next(0, &mut out) else {
            reader.done();
            std::thread::yield_now();
            continue;
        };
        assert_eq!((posted.kind, posted.to, posted.bytes), (Kind::Send, flow(n), out.len()));
        assert_eq!(posted.client.map(|client| client.slot), (n % 3 != 0).then_some(n as u32));
        assert_eq!(out, bytes(n));
        n += 1;
    }
    assert!(reader.next(0, &mut out).is_none());
    joined(writer);
}

fn a_full_mailbox_says_so_and_takes_again_what_was_read() {
    let boxes = parts(2, 4096).mailboxes;
    let post = || boxes.post((1, 0), Kind::Open, &flow(1), None, [&[b'x'; 300], b""]);
    let mut taken = 0;
    while post().is_ok() {
        taken += 1;
    }
    assert!((10..=13).contains(&taken), "{taken}");
    assert_eq!(boxes.post((1, 0), Kind::Send, &flow(1), None, [&[0; 9000], b""]), Err(Full));
    let mut reader = Reader::new(boxes, 0);
    let mut out = Vec::new();
    assert!(reader.next(1, &mut out).is_some());
    assert_eq!(post(), Err(Full), "not before it is done");
    reader.done();
    assert_eq!(post(), Ok(()));
    assert_eq!(post(), Err(Full));
    for _ in 0..taken {
        assert_eq!(reader.next(1, &mut out).map(|posted| posted.bytes), Some(300));
    }
    assert!(!boxes.is_waiting(1) && boxes.is_waiting(0));
    reader.done();
    assert!(!boxes.is_waiting(0));
}

fn a_reader_killed_midway_leaves_the_rest_to_its_successor() {
    let boxes = parts(2, 64 << 10).mailboxes;
    let post = |n| boxes.post((0, 1), Kind::Send, &flow(n), None, [&bytes(n), b""]);
    (0..50).for_each(|n| post(n).unwrap());
    let first = child(|| {
        let mut reader = Reader::new(boxes, 1);
        let mut out = Vec::new();
        (0..20).for_each(|_| assert!(reader.next(0, &mut out).is_some()));
        reader.done();
        // Read, but not done with.
        (0..10).for_each(|_| assert!(reader.next(0, &mut out).is_some()));
        kill(Pid::this(), Signal::SIGKILL).unwrap();
    });
    wait(first);
    (50..60).for_each(|n| post(n).unwrap());
    let mut reader = Reader::new(boxes, 1);
    for n in 20..60 {
        let mut out = Vec::new();
        assert_eq!(reader.next(0, &mut out).map(|posted| posted.to), Some(flow(n)));
        assert_eq!(out, bytes(n));
    }
    assert!(reader.next(0, &mut Vec::new()).is_none());
}

fn a_sleeping_reader_is_woken_once() {
    let boxes = parts(2, 4096).mailboxes;
    let rung = || {
        let mut bell = [PollFd::new(boxes.bell(1).unwrap(), PollFlags::POLLIN)];
        poll(&mut bell, PollTimeout::ZERO).unwrap() == 1
    };
    let post = || boxes.post((0, 1), Kind::Send, &flow(1), None, [b"x", b""]).unwrap();
    post();
    assert!(!rung(), "it is awake");
    assert!(!boxes.announce_sleep(1), "something waits");
    let mut reader = Reader::new(boxes, 1);
    assert!(reader.next(0, &mut Vec::new()).is_some());
    reader.done();
    assert!(boxes.announce_sleep(1));
    assert!(!rung());
    let writer = child(post);
    joined(writer);
    assert!(rung());
    let mut eight = [0; 8];
    nix::unistd::read(boxes.bell(1).unwrap().as_fd(), &mut eight).unwrap();
    post();
    assert!(!rung(), "it was rung for already");
}

fn peer(n: u32) -> Address {
    Address::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 5060)
}

fn two_processes_claim_one_peer_and_one_of_them_gets_it() {
    const PEERS: u32 = 5000;
    let flows = parts(2, 4096).flows;
    let mine = |seat: usize| {
        let claim = |n| flows.claim(Transport::Tcp, peer(n), 0, seat, WIDE, Tick(1));
        (0..PEERS).filter(|n| matches!(claim(*n), Claim::Mine(_))).count()
    };
    let other = child(|| {
        mine(1);
    });
    let ours = mine(0);
    joined(other);
    assert_eq!(flows.live(Transport::Tcp), PEERS as usize);
    let owned = (flows.owned_by(Transport::Tcp, 0).len(), flows.owned_by(Transport::Tcp, 1).len());
    assert_eq!((owned.0, owned.0 + owned.1), (ours, PEERS as usize));
    let Claim::Other(view) = flows.claim(Transport::Tcp, peer(7), 0, 0, WIDE, Tick(1)) else { panic!() };
    assert_eq!((view.state, view.peers[0]), (State::Opening, peer(7)));
    assert!(flows.set_state(view.id, State::Open));
    assert!(flows.close(view.id).is_some() && flows.close(view.id).is_none() && flows.find(view.id).is_none());
    let Claim::Mine(again) = flows.claim(Transport::Tcp, peer(7), 0, 0, WIDE, Tick(1)) else { panic!() };
    assert_eq!(again.index, view.id.index, "the entry is used again");
    assert_ne!(again.generation, view.id.generation, "under another generation");
}

fn limits_hold_in_total_and_per_peer_ip() {
    use strowger::shared::flows::Refusal;
    let flows = parts(2, 4096).flows;
    let limit = Limit { total: 5, per_peer: 3 };
    let accept = |n, port| flows.accepted(Transport::Tcp, peer(n).with_port(port), 0, 0, limit, Tick(1));
    let first = accept(1, 1).unwrap();
    accept(1, 2).unwrap();
    accept(1, 3).unwrap();
    assert_eq!(accept(1, 4), Err(Refusal::Peer));
    accept(2, 1).unwrap();
    accept(3, 1).unwrap();
    assert_eq!(accept(4, 1), Err(Refusal::Total));
    flows.close(first);
    assert!(accept(1, 4).is_ok());
    // Each transport has its own.
    assert!(flows.associated(1, &[peer(1)], (0, 0), limit, Tick(1)).is_ok());
}

fn a_table_of_any_size_takes_as_many_flows_and_no_more() {
    use strowger::shared::flows::Refusal;
    let wide = Limit { total: 1_000_000, per_peer: 1_000_000 };
    for most in [16, 1_024, 16_384, 100_000] {
        let flows = parts_with(2, 4096, most).flows;
        let peer = |n: usize| peer((n / 60_000) as u32).with_port((n % 60_000) as u16 + 1);
        let mut ids = Vec::new();
        for n in 0..most {
            ids.push(flows.accepted(Transport::Tcp, peer(n), 0, 0, wide, Tick(1)).unwrap());
            assert!(flows.associated(n as u32 + 1, &[peer(n)], (0, 0), wide, Tick(1)).unwrap().1);
        }
        assert_eq!(flows.accepted(Transport::Tcp, peer(most), 0, 0, wide, Tick(1)), Err(Refusal::Table));
        assert_eq!(flows.associated(u32::MAX, &[peer(most)], (0, 0), wide, Tick(1)), Err(Refusal::Table));
        assert!(matches!(flows.claim(Transport::Tcp, peer(most), 0, 0, wide, Tick(1)), Claim::Full(Refusal::Table)));
        for (n, id) in ids.iter().enumerate() {
            let association = flows.find_association(n as u32 + 1).unwrap();
            assert_eq!(flows.find_by_peer(Transport::Sctp, peer(n)).unwrap().id, association.id);
            assert_eq!(flows.find_by_peer(Transport::Tcp, peer(n)).unwrap().id, *id);
            assert!(flows.find(*id).is_some() && association.id != *id);
        }
        flows.close(ids[most / 2]);
        assert!(flows.accepted(Transport::Tcp, peer(most), 0, 0, wide, Tick(1)).is_ok());
    }
}

fn of_many_flows_those_that_are_over_are_named() {
    let flows = parts(1, 4096).flows;
    let accept = |n| flows.accepted(Transport::Tcp, peer(n), 0, 0, WIDE, Tick(1)).unwrap();
    let mut ids: Vec<_> = (0..1_000).map(accept).collect();
    assert!(flows.over(Transport::Tcp, &ids).is_empty() && flows.over(Transport::Tcp, &[]).is_empty());
    let mut over: Vec<_> = ids.iter().copied().step_by(7).collect();
    over.iter().for_each(|id| assert!(flows.close(*id).is_some()));
    // Their numbers are others' now.
    let again: Vec<_> = (1_000..1_100).map(accept).collect();
    assert!(again.iter().all(|id| over.iter().any(|old| old.index == id.index)));
    ids.extend(&again);
    let association = flows.associated(1, &[peer(1)], (0, 0), WIDE, Tick(1)).unwrap().0;
    ids.extend([association, FlowId::NONE]);
    over.extend([association, FlowId::NONE]);
    assert_eq!(flows.over(Transport::Tcp, &ids), over);
}

fn what_was_counted_on_one_flow_is_not_the_next_ones() {
    let flows = parts(1, 8).flows;
    let accept = |n, at| flows.accepted(Transport::Tcp, peer(n), 0, 0, WIDE, Tick(at)).unwrap();
    let told = |id| flows.find(id).map(|flow| (flow.received, flow.sent, flow.queued, flow.last));
    let first = accept(1, 10);
    flows.touch(first, 3, 2, 500, Tick(20));
    assert_eq!(told(first), Some((3, 2, 500, Tick(20))));
    assert!(flows.close(first).is_some());
    let second = accept(2, 30);
    assert_eq!((second.index, told(second)), (first.index, Some((0, 0, 0, Tick(30)))));
    // News of a path that come too late change nothing.
    flows.note_path(first, PathNote::default(), 700);
    assert_eq!(told(second), Some((0, 0, 0, Tick(30))));
}

fn an_association_is_found_by_each_of_its_addresses() {
    let flows = parts(2, 4096).flows;
    let (id, is_new) = flows.associated(77, &[peer(1), peer(2)], (3, 0), WIDE, Tick(1)).unwrap();
    assert!(is_new);
    let found = |n| flows.find_by_peer(Transport::Sctp, peer(n)).map(|flow| (flow.id, flow.association, flow.listener));
    assert_eq!((found(1), found(2), found(3)), (Some((id, 77, 3)), Some((id, 77, 3)), None));
    assert_eq!(flows.associated(77, &[peer(2), peer(3)], (3, 0), WIDE, Tick(2)), Ok((id, false)));
    assert_eq!((found(1), found(2), found(3)), (None, Some((id, 77, 3)), Some((id, 77, 3))));
    assert_eq!(flows.touch_association(77, 4, Tick(9)), Some(id));
    let view = flows.find_association(77).unwrap();
    assert_eq!((view.received, view.last), (4, Tick(9)));
    flows.set_state(id, State::Broken);
    assert_eq!(found(2), None, "takes no requests");
    flows.close(id);
    assert!(flows.find_association(77).is_none());
}

fn each_listener_has_its_own_associations_with_a_peer() {
    let flows = parts(2, 4096).flows;
    let accepted =
        |tag, listener, seat| flows.accepted_association((tag, 9899), peer(1), listener, seat, WIDE, Tick(1)).unwrap();
    let (one, other) = (accepted(77, 0, 1), accepted(78, 1, 0));
    let found = |listener| flows.find_on(listener, Transport::Sctp, peer(1)).map(|flow| (flow.id, flow.owner));
    assert_eq!([0, 1, 2].map(found), [Some((one, 1)), Some((other, 0)), None]);
    assert_eq!(flows.find_by_peer(Transport::Sctp, peer(1)).map(|flow| flow.id), Some(other), "the newest");
    flows.close(one);
    assert_eq!([0, 1].map(found), [None, Some((other, 0))]);
}

fn an_association_that_is_set_up_counts_until_it_is_up_or_given_up() {
    use strowger::shared::flows::Refusal;
    let flows = parts(2, 4096).flows;
    let limit = Limit { total: 10, per_peer: 2 };
    let opening = |port, now| flows.opening(peer(1).with_port(port), (3, 0), limit, Tick(now));
    let id = opening(1, 5).unwrap();
    // Any process that goes there too finds the same one; the kernel knew of none, so it begins now.
    assert_eq!(opening(1, 6), Ok(id));
    assert_ne!(flows.opening(peer(1).with_port(1), (4, 0), limit, Tick(6)), Ok(id), "another listener");
    assert_eq!(opening(2, 6), Err(Refusal::Peer));
    // It is up, on the socket of whoever was quicker, and found by its id.
    assert!(flows.find_association(77).is_none());
    assert_eq!(flows.associated(77, &[peer(1).with_port(1)], (3, 1), limit, Tick(9)), Ok((id, true)));
    let view = flows.find_association(77).unwrap();
    assert_eq!((view.id, view.state, view.owner, view.begun, view.opened), (id, State::Open, 1, Tick(6), Tick(9)));
    assert!(flows.find_opening(peer(1).with_port(1), 3).is_none());
    assert_eq!(flows.associated(77, &[peer(1).with_port(1)], (3, 1), limit, Tick(9)), Ok((id, false)));
    // Given up: another takes the place.
    let other = flows.find_opening(peer(1).with_port(1), 4).unwrap();
    assert!(flows.close(other.id).is_some() && opening(2, 10).is_ok());
    // Two that were set up to two addresses of one peer are one.
    let both = [peer(2), peer(3)];
    assert!(both.iter().all(|address| flows.opening(*address, (3, 0), WIDE, Tick(10)).is_ok()));
    let live = flows.live(Transport::Sctp);
    assert!(flows.associated(78, &both, (3, 0), WIDE, Tick(11)).unwrap().1);
    assert_eq!(flows.live(Transport::Sctp), live - 1);
}

fn what_waits_for_an_association_is_counted_together() {
    let flows = parts(2, 4096).flows;
    flows.associated(77, &[peer(1)], (0, 0), WIDE, Tick(1)).unwrap();
    let queued = || flows.find_association(77).unwrap().queued;
    assert!(flows.queue(77, 60, 100) && flows.queue(77, 40, 100) && !flows.queue(77, 1, 100));
    assert_eq!(queued(), 100);
    flows.unqueue(77, 30);
    assert!(!flows.queue(77, 31, 100) && flows.queue(77, 30, 100));
    // A successor, who does not know what of it died with its predecessor, begins anew.
    flows.unqueue(77, usize::MAX);
    flows.unqueue(77, 1);
    assert_eq!(queued(), 0);
    assert!(flows.queue(78, 1_000, 100), "not known here, not counted");
}

fn flows_are_right_again_after_processes_died_in_them() {
    let flows = parts(2, 4096).flows;
    for round in 0..30 {
        let worker = child(|| {
            for n in 0.. {
                let n = n * 31 % 500;
                match flows.claim(Transport::Tcp, peer(n), 0, 1, WIDE, Tick(1)) {
                    Claim::Other(flow) => _ = flows.close(flow.id),
                    Claim::Mine(id) if n % 7 == 0 => _ = flows.close(id),
                    _ => {}
                }
            }
        });
        pause(3 + round % 5);
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        wait(worker);
        let mut all = Vec::new();
        flows.for_each(Transport::Tcp, |flow| all.push(*flow));
        assert_eq!(all.len(), flows.live(Transport::Tcp));
        for flow in &all {
            assert_eq!(flows.find_by_peer(Transport::Tcp, flow.peers[0]).map(|found| found.id), Some(flow.id));
        }
    }
    let owned = flows.owned_by(Transport::Tcp, 1);
    for flow in &owned {
        flows.close(flow.id);
    }
    assert_eq!(flows.live(Transport::Tcp), 0);
}
