//! Which texts a context still needs: what it gives back is never asked for again (`Call` sees to that in every test), and nothing
//! is kept for longer than it can be asked for.

use super::Out::{Cancel, Up};
use super::{Call, Needed};
use crate::message::Method;
use crate::transport::Transport::{Sctp, Udp};

const NOTHING: Needed = Needed { request: false, best: false, last: false };

#[test]
fn a_pending_request_is_kept_and_given_back_with_the_2xx() {
    let mut call = Call::new(Sctp, &[Sctp]).started(Method::Invite);
    assert_eq!(call.needed(), Needed { request: true, ..NOTHING });
    call.response(0, 180);
    assert_eq!(call.needed(), Needed { request: true, ..NOTHING }, "its CANCEL is made from it");
    call.response(0, 200);
    assert_eq!(call.needed(), NOTHING);
}

#[test]
fn a_ringing_call_over_udp_keeps_its_last_provisional() {
    let mut call = Call::invite(1);
    assert_eq!(call.needed(), Needed { request: true, ..NOTHING }, "the 100 is made anew");
    call.response(0, 180);
    assert_eq!(call.needed(), Needed { request: true, best: false, last: true });
    call.response(0, 200);
    assert_eq!(call.needed(), NOTHING);
}

#[test]
fn the_best_failure_is_kept_until_it_goes_up() {
    let mut call = Call::new(Sctp, &[Sctp; 2]).started(Method::Invite);
    call.response(0, 486);
    assert_eq!(call.needed(), Needed { request: true, best: true, last: false });
    call.response(1, 487);
    assert_eq!(call.needed(), NOTHING);
}

#[test]
fn a_failure_that_we_made_ourselves_is_no_text() {
    let mut call = Call::new(Sctp, &[Sctp; 2]).started(Method::Invite);
    call.lost(0);
    assert_eq!(call.needed(), Needed { request: true, ..NOTHING });
}

#[test]
fn a_better_failure_of_our_own_gives_the_kept_one_back() {
    let mut call = Call::new(Sctp, &[Sctp; 3]).started(Method::Invite);
    call.response(0, 504);
    assert!(call.needed().best);
    call.lost(1);
    assert!(!call.needed().best, "our 503 is better than the 504");
}

#[test]
fn over_udp_a_failure_is_kept_until_the_ack_and_the_request_for_the_branchs_own() {
    let mut call = Call::new(Udp, &[Sctp]).started(Method::Invite);
    call.response(0, 486);
    assert_eq!(call.needed(), Needed { last: true, ..NOTHING });
    call.ack();
    assert_eq!(call.needed(), NOTHING);
    let mut call = Call::new(Sctp, &[Udp]).started(Method::Invite);
    call.response(0, 486);
    assert_eq!(call.needed(), Needed { request: true, ..NOTHING }, "a repeated 486 is acknowledged from it"); // D06
    call.until(32_000);
    assert!(call.is_finished());
}

#[test]
fn our_own_failure_over_udp_is_made_anew_from_the_request() {
    let mut call = Call::new(Udp, &[Sctp]).started(Method::Invite);
    call.lost(0);
    assert_eq!(call.needed(), Needed { request: true, ..NOTHING });
    call.ack();
    assert_eq!(call.needed(), NOTHING);
}

#[test]
fn a_cancel_that_is_not_answered_keeps_the_request() {
    let mut call = Call::new(Sctp, &[Udp]).started(Method::Invite);
    call.response(0, 180);
    call.cancel();
    assert_eq!(call.response(0, 200), [Up(200)]);
    assert_eq!(call.needed(), Needed { request: true, ..NOTHING });
    assert_eq!(call.until(500), [(500, Cancel(0))]);
    call.response_to_cancel(0, 481);
    assert_eq!(call.until(5_500), []);
    assert_eq!(call.needed(), NOTHING, "its timer K is over");
}

#[test]
fn the_answer_to_another_request_is_kept_for_as_long_as_it_may_be_repeated() {
    let mut call = Call::new(Udp, &[Sctp]).started(Method::Other);
    call.response(0, 200);
    assert_eq!(call.needed(), Needed { last: true, ..NOTHING });
    let mut call = Call::new(Sctp, &[Sctp, Sctp]).started(Method::Other);
    call.response(0, 200);
    assert_eq!(call.needed(), Needed { request: true, ..NOTHING }, "branch 1 is still waiting");
}
