//! What master and children owe each other.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use strowger::shared::Phase;

use crate::daemon::{Daemon, STROWGER, Start, is_gone, kill_hard, wait};

/// Names and tests.
macro_rules! tests {
    ($($name:ident,)+) => { pub const ALL: &[(&str, fn())] = &[$((stringify!($name), $name),)+]; };
}

tests! {
    every_seat_is_taken_and_the_status_names_it,
    a_killed_process_is_replaced_within_100_ms,
    a_successor_knows_that_it_is_one,
    the_masters_death_ends_all_within_1_s_and_the_ports_are_free,
    ten_deaths_are_borne_and_the_eleventh_ends_the_daemon_with_70,
    children_that_cannot_live_end_the_daemon_with_70,
    sigterm_ends_everything_with_status_0,
    a_terminals_sigint_to_the_group_ends_the_daemon_in_order,
    a_second_sigterm_hurries,
    children_that_do_not_hear_of_the_end_are_killed,
    a_process_that_hangs_is_killed_and_replaced,
    a_daemon_that_was_stopped_and_continued_kills_nobody,
    sighup_with_a_wrong_file_changes_nothing,
    sighup_with_a_right_file_reaches_every_process_and_their_successors,
    every_process_runs_as_the_configured_user_also_after_a_respawn,
    a_stderr_that_nobody_reads_stops_nothing,
    silent_admin_clients_hold_nobody_up_and_are_closed,
    an_admin_client_from_elsewhere_is_not_answered,
    systemd_hears_ready_once_then_the_watchdog_and_that_we_stop,
    strowgers_own_processes_are_replaced_within_100_ms,
    strowger_leaves_nothing_when_its_master_is_killed,
    strowger_ends_at_sigterm_with_status_0,
    a_worker_of_strowger_that_hangs_is_killed_and_replaced,
    strowgers_processes_all_run_as_the_configured_user,
    a_stderr_that_nobody_reads_does_not_stop_strowger,
    while_strowger_drains_a_new_invite_gets_503_and_the_old_one_its_answer,
    a_drain_ends_after_drain_s_and_a_second_sigterm_ends_it_before,
    strowger_status_shows_the_daemon_to_people_and_programs,
    strowger_status_without_a_daemon_says_what_to_do_with_status_69,
}

fn every_seat_is_taken_and_the_status_names_it() {
    let daemon = Start::new().serving();
    let status = daemon.status();
    let seats: Vec<_> = status.processes.iter().map(|p| (p.role.name(), p.seat)).collect();
    assert_eq!(seats, [("worker", 0), ("worker", 1), ("timer", 2)]);
    assert_eq!((status.pid, status.phase), (daemon.master(), Phase::Running));
    assert!(status.processes.iter().all(|p| p.uid == Some(geteuid().as_raw()) && p.restarts == 0));
}

fn a_killed_process_is_replaced_within_100_ms() {
    killed_processes_are_replaced(Start::new());
}

fn killed_processes_are_replaced(start: Start) {
    let daemon = start.serving();
    for seat in [0, 1, 2, 0, 1] {
        let before = daemon.pids();
        kill_hard(before[seat]);
        let took = wait(Duration::from_secs(5), || {
            let pid = daemon.pids()[seat];
            pid != 0 && pid != before[seat]
        });
        assert!(took.unwrap() < Duration::from_millis(100), "seat {seat}: {took:?}");
        let after = daemon.pids();
        let others =
            |pids: &[i32]| pids.iter().enumerate().filter(|(n, _)| *n != seat).map(|(_, p)| *p).collect::<Vec<_>>();
        assert_eq!(others(&after), others(&before), "nobody else was touched");
    }
    let status = daemon.status();
    assert_eq!(status.processes.iter().map(|p| p.restarts).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(status.counters["restarts"], 5);
}

fn a_successor_knows_that_it_is_one() {
    let daemon = Start::new().serving();
    let says = |line| wait(Duration::from_secs(5), || daemon.log().contains(line)).expect(line);
    says("on seat 1 successor=false");
    kill_hard(daemon.pids()[1]);
    says("on seat 1 successor=true");
    assert!(!daemon.log().contains("on seat 0 successor=true"));
}

fn the_masters_death_ends_all_within_1_s_and_the_ports_are_free() {
    the_masters_death_ends_all(Start::new());
}

fn the_masters_death_ends_all(start: Start) {
    let mut daemon = start.serving();
    let pids = daemon.pids();
    kill_hard(daemon.master());
    wait(Duration::from_secs(1), || pids.iter().all(|&pid| is_gone(pid))).expect("all gone within 1 s");
    daemon.ends_within(Duration::from_secs(1));
    TcpListener::bind(daemon.admin()).expect("the admin port is free");
    UdpSocket::bind(daemon.sip()).expect("the SIP port is free");
}

fn ten_deaths_are_borne_and_the_eleventh_ends_the_daemon_with_70() {
    let mut daemon = Start::new().serving();
    let began = Instant::now();
    for _ in 0..10 {
        let pid = daemon.pids()[0];
        kill_hard(pid);
        daemon.until(|s| s.processes[0].pid != 0 && s.processes[0].pid != pid);
    }
    sleep(Duration::from_millis(300));
    assert_eq!(daemon.status().processes[0].restarts, 10);
    let others = daemon.pids();
    kill_hard(others[0]);
    assert!(began.elapsed() < Duration::from_secs(9), "too slow to show anything");
    assert_eq!(daemon.ends_within(Duration::from_secs(3)).0, Some(70));
    assert!(daemon.log().contains("giving up, exit status 70"), "{}", daemon.log());
    assert!(others.into_iter().all(is_gone));
}

fn children_that_cannot_live_end_the_daemon_with_70() {
    let mut daemon = Start::new().flaw("dies").begin();
    assert_eq!(daemon.ends_within(Duration::from_secs(5)).0, Some(70));
    assert!(daemon.log().contains("exited with status 3"), "{}", daemon.log());
}

/// No child ended otherwise than by itself and well.
fn nobody_fell(log: &str) -> bool {
    !["exited with", "was ended by", "did not end by themselves"].iter().any(|words| log.contains(words))
}

fn sigterm_ends_everything_with_status_0() {
    sigterm_ends_everything(Start::new());
}

fn sigterm_ends_everything(start: Start) {
    let mut daemon = start.serving();
    let pids = daemon.pids();
    daemon.signal(Signal::SIGTERM);
    let (status, took) = daemon.ends_within(Duration::from_secs(5));
    assert_eq!(status, Some(0));
    assert!(took < Duration::from_secs(1), "nothing was unfinished, yet it took {took:?}");
    assert!(pids.into_iter().all(is_gone));
    assert!(nobody_fell(&daemon.log()), "{}", daemon.log());
}

fn a_terminals_sigint_to_the_group_ends_the_daemon_in_order() {
    let mut daemon = Start::new().serving();
    daemon.signal_group(Signal::SIGINT);
    assert_eq!(daemon.ends_within(Duration::from_secs(5)).0, Some(0));
    let log = daemon.log();
    assert!(log.contains("draining") && nobody_fell(&log), "{log}");
}

fn a_second_sigterm_hurries() {
    let mut daemon = Start::new().flaw("stays").serving();
    daemon.signal(Signal::SIGTERM);
    sleep(Duration::from_millis(200));
    assert_eq!(daemon.status().phase, Phase::Closing);
    daemon.signal(Signal::SIGTERM);
    let (status, took) = daemon.ends_within(Duration::from_secs(5));
    assert_eq!(status, Some(0));
    assert!(took < Duration::from_millis(500), "{took:?}");
}

fn children_that_do_not_hear_of_the_end_are_killed() {
    let mut daemon = Start::new().flaw("stays").serving();
    let pids = daemon.pids();
    daemon.signal(Signal::SIGTERM);
    let (status, took) = daemon.ends_within(Duration::from_secs(5));
    assert_eq!(status, Some(0));
    assert!(took > Duration::from_millis(1_900) && took < Duration::from_secs(4), "{took:?}");
    assert!(pids.into_iter().all(is_gone));
}

fn a_process_that_hangs_is_killed_and_replaced() {
    a_hanging_process_is_replaced(Start::new());
}

fn a_hanging_process_is_replaced(start: Start) {
    let daemon = start.serving();
    let before = daemon.pids();
    kill(Pid::from_raw(before[1]), Signal::SIGSTOP).unwrap();
    let took = wait(Duration::from_secs(20), || daemon.status().processes[1].restarts == 1).expect("it was replaced");
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(13), "{took:?}");
    let after = daemon.pids();
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    assert_eq!(daemon.counter("hung"), 1);
    assert!(daemon.log().contains("hangs; killing it"));
}

fn a_daemon_that_was_stopped_and_continued_kills_nobody() {
    let daemon = Start::new().serving();
    let before = daemon.pids();
    daemon.signal_group(Signal::SIGSTOP);
    sleep(Duration::from_secs(11));
    daemon.signal_group(Signal::SIGCONT);
    sleep(Duration::from_millis(1_500));
    assert_eq!(daemon.pids(), before);
    assert_eq!(daemon.counter("hung"), 0);
}

fn sighup_with_a_wrong_file_changes_nothing() {
    let daemon = Start::new().with("domains = [\"a.test\"]").serving();
    let counted = daemon.counter("registered");
    let pids = daemon.pids();
    daemon.spoil_the_configuration();
    daemon.signal(Signal::SIGHUP);
    daemon.until(|s| s.counters["reloads_refused"] == 1);
    sleep(Duration::from_millis(100));
    assert_eq!(daemon.counter("registered"), counted, "no process heard of anything");
    assert_eq!(daemon.counter("reloads"), 0);
    assert_eq!(daemon.pids(), pids);
    assert!(daemon.log().contains("configuration not reloaded"), "{}", daemon.log());
    // ... and the daemon still reads a right one.
    daemon.configure("domains = [\"a.test\", \"z.test\"]");
    daemon.signal(Signal::SIGHUP);
    daemon.until(|s| s.counters["reloads"] == 1);
}

fn sighup_with_a_right_file_reaches_every_process_and_their_successors() {
    let daemon = Start::new().with("domains = [\"a.test\"]").serving();
    // Each of three processes counts the domains of each version it meets.
    daemon.until(|s| s.counters["registered"] == 3);
    daemon.configure("domains = [\"a.test\", \"z.test\"]");
    daemon.signal(Signal::SIGHUP);
    daemon.until(|s| s.counters["registered"] == 3 + 3 * 2);
    kill_hard(daemon.pids()[0]);
    daemon.until(|s| s.counters["registered"] == 3 + 3 * 2 + 2);
}

fn every_process_runs_as_the_configured_user_also_after_a_respawn() {
    every_process_runs_as_nobody(Start::new());
}

fn every_process_runs_as_nobody(start: Start) {
    if !geteuid().is_root() {
        println!("(not root: cannot become another user; skipped)");
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    let daemon = start.with("user = \"nobody\"").serving();
    let all_nobody = || daemon.status().processes.iter().all(|p| p.uid == Some(nobody));
    assert!(all_nobody(), "{:?}", daemon.status().processes);
    for seat in 0..3 {
        let pid = daemon.pids()[seat];
        kill_hard(pid);
        daemon.until(|s| s.processes[seat].pid != 0 && s.processes[seat].pid != pid);
        assert!(all_nobody(), "{:?}", daemon.status().processes);
    }
    let master = std::fs::read_to_string(format!("/proc/{}/status", daemon.master())).unwrap();
    let uids = master.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(uids.split_whitespace().all(|uid| uid == nobody.to_string()), "{uids}");
}

fn a_stderr_that_nobody_reads_stops_nothing() {
    an_unread_stderr_stops_nothing(Start::new());
}

fn an_unread_stderr_stops_nothing(start: Start) {
    let (_unread, mut pipe) = std::io::pipe().unwrap();
    // As much as a pipe holds (pipe(7)): not one byte goes in any more.
    pipe.write_all(&[b'.'; 65_536]).unwrap();
    let mut daemon = start.stderr(pipe).serving();
    for _ in 0..5 {
        let pid = daemon.pids()[0];
        kill_hard(pid);
        daemon.until(|s| s.processes[0].pid != 0 && s.processes[0].pid != pid);
    }
    daemon.spoil_the_configuration();
    daemon.signal(Signal::SIGHUP);
    daemon.until(|s| s.counters["reloads_refused"] == 1);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ends_within(Duration::from_secs(5)).0, Some(0));
}

fn silent_admin_clients_hold_nobody_up_and_are_closed() {
    let daemon = Start::new().serving();
    let mut silent: Vec<_> = (0..40).map(|_| TcpStream::connect(daemon.admin()).unwrap()).collect();
    // One that asks slowly and one that asks something else.
    let mut slow = TcpStream::connect(daemon.admin()).unwrap();
    slow.write_all(b"sta").unwrap();
    let began = Instant::now();
    daemon.status();
    assert!(began.elapsed() < Duration::from_millis(500));
    slow.write_all(b"tus\r\n").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("uptime_s"));

    let began = Instant::now();
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // Its end, or a reset: but an end.
        assert_ne!(stream.read(&mut [0]).map_err(|e| e.kind()), Err(std::io::ErrorKind::WouldBlock));
    }
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(daemon.counter("admin_refused"), 40);
}

fn an_admin_client_from_elsewhere_is_not_answered() {
    let elsewhere = "[[allow]]\nadmin = [\"192.0.2.0/24\"]";
    let daemon = Start::new().with(elsewhere).begin();
    let reached = || TcpStream::connect(daemon.admin()).is_ok();
    wait(Duration::from_secs(10), reached).expect("it listens");
    assert!(daemon.ask().is_err());
    // An allowed network of the reloaded file is allowed.
    wait(Duration::from_secs(10), || daemon.log().contains("serving")).expect("it serves");
    daemon.configure("[[allow]]\nadmin = [\"127.0.0.0/8\"]");
    daemon.signal(Signal::SIGHUP);
    daemon.until(|s| s.counters["reloads"] == 1);
}

fn systemd_hears_ready_once_then_the_watchdog_and_that_we_stop() {
    let path = std::env::temp_dir().join(format!("strowger-notify-{}", std::process::id()));
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let hear = || {
        let mut bytes = [0; 64];
        let n = systemd.recv(&mut bytes).expect("systemd hears something");
        String::from_utf8_lossy(&bytes[..n]).trim().to_owned()
    };
    let mut daemon = Start::new().environment("NOTIFY_SOCKET", &path).environment("WATCHDOG_USEC", "200000").begin();
    let mut heard = Vec::new();
    while heard.len() < 8 {
        heard.push(hear());
    }
    daemon.signal(Signal::SIGTERM);
    while heard.last().is_none_or(|last| last != "STOPPING=1") {
        heard.push(hear());
    }
    std::fs::remove_file(path).unwrap();
    assert_eq!(daemon.ends_within(Duration::from_secs(5)).0, Some(0));
    assert_eq!(heard.iter().filter(|word| *word == "READY=1").count(), 1, "{heard:?}");
    assert!(heard.iter().filter(|word| *word == "WATCHDOG=1").count() >= 6, "{heard:?}");
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
