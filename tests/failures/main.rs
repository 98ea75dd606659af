//! Failures of associations reach the transactions (A19, C19, RFC 3261 §16.9): each becomes a response to the caller, or a try of the
//! next target, within half a second of its notification. One test per kind of failure; the callees are bare kernel sockets.

#![allow(clippy::disallowed_methods, reason = "tests may read the clock")]

#[path = "../support/mod.rs"]
mod support;

mod house;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use sys::datagram::To;

use house::{AWAY, Distance, HOME, House, Silence, at_once, counted, when_counted};
use support::callee::Callee;
use support::{free_port, patience, say, wait_for};

/// One target, and the same with another behind it.
const ALONE: &str = "alone.test";
const SPARE: &str = "spare.test";

/// The call that failed over to the spare callee goes on there.
fn spare_takes(house: &House, spare: &mut Callee, id: &str, since: Instant) {
    let invite = spare.hears("INVITE", patience(5));
    at_once(&format!("INVITE {id}: at the next target"), since, Instant::now());
    assert!(invite.text.contains(&format!("Call-ID: {id}@a")));
    assert!(spare.answers(&invite, "200 OK"));
    assert_eq!(house.ends("INVITE", SPARE, id, patience(5)).0, "200", "{id}");
}

#[test]
fn a_refused_association_is_a_failure_at_once() {
    // M01: the kernel takes the request, and says only later that nobody listens (ABORT in answer to INIT).
    let (nobody, at) = (free_port(HOME), free_port(HOME));
    let domains: &[(&str, &[_])] = &[(ALONE, &[nobody]), (SPARE, &[nobody, at])];
    let Some(house) = House::new("refused", domains, "") else { return };
    let mut spare = Callee::at(at);
    for method in ["INVITE", "MESSAGE"] {
        let sent = house.call(method, ALONE, &format!("refused-{method}"));
        house.fails_at_once(method, ALONE, &format!("refused-{method}"), sent);
    }
    assert_eq!(house.count("association_failed"), 2);
    let sent = house.call("INVITE", SPARE, "refused");
    spare_takes(&house, &mut spare, "refused", sent);
    assert_eq!((house.count("association_failed"), house.count("associations_up")), (3, 1));
    house.end();
}

#[test]
fn a_lost_association_fails_what_waits_on_it() {
    lose_associations("");
}

#[test]
fn a_lost_association_of_one_workers_socket_fails_what_waits_on_it() {
    lose_associations("layout = \"per_worker\"");
}

fn lose_associations(sctp: &str) {
    let (one, at) = (free_port(HOME), free_port(HOME));
    let domains: &[(&str, &[_])] = &[(ALONE, &[one]), (SPARE, &[one, at])];
    let Some(house) = House::new("lost", domains, sctp) else { return };
    let (mut one, mut spare) = (Callee::at(one), Callee::at(at));
    // Before any answer, while it rings, and a request that is no INVITE.
    for (method, answer) in [("INVITE", None), ("INVITE", Some("180 Ringing")), ("MESSAGE", None)] {
        let id = format!("lost-{method}-{}", answer.is_some());
        house.call(method, ALONE, &id);
        let heard = one.hears(method, patience(5));
        assert!(answer.is_none_or(|status| one.answers(&heard, status)));
        let aborted = Instant::now();
        one.aborts(heard.association);
        house.fails_at_once(method, ALONE, &id, aborted);
    }
    // Several at once: one notification fails them all.
    let ids: Vec<_> = (0..5).map(|n| format!("lost-{n}")).collect();
    for id in &ids {
        house.call("INVITE", ALONE, id);
    }
    let heard: Vec<_> = ids.iter().map(|_| one.hears("INVITE", patience(5))).collect();
    let aborted = Instant::now();
    one.aborts(heard[0].association);
    ids.iter().for_each(|id| house.fails_at_once("INVITE", ALONE, id, aborted));

    house.call("INVITE", SPARE, "lost");
    let heard = one.hears("INVITE", patience(5));
    let aborted = Instant::now();
    one.aborts(heard.association);
    spare_takes(&house, &mut spare, "lost", aborted);
    assert_eq!(house.count("associations_lost"), 5);
    house.end();
}

/// M38: a peer that died without a word comes back at the same address. To the kernel it is the same association, started again; what
/// the peer had heard before is forgotten.
#[test]
fn a_restarted_peer_has_forgotten_its_requests() {
    if !Silence::is_possible("restarted") {
        return;
    }
    let (port, at) = (free_port(AWAY), free_port(HOME));
    let domains: &[(&str, &[_])] = &[(ALONE, &[port]), (SPARE, &[port, at])];
    let Some(house) = House::new("restarted", domains, "") else { return };
    let (mut peer, mut spare) = (Callee::at(port), Callee::at(at));
    let cases = [
        (ALONE, "INVITE", None),
        (ALONE, "INVITE", Some("180 Ringing")),
        (ALONE, "MESSAGE", None),
        (SPARE, "INVITE", Some("180 Ringing")),
    ];
    for (n, (domain, method, answer)) in cases.into_iter().enumerate() {
        let id = format!("restarted-{n}");
        house.call(method, domain, &id);
        let heard = peer.hears(method, patience(5));
        assert!(answer.is_none_or(|status| peer.answers(&heard, status)));
        // Its kernel has acknowledged the request by now, so no SEND_FAILED_EVENT will tell of it.
        std::thread::sleep(Duration::from_millis(500));
        // It dies, and its last word is lost.
        let silence = Silence::of(AWAY, &["src"]);
        peer.aborts(heard.association);
        drop(peer);
        drop(silence);
        peer = Callee::at(port);
        let back = Instant::now();
        assert!(peer.sends(To::Peer(house.proxy), "\r\n"));
        match domain {
            SPARE => spare_takes(&house, &mut spare, &id, back),
            _ => house.fails_at_once(method, domain, &id, back),
        }
        // And the association serves on.
        house.call("MESSAGE", ALONE, &format!("after-{n}"));
        let heard = peer.hears("MESSAGE", patience(5));
        assert!(peer.answers(&heard, "200 OK"));
        assert_eq!(house.ends("MESSAGE", ALONE, &format!("after-{n}"), patience(5)).0, "200");
    }
    // Not lost and set up again: one with the peer, one with the spare.
    assert_eq!((house.count("associations_lost"), house.count("associations_up")), (0, 2));
    house.end();
}

/// Nothing comes from the peer any more: the kernel gives the association up, with all that it had sent over it (COMM_LOST,
/// SEND_FAILED_EVENT), after the configured number of tries.
#[test]
fn a_request_on_an_association_that_dies_fails_with_it() {
    if !Silence::is_possible("send failed") {
        return;
    }
    let (port, at) = (free_port(AWAY), free_port(HOME));
    let domains: &[(&str, &[_])] = &[(ALONE, &[port]), (SPARE, &[port, at])];
    let sctp = "srto_initial_ms = 200\nsrto_min_ms = 100\nsrto_max_ms = 300\nasocmaxrxt = 4\npathmaxrxt = 4";
    let Some(house) = House::new("send-failed", domains, sctp) else { return };
    let (mut peer, mut spare) = (Callee::at(port), Callee::at(at));
    for domain in [ALONE, SPARE] {
        house.call("MESSAGE", ALONE, &format!("warm-{domain}"));
        let heard = peer.hears("MESSAGE", patience(5));
        assert!(peer.answers(&heard, "200 OK"));
        house.ends("MESSAGE", ALONE, &format!("warm-{domain}"), patience(5));
        let silence = Silence::of(AWAY, &["src", "dst"]);
        let (lost, failed) = (counted("SctpAborteds"), house.count("send_failed"));
        let id = format!("dies-{domain}");
        let sent = house.call("INVITE", domain, &id);
        let given_up = when_counted("SctpAborteds", lost, patience(5));
        say(&format!("the kernel gave up after {} ms", (given_up - sent).as_millis()));
        match domain {
            SPARE => spare_takes(&house, &mut spare, &id, given_up),
            _ => house.fails_at_once("INVITE", domain, &id, given_up),
        }
        house.until("send_failed", failed + 1);
        drop(silence);
    }
    assert_eq!(house.count("associations_lost"), 2);
    house.end();
}

/// M30: a message that finds no room at its peer in time is given up alone; the association lives, so nothing but SEND_FAILED_EVENT
/// tells of it.
#[test]
fn a_request_that_the_kernel_gives_up_fails_alone() {
    const REQUESTS: usize = 40;
    let port = free_port(HOME);
    let Some(house) = House::new("given-up", &[(ALONE, &[port])], "send_ttl_ms = 500") else { return };
    // It reads nothing, and its window is small.
    let mut peer = Callee::with_room(port, 20_000);
    let ids: Vec<_> = (0..REQUESTS).map(|n| format!("given-up-{n}")).collect();
    let body = "x".repeat(1_500);
    let sent = Instant::now();
    for id in &ids {
        house.call_with("MESSAGE", ALONE, id, &body);
    }
    let told = wait_for(patience(2), || (house.count("send_failed") > 0).then(Instant::now));
    let told = told.expect("none is given up");
    let after = told.duration_since(sent);
    say(&format!("the first is given up after {} ms", after.as_millis()));
    std::thread::sleep(Duration::from_secs(1));
    let given_up = house.count("send_failed");
    let ended: Vec<_> = ids.iter().filter(|id| house.has_ended(id)).collect();
    let last = ended.iter().map(|id| house.ends("MESSAGE", ALONE, id, Duration::ZERO)).max_by_key(|end| end.1);
    let (code, last) = last.expect("none failed");
    at_once(&format!("MESSAGE: {} times {code}, the last", ended.len()), told, last);
    assert_eq!((ended.len() as u64, house.count("associations_lost")), (given_up, 0));
    // What it takes in time is not concerned. What was under way to its shut window when its time was over is given up without a word:
    // the kernel does not say so of messages that it had sent once.
    let mut heard = 0;
    while let Some(request) = peer.hears_within("MESSAGE", Duration::from_millis(500)) {
        heard += 1;
        assert!(peer.answers(&request, "200 OK"));
    }
    say(&format!("{heard} are taken"));
    assert!((REQUESTS - 1..=REQUESTS).contains(&(heard + ended.len())));
    wait_for(patience(5), || {
        (ids.iter().filter(|id| house.has_ended(id)).count() == heard + ended.len()).then_some(())
    })
    .expect("all that were taken are answered");
    house.end();
}

/// M19: SHUTDOWN comes while requests are sent. None is lost, and none goes twice: those that the old association does not take any
/// more go over a new one.
#[test]
fn requests_that_meet_a_shutdown_go_over_a_new_association() {
    const REQUESTS: usize = 400;
    if !Silence::is_possible("shutdown") {
        return;
    }
    let port = free_port(HOME);
    // Both sides open the new association, often at once; a set-up packet that is lost in that is sent again after the first RTO.
    let sctp = "srto_initial_ms = 200\nsrto_min_ms = 100\nsrto_max_ms = 1000";
    let Some(house) = House::new("shutdown", &[(ALONE, &[port])], sctp) else { return };
    // Between SHUTDOWN and SHUTDOWN COMPLETE lies a round trip.
    let _distance = Distance::of("10ms");
    let mut peer = Callee::at(port);
    let ids: Vec<_> = (0..REQUESTS).map(|n| format!("race-{n}")).collect();
    let (mut heard, mut shutdowns, mut sent) = (HashMap::new(), 0, Vec::new());
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut sent = Vec::new();
            for burst in ids.chunks(4) {
                sent.extend(burst.iter().map(|id| house.call("MESSAGE", ALONE, id)));
                std::thread::sleep(Duration::from_millis(20));
            }
            sent
        });
        let (mut calm, mut since, mut unanswered) = (Instant::now(), Instant::now(), Vec::new());
        while (heard.len() < REQUESTS || !unanswered.is_empty()) && calm.elapsed() < patience(5) {
            for request in peer.take() {
                calm = Instant::now();
                let id = request.call_id().trim_end_matches("@a").to_owned();
                assert_eq!(heard.insert(id, (request.association, calm)), None, "it comes twice");
                unanswered.push(request);
            }
            // An association that it has told to end takes no answers any more.
            unanswered.retain(|request| !peer.answers_at(house.proxy, request, "200 OK"));
            if since.elapsed() > Duration::from_millis(50) {
                since = Instant::now();
                shutdowns += peer.shuts_down();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        sent = caller.join().expect("the caller");
    });
    assert_eq!(heard.len(), REQUESTS, "requests are lost: {}", house.daemon.status()["counters"]);
    for id in &ids {
        assert_eq!(house.ends("MESSAGE", ALONE, id, patience(5)).0, "200", "{id}");
    }
    let used = heard.values().map(|(association, _)| association).collect::<HashSet<_>>().len();
    let waited = house.count("queued");
    say(&format!("{REQUESTS} of {REQUESTS} over {used} associations, {shutdowns} shutdowns"));
    let slowest = ids.iter().zip(sent).map(|(id, sent)| heard[id].1 - sent).max().unwrap_or_default();
    say(&format!(
        "{waited} met an association that was shutting down; the slowest was there after {} ms",
        slowest.as_millis()
    ));
    assert!(waited > 0 && used > 5 && slowest < Duration::from_secs(1));
    assert_eq!(["associations_lost", "send_failed", "queue_full"].map(|name| house.count(name)), [0; 3]);
    house.end();
}

/// M23: with the settings that the daemon comes with, a peer whose packets are dropped without a word is known to be dead well before
/// timer B or F (32 s), be it new or an old one.
#[test]
fn a_silent_peer_is_known_before_timers_b_and_f() {
    if !Silence::is_possible("silent") {
        return;
    }
    const NEW: &str = "new.test";
    const OTHER: &str = "other.test";
    let [old, new, other] = [AWAY; 3].map(free_port);
    let at = free_port(HOME);
    let domains: &[(&str, &[_])] = &[(ALONE, &[old]), (NEW, &[new]), (OTHER, &[other]), (SPARE, &[other, at])];
    let Some(house) = House::new("silent", domains, "") else { return };
    let (mut old, mut spare) = (Callee::at(old), Callee::at(at));
    house.call("MESSAGE", ALONE, "warm");
    let heard = old.hears("MESSAGE", patience(5));
    assert!(old.answers(&heard, "200 OK"));
    house.ends("MESSAGE", ALONE, "warm", patience(5));
    let _silence = Silence::of(AWAY, &["src", "dst"]);
    let calls = [("INVITE", ALONE), ("MESSAGE", ALONE), ("INVITE", NEW), ("MESSAGE", OTHER)];
    let sent = house.call("INVITE", SPARE, "silent-spare");
    for (method, domain) in calls {
        house.call(method, domain, &format!("silent-{method}-{domain}"));
    }
    let invite = spare.hears("INVITE", Duration::from_secs(30));
    say(&format!("at the next target after {:.1} s", sent.elapsed().as_secs_f64()));
    assert!(spare.answers(&invite, "200 OK"));
    for (method, domain) in calls {
        let id = format!("silent-{method}-{domain}");
        let (code, end) = house.ends(method, domain, &id, Duration::from_secs(30));
        let after = (end - sent).as_secs_f64();
        say(&format!("{id}: {code} after {after:.1} s"));
        assert!(code == "500" && after < 20.0, "{id}: {code} after {after} s");
    }
    house.end();
}
