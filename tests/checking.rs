//! `strowger check` as a command: what a person or a deployment script sees of it. And of the kernel's settings for SCTP what `check`,
//! the log of `serve` and `status` say alike.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use strowger::transport::Transport;
use support::daemon::{Daemon, PROGRAM, configure, plain_environment, serve};
use support::kernel::Sysctl;
use support::process::Process;
use support::proxy::Setup;
use support::{Room, only_in_the_vm};

fn check(text: &str) -> Output {
    command(text, |command| command.output()).expect("strowger check runs")
}

/// `strowger check` for a file of this text, run by `run`.
fn command<T>(text: &str, run: impl FnOnce(&mut Command) -> T) -> T {
    let room = Room::new("check");
    let file = room.write("strowger.toml", text);
    run(&mut check_of(&file))
}

fn check_of(file: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    plain_environment(&mut command);
    if std::env::var_os("IN_VM").is_some() {
        // The guest is small; how much memory the machine must have is another test.
        command.env("STROWGER_MEMORY__TRANSACTIONS", "4096");
    }
    command.args(["check", "--config"]).arg(file);
    command
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

/// What a kernel of which nothing is set up is said to mean, and what of it is mended by a daemon that may.
#[test]
fn the_kernels_sctp_settings_are_explained_by_check_serve_and_status() {
    if only_in_the_vm("the kernel's SCTP settings") {
        return;
    }
    let _settings = [
        Sysctl::set("sndbuf_policy", 0),
        Sysctl::set("rcvbuf_policy", 0),
        Sysctl::set("cookie_hmac_alg", "none"),
        Sysctl::set("max_burst", 16),
        Sysctl::set("hb_interval", 5_000),
        Sysctl::set("udp_port", 0),
        Sysctl::set("encap_port", 9_898),
    ];
    let untouched = "net.sctp: sndbuf_policy 0, rcvbuf_policy 0, cookie_hmac_alg none, no UDP encapsulation";
    let mended = "net.sctp: sndbuf_policy 1, rcvbuf_policy 1, cookie_hmac_alg none, also inside UDP, port 9899";
    let always = [
        "net.sctp.cookie_hmac_alg is none: anybody can forge a cookie",
        "net.sctp.max_burst is 16, and so it is here",
        "net.sctp.hb_interval is 5000 and has no effect here",
    ];
    let mendable = [
        "net.sctp.sndbuf_policy is 0: one SCTP peer that stops reading can stop sending to all",
        "net.sctp.rcvbuf_policy is 0: one SCTP peer that floods can silence all",
        "net.sctp.udp_port is 0, so encapsulation_port = 9899 has no effect",
        "net.sctp.encap_port is 9898 and has no effect while net.sctp.udp_port is 0",
    ];
    let after_it = "net.sctp.udp_port is 9899 and encap_port 9898: all SCTP that this machine opens goes inside UDP";
    let says = |who: &str, lines: &[String], words: &str, due: usize| {
        let found = lines.iter().filter(|line| line.contains(words)).count();
        assert_eq!(found, due, "{who} says {words:?} {found} times: {lines:#?}");
    };

    let room = Room::new("settings");
    let setup = Setup { kernel_tunnel: Some(9_899), ..Setup::on(IpAddr::V4(Ipv4Addr::LOCALHOST), &[Transport::Sctp]) };
    let written = configure(&room, &setup);
    let output = check_of(&written.file).output().expect("strowger check runs");
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
    says("check", &lines(&output.stdout), untouched, 1);
    let warned = lines(&output.stderr);
    assert!(warned.iter().all(|line| line.starts_with("warning: ")), "{warned:#?}");
    always.iter().chain(&mendable).for_each(|words| says("check", &warned, words, 1));

    // Who may not change anything says what is; who may changes it, and says the rest.
    for (start, summary, mendable_is_said) in
        [(serve_and_change_nothing as fn(&Path) -> Command, untouched, 1), (serve, mended, 0)]
    {
        let written = configure(&room, &setup);
        let process = Process::start(start(&written.file), room.path(), &format!("serve-{mendable_is_said}"));
        let daemon = Daemon::adopt(process, written);
        let log = daemon.log();
        let warnings = match &daemon.status()["warnings"] {
            Value::Array(lines) => lines.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect::<Vec<_>>(),
            other => panic!("no warnings: {other}"),
        };
        says("serve", &log, summary, 1);
        for (who, lines) in [("serve", &log), ("status", &warnings)] {
            always.iter().for_each(|words| says(who, lines, words, 1));
            mendable.iter().for_each(|words| says(who, lines, words, mendable_is_said));
            says(who, lines, after_it, 1 - mendable_is_said);
        }
        daemon.stop();
    }
}

/// `serve` where the kernel's settings can only be read, as in many containers.
fn serve_and_change_nothing(file: &Path) -> Command {
    let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    let mut command = Command::new("unshare");
    plain_environment(&mut command);
    command.args(["--mount", "sh", "-c", read_only, "sh", PROGRAM, "serve", "--config"]).arg(file);
    command
}
