//! Branches that cannot be reached or never answer: the next address, and what the caller hears (RFC 3261 §16.9, RFC 3263 §4.3).

use super::Call;
use super::Out::{Ack, Own, Request, Up};
use crate::message::Method;
use crate::transport::Transport;

/// One target with so many addresses, over SCTP.
fn addresses(count: usize, method: Method) -> Call {
    Call::new(Transport::Sctp, &[Transport::Sctp]).further(0, count - 1).started(method)
}

#[test]
fn a_transport_error_moves_on_to_the_next_address_in_a_branch_of_its_own() {
    for method in [Method::Invite, Method::Bye] {
        let mut call = addresses(3, method);
        assert_eq!(call.lost(0), [Request(1)]); // A19, A25, B33
        assert_eq!(call.lost(1), [Request(2)]);
        assert_eq!(call.response(2, 200), [Up(200)]);
    }
}

#[test]
fn when_no_address_is_left_a_transport_error_is_a_503_and_that_a_500() {
    for method in [Method::Invite, Method::Bye] {
        let mut call = addresses(2, method);
        call.lost(0);
        assert_eq!(call.lost(1), [Own(500)]); // C19, C10
        assert_eq!(call.lost(0), [], "a branch fails once");
        assert_eq!(call.lost(1), []);
    }
}

#[test]
fn another_branchs_answer_is_better_than_our_own_503() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Sctp; 2]).started(Method::Invite);
    call.lost(0);
    assert_eq!(call.response(1, 486), [Ack(1), Up(486)]);
}

#[test]
fn what_sctp_gave_up_goes_to_the_same_address_as_often_as_configured() {
    for method in [Method::Invite, Method::Bye] {
        let mut call = addresses(2, method);
        assert_eq!([call.undelivered(0, 2), call.undelivered(0, 2)], [[Request(0)], [Request(0)]]);
        assert_eq!(call.undelivered(0, 2), [Request(1)], "then to the next one"); // A19, J09
        assert_eq!(call.undelivered(1, 2), [Request(1)], "which has retries of its own");
        assert_eq!(call.response(1, 200), [Up(200)]);
        assert_eq!(addresses(1, method).undelivered(0, 0), [Own(500)]); // C10
    }
}

#[test]
fn what_was_answered_at_all_or_went_over_tcp_is_not_sent_again() {
    for method in [Method::Invite, Method::Bye] {
        let mut call = addresses(1, method);
        call.response(0, 100);
        assert_eq!(call.undelivered(0, 9), [Own(500)]);
        let mut call = Call::new(Transport::Sctp, &[Transport::Tcp]).started(method);
        assert_eq!(call.undelivered(0, 9), [Own(500)]);
    }
}

#[test]
fn what_nobody_waits_for_any_more_is_not_sent_again() {
    let mut call = addresses(1, Method::Invite);
    call.cancel();
    assert_eq!(call.undelivered(0, 9), [Own(487)]);
    let mut call = Call::new(Transport::Sctp, &[Transport::Sctp; 2]).started(Method::Invite);
    call.response(1, 200);
    assert_eq!(call.undelivered(0, 9), []);
}

#[test]
fn a_retry_does_not_put_timer_b_off() {
    let mut call = addresses(1, Method::Invite);
    call.jump(30_000);
    assert_eq!(call.undelivered(0, 1), [Request(0)]);
    assert_eq!(call.until(40_000).last(), Some(&(32_000, Own(408)))); // D03
}

#[test]
fn a_503_moves_on_to_the_next_address_and_other_failures_do_not() {
    let mut call = addresses(2, Method::Invite);
    assert_eq!(call.response(0, 503), [Ack(0), Request(1)]); // J09
    assert_eq!(call.response(1, 500), [Ack(1), Up(500)]);
    for code in [302, 404, 486, 500, 504] {
        assert_eq!(addresses(2, Method::Invite).response(0, code), [Ack(0), Up(code)]);
        assert_eq!(addresses(2, Method::Bye).response(0, code), [Up(code)]);
    }
}

#[test]
fn silence_moves_on_to_the_next_address() {
    for method in [Method::Invite, Method::Subscribe] {
        let mut call = addresses(2, method);
        assert_eq!(call.until(31_999).into_iter().filter(|(_, out)| *out != Own(100)).collect::<Vec<_>>(), []);
        assert_eq!(call.until(32_000), [(32_000, Request(1))]); // J09, B33
        assert_eq!(call.response(1, 200), [Up(200)]);
    }
}

#[test]
fn a_branch_that_spoke_and_then_fell_silent_moves_nowhere() {
    let mut call = addresses(2, Method::Subscribe);
    call.response(0, 100);
    assert!(!call.until(100_000).iter().any(|(_, out)| *out == Request(1))); // J09: no response at all
    assert!(call.is_finished());
}

#[test]
fn silence_of_all_addresses_is_408() {
    let mut call = addresses(2, Method::Invite);
    assert_eq!(call.until(100_000), [(32_000, Request(1)), (64_000, Own(408))]); // B33
}

#[test]
fn the_other_branches_ring_on_while_one_tries_its_next_address() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Sctp; 2]).further(0, 1).started(Method::Invite);
    call.response(1, 180);
    assert_eq!(call.lost(0), [Request(2)]);
    assert_eq!(call.response(2, 486), [Ack(2)]);
    assert_eq!(call.response(1, 404), [Ack(1), Up(404)]);
}

#[test]
fn after_the_answer_no_address_is_tried() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Sctp; 2]).further(0, 1).started(Method::Invite);
    call.response(1, 200);
    assert_eq!(call.lost(0), []);
    assert_eq!(call.until(100_000), []);
    assert!(call.is_finished());
}

#[test]
fn a_cancelled_branch_whose_peer_is_lost_ends_as_487_and_its_cancel_is_not_repeated() {
    let mut call = Call::new(Transport::Udp, &[Transport::Udp]).further(0, 1).started(Method::Invite);
    call.response(0, 180);
    call.cancel();
    assert_eq!(call.lost(0), [Own(487)]);
    assert!(!call.ack());
    assert_eq!(call.until(100_000), []);
    assert!(call.is_finished());
}

#[test]
fn a_loss_after_the_final_response_changes_nothing() {
    let mut call = addresses(2, Method::Invite);
    call.response(0, 200);
    assert_eq!(call.lost(0), []);
    assert_eq!(call.response(0, 200), [Up(200)], "a 2xx that came again goes on"); // D07
}
