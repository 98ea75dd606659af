//! How the load sends and receives over UDP, TCP and the kernel's SCTP.
//!
//! Owns: sockets on ports of 127.0.0.1: side `a` on BASE, BASE + 1, ..., side `z` on the same ports ^ `APART`. Message n goes over
//! connection or association n modulo their number.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};
use sys::datagram::{Arena, Item, Receiver, Sender, SndInfo, To};
use sys::sctp::Settings;

use crate::kind::APART;
use crate::load::{BATCH, Ends, Messages};

/// The load's own buffers: nothing may be lost here.
const BUFFER: usize = 8 << 20;
const LARGEST: usize = 4096;

pub fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub fn watch(epoll: &Epoll, fd: impl AsFd, token: usize) -> io::Result<()> {
    Ok(epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token as u64))?)
}

/// The arrays and buffers of batches.
pub struct Batches {
    sender: Sender,
    receiver: Receiver,
    arena: Arena,
}

impl Batches {
    pub fn new() -> io::Result<Batches> {
        Ok(Batches { sender: Sender::new(BATCH), receiver: Receiver::new(BATCH), arena: Arena::new(BATCH, LARGEST)? })
    }

    /// Sends all; where there is no room, a moment later.
    pub fn send(
        &mut self,
        fd: &OwnedFd,
        to: SocketAddr,
        messages: &[Vec<u8>],
        more: bool,
        sctp: Option<SndInfo>,
    ) -> io::Result<()> {
        let mut at = 0;
        while let Some(rest) = messages.get(at..).filter(|rest| !rest.is_empty()) {
            let item = |index: usize| Item { to: To::Peer(to), pieces: [&rest[index], b""], sctp };
            let (sent, error) = self.sender.send(fd.as_fd(), rest.len(), more, item);
            at += sent;
            match error {
                Some(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(1)),
                Some(error) => return Err(error),
                None => {}
            }
        }
        Ok(())
    }

    /// Reads one batch; how many, and where each came from.
    pub fn receive(&mut self, fd: &OwnedFd, each: &mut dyn FnMut(SocketAddr, &[u8])) -> io::Result<usize> {
        let received = self.receiver.receive(fd.as_fd(), &mut self.arena, 0, BATCH)?;
        for message in (0..received).map(|index| self.receiver.get(index)) {
            if let (Some(peer), false) = (message.peer, message.notification) {
                each(peer, &self.arena.slot(message.slot)[..message.len]);
            }
        }
        Ok(received)
    }
}

/// Datagrams that go back from the far side, as SCTP's acknowledgements do.
#[derive(Clone, Copy, Debug)]
pub struct Back {
    pub bytes: usize,
    pub per_message: f64,
}

pub struct Udp {
    a: OwnedFd,
    z: OwnedFd,
    to: SocketAddr,
    batches: Batches,
    back: Option<Back>,
    owed: f64,
}

impl Udp {
    pub fn open(epoll: &Epoll, base: u16, to: u16, back: Option<Back>) -> io::Result<Udp> {
        let (a, _) = sys::udp::bind(at(base), false, BUFFER, BUFFER)?;
        let (z, _) = sys::udp::bind(at(base ^ APART), false, BUFFER, BUFFER)?;
        watch(epoll, &a, 0)?;
        watch(epoll, &z, 1)?;
        Ok(Udp { a, z, to: at(to), batches: Batches::new()?, back, owed: 0.0 })
    }
}

impl Ends for Udp {
    fn send(&mut self, messages: &mut Messages, first: u64, count: usize) -> io::Result<()> {
        self.batches.send(&self.a, self.to, messages.numbered(first..first + count as u64), false, None)
    }

    fn receive(&mut self, token: u64, _: &Epoll, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        if token == 0 {
            return self.batches.receive(&self.a, &mut |_, _| {}).map(drop);
        }
        let received = self.batches.receive(&self.z, &mut |_, bytes| each(bytes))?;
        if let Some(back) = self.back {
            self.owed += received as f64 * back.per_message;
            let packets = vec![vec![0; back.bytes]; self.owed as usize];
            self.owed = self.owed.fract();
            self.batches.send(&self.z, self.to, &packets, false, None)?;
        }
        Ok(())
    }
}

/// The kernel's SCTP: a socket for each association.
pub struct Sctp {
    a: Vec<OwnedFd>,
    z: Vec<OwnedFd>,
    to: SocketAddr,
    batches: Batches,
}

impl Sctp {
    pub fn open(epoll: &Epoll, base: u16, to: u16, associations: u16) -> io::Result<Sctp> {
        let settings =
            Settings { nodelay: true, fragment_interleave: 1, rcvbuf: BUFFER, sndbuf: BUFFER, ..Settings::default() };
        let open = |port| sys::sctp::one_to_many(&[at(port)], &settings, false).map(|(fd, _)| fd);
        let a = (base..base + associations).map(open).collect::<io::Result<Vec<_>>>()?;
        let z = (base..base + associations).map(|port| open(port ^ APART)).collect::<io::Result<Vec<_>>>()?;
        for (token, fd) in a.iter().chain(&z).enumerate() {
            watch(epoll, fd, token)?;
        }
        Ok(Sctp { a, z, to: at(to), batches: Batches::new()? })
    }
}

impl Ends for Sctp {
    fn send(&mut self, messages: &mut Messages, first: u64, count: usize) -> io::Result<()> {
        // A08. Bundled, as a trunk's peer does.
        let sip = Some(SndInfo { unordered: true, ..SndInfo::default() });
        for (index, fd) in self.a.iter().enumerate() {
            let its = (first..first + count as u64).filter(|number| number % self.a.len() as u64 == index as u64);
            if let [held @ .., last] = messages.numbered(its) {
                self.batches.send(fd, self.to, held, true, sip)?;
                self.batches.send(fd, self.to, std::slice::from_ref(last), false, sip)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, token: u64, _: &Epoll, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let token = token as usize;
        match self.z.get(token.wrapping_sub(self.a.len())) {
            Some(fd) => self.batches.receive(fd, &mut |_, bytes| each(bytes))?,
            // Notifications.
            None => self.batches.receive(&self.a[token], &mut |_, _| {})?,
        };
        Ok(())
    }
}

pub struct Tcp {
    a: Vec<TcpStream>,
    listeners: Vec<TcpListener>,
    /// Accepted, and what came of a message whose rest has not.
    z: Vec<(TcpStream, Vec<u8>)>,
    bytes: Vec<u8>,
    message: usize,
}

impl Tcp {
    pub fn open(epoll: &Epoll, base: u16, to: u16, connections: u16, message: usize) -> io::Result<Tcp> {
        let bound = |port| -> io::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&at(port).into())?;
            Ok(socket)
        };
        let listen = |port: u16| -> io::Result<TcpListener> {
            let socket = bound(port ^ APART)?;
            socket.listen(16)?;
            Ok(TcpListener::from(socket))
        };
        let listeners = (base..base + connections).map(listen).collect::<io::Result<Vec<_>>>()?;
        for (token, listener) in listeners.iter().enumerate() {
            watch(epoll, listener, token)?;
        }
        let connect = |port| -> io::Result<TcpStream> {
            let socket = bound(port)?;
            socket.connect(&at(to).into())?;
            socket.set_tcp_nodelay(true)?;
            Ok(TcpStream::from(socket))
        };
        let a = (base..base + connections).map(connect).collect::<io::Result<Vec<_>>>()?;
        Ok(Tcp { a, listeners, z: Vec::new(), bytes: vec![0; 1 << 18], message })
    }
}

impl Ends for Tcp {
    fn send(&mut self, messages: &mut Messages, first: u64, count: usize) -> io::Result<()> {
        for (index, mut stream) in self.a.iter().enumerate() {
            let its = (first..first + count as u64).filter(|number| number % self.a.len() as u64 == index as u64);
            let bytes = messages.numbered(its).concat();
            if !bytes.is_empty() {
                stream.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, token: u64, epoll: &Epoll, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let token = token as usize;
        let Some((stream, rest)) = self.z.get_mut(token.wrapping_sub(self.listeners.len())) else {
            let (stream, _) = self.listeners[token].accept()?;
            stream.set_nonblocking(true)?;
            watch(epoll, &stream, self.listeners.len() + self.z.len())?;
            self.z.push((stream, Vec::new()));
            return Ok(());
        };
        let have = rest.len();
        self.bytes[..have].copy_from_slice(rest);
        let length = match stream.read(&mut self.bytes[have..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => have + length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let messages = self.bytes[..length].chunks_exact(self.message);
        *rest = messages.remainder().to_vec();
        messages.for_each(each);
        Ok(())
    }
}
