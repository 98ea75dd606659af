//! `strowger demo`, as a newcomer types it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::transport::Transport;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    // A variable of the user's must not reach the daemon: this one would be refused.
    command.arg("demo").args(arguments).env("STROWGER_WORKERS", "nonsense").stdin(Stdio::null());
    command
}

/// `The daemon (process 123) listens ...`
fn daemon_of(line: &str) -> Pid {
    let number = line.split_once("process ").and_then(|(_, rest)| rest.split_once(')')).expect(line).0;
    Pid::from_raw(number.parse().expect(line))
}

#[test]
fn the_demo_places_calls_over_every_pair_of_transports_and_leaves_nothing_behind() {
    let output = demo(&["--calls", "20"]).output().unwrap();
    let (said, plain) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{plain}");
    assert_eq!(said.contains("This kernel has no SCTP, so SCTP runs in user space"), !sys::sctp::supported(), "{said}");
    for from in Transport::ALL {
        for to in Transport::ALL {
            let mixture = format!("{} → {}", from.via_token(), to.via_token());
            let row =
                said.lines().find(|line| line.trim_start().starts_with(&mixture)).unwrap_or_else(|| panic!("{said}"));
            let cells: Vec<&str> = row.trim_start().trim_start_matches(&mixture).split_whitespace().collect();
            assert_eq!(cells[..2], ["20", "0"], "{row}");
            // Nobody looks at a progress bar here: a plain line instead.
            assert!(plain.contains(&format!("{mixture}: 20 calls, 0 failed")), "{plain}");
        }
    }
    let ladder = [
        "---- INVITE ---",
        "--- 100 Trying ---",
        "--- 180 Ringing ---",
        "--- 200 OK ---",
        "--- ACK ---",
        "--- BYE ---",
    ];
    for name in ladder {
        assert!(said.contains(name), "{name} in\n{said}");
    }
    assert!(kill(daemon_of(said.lines().next().unwrap()), None).is_err(), "the daemon is still there");
}

#[test]
fn an_interrupted_demo_ends_its_daemon() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = demo(&["--calls", "100000"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        let daemon = daemon_of(&first);
        assert!(kill(daemon, None).is_ok(), "{first}");
        std::thread::sleep(Duration::from_millis(300));
        // To the demo alone, as from another terminal.
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        out.read_to_string(&mut String::new()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(kill(daemon, None).is_err(), "the daemon is still there");
    }
}

#[test]
fn a_killed_demo_takes_its_daemon_along() {
    let mut child = demo(&["--calls", "100000"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let daemon = daemon_of(&first);
    assert!(lives(daemon), "{first}");
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..100 {
        if !lives(daemon) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the daemon is still there");
}

/// An orphan that nobody reaps has ended, too.
fn lives(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
fn a_reader_that_goes_away_stops_neither_demo_nor_daemon() {
    let mut child = demo(&["--calls", "20"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = String::new();
    // `strowger demo | head -1`
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(kill(daemon_of(&first), None).is_err(), "the daemon is still there");
}

/// In a network of its own, where nobody else has its ports.
#[test]
fn serve_without_a_configuration_takes_calls_over_sctp() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("    serve with built-in defaults: needs a network of its own, so only as root");
        return;
    }
    let program = env!("CARGO_BIN_EXE_strowger");
    let mut serve = Command::new("unshare")
        .args(["-n", "sh", "-c", "ip link set lo up && exec \"$0\" serve", program])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let there = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["-t", &serve.id().to_string(), "-n", program]).args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    };
    let mut status = there(&["status", "--json"]);
    for _ in 0..100 {
        if status.status.success() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        status = there(&["status", "--json"]);
    }
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("the daemon answers");
    let listeners = status["listeners"].as_array().expect("listeners");
    let sctp = listeners.iter().find(|listener| listener["transport"] == "sctp").expect("one of SCTP");
    let in_user_space = !sys::sctp::supported();
    assert_eq!(sctp["tunnel"].as_str(), in_user_space.then_some("127.0.0.1:9899"), "{sctp}");
    let spoken = if in_user_space { "sctp-user" } else { "sctp" };
    let calls = there(&[
        "bench",
        "run",
        "--target",
        "127.0.0.1:5060",
        "--domain",
        "localhost",
        "--transport",
        spoken,
        "--clients",
        "2",
        "--rate",
        "10",
        "--seconds",
        "2",
        "--warm-up",
        "1",
        "--rounds",
        "1",
    ]);
    let said = String::from_utf8_lossy(&calls.stdout).into_owned() + &String::from_utf8_lossy(&calls.stderr);
    assert!(calls.status.success() && said.contains("0 calls failed"), "{said}");
    kill(Pid::from_raw(serve.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let mut log = String::new();
    serve.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(serve.wait().unwrap().success(), "{log}");
    let lines = log.lines().filter(|line| line.contains("peers without RFC 6951")).count();
    assert_eq!(lines, usize::from(in_user_space), "{log}");
}
