//! Large messages, small buffers, peers that do not read.

use std::io;

use sys::datagram::{SndInfo, To};
use sys::sctp::{self, Notification, Settings};

use super::end::{End, associate, settings};
use crate::rig::{Test, pause};
use crate::tests;

pub const TESTS: &[Test] = tests![
    a_message_of_60_kb_arrives_whole,
    buffers_over_the_systems_maximum_are_granted_to_root,
    a_slot_too_small_gives_pieces_of_which_the_last_has_the_end,
    with_interleave_a_half_delivered_message_does_not_silence_others,
    without_interleave_it_does,
    a_peer_that_does_not_read_blocks_only_itself_under_policy_1,
    a_message_larger_than_the_send_buffer_is_refused,
    a_message_that_outlives_its_time_comes_back,
];

fn a_message_that_outlives_its_time_comes_back() {
    let narrow = Settings { rcvbuf: 20_000, ..settings() };
    let short = Settings { send_ttl_ms: 300, ..settings() };
    let (mut a, mut z) = (End::with(&["127.0.0.1:0"], &short), End::with(&["127.0.0.1:0"], &narrow));
    let (at_a, _) = associate(&mut a, &mut z);
    // More than the window of a peer that reads nothing.
    for context in 1..=100 {
        let info = SndInfo { context, unordered: true, ..SndInfo::default() };
        a.try_send(To::Association(at_a), &[b'x'; 1000], info).unwrap();
    }
    let context = a.notified(|n| match n {
        Notification::SendFailed { context, .. } => Some(context),
        _ => None,
    }); // M30
    println!("the first to come back was number {context}");
    assert!(context > 1, "what was delivered does not come back");
}

fn a_message_of_60_kb_arrives_whole() {
    let (mut a, mut z) = (End::new(), End::new());
    associate(&mut a, &mut z);
    let message: Vec<u8> = (0..60_000u32).map(|i| i as u8).collect();
    for _ in 0..10 {
        a.send(To::Peer(z.address), &message);
    }
    for _ in 0..10 {
        let (received, bytes) = z.message();
        assert!(received.end_of_record && bytes == message);
    }
}

fn buffers_over_the_systems_maximum_are_granted_to_root() {
    if !nix::unistd::getuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let asked = Settings { rcvbuf: 8 << 20, sndbuf: 6 << 20, ..settings() };
    let (_, granted) = sctp::one_to_many(&["127.0.0.1:0".parse().unwrap()], &asked, false).unwrap();
    assert_eq!((granted.receive, granted.send), (16 << 20, 12 << 20));
}

fn a_slot_too_small_gives_pieces_of_which_the_last_has_the_end() {
    let mut a = End::new();
    let (fd, _) = sctp::one_to_many(&["127.0.0.1:0".parse().unwrap()], &settings(), false).unwrap();
    let mut z = End::of(fd, 400);
    associate(&mut a, &mut z);
    a.send(To::Peer(z.address), &[b'x'; 1000]);
    let pieces: Vec<_> = (0..3).map(|_| z.message().0).map(|r| (r.len, r.end_of_record)).collect();
    assert_eq!(pieces, [(400, false), (400, false), (200, true)]); // M11, L06
}

/// `a` sends a message that is larger than the receive window of `z`, then `b` a small one. Does `b`'s arrive before `a`'s end?
fn small_overtakes_large(fragment_interleave: u32) -> bool {
    let narrow = Settings { rcvbuf: 100_000, fragment_interleave, ..settings() };
    let (mut a, mut b, mut z) = (End::new(), End::new(), End::with(&["127.0.0.1:0"], &narrow));
    associate(&mut a, &mut z);
    associate(&mut b, &mut z);
    a.send(To::Peer(z.address), &vec![b'l'; 1_000_000]);
    pause(500); // the window is full, partial delivery has begun
    b.send(To::Peer(z.address), b"small");
    pause(500);
    let mut pieces = 0;
    loop {
        let (received, bytes) = z.message();
        if bytes == b"small" {
            println!("interleave {fragment_interleave}: small after {pieces} pieces of large");
            assert!(pieces > 0, "partial delivery had not begun");
            return true;
        }
        pieces += 1;
        if received.end_of_record {
            return false;
        }
    }
}

fn with_interleave_a_half_delivered_message_does_not_silence_others() {
    assert!(small_overtakes_large(1)); // M12, L08
}

fn without_interleave_it_does() {
    assert!(!small_overtakes_large(0)); // M12
}

fn a_peer_that_does_not_read_blocks_only_itself_under_policy_1() {
    if sctp::set_sysctl("sndbuf_policy", 1).is_err() {
        println!("skipped: may not set net.sctp.sndbuf_policy");
        return;
    }
    assert_eq!(sctp::sysctl("sndbuf_policy").unwrap(), 1); // M06: before the socket is made
    let mut a = End::with(&["127.0.0.1:0"], &Settings { sndbuf: 100_000, ..settings() });
    let mut stalled = End::with(&["127.0.0.1:0"], &Settings { rcvbuf: 20_000, ..settings() });
    let mut z = End::new();
    associate(&mut a, &mut stalled);
    associate(&mut a, &mut z);
    let mut taken = 0;
    let refused = loop {
        match a.try_send(To::Peer(stalled.address), &[b'x'; 600], SndInfo::default()) {
            Ok(()) => taken += 1,
            Err(e) => break e,
        }
        assert!(taken < 100_000);
    };
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock); // M08
    for i in 0..20u8 {
        a.send(To::Peer(z.address), &[i; 600]);
        assert_eq!(z.message().1, [i; 600]);
    }
    println!("{taken} messages of 600 bytes were taken for a peer that reads nothing");
    sctp::set_sysctl("sndbuf_policy", 0).unwrap();
}

fn a_message_larger_than_the_send_buffer_is_refused() {
    let mut a = End::with(&["127.0.0.1:0"], &Settings { sndbuf: 50_000, ..settings() });
    let mut z = End::new();
    associate(&mut a, &mut z);
    let error = a.try_send(To::Peer(z.address), &vec![0; 200_000], SndInfo::default()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE)); // M07
}
