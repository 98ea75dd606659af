//! What repeats and what time alone does: retransmissions both ways, the late 100, the end of each transaction.

use super::Call;
use super::Out::{Ack, Own, Request, Up};
use crate::message::Method;
use crate::transport::Transport::{Sctp, Tcp, Udp};

#[test]
fn a_repeated_invite_gets_the_last_provisional_again() {
    let mut call = Call::invite(1);
    assert_eq!(call.repeated(), [Own(100)]); // D15
    call.response(0, 180);
    assert_eq!(call.repeated(), [Up(180)]);
    call.response(0, 183);
    assert_eq!(call.repeated(), [Up(183)]);
}

#[test]
fn a_repeated_invite_gets_no_2xx_from_us() {
    let mut call = Call::invite(1);
    call.response(0, 200);
    assert_eq!(call.repeated(), []); // D16: the callee repeats it.
    assert_eq!(call.until(31_999), []);
}

#[test]
fn a_failure_is_repeated_by_timer_g_until_the_ack() {
    let mut call = Call::invite(1);
    call.response(0, 486);
    assert_eq!(call.repeated(), [Up(486)]);
    assert_eq!(call.until(6_000), [(500, Up(486)), (1_500, Up(486)), (3_500, Up(486))]); // D17
    assert!(!call.ack());
    assert_eq!(call.repeated(), []);
    assert_eq!(call.until(11_000), []); // D18: timer I
    assert!(!call.is_finished(), "the branch's timer D runs");
}

#[test]
fn a_failure_kept_from_another_branch_is_repeated_too() {
    let mut call = Call::invite(2);
    call.response(0, 404);
    assert_eq!(call.response(1, 486), [Ack(1), Up(404)]);
    assert_eq!(call.until(500), [(500, Up(404))]);
}

#[test]
fn a_failure_of_our_own_is_repeated_too() {
    let mut call = Call::invite(1);
    call.lost(0);
    assert_eq!(call.until(1_500), [(500, Own(500)), (1_500, Own(500))]);
}

#[test]
fn a_failure_nobody_acknowledges_ends_with_timer_h() {
    let mut call = Call::new(Sctp, &[Sctp]).started(Method::Invite);
    call.response(0, 486);
    assert_eq!(call.until(31_999), []); // A20
    assert!(!call.is_finished());
    call.until(32_000);
    assert!(call.is_finished()); // D19
}

#[test]
fn an_ack_to_a_failure_ends_here_and_one_to_a_2xx_goes_on() {
    let mut call = Call::invite(1);
    assert!(!call.ack(), "nothing is answered yet");
    call.response(0, 200);
    assert!(call.ack()); // D16
    assert!(call.ack());
    let mut call = Call::invite(1);
    call.response(0, 404);
    assert!(!call.ack());
    assert!(!call.ack()); // D18
}

#[test]
fn an_invite_is_repeated_over_udp_until_something_comes() {
    let mut call = Call::new(Sctp, &[Udp, Tcp]).started(Method::Invite);
    assert_eq!(call.until(2_000), [(500, Request(0)), (1_500, Request(0))]); // D02, A20
    call.response(0, 100);
    assert_eq!(call.until(31_999), []); // D04
}

#[test]
fn another_request_is_repeated_at_most_every_t2() {
    let mut call = Call::new(Sctp, &[Udp]).started(Method::Subscribe);
    let at: Vec<_> = call.until(15_000).into_iter().filter(|(_, out)| *out == Request(0)).map(|(at, _)| at).collect();
    assert_eq!(at, [500, 1_500, 3_500, 7_500, 11_500]); // D10
}

#[test]
fn a_repeated_request_is_ignored_until_there_is_something_to_say() {
    let mut call = Call::message(1);
    assert_eq!(call.repeated(), []); // D21
    call.response(0, 200);
    assert_eq!(call.repeated(), [Up(200)]);
    assert_eq!(call.until(31_999), []);
    assert_eq!(call.repeated(), [Up(200)]);
    call.until(32_000);
    assert!(call.is_finished()); // D21: timer J
}

#[test]
fn over_a_reliable_transport_the_answer_ends_the_server_transaction() {
    let mut call = Call::new(Tcp, &[Sctp]).started(Method::Other);
    call.response(0, 200);
    assert!(call.is_finished()); // D28
}

#[test]
fn a_slow_request_gets_one_late_100_from_us() {
    for from in [Udp, Tcp, Sctp] {
        let mut call = Call::new(from, &[Sctp]).started(Method::Other);
        assert_eq!(call.until(3_499), []);
        assert_eq!(call.until(20_000), [(3_500, Own(100))]); // D25
        assert_eq!(call.repeated(), [Own(100)]);
        assert_eq!(call.response(0, 200), [Up(200)]);
    }
}

#[test]
fn a_request_that_was_answered_in_time_gets_no_100() {
    let mut call = Call::new(Udp, &[Sctp]).started(Method::Other);
    call.response(0, 200);
    assert_eq!(call.until(31_999), []);
}

#[test]
fn a_late_answer_to_a_request_that_has_ended_is_dropped() {
    let mut call = Call::new(Sctp, &[Sctp, Udp]).started(Method::Other);
    call.response(0, 200);
    assert_eq!(call.response(1, 404), []); // D27
    assert_eq!(call.response(0, 200), []); // D11
}
