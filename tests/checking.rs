//! `strowger check` as a command: what a person or a deployment script sees of it.

mod support;

use std::process::{Command, Output, Stdio};

use support::Room;
use support::daemon::{PROGRAM, plain_environment};

fn check(text: &str) -> Output {
    command(text, |command| command.output()).expect("strowger check runs")
}

/// `strowger check` for a file of this text, run by `run`.
fn command<T>(text: &str, run: impl FnOnce(&mut Command) -> T) -> T {
    let room = Room::new("check");
    let file = room.write("strowger.toml", text);
    let mut command = Command::new(PROGRAM);
    plain_environment(&mut command);
    if std::env::var_os("IN_VM").is_some() {
        // The guest is small; how much memory the machine must have is another test.
        command.env("STROWGER_MEMORY__TRANSACTIONS", "4096");
    }
    run(command.args(["check", "--config"]).arg(file))
}

/// The writing end of a pipe that nobody reads any more.
fn unread() -> Stdio {
    std::io::pipe().expect("a pipe").1.into()
}

#[test]
fn the_configuration_that_is_shipped_is_right() {
    let output = check(include_str!("../config/strowger.toml"));
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{warned}");
    assert!(said.contains("udp  127.0.0.1:5060") && said.contains("sctp 127.0.0.1:5060"), "{said}");
    assert!(warned.lines().all(|line| line.starts_with("warning: ")), "{warned}");
    let settings = said.lines().any(|line| line.starts_with("kernel   net.sctp: sndbuf_policy "));
    assert_eq!(settings, sys::sctp::supported(), "{said}");
}

#[test]
fn each_mistake_has_a_line_with_key_value_and_what_would_be_right() {
    let output = check(
        "workers = 999\ndomans = [\"a.test\"]\n[timers]\nt1_ms = 5\n[location]\nstore = \"postgres\"\n\
         [[listen]]\ntransport = \"upd\"\naddress = \"127.0.0.1:5060\"\n",
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    let wanted = [
        ("workers", "999", "128"),
        ("domans", "a.test", "domains"),
        ("timers.t1_ms", "5", "10"),
        ("location.store", "postgres", "not in this version"),
        ("listen[0].transport", "upd", "udp"),
    ];
    for words in wanted {
        let has = |line: &str| [words.0, words.1, words.2].iter().all(|word| line.contains(word));
        assert_eq!(said.lines().filter(|line| has(line)).count(), 1, "{words:?} in\n{said}");
    }
    assert_eq!(said.lines().count(), wanted.len(), "{said}");
}

#[test]
fn a_file_that_is_no_toml_or_not_there_is_one_mistake() {
    let output = check("workers = [[[");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    let output = Command::new(PROGRAM).args(["check", "--config", "/nowhere/strowger.toml"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("/nowhere/strowger.toml"), "{said}");
}

#[test]
fn a_line_that_is_no_toml_is_shown_with_its_file() {
    let output = check("workers = 2\nworkers = 3\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/strowger.toml: line 2, column 1: duplicate key, in `workers = 3`"), "{said}");
}

#[test]
fn a_reader_that_goes_away_does_not_change_the_exit_status() {
    for (text, status) in [("", 0), ("workers = 999", 1), ("workers = [[[", 1)] {
        let ended = command(text, |command| command.stdout(unread()).stderr(unread()).status());
        // A panic would be a signal (abort) and no status.
        assert_eq!(ended.expect("strowger check runs").code(), Some(status), "{text:?}");
    }
    let mut serve = Command::new(PROGRAM);
    plain_environment(&mut serve);
    let ended = serve.args(["serve", "--config", "/nowhere/strowger.toml"]).stderr(unread()).status();
    assert_eq!(ended.expect("strowger serve runs").code(), Some(1));
}
