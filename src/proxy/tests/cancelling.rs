//! CANCEL from the caller, and timer C (RFC 3261 §16.10, §16.8, §9.1).

use super::Call;
use super::Out::{Ack, Cancel, Own, Request, Up};
use crate::message::Method;
use crate::transport::Transport;

/// Over SCTP nothing is repeated, so only what is decided is seen.
fn reliable(targets: usize) -> Call {
    Call::new(Transport::Sctp, &vec![Transport::Sctp; targets]).started(Method::Invite)
}

#[test]
fn a_cancel_goes_to_every_ringing_branch_and_their_487_ends_the_call() {
    let mut call = reliable(2);
    call.response(0, 180);
    call.response(1, 100);
    assert_eq!(call.cancel(), [Cancel(0), Cancel(1)]); // C20
    assert_eq!(call.cancel(), [], "a repeated CANCEL cancels nothing anew");
    assert_eq!(call.response(0, 487), [Ack(0)]);
    assert_eq!(call.response(1, 487), [Ack(1), Up(487)]);
    assert_eq!(call.cancel(), [], "too late");
}

#[test]
fn a_cancel_waits_for_the_first_provisional_of_each_branch() {
    let mut call = reliable(2);
    assert_eq!(call.cancel(), []); // C21
    assert_eq!(call.response(0, 100), [Cancel(0)]);
    assert_eq!(call.response(1, 180), [Cancel(1), Up(180)]);
}

#[test]
fn a_branch_that_answers_before_its_cancel_went_is_not_cancelled() {
    let mut call = reliable(2);
    call.cancel();
    assert_eq!(call.response(0, 404), [Ack(0)]);
    assert_eq!(call.response(1, 200), [Up(200)]);
    assert_eq!(call.until(200_000), []);
}

#[test]
fn after_the_answer_a_cancel_does_nothing() {
    let mut call = reliable(2);
    call.response(0, 180);
    call.response(1, 180);
    call.response(0, 200);
    assert_eq!(call.cancel(), []);
    assert_eq!(call.server.cancelled, 0);
}

#[test]
fn only_an_invite_can_be_cancelled() {
    let mut call = Call::message(1);
    call.response(0, 100);
    assert_eq!(call.cancel(), []);
    assert_eq!(call.server.cancelled, 0);
}

#[test]
fn a_cancelled_branch_that_says_nothing_more_is_given_up_after_64_t1() {
    let mut call = reliable(1);
    call.response(0, 180);
    call.jump(10_000);
    call.cancel();
    assert_eq!(call.response_to_cancel(0, 200), []);
    assert_eq!(call.until(41_999), []);
    assert_eq!(call.until(42_000), [(42_000, Own(487))]); // C23
    assert!(!call.ack());
    assert!(call.is_finished());
}

#[test]
fn a_provisional_after_the_cancel_gives_the_branch_no_more_time() {
    let mut call = reliable(1);
    call.response(0, 180);
    call.cancel();
    call.jump(20_000);
    assert_eq!(call.response(0, 183), [Up(183)]);
    assert_eq!(call.until(32_000), [(32_000, Own(487))]); // C23
}

#[test]
fn a_silent_branch_of_a_cancelled_call_ends_as_487() {
    let mut call = reliable(1);
    call.cancel();
    assert_eq!(call.until(32_000), [(32_000, Own(487))]);
}

#[test]
fn a_cancelled_call_tries_no_further_address() {
    let mut call =
        Call::new(Transport::Sctp, &[Transport::Sctp; 2]).further(0, 2).further(1, 2).started(Method::Invite);
    call.response(0, 180);
    assert_eq!(call.cancel(), [Cancel(0)]);
    assert_eq!(call.response(0, 503), [Ack(0)]);
    assert_eq!(call.until(32_000), [(32_000, Own(487))]);
}

#[test]
fn the_cancel_is_repeated_over_udp_until_it_is_answered() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Udp]).started(Method::Invite);
    call.response(0, 180);
    call.cancel();
    assert_eq!(call.until(2_000), [(500, Cancel(0)), (1_500, Cancel(0))]); // D10
    call.response_to_cancel(0, 200);
    assert_eq!(call.until(31_000), []);
}

#[test]
fn a_call_that_rings_too_long_is_cancelled_by_timer_c() {
    let mut call = reliable(2);
    call.response(0, 180);
    call.response(1, 486);
    assert_eq!(call.until(184_999), []); // B36: more than 3 minutes
    assert_eq!(call.until(185_000), [(185_000, Cancel(0))]); // C18
    assert_eq!(call.response(0, 487), [Ack(0), Up(486)]);
}

#[test]
fn timer_c_and_then_silence_is_408() {
    let mut call = reliable(1);
    call.response(0, 180);
    assert_eq!(call.until(300_000), [(185_000, Cancel(0)), (217_000, Own(408))]); // C18, C23
}

#[test]
fn timer_c_begins_anew_with_each_provisional_but_not_with_100() {
    let mut call = reliable(1);
    call.response(0, 180);
    call.jump(100_000);
    call.response(0, 183);
    assert_eq!(call.until(284_999), []); // C03
    call.jump(284_999);
    call.response(0, 100);
    assert_eq!(call.until(285_000), [(285_000, Cancel(0))]);
}

#[test]
fn a_100_stops_the_retransmissions_but_not_timer_c() {
    let mut call = Call::new(Transport::Sctp, &[Transport::Udp]).started(Method::Invite);
    assert_eq!(call.until(500), [(500, Request(0))]); // D02
    call.response(0, 100); // D04
    assert_eq!(call.until(185_000), [(185_000, Cancel(0))]);
}
