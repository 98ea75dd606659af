//! One message wakes one process.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sys::datagram::{Arena, Receiver};
use sys::memory::Plan;
use sys::{epoll, local_address, udp};

use crate::rig::{Test, child, pause, until, wait};
use crate::tests;

pub const TESTS: &[Test] = tests![one_message_wakes_one_of_four_processes, a_socket_no_longer_watched_wakes_nobody];

fn one_message_wakes_one_of_four_processes() {
    const MESSAGES: u64 = 300;
    let mut plan = Plan::new();
    let span = plan.array::<AtomicU64>(3);
    let counts = plan.map().unwrap().array(&span);
    let (ready, wakeups, messages) = (&counts[0], &counts[1], &counts[2]);

    let (socket, _) = udp::bind("127.0.0.1:0".parse().unwrap(), false, 0, 0).unwrap();
    let workers = [(); 4].map(|()| {
        child(|| {
            let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            epoll::add_exclusive(&poll.0, socket.as_fd(), 17).unwrap();
            let (mut receiver, mut arena) = (Receiver::new(8), Arena::new(8, 2048).unwrap());
            ready.fetch_add(1, Ordering::Release);
            loop {
                let mut events = [EpollEvent::empty(); 4];
                let n = poll.wait(&mut events, 60_000u16).unwrap();
                assert_eq!((n, events[0].data()), (1, 17));
                wakeups.fetch_add(1, Ordering::Relaxed);
                let n = receiver.receive(socket.as_fd(), &mut arena, 0, 8).unwrap();
                messages.fetch_add(n as u64, Ordering::Release);
            }
        })
    });
    until("all are ready", || ready.load(Ordering::Acquire) == 4);
    pause(50);

    let a = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let z = local_address(&socket).unwrap();
    for _ in 0..MESSAGES {
        a.send_to(b"hello", z).unwrap();
        pause(2);
    }
    until("all messages are read", || messages.load(Ordering::Acquire) == MESSAGES);
    pause(50);
    let wakeups = wakeups.load(Ordering::Relaxed);
    assert!(wakeups * 100 <= MESSAGES * 105, "{wakeups} wake-ups for {MESSAGES} messages");
    for worker in workers {
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        wait(worker);
    }
}

fn a_socket_no_longer_watched_wakes_nobody() {
    let (socket, _) = udp::bind("127.0.0.1:0".parse().unwrap(), false, 0, 0).unwrap();
    let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll::add_exclusive(&poll.0, socket.as_fd(), 1).unwrap();
    assert!(epoll::add_exclusive(&poll.0, socket.as_fd(), 1).is_err());
    let a = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.send_to(b"hello", local_address(&socket).unwrap()).unwrap();
    let mut events = [EpollEvent::empty(); 4];
    // Level-triggered: as long as it is there.
    assert_eq!(poll.wait(&mut events, 1000u16).unwrap(), 1);
    assert_eq!(poll.wait(&mut events, 1000u16).unwrap(), 1);
    epoll::remove(&poll.0, socket.as_fd()).unwrap();
    assert_eq!(poll.wait(&mut events, 50u16).unwrap(), 0);
}
