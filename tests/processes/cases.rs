//! What master and children owe each other.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use strowger::shared::Phase;

use crate::daemon::{Start, is_gone, kill_hard, wait};

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

pub fn killed_processes_are_replaced(start: Start) {
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

pub fn the_masters_death_ends_all(start: Start) {
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

pub fn sigterm_ends_everything(start: Start) {
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

pub fn a_hanging_process_is_replaced(start: Start) {
    let daemon = start.serving();
    let before = daemon.pids();
    kill(Pid::from_raw(before[1]), Signal::SIGSTOP).unwrap();
    let took = wait(Duration::from_secs(20), || daemon.status().processes[1].restarts == 1).expect("it was replaced");
    // Ten seconds after its last turn, which was up to two before we stopped it: so long one may sleep that has nothing to do.
    assert!(took > Duration::from_secs(7) && took < Duration::from_secs(13), "{took:?}");
    // These had nothing to do either, and are not taken for hanging: the master woke them.
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

pub fn every_process_runs_as_nobody(start: Start) {
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

pub fn an_unread_stderr_stops_nothing(start: Start) {
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
        let mut bytes = [0; 128];
        let n = systemd.recv(&mut bytes).expect("systemd hears something");
        String::from_utf8_lossy(&bytes[..n]).trim().to_owned()
    };
    let start = Start::new().with("drain_s = 100").environment("NOTIFY_SOCKET", &path);
    let mut daemon = start.environment("WATCHDOG_USEC", "200000").begin();
    let mut heard = Vec::new();
    while heard.len() < 8 {
        heard.push(hear());
    }
    daemon.signal(Signal::SIGTERM);
    while heard.last().is_none_or(|last| !last.starts_with("STOPPING=1")) {
        heard.push(hear());
    }
    // The drain, what closing takes, and some to spare: else TimeoutStopSec would cut the drain short.
    assert_eq!(heard.last().unwrap(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=105000000");
    std::fs::remove_file(path).unwrap();
    assert_eq!(daemon.ends_within(Duration::from_secs(5)).0, Some(0));
    assert_eq!(heard.iter().filter(|word| *word == "READY=1").count(), 1, "{heard:?}");
    assert!(heard.iter().filter(|word| *word == "WATCHDOG=1").count() >= 6, "{heard:?}");
}
