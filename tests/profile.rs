//! `strowger bench profile`, as a developer types it: perf and strace on a real daemon, few calls.

use std::process::Command;

use strowger::phone::bench::profile::report::Profile;

fn profile(arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.args(["bench", "profile"]).args(arguments).output().expect("the program starts")
}

#[test]
fn a_profile_says_where_the_calls_cpu_went() {
    let out = std::env::temp_dir().join(format!("strowger-profile-test-{}", std::process::id()));
    let folder = out.to_string_lossy().into_owned();
    let few =
        ["--transport", "udp,tcp", "--calls", "3000", "--counted-calls", "200", "--clients", "10", "--out", &folder];
    let output = profile(&few);
    let (said, plain) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(69) {
        eprintln!("SKIPPED, a profile is not permitted here: {plain}");
        return;
    }
    assert!(output.status.success(), "{said}\n{plain}");
    eprintln!("{said}");
    let json = std::fs::read_to_string(out.join("profile.json")).expect("profile.json");
    let profiles: Vec<Profile> = serde_json::from_str(&json).expect("profiles");
    assert!(std::fs::read_to_string(out.join("profile.md")).expect("profile.md").contains("## System calls per call"));
    std::fs::remove_dir_all(&out).expect("the folder goes");
    assert_eq!(profiles.iter().map(|p| p.subject.name.as_str()).collect::<Vec<_>>(), ["UDP", "TCP"]);
    for profile in profiles {
        let name = &profile.subject.name;
        assert_eq!((profile.calls, profile.failed_calls, profile.counted_calls), (3_000, 0, 200), "{name}");
        // 3,000 calls take tenths of a second of CPU.
        assert!(profile.samples > 200 && profile.cpu_us > 1.0, "{name}: {} samples", profile.samples);
        assert!((profile.kernel_us + profile.user_us - profile.cpu_us).abs() < 0.1, "{name}");
        for room in ["message", "shared", "transport", "worker", "proxy", "sys"] {
            assert!(
                profile.rooms.iter().any(|share| share.name == room),
                "{name}: nothing of {room}: {:?}",
                profile.rooms
            );
        }
        // Almost everything is known: what is not has the program's own name.
        let of_program = profile.rooms.iter().filter(|share| share.name.starts_with("strowger")).map(|share| share.us);
        assert!(of_program.sum::<f64>() < 0.05 * profile.user_us, "{name}: {:?}", profile.rooms);
        // Six messages come in and seven go out; batches make them fewer calls.
        let wanted: &[&str] = if name == "UDP" { &["recvmmsg", "sendmmsg"] } else { &["recvfrom", "writev"] };
        for call in wanted {
            let row = profile.system_calls.iter().find(|row| row.name == *call);
            let per_call = row.map_or(0.0, |row| row.calls);
            assert!(per_call > 0.1 && per_call < 40.0, "{name}: {call} {per_call}: {:?}", profile.system_calls);
        }
    }
}

#[test]
fn without_its_tools_it_says_what_to_install() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    let output = command.args(["bench", "profile"]).env("PATH", "/nowhere").output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("apt-get install linux-perf strace"), "{said}");
}
