//! What one peer or one packet can ask for.

use super::*;

// 9. Limits.

#[test]
fn a_message_of_sixty_kilobytes_comes_whole() {
    let (mut wire, _) = Wire::pair();
    let messages = vec![vec![b'x'; 60_000], vec![b'y'; 20_000]];
    assert!(wire.send(0, 1, messages.clone()).is_empty());
    wire.pass(2_000);
    assert_eq!(sorted(wire.hosts[1].messages()), messages);
}

#[test]
fn what_has_no_room_is_named() {
    let (mut wire, tag) = Wire::pair();
    wire.hosts.truncate(1);
    let endpoint = &mut wire.hosts[0].endpoint;
    let failed = endpoint.send(tag, numbered(1000, 1000), wire.now).expect("it lives");
    // 256 kB wait, the window and the congestion window took some more.
    assert!((600..=750).contains(&failed.len()), "{}", failed.len());
    assert_eq!(failed.last(), Some(&999));
    assert_eq!(endpoint.send(tag, vec![vec![], vec![0; 70_000]], wire.now), Ok(vec![0, 1]), "empty, and too large");
}

#[test]
fn what_outlived_its_time_is_given_up_and_the_next_one_comes() {
    for (lifetime, comes) in [(None, 2), (Some(Duration::from_millis(300)), 1)] {
        let (mut wire, tag) = Wire::pair();
        wire.hosts[0].endpoint.how = How { lifetime, ..How::default() };
        wire.loss = 100;
        wire.send(0, 1, vec![b"late".to_vec()]);
        wire.pass(1_500);
        wire.loss = 0;
        wire.send(0, 1, vec![b"new".to_vec()]);
        wire.pass(5_000);
        let got = wire.hosts[1].messages();
        assert!(got.contains(&b"new".to_vec()) && got.len() == comes, "lifetime {lifetime:?}: {got:?}");
        // Nobody is told, and the association goes on.
        assert!(!wire.hosts[0].seen.iter().any(|event| matches!(event, Event::Lost { .. })));
        assert_eq!(wire.hosts[0].endpoint.queued(tag), 0);
    }
}

#[test]
fn messages_of_one_turn_share_packets() {
    let (mut wire, _) = Wire::pair();
    let before = wire.crossed.len();
    wire.send(0, 1, numbered(20, 100));
    let sent = wire.hosts[0].endpoint.packets.len();
    assert!(sent <= 2, "{sent} packets for 20 messages of 100 bytes");
    wire.settle();
    assert_eq!(wire.hosts[1].messages().len(), 20);
    assert!(wire.crossed.len() > before);
}

#[test]
fn one_packet_brings_sixteen_answers_at_most() {
    let (mut wire, _) = Wire::pair();
    let heartbeat = chunk(4, 0, &[0, 1, 0, 4]);
    let unknown = chunk(0xff, 0, &[]);
    let without_data = chunk(0, 7, &[0; 12]);
    for chunk in [heartbeat, unknown, without_data] {
        assert_eq!(
            ask(&mut wire, &vec![chunk.clone(); bounds::MOST_CONTROLS]),
            (bounds::MOST_CONTROLS, 0),
            "{chunk:?}"
        );
        assert_eq!(ask(&mut wire, &vec![chunk; bounds::MOST_CONTROLS + 1]), (0, 1));
    }
}

#[test]
fn a_packet_of_very_many_messages_is_heard() {
    let (mut wire, _) = Wire::pair();
    let chunks: Vec<_> = (0..1_000).map(|n| data(&wire, n, 0)).collect();
    assert_eq!(ask(&mut wire, &chunks).1, 0);
    assert_eq!(wire.hosts[1].messages().len(), 1_000);
}

/// The protocol would keep something for each.
#[test]
fn streams_that_were_not_announced_are_not_heard_of() {
    let (mut wire, _) = Wire::pair();
    let announced = options(SIP).announced_maximum_incoming_streams;
    let chunks = [data(&wire, 0, announced - 1)];
    assert_eq!(ask(&mut wire, &chunks).1, 0);
    let chunks = [data(&wire, 1, 0), data(&wire, 2, announced)];
    assert_eq!(ask(&mut wire, &chunks).1, 1);
    let skipped = |kind, entry: usize, streams: &[u16]| {
        let mut value = vec![0; 4];
        for stream in streams {
            value.extend_from_slice(&stream.to_be_bytes());
            value.resize(value.len() + entry - 2, 0);
        }
        [chunk(kind, 0, &value)]
    };
    assert_eq!(ask(&mut wire, &skipped(192, 4, &[0, announced - 1])).1, 0);
    for (kind, entry) in [(192, 4), (194, 8)] {
        assert_eq!(ask(&mut wire, &skipped(kind, entry, &[0, announced])).1, 1);
    }
    assert_eq!(wire.hosts[1].messages().len(), 1);
}

#[test]
fn a_re_config_has_two_parameters_at_most() {
    let (mut wire, _) = Wire::pair();
    // Requests to reset all of our streams; each is answered in the same packet.
    let request = [0, 14, 0, 8, 0, 0, 0, 1];
    assert_eq!(ask(&mut wire, &[chunk(130, 0, &request.repeat(2))]), (1, 0));
    assert_eq!(ask(&mut wire, &[chunk(130, 0, &request.repeat(3))]), (0, 1));
    // One whose length is a lie has no end.
    assert_eq!(ask(&mut wire, &[chunk(130, 0, &[0; 64])]), (0, 1));
}
