//! The phones' connections: a UDP socket, a TCP connection or an SCTP association for each phone, or a few trunks for all.
//!
//! Owns: the sockets, what they could not take yet, and the source addresses. Never reads what is in a message. A phone's messages
//! leave one by one, as those of phones far from each other do; on a trunk, what one turn of the loop brings about leaves together.

mod batch;
mod datagrams;
mod kernel;
mod reads;
mod stream;
mod user;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::Registry;
use sys::datagram::Sender;

use crate::phone::bench::words::Wire;

pub use self::reads::Reads;

/// Names a line; also its mio token.
pub type At = usize;

/// One connection.
pub struct Line {
    way: Way,
    /// The phone it was opened for; none for a trunk.
    pub owner: Option<u32>,
    /// `192.0.2.1:5070`: for Via and Contact.
    pub sent_by: Vec<u8>,
    /// Calls that the caller placed over it and that are not over.
    pub calls: u32,
    /// To be flushed at the end of the turn.
    dirty: bool,
    /// We close it ourselves.
    pub ending: bool,
    /// So many were opened before it.
    nth: u64,
}

enum Way {
    Udp(datagrams::Socket),
    Tcp(stream::Stream),
    Kernel(kernel::Association),
    User(Box<user::Association>),
}

/// Where all lines lead.
#[derive(Clone, Copy, Debug)]
pub struct Far {
    pub wire: Wire,
    pub proxy: SocketAddr,
    /// UDP port of its SCTP in user space.
    pub encapsulation_port: u16,
    pub trunks: bool,
}

/// All connections of a process.
pub struct Lines {
    registry: Registry,
    far: Far,
    slots: Vec<Option<Line>>,
    free: Vec<At>,
    /// When a line's own timers want it, milliseconds; beside the lines, so that looking at all of them is quick.
    due: Vec<u64>,
    /// Trunks, and associations that could not take everything.
    dirty: Vec<At>,
    /// Found lost while sending.
    pub lost: Vec<At>,
    sender: Sender,
    /// Connections and associations opened so far.
    pub opened: u64,
}

/// Messages of one system call.
const BATCH: usize = 64;
/// From one loopback address so many connections in a row, so that ports never run out.
const PER_SOURCE: u64 = 1_000;
const SOURCES: u64 = 200;

impl Lines {
    /// # Errors
    /// No descriptor left.
    pub fn new(registry: &Registry, far: Far) -> io::Result<Lines> {
        Ok(Lines {
            registry: registry.try_clone()?,
            far,
            slots: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
            dirty: Vec::new(),
            lost: Vec::new(),
            sender: Sender::new(BATCH),
            opened: 0,
        })
    }

    /// Opens a line. A connection may still be on its way when this returns; what is sent meanwhile waits.
    ///
    /// # Errors
    /// No descriptor or port left, or the proxy refused at once.
    pub fn open(&mut self, owner: Option<u32>, now_ms: u64) -> io::Result<At> {
        let at = self.free.last().copied().unwrap_or(self.slots.len());
        let Far { wire, proxy, encapsulation_port, .. } = self.far;
        let any = SocketAddr::new(source(proxy.ip(), self.opened), 0);
        let (way, local) = match wire {
            Wire::Udp => {
                let (socket, local) = datagrams::Socket::open(any, proxy, &self.registry, at)?;
                (Way::Udp(socket), local)
            }
            Wire::Tcp => {
                let (stream, local) = stream::Stream::open(any, proxy, &self.registry, at)?;
                (Way::Tcp(stream), local)
            }
            Wire::Sctp => {
                let (association, local) = kernel::Association::open(any, proxy, &self.registry, at)?;
                (Way::Kernel(association), local)
            }
            Wire::SctpUser => {
                let (association, local) =
                    user::Association::open(any, proxy, encapsulation_port, &self.registry, at, now_ms)?;
                (Way::User(Box::new(association)), local)
            }
        };
        if self.free.pop().is_none() {
            self.slots.push(None);
            self.due.push(u64::MAX);
        }
        let (sent_by, nth) = (local.to_string().into_bytes(), self.opened);
        let line = Line { way, owner, sent_by, calls: 0, dirty: false, ending: false, nth };
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some(line);
        }
        self.opened += u64::from(wire != Wire::Udp);
        self.arm(at);
        Ok(at)
    }

    #[must_use]
    pub fn wire(&self) -> Wire {
        self.far.wire
    }

    #[must_use]
    pub fn get(&self, at: At) -> Option<&Line> {
        self.slots.get(at)?.as_ref()
    }

    pub fn get_mut(&mut self, at: At) -> Option<&mut Line> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// Which connection has this place: another one may have it later. None where nothing but datagrams says that it has ended: what
    /// epoll calls an end there is the error of one sent earlier.
    #[must_use]
    pub fn connection(&self, at: At) -> Option<u64> {
        let line = self.get(at)?;
        matches!(line.way, Way::Tcp(_) | Way::Kernel(_)).then_some(line.nth)
    }

    /// Lets go of a line.
    pub fn close(&mut self, at: At) -> Option<Line> {
        let line = self.slots.get_mut(at)?.take()?;
        self.free.push(at);
        if let Some(due) = self.due.get_mut(at) {
            *due = u64::MAX;
        }
        Some(line)
    }

    /// Closes a line in good order. An association in user space is there until its peer has agreed; then it is lost.
    pub fn end(&mut self, at: At) {
        match self.get_mut(at) {
            Some(Line { way: Way::User(association), ending, .. }) => {
                *ending = true;
                association.shut_down();
                self.arm(at);
            }
            _ => drop(self.close(at)),
        }
    }

    /// Sends one message; what cannot leave now waits. A line that cannot send any more is added to `lost`.
    pub fn send(&mut self, at: At, message: &[u8], now_ms: u64) {
        let Some(Some(line)) = self.slots.get_mut(at) else { return };
        let (sender, hold) = (&mut self.sender, self.far.trunks);
        let waits = match &mut line.way {
            Way::Udp(socket) => Ok(socket.send(message, hold)),
            Way::Tcp(stream) => stream.send(message, hold),
            Way::Kernel(association) => association.send(message, hold, sender),
            Way::User(association) => association.send(message, hold, now_ms),
        };
        match waits {
            Ok(true) if !line.dirty => {
                line.dirty = true;
                self.dirty.push(at);
            }
            Ok(_) => {}
            Err(_) => self.lost.push(at),
        }
        self.arm(at);
    }

    /// Sends what waits, as far as the sockets take it; the rest is tried again in the next turn.
    pub fn flush(&mut self, now_ms: u64) {
        for nth in (0..self.dirty.len()).rev() {
            let Some(at) = self.dirty.get(nth).copied() else { continue };
            let waits = self.flush_one(at, now_ms);
            if matches!(waits, Ok(true)) {
                continue;
            }
            self.dirty.swap_remove(nth);
            if let Some(line) = self.get_mut(at) {
                line.dirty = false;
            }
            if waits.is_err() {
                self.lost.push(at);
            }
            self.arm(at);
        }
    }

    /// Does something wait that no event will tell of?
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn flush_one(&mut self, at: At, now_ms: u64) -> io::Result<bool> {
        let Some(Some(line)) = self.slots.get_mut(at) else { return Ok(false) };
        match &mut line.way {
            Way::Udp(socket) => Ok(socket.flush(&mut self.sender)),
            Way::Tcp(stream) => stream.flush().map(|()| false),
            Way::Kernel(association) => association.flush(&mut self.sender),
            Way::User(association) => association.flush(now_ms).map(|()| false),
        }
    }

    /// Reads what is there, once; true: there may be more. Messages that came before an end are read, too.
    ///
    /// # Errors
    /// The connection or association is gone.
    pub fn receive(&mut self, at: At, reads: &mut Reads, now_ms: u64) -> io::Result<bool> {
        reads.clear();
        let Some(Some(line)) = self.slots.get_mut(at) else { return Ok(false) };
        let more = match &mut line.way {
            Way::Udp(socket) => socket.receive(reads, self.far.trunks),
            Way::Tcp(stream) => stream.receive(reads),
            Way::Kernel(association) => association.receive(reads, self.far.trunks),
            Way::User(association) => association.receive(reads, self.far.trunks, now_ms),
        };
        self.arm(at);
        more
    }

    /// A TCP socket can take more.
    pub fn writable(&mut self, at: At) {
        if let Some(Some(Line { way: Way::Tcp(stream), .. })) = self.slots.get_mut(at)
            && stream.flush().is_err()
        {
            self.lost.push(at);
        }
    }

    /// The next line from `from` on whose own timers rang.
    #[must_use]
    pub fn rung(&self, from: At, now_ms: u64) -> Option<At> {
        let due = self.due.get(from..)?;
        due.iter().position(|due| *due <= now_ms).map(|at| from + at)
    }

    fn arm(&mut self, at: At) {
        if self.far.wire == Wire::SctpUser
            && let (Some(Some(Line { way: Way::User(association), .. })), Some(due)) =
                (self.slots.get(at), self.due.get_mut(at))
        {
            *due = association.next_ms();
        }
    }
}

/// On this machine every connection may have another address of it; else the kernel chooses.
fn source(proxy: IpAddr, opened: u64) -> IpAddr {
    match proxy {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let nth = opened / PER_SOURCE % SOURCES;
            IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(nth).unwrap_or(0)))
        }
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(ip) if ip.is_loopback() => proxy,
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
