//! A log that nobody reads stops nothing. Each test that fills a pipe does it in a child process: this same test program,
//! run again for one ignored test.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

const LINES: u64 = 10_000;
/// Lines that a pipe (64 KiB), the channel and the thread's hands can hold at most.
const HELD: u64 = 3_000;

/// Not a test: the child of the two below. Its stderr is a pipe that nobody reads.
#[test]
#[ignore = "run by the tests that need a child"]
fn child_that_writes_ten_thousand_lines() {
    let Ok(role) = std::env::var("LOG_TEST_ROLE") else { return };
    start(Level::Info).unwrap();
    take_role(if role == "worker" { Role::Worker(0) } else { Role::Master }).unwrap();
    for number in 0..LINES {
        tracing::info!(call_id = %Text(b"3848276298220188511@a.example.test"), number, "nobody reads this");
    }
    finish();
    println!("dropped={}", dropped());
    std::process::exit(0);
}

/// Not a test: the child of the one below. A subscriber is a process's for ever, so it has one of its own.
#[test]
#[ignore = "run by the test that needs a child"]
fn child_that_changes_its_level() {
    if std::env::var_os("LOG_TEST_ROLE").is_none() {
        return;
    }
    start(Level::Warn).unwrap();
    // One call site: what it was told first must not stick.
    let say = |text: &str| tracing::info!("{text}");
    say("first");
    set_level(Level::Info);
    say("second");
    set_level(Level::Error);
    say("third");
    take_role(Role::Timer).unwrap();
    tracing::error!("fourth");
    std::process::exit(0);
}

#[test]
fn the_level_changes_while_we_run() {
    let child = "log::tests::child_that_changes_its_level";
    let output = child_for(child, "timer").stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let said: Vec<_> = text.lines().filter_map(|line| Some(line.split_once("Z ")?.1)).collect();
    assert_eq!(said, ["INFO  master: second", "ERROR timer: fourth"]);
}

fn child_for(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("LOG_TEST_ROLE", role).stdin(Stdio::null());
    command
}

fn dropped_by_a_child(role: &str) -> u64 {
    let child = child_for("log::tests::child_that_writes_ten_thousand_lines", role)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("the full pipe stopped the child");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, number) = text.split_once("dropped=").unwrap();
    number.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_full_pipe_does_not_stop_a_worker_and_what_is_lost_is_counted() {
    let dropped = dropped_by_a_child("worker");
    assert!(dropped > LINES - HELD && dropped < LINES, "{dropped}");
}

#[test]
fn a_full_pipe_does_not_stop_the_master_and_what_is_lost_is_counted() {
    let dropped = dropped_by_a_child("master");
    assert!(dropped > LINES - HELD && dropped < LINES, "{dropped}");
}

fn lines_of(write: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<Mutex<Vec<u8>>>);
    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let kept = Kept::default();
    let writer = kept.clone();
    let layer = tracing_subscriber::fmt::layer()
        .event_format(line::Line::plain())
        .with_ansi(false)
        .with_writer(move || writer.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), write);
    let bytes = kept.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_line_has_time_level_process_message_and_fields() {
    let line = lines_of(|| tracing::warn!(call_id = %Text(b"1@a"), code = 503, "table full"));
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    assert_eq!(rest, "WARN  master: table full call_id=1@a code=503\n");
}

#[test]
fn a_peer_cannot_write_a_second_line_or_move_the_cursor() {
    let line = lines_of(|| tracing::info!(call_id = %Text(b"1\r\n2\x1b[2J\xff"), "odd"));
    assert!(line.ends_with("odd call_id=1\\r\\n2\\u{1b}[2J\u{fffd}\n"), "{line:?}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_line_too_long_for_a_pipe_is_cut_and_still_ends() {
    let kept = cut(&[b'x'; 10_000]);
    assert_eq!(kept.len(), LINE_BYTES);
    assert!(kept.ends_with(b"...\n"));
}
