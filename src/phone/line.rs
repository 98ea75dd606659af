//! A phone's transport: one UDP socket, one TCP connection, or one SCTP association, all to one proxy.
//!
//! Owns: the socket, and for TCP the bytes that are not yet a message. Never reads what is in a message. The address-of-record's
//! contact is the line's own address, so a proxy reaches a phone over TCP and SCTP by the connection or association that the
//! phone opened (RFC 3261 §18: found by the far end's address).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};

use super::sctp::{kernel, user};
use crate::transport::Transport;
use crate::transport::framing::{self, Cut};

/// Largest message a phone reads, bytes.
pub const LARGEST: usize = 65_535;

/// One phone's socket.
pub struct Line {
    pub transport: Transport,
    pub local: SocketAddr,
    pub proxy: SocketAddr,
    way: Way,
}

enum Way {
    Udp(UdpSocket),
    Tcp(Stream),
    KernelSctp(kernel::Endpoint),
    UserSctp(Box<user::Endpoint>),
}

/// Which SCTP a phone speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    Kernel,
    /// In user space, to a proxy with this UDP port (RFC 6951).
    User(u16),
}

struct Stream {
    socket: TcpStream,
    /// Read, and not yet cut into messages.
    inbox: Vec<u8>,
    /// Not yet taken by the kernel.
    outbox: Vec<u8>,
}

/// Buffers that all lines of a process share.
pub struct Buffers {
    bytes: Vec<u8>,
    sctp: Option<kernel::Buffers>,
}

impl Buffers {
    /// Buffers for SCTP are made only where the kernel has it.
    ///
    /// # Errors
    /// No memory for them.
    pub fn new() -> io::Result<Buffers> {
        let sctp = if sys::sctp::supported() { Some(kernel::Buffers::new(LARGEST)?) } else { None };
        Ok(Buffers { bytes: vec![0; LARGEST], sctp })
    }
}

impl Line {
    /// Opens a line from `ip` (any free port) to `proxy`. A TCP connection may still be on its way when this returns; what is sent
    /// meanwhile waits.
    ///
    /// # Errors
    /// The socket could not be made, or the connection was refused at once.
    pub fn open(
        transport: Transport,
        ip: IpAddr,
        proxy: SocketAddr,
        stack: Stack,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Line> {
        let any = SocketAddr::new(ip, 0);
        let (way, local) = match transport {
            Transport::Udp => {
                let mut socket = UdpSocket::bind(any)?;
                registry.register(&mut socket, token, Interest::READABLE)?;
                let local = socket.local_addr()?;
                (Way::Udp(socket), local)
            }
            Transport::Tcp => {
                let mut socket = TcpStream::connect(proxy)?;
                socket.set_nodelay(true)?;
                registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
                let local = socket.local_addr()?;
                (Way::Tcp(Stream { socket, inbox: Vec::new(), outbox: Vec::new() }), local)
            }
            Transport::Sctp => match stack {
                Stack::Kernel => {
                    let (endpoint, local) = kernel::Endpoint::open(any, proxy, registry, token)?;
                    (Way::KernelSctp(endpoint), local)
                }
                Stack::User(port) => {
                    let (endpoint, local) = user::Endpoint::open(any, proxy, port, registry, token)?;
                    (Way::UserSctp(Box::new(endpoint)), local)
                }
            },
        };
        Ok(Line { transport, local, proxy, way })
    }

    /// Sends one message. What the kernel cannot take now is kept and sent by `writable` (TCP, SCTP) or lost (UDP).
    ///
    /// # Errors
    /// The connection or association is gone.
    pub fn send(&mut self, message: &[u8], buffers: &mut Buffers) -> io::Result<()> {
        match &mut self.way {
            Way::Udp(socket) => {
                // Whatever befalls a datagram, retransmission is the answer (RFC 3261 §17.1.1.2); ICMP errors of an earlier one too.
                let _ = socket.send_to(message, self.proxy);
                Ok(())
            }
            Way::Tcp(stream) => {
                stream.outbox.extend_from_slice(message);
                stream.flush()
            }
            Way::KernelSctp(endpoint) => match &mut buffers.sctp {
                Some(buffers) => endpoint.send(message, buffers),
                None => Err(ErrorKind::Unsupported.into()),
            },
            Way::UserSctp(endpoint) => endpoint.send(message),
        }
    }

    /// The socket can take more.
    ///
    /// # Errors
    /// The connection or association is gone.
    pub fn writable(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        match (&mut self.way, &mut buffers.sctp) {
            (Way::Tcp(stream), _) => stream.flush(),
            (Way::KernelSctp(endpoint), Some(buffers)) => endpoint.flush(buffers),
            _ => Ok(()),
        }
    }

    /// Reads all there is; `each` gets one whole message at a time.
    ///
    /// # Errors
    /// The connection or association is gone, or its peer does not speak SIP.
    pub fn receive(&mut self, buffers: &mut Buffers, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        match &mut self.way {
            Way::Udp(socket) => loop {
                match socket.recv_from(&mut buffers.bytes) {
                    Ok((length, _)) => each(buffers.bytes.get(..length).unwrap_or_default()),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                    // An ICMP error for something sent earlier says nothing about the next datagram.
                    Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {}
                    Err(e) => return Err(e),
                }
            },
            Way::Tcp(stream) => stream.receive(&mut buffers.bytes, each),
            Way::KernelSctp(endpoint) => match &mut buffers.sctp {
                Some(buffers) => endpoint.receive(buffers, each),
                None => Err(ErrorKind::Unsupported.into()),
            },
            Way::UserSctp(endpoint) => endpoint.receive(&mut buffers.bytes, each),
        }
    }

    /// When `due` wants to be called; only a transport in user space has timers of its own.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        if let Way::UserSctp(endpoint) = &self.way { endpoint.next() } else { None }
    }

    /// Does what the transport's own timers ask for.
    ///
    /// # Errors
    /// As `receive`.
    pub fn due(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        if let Way::UserSctp(endpoint) = &mut self.way { endpoint.due(each) } else { Ok(()) }
    }
}

impl Stream {
    fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(taken) => drop(self.outbox.drain(..taken)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // NotConnected: the handshake is not over; the socket becomes writable with its end.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn receive(&mut self, bytes: &mut [u8], each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        loop {
            match self.socket.read(bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.inbox.extend_from_slice(bytes.get(..length).unwrap_or_default());
                    self.cut(each)?;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Hands on every whole message and keeps the rest.
    fn cut(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut done = 0;
        loop {
            let rest = self.inbox.get(done..).unwrap_or_default();
            match framing::cut(rest, LARGEST) {
                Cut::Message { start, end } => {
                    each(rest.get(start..end).unwrap_or_default());
                    done += end;
                }
                // A phone keeps no flow alive, so nobody waits for a pong (RFC 5626 §3.5.1).
                Cut::Ping { end } | Cut::Skip { end } => done += end,
                Cut::Need(_) => break,
                Cut::Bad(reason) => return Err(io::Error::new(ErrorKind::InvalidData, reason)),
            }
        }
        self.inbox.drain(..done);
        Ok(())
    }
}
