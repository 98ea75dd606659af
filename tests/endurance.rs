//! What must stop nothing: a standard error that nobody reads, and a full transaction table.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use strowger::transport::Transport;
use support::daemon::{Daemon, configure, counter, serve, used};
use support::process::Process;
use support::proxy::Setup;
use support::raw::Peer;
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, patience, say, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// 500 calls while every log line goes where nobody reads.
fn calls_with_standard_error(name: &str, unread: Stdio) {
    let room = Room::new(name);
    let setup = Setup { tables: "[log]\nlevel = \"trace\"".to_owned(), ..Setup::on(HOME, &[Transport::Udp]) };
    let written = configure(&room, &setup);
    let output = room.write("strowger.out", "standard error was not read\n");
    let child = serve(&written.file)
        .current_dir(room.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(unread)
        .spawn()
        .expect("the daemon starts");
    let daemon = Daemon::adopt(Process::adopt(child, output), written);
    let toward = setup.address(Transport::Udp);
    let callee = Sipp::new(Scenario::Callee, Transport::Udp, toward).start(&room);
    let phones = names("quiet", 5);
    register(&room, (Transport::Udp, toward), &phones, callee.local, Transport::Udp);
    let report =
        Sipp::new(Scenario::Caller, Transport::Udp, toward).users(&phones).calls(500).rate(100).start(&room).finish();
    say(&format!("{name}: {report}"));
    report.must_be_whole(500);
    // Tens of lines a call at this level, and a pipe or socket holds some hundred kB.
    assert!(daemon.counter("log_dropped") > 0, "the log was not too much for it; the test proves nothing");
    drop(callee);
    daemon.stop();
}

#[test]
fn a_pipe_that_nobody_reads_stops_nothing() {
    let (unread, write) = std::io::pipe().expect("a pipe");
    calls_with_standard_error("pipe", Stdio::from(write));
    drop(unread);
}

#[test]
fn a_socket_that_nobody_reads_stops_nothing() {
    let (unread, write) = UnixStream::pair().expect("a pair of sockets");
    calls_with_standard_error("socket", Stdio::from(std::os::fd::OwnedFd::from(write)));
    drop(unread);
}

/// A table filled with INVITEs that ring gives 503 with Retry-After; when they have ended, calls go through again.
#[test]
fn a_full_transaction_table_gives_503_and_recovers() {
    let room = Room::new("full");
    let setup = Setup {
        // Short lives, so that the test sees the end of them: 64*T1 = 3.2 s.
        tables: "[memory]\ntransactions = 2048\n[timers]\nt1_ms = 50".to_owned(),
        ..Setup::on(HOME, &[Transport::Udp])
    };
    let daemon = Daemon::start(&room, &setup);
    let toward = setup.address(Transport::Udp);
    let callee = Peer::connect(Transport::Udp, toward).expect("a callee that only listens");
    callee.register("silent");
    let caller = Peer::connect(Transport::Udp, toward).expect("a caller");
    let mut refusal = None;
    let mut ringing = Vec::new();
    let mut sent = 0;
    for number in 0..8000 {
        let contact = format!("Contact: <sip:a@{}>\r\n", caller.local);
        let invite = caller.request_with("INVITE", "silent", &format!("f{number}"), &contact, "");
        caller.send(invite.as_bytes()).expect("INVITE is sent");
        sent = number;
        if number % 16 == 15 {
            // The callee rings, so that its calls stay (and our INVITE to it is not repeated).
            while let Some(text) = callee.receive(Duration::from_millis(1)) {
                if text.starts_with("INVITE") {
                    callee.send(callee.answer(&text, "180 Ringing").as_bytes()).expect("180 is sent");
                    ringing.push(text);
                }
            }
            while let Some(text) = caller.receive(Duration::from_millis(1)) {
                if text.starts_with("SIP/2.0 503") {
                    refusal = Some(text);
                }
            }
            if refusal.is_some() {
                break;
            }
        }
    }
    let refusal = refusal.expect("a full table gives 503");
    assert!(refusal.contains("\r\nRetry-After: "), "{refusal}");
    let status = daemon.status();
    let in_use = used(&status, "transactions");
    say(&format!("first 503 at INVITE {sent}, {in_use} of 2048 transactions in use"));
    assert!(counter(&status, "table_full") > 0);
    assert!(in_use >= 2048 * 9 / 10, "503 when only {in_use} of 2048 were in use");
    // The callee declines them all; nobody acknowledges, so timers D and H end the transactions.
    for (number, invite) in ringing.iter().enumerate() {
        callee.send(callee.answer(invite, "486 Busy Here").as_bytes()).expect("486 is sent");
        if number % 32 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let recovered = wait_for(patience(50), || {
        while let Some(text) = callee.receive(Duration::from_millis(5)) {
            if text.starts_with("INVITE") {
                let _ = callee.send(callee.answer(&text, "486 Busy Here").as_bytes());
            }
        }
        while caller.receive(Duration::from_millis(5)).is_some() {}
        (used(&daemon.status(), "transactions") < 200).then_some(())
    });
    assert!(recovered.is_some(), "the table stays full: {}", daemon.status()["tables"]);
    let callee = Sipp::new(Scenario::Callee, Transport::Udp, toward).start(&room);
    register(&room, (Transport::Udp, toward), &names("again", 1), callee.local, Transport::Udp);
    let report =
        Sipp::new(Scenario::Caller, Transport::Udp, toward).users(&names("again", 1)).calls(50).start(&room).finish();
    report.must_be_whole(50);
    drop(callee);
    daemon.stop();
}
