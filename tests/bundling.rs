//! Bundling over kernel SCTP: messages of one batch for one association share packets, and what was held back
//! for that reaches the peer also when the worker dies before it has closed the bundle.

#![allow(clippy::disallowed_methods, reason = "tests measure time")]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use strowger::transport::Transport;
use support::daemon::{Daemon, is_alive};
use support::process::Process;
use support::proxy::Setup;
use support::raw::Peer;
use support::{Room, free_port, kernel, left_to_the_vm, patience, say, wait_for};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FAR: &str = "far.test";

/// The far end of a trunk: takes associations on one port, counts SIP messages, answers nothing.
struct Trunk {
    address: SocketAddr,
    messages: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Trunk {
    fn open() -> Trunk {
        let address = free_port(HOME);
        let socket = Socket::new(Domain::IPV4, Type::SEQPACKET, Some(Protocol::SCTP)).expect("an SCTP socket");
        socket.bind(&SockAddr::from(address)).expect("bind");
        socket.listen(8).expect("listen");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let messages = Arc::new(AtomicUsize::new(0));
        let end = Arc::new(AtomicBool::new(false));
        let (count, stop) = (Arc::clone(&messages), Arc::clone(&end));
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                if std::io::Read::read(&mut &socket, &mut buffer).is_ok_and(|n| buffer[..n].starts_with(b"MESSAGE")) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Trunk { address, messages, end, reader: Some(reader) }
    }

    fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A daemon with one worker between UDP and the trunk, over which one message has gone.
fn daemon_before(trunk: &Trunk, room: &Room) -> (Daemon, Peer) {
    let setup = Setup {
        workers: 1,
        next_hop: vec![(FAR.to_owned(), Transport::Sctp, trunk.address)],
        ..Setup::on(HOME, &[Transport::Sctp, Transport::Udp])
    };
    let daemon = Daemon::start(room, &setup);
    let sender = Peer::connect(Transport::Udp, setup.address(Transport::Udp)).expect("a sender");
    sender.send(message(&sender, 0).as_bytes()).expect("MESSAGE is sent");
    let arrived = wait_for(patience(5), || (trunk.messages() == 1).then_some(()));
    assert!(arrived.is_some(), "nothing comes over the trunk: {}", daemon.last_words());
    (daemon, sender)
}

fn message(sender: &Peer, number: usize) -> String {
    let text = sender.request_with("MESSAGE", "far", &format!("m{number}"), "Content-Type: text/plain\r\n", "Watson");
    text.replace("sip:far@example.test SIP/2.0", &format!("sip:far@{FAR} SIP/2.0"))
}

#[test]
fn a_saturated_trunk_carries_four_messages_a_packet() {
    if left_to_the_vm("bundling") {
        return;
    }
    let room = Room::new("bundling");
    let trunk = Trunk::open();
    let (daemon, sender) = daemon_before(&trunk, &room);
    let before = kernel::sctp_counters();
    // Bursts, each waiting in the worker's socket while it is stopped, as a busy trunk's messages wait.
    let (bursts, size) = (20, 64);
    let worker = Pid::from_raw(daemon.workers()[0]);
    for burst in 0..bursts {
        kill(worker, Signal::SIGSTOP).expect("stop");
        for number in 0..size {
            sender.send(message(&sender, 1 + burst * size + number).as_bytes()).expect("MESSAGE is sent");
        }
        kill(worker, Signal::SIGCONT).expect("go on");
        let all = 1 + (burst + 1) * size;
        let arrived = wait_for(patience(5), || (trunk.messages() >= all).then_some(()));
        assert!(arrived.is_some(), "{} of {all} came over the trunk", trunk.messages());
    }
    let after = kernel::sctp_counters();
    let grown = |name| kernel::grown(&before, &after, name);
    let chunks = grown("SctpOutUnorderChunks") + grown("SctpOutOrderChunks");
    // The far end is in this kernel too and sends nothing but SACKs, one a packet.
    let packets = grown("SctpOutSCTPPacks").saturating_sub(grown("SctpOutCtrlChunks"));
    say(&format!("{chunks} DATA chunks in {packets} packets"));
    assert!(chunks >= 4 * packets, "{chunks} DATA chunks in {packets} packets");
    daemon.stop();
}

/// strace kills the worker as it enters the second of the turn's two calls: the messages of the first (MSG_MORE) lie in the
/// kernel and nobody has closed the bundle.
#[test]
fn a_worker_that_dies_between_the_two_sends_delays_nothing() {
    if left_to_the_vm("death between two sends") {
        return;
    }
    let room = Room::new("two-sends");
    let trunk = Trunk::open();
    let (daemon, sender) = daemon_before(&trunk, &room);
    let worker = daemon.workers()[0];
    kill(Pid::from_raw(worker), Signal::SIGSTOP).expect("stop");
    let burst = 16;
    for number in 1..=burst {
        sender.send(message(&sender, number).as_bytes()).expect("MESSAGE is sent");
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &worker.to_string(), "-o", "strace.log", "-e", "trace=sendmmsg"]);
    command.args(["-e", "inject=sendmmsg:signal=SIGKILL:when=2"]);
    let mut strace = Process::start(command, room.path(), "strace");
    let attached = wait_for(patience(5), || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
        let traced = status.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"));
        (traced || strace.ended().is_some()).then_some(traced)
    });
    assert_eq!(attached, Some(true), "strace: {}", strace.last_words());
    let before = daemon.children();
    kill(Pid::from_raw(worker), Signal::SIGCONT).expect("go on");
    let died = wait_for(patience(5), || (!is_alive(worker)).then_some(()));
    let calls = std::fs::read_to_string(room.path().join("strace.log")).unwrap_or_default();
    assert!(died.is_some(), "the worker made no second sendmmsg:\n{calls}");
    let replaced = wait_for(patience(3), || daemon.children().iter().any(|p| !before.contains(p)).then_some(()));
    assert!(replaced.is_some(), "no successor: {}", daemon.last_words());
    let start = Instant::now();
    let at_once = trunk.messages();
    // All but the association's last message went into the first call.
    let whole = wait_for(patience(5), || (trunk.messages() >= burst).then_some(()));
    let took = start.elapsed();
    say(&format!("{at_once} of {burst} at the replacement, {} {took:.1?} after it", trunk.messages() - 1));
    assert!(whole.is_some(), "only {} of {burst} came\n{calls}", trunk.messages() - 1);
    // Seen: 11 ms in the emulated machine.
    assert!(took <= Duration::from_millis(200), "delivery took {took:?} after the replacement");
    drop(strace);
    daemon.stop();
}
