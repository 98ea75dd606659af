//! Several branches: which of their responses go upstream, and what becomes of the others (RFC 3261 §16.7).

use super::Out::{Ack, Cancel, Own, Request, Up};
use super::{Call, NOW};
use crate::message::Method;
use crate::transport::Transport;

#[test]
fn an_invite_is_answered_100_at_once_and_goes_to_every_target() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Udp, Transport::Sctp, Transport::Tcp]);
    assert_eq!(call.start(Method::Invite), [Own(100), Request(0), Request(1), Request(2)]); // D14
}

#[test]
fn another_request_goes_to_every_target_without_a_100() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Sctp; 2]);
    assert_eq!(call.start(Method::Bye), [Request(0), Request(1)]); // D25
}

#[test]
fn provisional_responses_go_up_but_for_100() {
    let mut call = Call::invite(2);
    assert_eq!(call.response(0, 100), []); // C05
    assert_eq!(call.response(0, 180), [Up(180)]); // C06
    assert_eq!(call.response(1, 183), [Up(183)]);
}

#[test]
fn a_provisional_response_to_another_request_goes_no_further() {
    let mut call = Call::message(2);
    assert_eq!([call.response(0, 100), call.response(1, 183)], [[], []]); // D24
}

#[test]
fn a_2xx_goes_up_at_once_and_the_other_ringing_branches_are_cancelled() {
    let mut call = Call::invite(3);
    for n in 0..3 {
        call.response(n, 180);
    }
    assert_eq!(call.response(1, 200), [Up(200), Cancel(0), Cancel(2)]); // C06, C15
    assert_eq!(call.response_to_cancel(0, 200), []);
    // Their 487 is acknowledged and ends here.
    assert_eq!(call.response(0, 487), [Ack(0)]);
    assert_eq!(call.response(2, 486), [Ack(2)]);
    assert_eq!(call.server.answered, 200);
}

#[test]
fn after_a_2xx_a_silent_branch_is_cancelled_as_soon_as_it_speaks() {
    let mut call = Call::invite(2);
    call.response(0, 180);
    assert_eq!(call.response(0, 200), [Up(200)]); // C15: nothing provisional from branch 1 yet.
    assert_eq!(call.response(1, 180), [Cancel(1)]); // C21; the 180 itself is too late (C06).
    assert_eq!(call.response(1, 183), []);
}

#[test]
fn after_a_2xx_to_another_request_nothing_is_cancelled() {
    let mut call = Call::message(2);
    call.response(1, 100);
    assert_eq!(call.response(0, 202), [Up(202)]);
    assert_eq!(call.response(1, 200), []); // One final response is enough for a non-INVITE.
}

#[test]
fn every_2xx_to_an_invite_goes_up_also_after_the_first_and_after_a_cancel() {
    let mut call = Call::invite(2);
    call.response(0, 180);
    call.response(1, 180);
    assert_eq!(call.response(0, 200), [Up(200), Cancel(1)]);
    // Branch 1 was answered while the CANCEL was on its way.
    assert_eq!(call.response(1, 200), [Up(200)]); // C06
    // The callee repeats it until the ACK comes; the transaction adds nothing (D07, D16).
    assert_eq!(call.response(1, 200), [Up(200)]);
    assert!(call.ack(), "each ACK goes on by itself"); // B37
}

#[test]
fn a_2xx_after_the_server_transaction_has_ended_is_dropped() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Sctp; 2]).started(Method::Invite);
    call.response(0, 180);
    call.response(1, 180);
    call.response(0, 200);
    call.jump(10_000);
    assert_eq!(call.response(1, 200), [Up(200)]);
    assert_eq!(call.until(32_000), []); // D16: timer L; branch 1 waits until 42 s (D07).
    assert!(!call.is_finished());
    assert_eq!(call.response(1, 200), []); // C17
}

#[test]
fn a_6xx_cancels_the_others_and_goes_up_when_all_have_ended() {
    let mut call = Call::invite(3);
    call.response(1, 180);
    call.response(0, 486);
    assert_eq!(call.response(2, 603), [Ack(2), Cancel(1)]); // C07
    assert!(call.needed().best);
    assert_eq!(call.response(1, 487), [Ack(1), Up(603)]);
}

#[test]
fn a_2xx_that_crosses_a_6xx_still_wins() {
    let mut call = Call::invite(2);
    call.response(0, 180);
    assert_eq!(call.response(1, 600), [Ack(1), Cancel(0)]);
    assert_eq!(call.response(0, 200), [Up(200)]); // C06
}

#[test]
fn after_a_6xx_no_further_address_is_tried() {
    let mut call = Call::new(Transport::Udp, &[Transport::Udp; 3]).further(0, 3).further(2, 3).started(Method::Invite);
    call.response(2, 180);
    call.response(1, 604);
    assert_eq!(call.lost(0), []); // C07: start no new branch.
    assert_eq!(call.response(2, 503), [Ack(2), Up(604)]);
    let mut call = Call::new(Transport::Sctp, &[Transport::Sctp; 2]).further(0, 3).started(Method::Other);
    call.response(1, 604);
    assert_eq!(call.response(0, 503), [Up(604)]);
}

#[test]
fn a_6xx_to_another_request_cancels_nothing() {
    let mut call = Call::message(2);
    call.response(1, 100);
    assert_eq!(call.response(0, 603), []); // Only an INVITE can be cancelled (§9.1).
    assert_eq!(call.response(1, 200), [Up(200)]);
    call.until(200_000);
    assert!(call.is_finished());
}

#[test]
fn the_best_failure_goes_up_when_the_last_branch_has_failed() {
    // C08: any 6xx first, then the lowest class; inside 4xx those that say what to change.
    let cases: [(&[u16], u16); 9] = [
        (&[486, 404], 404),
        (&[404, 486], 404),
        (&[480, 302], 302),
        (&[500, 486], 486),
        (&[404, 407], 407),
        (&[401, 404], 401),
        (&[486, 484, 500], 484),
        (&[603, 301, 420], 603),
        (&[504, 513, 415], 415),
    ];
    for (codes, best) in cases {
        let mut call = Call::invite(codes.len());
        let mut out = Vec::new();
        for (n, code) in codes.iter().enumerate() {
            assert!(!out.contains(&Up(best)), "{codes:?}: too early");
            out = call.response(n, *code);
        }
        assert_eq!(out.last(), Some(&Up(best)), "{codes:?}");
        assert_eq!(call.server.answered, best);
    }
}

#[test]
fn a_failure_of_another_request_waits_for_the_better_ones_too() {
    let mut call = Call::message(2);
    assert_eq!(call.response(0, 404), []);
    assert_eq!(call.response(1, 500), [Up(404)]);
}

#[test]
fn a_lone_503_becomes_500() {
    let mut call = Call::invite(1);
    assert_eq!(call.response(0, 503), [Ack(0), Own(500)]); // C10
    let mut call = Call::invite(2);
    call.response(0, 503);
    assert_eq!(call.response(1, 486), [Ack(1), Up(486)]);
    let mut call = Call::message(2);
    call.response(0, 503);
    assert_eq!(call.response(1, 503), [Own(500)]);
}

#[test]
fn branches_that_never_answer_count_as_408() {
    let mut call = Call::invite(2);
    let last = call.until(32_000);
    assert_eq!(last.last(), Some(&(32_000, Own(408)))); // C09, D03
    // A failure that was there before is better.
    let mut call = Call::invite(2);
    call.response(0, 500);
    call.jump(32_000);
    assert_eq!(call.until(32_000), [(32_000, Own(408))]);
    let mut call = Call::invite(2);
    call.response(0, 404);
    call.jump(32_000);
    assert_eq!(call.until(32_000), [(32_000, Up(404))]);
}

#[test]
fn another_request_that_nobody_answers_just_ends() {
    let mut call = Call::message(2);
    let out = call.until(40_000);
    assert!(!out.iter().any(|(_, out)| matches!(out, Own(200..) | Up(_))), "{out:?}"); // C09, D26
    assert!(call.is_finished());
}

#[test]
fn the_context_lives_until_all_its_transactions_have_ended() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Udp, Transport::Sctp]).started(Method::Invite);
    call.response(0, 486);
    assert_eq!(call.response(1, 486), [Ack(1), Up(486)]);
    assert!(!call.ack()); // Timer I is 0 here: the server transaction has ended.
    assert!(!call.is_finished(), "branch 0 waits for repeats of its 486 (timer D)"); // C16
    assert_eq!(call.response(0, 486), [Ack(0)]); // D06
    call.until(31_999);
    assert!(!call.is_finished());
    call.until(32_000);
    assert!(call.is_finished());
    assert_eq!(call.now, NOW + 32_000);
}
