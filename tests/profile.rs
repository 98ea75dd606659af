//! `strowger bench profile`, as a developer types it: perf and strace on a real daemon, few calls.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::phone::bench::profile::report::{Profile, Profiles};

fn profile(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.args(["bench", "profile"]).args(arguments).output().expect("the program starts")
}

#[test]
fn a_profile_says_where_the_cpu_of_an_operation_went() {
    let out = std::env::temp_dir().join(format!("strowger-profile-test-{}", std::process::id()));
    let folder = out.to_string_lossy().into_owned();
    let few = ["--transport", "udp,tcp", "--clients", "10", "--seconds", "1.5", "--warm-up", "1.5", "--out", &folder];
    let output = profile(&few);
    let (said, plain) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(69) {
        eprintln!("SKIPPED, a profile is not permitted here: {plain}");
        return;
    }
    assert!(output.status.success(), "{said}\n{plain}");
    eprintln!("{said}");
    let json = std::fs::read_to_string(out.join("profile.json")).expect("profile.json");
    let all: Profiles = serde_json::from_str(&json).expect("profiles");
    let markdown = std::fs::read_to_string(out.join("profile.md")).expect("profile.md");
    assert!(markdown.contains("## System calls per operation"), "{markdown}");
    std::fs::remove_dir_all(&out).expect("the folder goes");
    let subjects: Vec<_> = all.profiles.iter().filter_map(|p| Some(p.subject.as_ref()?.name.as_str())).collect();
    assert_eq!(subjects, ["UDP", "TCP"]);
    is_plausible(&all.profiles[0], &["recvmmsg", "sendmmsg"]);
    is_plausible(&all.profiles[1], &["recvfrom", "writev"]);
}

/// `calls`: what every message needs.
#[track_caller]
fn is_plausible(profile: &Profile, calls: &[&str]) {
    assert!(profile.operations > 300 && profile.failed_calls == 0, "{profile:?}");
    assert!(profile.samples > 200 && profile.cpu_us > 1.0, "{profile:?}");
    assert!((profile.kernel_us + profile.user_us - profile.cpu_us).abs() < 0.1, "{profile:?}");
    for room in ["message", "shared", "transport", "worker", "proxy"] {
        assert!(profile.rooms.iter().any(|share| share.name == room), "nothing of {room}: {:?}", profile.rooms);
    }
    // Almost everything is known: what is not has the program's own name.
    let unknown = profile.rooms.iter().filter(|share| share.name.starts_with("strowger")).map(|share| share.us);
    assert!(unknown.sum::<f64>() < 0.05 * profile.user_us, "{:?}", profile.rooms);
    // Three messages come in and three or four go out; batches make them fewer calls.
    for call in calls {
        assert!(profile.ways_in.iter().any(|way| way.name == *call), "{call}: {:?}", profile.ways_in);
        let row = profile.system_calls.iter().find(|row| row.name == *call);
        let per_operation = row.map_or(0.0, |row| row.calls);
        assert!(per_operation > 0.05 && per_operation < 10.0, "{call}: {:?}", profile.system_calls);
    }
}

#[test]
fn calls_that_fail_are_told_and_make_a_profile_that_has_failed() {
    let out = std::env::temp_dir().join(format!("strowger-profile-failed-{}", std::process::id()));
    let folder = out.to_string_lossy().into_owned();
    // A finished transaction stays for 32 s: after the first thousand there is no room for another.
    let few = ["--transport", "udp,tcp", "--clients", "10", "--seconds", "1", "--warm-up", "1", "--out", &folder];
    let more = ["--tables", "memory.transactions = 1000", "--renew-every", "50"];
    let output = profile(&[&few[..], &more].concat());
    let plain = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(69) {
        eprintln!("SKIPPED, a profile is not permitted here: {plain}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{plain}");
    assert!(plain.contains("more than one call in a thousand failed"), "{plain}");
    assert!(plain.contains("503 Service Unavailable"), "{plain}");
    assert!(plain.contains("UDP has no connections: its row is one without --renew-every"), "{plain}");
    let json = std::fs::read_to_string(out.join("profile.json")).expect("profile.json");
    let all: Profiles = serde_json::from_str(&json).expect("profiles");
    assert!(all.profiles.len() == 2 && all.profiles.iter().all(|profile| profile.failed_calls > 0), "{plain}");
    std::fs::remove_dir_all(&out).expect("the folder goes");
}

#[test]
fn what_was_profiled_before_an_interruption_is_shown() {
    let few = ["--transport", "udp,tcp", "--clients", "10", "--seconds", "1", "--warm-up", "1"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.args(["bench", "profile"]).args(few).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr"));
    let mut plain = String::new();
    while !plain.contains("TCP: 1 s under perf") {
        if stderr.read_line(&mut plain).expect("a line") == 0 {
            let status = child.wait().expect("it ends");
            assert_eq!(status.code(), Some(69), "{plain}");
            eprintln!("SKIPPED, a profile is not permitted here: {plain}");
            return;
        }
    }
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("it is there");
    let mut said = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{said}");
    assert!(said.contains("Hottest functions: UDP") && !said.contains("Hottest functions: TCP"), "{said}");
}

#[test]
fn without_its_tools_it_says_what_to_install() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    let output = command.args(["bench", "profile"]).env("PATH", "/nowhere").output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("apt-get install linux-perf strace"), "{said}");
}
