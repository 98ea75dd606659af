//! Associations: up, used, down, and what is said about them.

use std::io;

use sys::datagram::{SndInfo, To};
use sys::sctp::{self, AssociationState, Notification, Pace, PathState, PeerAddressState, Settings, State};

use super::end::{End, associate, pair, settings};
use crate::rig::{Test, child, joined, until};
use crate::tests;

pub const TESTS: &[Test] = tests![
    an_association_comes_up_with_the_first_message_and_goes_down_in_good_order,
    stream_ppid_and_order_arrive_as_they_were_sent,
    a_peer_that_is_not_there_gives_back_payload_and_context,
    both_addresses_of_a_peer_lead_to_one_association,
    ipv4_peers_of_an_ipv6_socket_are_shown_as_ipv4,
    an_aborted_association_is_lost_to_the_peer,
    an_unknown_association_is_a_broken_pipe_and_no_signal,
    sending_while_shutting_down_is_refused_and_a_new_association_opens_after,
    an_idle_association_is_closed_after_autoclose,
    settings_are_those_of_new_associations,
    what_was_not_set_of_the_pace_is_the_kernels_and_the_rest_reads_back,
    a_batch_stops_at_the_message_of_a_dead_association,
    associations_outlive_the_process_that_opened_them,
    two_sockets_share_a_port_when_asked,
    wrong_addresses_are_refused,
];

fn an_association_comes_up_with_the_first_message_and_goes_down_in_good_order() {
    let (mut a, mut z) = (End::new(), End::new());
    a.send(To::Peer(z.address), b"hello"); // L05
    let (at_a, _) = a.changed(AssociationState::Up);
    let (at_z, _) = z.changed(AssociationState::Up); // L04
    let (received, bytes) = z.message();
    assert_eq!((received.peer, &bytes[..]), (Some(a.address), &b"hello"[..]));
    assert!(received.end_of_record && !received.truncated);
    assert_eq!(received.info.unwrap().association, at_z);

    let status = sctp::status(a.fd(), at_a).unwrap();
    assert_eq!((status.state, status.primary), (State::Established, Some(z.address)));
    assert!(status.peer_window > 100_000 && status.outbound_streams > 0, "{status:?}");
    assert_eq!(sctp::associations(a.fd()).unwrap(), [at_a]);
    assert_eq!(sctp::peer_addresses(z.fd(), at_z).unwrap(), [a.address]);

    sctp::shutdown(a.fd(), at_a).unwrap(); // L13
    z.notified(|n| (n == Notification::Shutdown { association: at_z }).then_some(()));
    assert_eq!(a.changed(AssociationState::ShutdownComplete).0, at_a);
    assert_eq!(z.changed(AssociationState::ShutdownComplete).0, at_z);
    assert!(sctp::associations(a.fd()).unwrap().is_empty());
    assert!(sctp::status(a.fd(), at_a).is_err());
    assert!(sctp::peer_addresses(a.fd(), at_a).is_err());
}

fn stream_ppid_and_order_arrive_as_they_were_sent() {
    let (mut a, mut z, at_a, at_z) = pair();
    for (stream, unordered, ppid) in [(0, true, 0), (3, false, 46), (1, true, 0x0102_0304)] {
        a.try_send(To::Association(at_a), b"x", SndInfo { stream, unordered, ppid, ..SndInfo::default() }).unwrap();
        let info = z.message().0.info.unwrap(); // L15
        assert_eq!((info.stream, info.unordered, info.ppid, info.association), (stream, unordered, ppid, at_z));
    }
    // And back, by association id alone.
    z.send(To::Association(at_z), b"back");
    assert_eq!(a.message().1, b"back");
}

fn a_peer_that_is_not_there_gives_back_payload_and_context() {
    let mut a = End::new();
    let nobody = "127.0.0.1:9".parse().unwrap();
    let info = SndInfo { context: 0xdead_beef, unordered: true, ..SndInfo::default() };
    a.try_send(To::Peer(nobody), b"INVITE for nobody", info).unwrap(); // M01
    let mut failed = None;
    let mut lost = None;
    while failed.is_none() || lost.is_none() {
        a.notified(|n| {
            match n {
                Notification::SendFailed { unsent, context, payload, association, .. } => {
                    assert!(unsent);
                    failed = Some((context, payload.to_vec(), association));
                }
                Notification::AssociationChange { state, association, .. } => lost = Some((state, association)),
                other => panic!("{other:?}"),
            }
            Some(())
        });
    }
    let (context, payload, association) = failed.unwrap();
    assert_eq!((context, &payload[..]), (0xdead_beef, &b"INVITE for nobody"[..])); // L12
    assert_eq!(lost.unwrap(), (AssociationState::CannotStart, association)); // L11
}

fn both_addresses_of_a_peer_lead_to_one_association() {
    let mut a = End::with(&["127.0.0.1:0", "127.0.0.2:0"], &settings());
    let mut z = End::with(&["127.0.0.3:0", "127.0.0.4:0"], &settings());
    let (mut first, mut second) = (z.address, z.address);
    first.set_ip("127.0.0.3".parse().unwrap());
    second.set_ip("127.0.0.4".parse().unwrap());
    let (at_a, at_z) = associate(&mut a, &mut z);
    let mut addresses = sctp::peer_addresses(a.fd(), at_a).unwrap();
    addresses.sort();
    assert_eq!(addresses, [first, second]);
    assert_eq!(sctp::peer_addresses(z.fd(), at_z).unwrap().len(), 2);

    a.send(To::Peer(second), b"over the other address"); // M02
    let (received, _) = z.message();
    assert_eq!(received.info.unwrap().association, at_z);

    // L20: the second path is verified by a heartbeat.
    until("the second address is confirmed", || sctp::path(a.fd(), at_a, second).unwrap().state == PathState::Active);
    let nobody = "127.0.0.9:9".parse().unwrap();
    assert!(sctp::path(a.fd(), at_a, nobody).is_err());
    let mut third = End::with(&["127.0.0.5:0"], &settings());
    let (_, at_a) = associate(&mut third, &mut a);
    let change = a.notified(|n| match n {
        Notification::PeerAddressChange { association, address, state, .. } => Some((association, address, state)),
        _ => None,
    });
    // Whatever comes first: an address of one of our peers was confirmed.
    assert!(change.2 == PeerAddressState::Confirmed, "{change:?} {at_a}");
}

fn ipv4_peers_of_an_ipv6_socket_are_shown_as_ipv4() {
    let mut a = End::new();
    let mut b = End::with(&["[::1]:0"], &settings());
    let mut z = End::with(&["[::1]:0", "127.0.0.1:0"], &settings());
    let (mut v4, mut v6) = (z.address, z.address);
    v4.set_ip("127.0.0.1".parse().unwrap());
    v6.set_ip("::1".parse().unwrap());
    a.send(To::Peer(v4), b"four");
    let (received, _) = z.message();
    assert_eq!(received.peer, Some(a.address));
    let at_z = received.info.unwrap().association;
    assert_eq!(sctp::peer_addresses(z.fd(), at_z).unwrap(), [a.address]);
    z.send(To::Peer(a.address), b"and back");
    assert_eq!(a.message().1, b"and back");
    b.send(To::Peer(v6), b"six");
    assert_eq!(z.message().0.peer, Some(b.address));
}

fn an_aborted_association_is_lost_to_the_peer() {
    let (mut a, mut z, at_a, at_z) = pair();
    sctp::abort(a.fd(), at_a).unwrap();
    assert_eq!(z.changed(AssociationState::Lost).0, at_z);
    assert_eq!(a.changed(AssociationState::Lost).0, at_a);
    assert_eq!(
        z.try_send(To::Association(at_z), b"x", SndInfo::default()).unwrap_err().raw_os_error(),
        Some(libc::EPIPE)
    );
}

fn an_unknown_association_is_a_broken_pipe_and_no_signal() {
    let mut a = End::new();
    let error = a.try_send(To::Association(4_000_000), b"x", SndInfo::default()).unwrap_err(); // M03
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(sctp::abort(a.fd(), 4_000_000).is_err());
    assert!(sctp::shutdown(a.fd(), 4_000_000).is_err());
    assert!(sctp::heartbeat_now(a.fd(), 4_000_000).is_err());
}

fn sending_while_shutting_down_is_refused_and_a_new_association_opens_after() {
    let (mut a, mut z, at_a, _) = pair();
    sctp::shutdown(a.fd(), at_a).unwrap();
    // Loopback may be done already: then the id is gone.
    let error = a.try_send(To::Association(at_a), b"x", SndInfo::default()).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::ESHUTDOWN | libc::EPIPE)), "{error}"); // M19, L14
    a.changed(AssociationState::ShutdownComplete);
    a.send(To::Peer(z.address), b"again");
    assert_eq!(z.message().1, b"again");
    assert_ne!(a.changed(AssociationState::Up).0, at_a);
}

fn an_idle_association_is_closed_after_autoclose() {
    let mut a = End::with(&["127.0.0.1:0"], &Settings { autoclose_s: 1, ..settings() });
    let mut z = End::new();
    let (at_a, _) = associate(&mut a, &mut z);
    assert_eq!(a.changed(AssociationState::ShutdownComplete).0, at_a); // M18
}

fn settings_are_those_of_new_associations() {
    let asked = Settings { outbound_streams: 5, inbound_streams: 7, ..settings() };
    let (mut a, mut z) = (End::with(&["127.0.0.1:0"], &asked), End::new());
    let (at_a, at_z) = associate(&mut a, &mut z);
    assert_eq!(sctp::status(a.fd(), at_a).unwrap().outbound_streams, 5);
    assert_eq!(sctp::status(z.fd(), at_z).unwrap().inbound_streams, 5);
    assert_eq!(sctp::status(z.fd(), at_z).unwrap().outbound_streams, 7);
}

fn what_was_not_set_of_the_pace_is_the_kernels_and_the_rest_reads_back() {
    let of = |settings: &Settings| sctp::pace(End::with(&["127.0.0.1:0"], settings).fd()).unwrap();
    let kernels = Pace { sack_delay_ms: 200, sack_freq: 2, max_burst: 4, send_ttl_ms: 0 };
    assert_eq!(of(&settings()), kernels); // M21
    let asked = Settings { sack_delay_ms: 70, sack_freq: 3, max_burst: 9, send_ttl_ms: 1500, ..settings() };
    assert_eq!(of(&asked), Pace { sack_delay_ms: 70, sack_freq: 3, max_burst: 9, send_ttl_ms: 1500 });
    // One of the two of SACK leaves the other alone.
    assert_eq!(of(&Settings { sack_freq: 4, ..settings() }), Pace { sack_freq: 4, ..kernels });
    assert_eq!(of(&Settings { sack_delay_ms: 90, ..settings() }), Pace { sack_delay_ms: 90, ..kernels });
}

fn a_batch_stops_at_the_message_of_a_dead_association() {
    use std::os::fd::AsFd;
    use sys::datagram::{Item, Sender};
    let (a, mut z, at_a, _) = pair();
    let item = |i: usize| Item {
        to: To::Association(if i == 3 { 4_000_000 } else { at_a }),
        pieces: [b"half ", b"and half"],
        sctp: None,
    };
    let (sent, error) = Sender::new(16).send(a.fd.as_fd(), 6, false, item);
    assert_eq!((sent, error.unwrap().kind()), (3, io::ErrorKind::BrokenPipe)); // M25
    for _ in 0..3 {
        assert_eq!(z.message().1, b"half and half");
    }
    z.send(To::Peer(a.address), b"the error does not hit the next who sends or receives");
}

fn associations_outlive_the_process_that_opened_them() {
    let (mut a, mut z) = (End::new(), End::new());
    let peer = z.address;
    joined(child(|| a.send(To::Peer(peer), b"from a process that ends"))); // M31
    let (received, bytes) = z.message();
    assert_eq!(bytes, b"from a process that ends");
    z.send(To::Association(received.info.unwrap().association), b"answer");
    assert_eq!(a.message().1, b"answer");
}

fn two_sockets_share_a_port_when_asked() {
    let port: Vec<_> = vec!["127.0.0.1:15060".parse().unwrap(), "127.0.0.2:15060".parse().unwrap()];
    let _first = sctp::one_to_many(&port, &settings(), true).unwrap(); // M15
    let _second = sctp::one_to_many(&port, &settings(), true).unwrap();
    assert_eq!(sctp::one_to_many(&port, &settings(), false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

fn wrong_addresses_are_refused() {
    let open = |addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        sctp::one_to_many(&addresses, &settings(), false).unwrap_err().kind()
    };
    assert_eq!(open(&[]), io::ErrorKind::InvalidInput);
    assert_eq!(open(&["127.0.0.1:5060", "127.0.0.2:5061"]), io::ErrorKind::InvalidInput);
    assert_eq!(open(&["192.0.2.1:5060"]), io::ErrorKind::AddrNotAvailable);
    assert_eq!(open(&["127.0.0.1:5060", "192.0.2.1:5060"]), io::ErrorKind::AddrNotAvailable);
}
