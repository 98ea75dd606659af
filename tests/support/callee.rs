//! A callee that does to its associations whatever a test wants: a one-to-many socket, worked by hand.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sys::datagram::{Arena, Item, Receiver, Sender, SndInfo, To};
use sys::sctp::{Settings, State};

use super::raw::answer;
use super::wait_for;

/// Messages of one read.
const BATCH: usize = 8;
/// The largest that it takes whole, bytes.
const LARGEST: usize = 65_536;

pub struct Callee {
    fd: OwnedFd,
    pub at: SocketAddr,
    arena: Arena,
    receiver: Receiver,
    sender: Sender,
    heard: Vec<Heard>,
}

/// A request, and the association it came over.
#[derive(Clone, Debug)]
pub struct Heard {
    pub association: u32,
    pub text: String,
}

impl Heard {
    pub fn call_id(&self) -> &str {
        self.text.lines().find_map(|line| line.strip_prefix("Call-ID: ")).expect("a Call-ID")
    }
}

impl Callee {
    pub fn at(at: SocketAddr) -> Callee {
        Callee::with_room(at, 0)
    }

    /// With a receive buffer of so many bytes; 0: the kernel's own.
    pub fn with_room(at: SocketAddr, rcvbuf: usize) -> Callee {
        let settings = Settings {
            nodelay: true,
            fragment_interleave: 1,
            rcvbuf,
            // Where both sides open an association at once, what the one had sent before is lost and must be sent again.
            srto_initial_ms: 200,
            srto_min_ms: 100,
            srto_max_ms: 1_000,
            ..Settings::default()
        };
        let (fd, _) = sys::sctp::one_to_many(&[at], &settings, false).expect("an SCTP socket");
        let arena = Arena::new(BATCH, LARGEST).expect("memory");
        Callee { fd, at, arena, receiver: Receiver::new(BATCH), sender: Sender::new(1), heard: Vec::new() }
    }

    /// The first request that begins so and was not asked for before.
    pub fn hears(&mut self, start: &str, limit: Duration) -> Heard {
        self.hears_within(start, limit).unwrap_or_else(|| panic!("{} heard no {start}", self.at))
    }

    pub fn hears_within(&mut self, start: &str, limit: Duration) -> Option<Heard> {
        wait_for(limit, || {
            self.read();
            let index = self.heard.iter().position(|heard| heard.text.starts_with(start))?;
            Some(self.heard.remove(index))
        })
    }

    /// All that have come.
    pub fn take(&mut self) -> Vec<Heard> {
        self.read();
        std::mem::take(&mut self.heard)
    }

    fn read(&mut self) {
        loop {
            let n = self.receiver.receive(self.fd.as_fd(), &mut self.arena, 0, BATCH).expect("it reads");
            if n == 0 {
                return;
            }
            for received in (0..n).map(|i| self.receiver.get(i)).filter(|received| !received.notification) {
                let bytes = &self.arena.slot(received.slot)[..received.len];
                let association = received.info.expect("SCTP_RCVINFO").association;
                self.heard.push(Heard { association, text: String::from_utf8_lossy(bytes).into_owned() });
            }
        }
    }

    /// Answers over the association that the request came over; false when that takes nothing any more.
    pub fn answers(&mut self, heard: &Heard, status: &str) -> bool {
        self.sends(To::Association(heard.association), &self.response(heard, status))
    }

    /// Answers over whatever association there is, or a new one (A17); false when that is shutting down.
    pub fn answers_at(&mut self, proxy: SocketAddr, heard: &Heard, status: &str) -> bool {
        self.sends(To::Peer(proxy), &self.response(heard, status))
    }

    fn response(&self, heard: &Heard, status: &str) -> String {
        answer(&heard.text, status, &format!("Contact: <sip:{};transport=sctp>\r\n", self.at))
    }

    pub fn sends(&mut self, to: To, text: &str) -> bool {
        let sctp = Some(SndInfo { unordered: true, ..SndInfo::default() });
        let item = Item { to, pieces: [text.as_bytes(), b""], sctp };
        self.sender.send(self.fd.as_fd(), 1, false, |_| item).0 == 1
    }

    /// ABORT.
    pub fn aborts(&self, association: u32) {
        sys::sctp::abort(self.fd.as_fd(), association).expect("ABORT");
    }

    /// SHUTDOWN on every association that is up; how many that were.
    pub fn shuts_down(&self) -> usize {
        let all = sys::sctp::associations(self.fd.as_fd()).expect("the list");
        let fd = self.fd.as_fd();
        let is_up = |id| sys::sctp::status(fd, id).is_ok_and(|status| status.state == State::Established);
        all.into_iter().filter(|id| is_up(*id) && sys::sctp::shutdown(fd, *id).is_ok()).count()
    }
}
