//! The daemon as it is shipped, with its real workers: the same promises, and what only they can show.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use strowger::shared::Phase;

use crate::cases::{
    a_hanging_process_is_replaced, an_unread_stderr_stops_nothing, every_process_runs_as_nobody,
    killed_processes_are_replaced, sigterm_ends_everything, the_masters_death_ends_all,
};
use crate::daemon::{Daemon, STROWGER, Start};

tests! {
    strowgers_own_processes_are_replaced_within_100_ms,
    strowger_leaves_nothing_when_its_master_is_killed,
    strowger_ends_at_sigterm_with_status_0,
    no_process_of_strowger_misses_that_the_drain_is_over,
    a_worker_of_strowger_that_hangs_is_killed_and_replaced,
    strowgers_processes_all_run_as_the_configured_user,
    a_stderr_that_nobody_reads_does_not_stop_strowger,
    while_strowger_drains_a_new_invite_gets_503_and_the_old_one_its_answer,
    a_drain_ends_after_drain_s_and_a_second_sigterm_ends_it_before,
    strowger_status_shows_the_daemon_to_people_and_programs,
    strowger_status_without_a_daemon_says_what_to_do_with_status_69,
}

fn strowgers_own_processes_are_replaced_within_100_ms() {
    killed_processes_are_replaced(Start::strowger());
}

fn strowger_leaves_nothing_when_its_master_is_killed() {
    the_masters_death_ends_all(Start::strowger());
}

fn strowger_ends_at_sigterm_with_status_0() {
    sigterm_ends_everything(Start::strowger());
}

/// With nothing to wait for, the word that the drain is over comes microseconds after the word that it began. One who missed it would
/// hear it from the master's next turn, a second later; forty times, as it was missed once in ten.
fn no_process_of_strowger_misses_that_the_drain_is_over() {
    for _ in 0..40 {
        let mut daemon = Start::strowger().serving();
        daemon.signal(Signal::SIGTERM);
        let (status, took) = daemon.ends_within(Duration::from_secs(5));
        assert_eq!(status, Some(0));
        assert!(took < Duration::from_millis(500), "nothing was left, yet it took {took:?}");
    }
}

fn a_worker_of_strowger_that_hangs_is_killed_and_replaced() {
    a_hanging_process_is_replaced(Start::strowger());
}

fn strowgers_processes_all_run_as_the_configured_user() {
    every_process_runs_as_nobody(Start::strowger());
}

fn a_stderr_that_nobody_reads_does_not_stop_strowger() {
    an_unread_stderr_stops_nothing(Start::strowger());
}

/// A socket that speaks a little SIP.
struct Phone(UdpSocket);

impl Phone {
    fn new() -> Phone {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        Phone(socket)
    }

    fn invite(&self, daemon: &Daemon, z: &Phone, call: &str) {
        let (us, them) = (self.0.local_addr().unwrap(), z.0.local_addr().unwrap());
        let text = format!(
            "INVITE sip:z@{them} SIP/2.0\r\nVia: SIP/2.0/UDP {us};branch=z9hG4bK{call}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@{us}>;tag=a\r\nTo: <sip:z@{them}>\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:a@{us}>\r\nContent-Length: 0\r\n\r\n"
        );
        self.0.send_to(text.as_bytes(), daemon.sip()).unwrap();
    }

    /// The next message that begins with `start`; others are passed over.
    fn hears(&self, start: &str) -> String {
        let mut bytes = [0; 4_096];
        loop {
            let n = self.0.recv(&mut bytes).unwrap_or_else(|error| panic!("{start} did not come: {error}"));
            let text = String::from_utf8_lossy(&bytes[..n]);
            if text.starts_with(start) {
                return text.into_owned();
            }
        }
    }

    fn answers_200(&self, daemon: &Daemon, invite: &str) {
        let kept = |name: &&str| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|k| name.starts_with(k));
        let lines: Vec<_> = invite
            .lines()
            .filter(kept)
            .map(|line| match line.starts_with("To:") {
                true => format!("{line};tag=z\r\n"),
                false => format!("{line}\r\n"),
            })
            .collect();
        let text = format!("SIP/2.0 200 OK\r\n{}Content-Length: 0\r\n\r\n", lines.concat());
        self.0.send_to(text.as_bytes(), daemon.sip()).unwrap();
    }
}

fn while_strowger_drains_a_new_invite_gets_503_and_the_old_one_its_answer() {
    let mut daemon = Start::strowger().with("drain_s = 20").serving();
    let (a, z) = (Phone::new(), Phone::new());
    a.invite(&daemon, &z, "first");
    let invite = z.hears("INVITE");
    daemon.signal(Signal::SIGTERM);
    daemon.until(|status| status.phase == Phase::Draining);
    a.invite(&daemon, &z, "second");
    assert!(a.hears("SIP/2.0 503").contains("second"));
    z.answers_200(&daemon, &invite);
    assert!(a.hears("SIP/2.0 200").contains("first"));
    let (status, took) = daemon.ends_within(Duration::from_secs(5));
    assert_eq!(status, Some(0));
    assert!(took < Duration::from_secs(1), "nothing was left, yet it took {took:?}");
}

fn a_drain_ends_after_drain_s_and_a_second_sigterm_ends_it_before() {
    for (seconds, hurry) in [(1, false), (20, true)] {
        let mut daemon = Start::strowger().with(&format!("drain_s = {seconds}")).serving();
        let (a, z) = (Phone::new(), Phone::new());
        a.invite(&daemon, &z, "never-answered");
        z.hears("INVITE");
        daemon.signal(Signal::SIGTERM);
        daemon.until(|status| status.phase == Phase::Draining);
        if hurry {
            daemon.signal(Signal::SIGTERM);
        }
        let (status, took) = daemon.ends_within(Duration::from_secs(5));
        assert_eq!(status, Some(0));
        let expected = if hurry { 0..500 } else { 700..1_800 };
        assert!(expected.contains(&took.as_millis()), "drain_s = {seconds}, hurry = {hurry}: {took:?}");
    }
}

fn strowger_status_shows_the_daemon_to_people_and_programs() {
    let daemon = Start::strowger().serving();
    let status = |more: &[&str]| {
        let output = Command::new(STROWGER).arg("status").arg("--config").arg(daemon.config()).args(more).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = status(&[]);
    println!("{text}");
    for word in ["running", "worker", "timer", &daemon.master().to_string(), &daemon.sip().to_string()] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
    let document: serde_json::Value = serde_json::from_str(&status(&["--json"])).unwrap();
    assert_eq!(document["pid"], daemon.master());
    assert_eq!(document["processes"].as_array().unwrap().len(), 3);
    assert!(document["listeners"][0]["receive_buffer_bytes"].as_u64().unwrap() > 0);
}

fn strowger_status_without_a_daemon_says_what_to_do_with_status_69() {
    let mut daemon = Start::strowger().serving();
    daemon.signal(Signal::SIGTERM);
    daemon.ends_within(Duration::from_secs(5));
    let output = Command::new(STROWGER).arg("status").arg("--config").arg(daemon.config()).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("strowger serve"));
}
