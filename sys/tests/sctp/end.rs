//! One end of an association: a one-to-many socket with what it takes to read and write.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};
use sys::datagram::{Arena, Item, Received, Receiver, Sender, SndInfo, To};
use sys::local_address;
use sys::sctp::{self, AssociationState, Notification, Settings};

/// Reads one message at a time, so that tests see their order.
pub struct End {
    pub fd: OwnedFd,
    pub address: SocketAddr,
    receiver: Receiver,
    arena: Arena,
    sender: Sender,
}

/// What the daemon would set: no Nagle, interleave 1, impatient.
pub fn settings() -> Settings {
    Settings {
        nodelay: true,
        fragment_interleave: 1,
        rcvbuf: 4 << 20,
        sndbuf: 4 << 20,
        init_max_attempts: 2,
        init_max_timeo_ms: 500,
        srto_initial_ms: 200,
        srto_min_ms: 100,
        srto_max_ms: 1000,
        asocmaxrxt: 4,
        pathmaxrxt: 2,
        hbinterval_ms: 30_000,
        ..Settings::default()
    }
}

impl End {
    pub fn new() -> End {
        End::with(&["127.0.0.1:0"], &settings())
    }

    pub fn with(addresses: &[&str], settings: &Settings) -> End {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let (fd, _) = sctp::one_to_many(&addresses, settings, false).unwrap();
        End::of(fd, 1 << 16)
    }

    pub fn of(fd: OwnedFd, slot_bytes: usize) -> End {
        End {
            address: local_address(&fd).unwrap(),
            fd,
            receiver: Receiver::new(1),
            arena: Arena::new(1, slot_bytes).unwrap(),
            sender: Sender::new(64),
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn try_send(&mut self, to: To, bytes: &[u8], info: SndInfo) -> io::Result<()> {
        let item = Item { to, pieces: [bytes, b""], sctp: Some(info) };
        match self.sender.send(self.fd.as_fd(), 1, false, |_| item) {
            (1, None) => Ok(()),
            (_, e) => Err(e.unwrap()),
        }
    }

    pub fn send(&mut self, to: To, bytes: &[u8]) {
        self.try_send(to, bytes, SndInfo { unordered: true, ..SndInfo::default() }).unwrap();
    }

    /// Sends them with one call; all must be taken.
    pub fn send_all(&mut self, to: To, more: bool, messages: &[&[u8]]) {
        let sctp = Some(SndInfo { unordered: true, ..SndInfo::default() });
        let item = |i: usize| Item { to, pieces: [messages[i], b""], sctp };
        let (sent, error) = self.sender.send(self.fd.as_fd(), messages.len(), more, item);
        assert!(sent == messages.len() && error.is_none(), "{sent} sent, then {error:?}");
    }

    /// The next thing read within so many milliseconds, and its bytes.
    pub fn read_within(&mut self, milliseconds: u16) -> Option<(Received, Vec<u8>)> {
        let mut wanted = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut wanted, milliseconds).unwrap() == 0 {
            return None;
        }
        let n = self.receiver.receive(self.fd.as_fd(), &mut self.arena, 0, 1).unwrap();
        (n == 1).then(|| {
            let received = self.receiver.get(0);
            (received, self.arena.slot(received.slot)[..received.len].to_vec())
        })
    }

    /// The next message of a peer within so many milliseconds; notifications are passed over.
    pub fn message_within(&mut self, milliseconds: u16) -> Option<(Received, Vec<u8>)> {
        loop {
            let read = self.read_within(milliseconds)?;
            if !read.0.notification {
                return Some(read);
            }
        }
    }

    pub fn message(&mut self) -> (Received, Vec<u8>) {
        self.message_within(10_000).expect("no message came")
    }

    /// Reads until a notification is of use; messages are passed over.
    pub fn notified<T>(&mut self, mut of_use: impl FnMut(Notification<'_>) -> Option<T>) -> T {
        loop {
            let (received, bytes) = self.read_within(20_000).expect("the notification did not come");
            if !received.notification {
                continue;
            }
            assert!(received.end_of_record && received.info.is_none());
            if let Some(found) = of_use(sctp::parse_notification(&bytes).unwrap()) {
                return found;
            }
        }
    }

    /// Reads until an association changes to that state; returns its id and error.
    pub fn changed(&mut self, to: AssociationState) -> (u32, u16) {
        self.notified(|n| match n {
            Notification::AssociationChange { state, association, error, .. } if state == to => {
                Some((association, error))
            }
            _ => None,
        })
    }
}

/// Two ends with an association; returns its id at `a` and at `z`.
pub fn pair() -> (End, End, u32, u32) {
    let (mut a, mut z) = (End::new(), End::new());
    let (at_a, at_z) = associate(&mut a, &mut z);
    (a, z, at_a, at_z)
}

pub fn associate(a: &mut End, z: &mut End) -> (u32, u32) {
    a.send(To::Peer(z.address), b"first");
    let at_a = a.changed(AssociationState::Up).0;
    let (received, bytes) = z.message();
    assert_eq!(bytes, b"first");
    (at_a, received.info.unwrap().association)
}
