//! TCP: a connection per phone.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket};

use super::{At, Reads};
use crate::phone::line::LARGEST;
use crate::transport::framing::{self, Cut};

pub(super) struct Stream {
    socket: TcpStream,
    /// The beginning of a message.
    partial: Vec<u8>,
    /// Not yet taken by the kernel.
    outbox: Vec<u8>,
}

impl Stream {
    /// The port is chosen with the connection: the same one may serve several addresses of ours.
    pub(super) fn open(
        any: SocketAddr,
        proxy: SocketAddr,
        registry: &Registry,
        at: At,
    ) -> io::Result<(Stream, SocketAddr)> {
        let family = if proxy.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, IpBindAddressNoPort, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(any))?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(proxy)) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        let mut socket = TcpStream::from(fd);
        socket.set_nodelay(true)?;
        registry.register(&mut socket, Token(at), Interest::READABLE | Interest::WRITABLE)?;
        let local = sys::local_address(&socket)?;
        Ok((Stream { socket, partial: Vec::new(), outbox: Vec::new() }, local))
    }

    pub(super) fn send(&mut self, message: &[u8], hold: bool) -> io::Result<bool> {
        let mut rest = message;
        if !hold && self.outbox.is_empty() {
            let taken = write(&mut self.socket, message)?;
            rest = message.get(taken..).unwrap_or_default();
        }
        self.outbox.extend_from_slice(rest);
        Ok(hold)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.outbox.is_empty() {
            let taken = write(&mut self.socket, &self.outbox)?;
            self.outbox.drain(..taken);
        }
        Ok(())
    }

    /// A reading that fills less than the buffer has emptied the socket.
    pub(super) fn receive(&mut self, reads: &mut Reads) -> io::Result<bool> {
        let kept = self.partial.len();
        if let Some(room) = reads.bytes.get_mut(..kept) {
            room.copy_from_slice(&self.partial);
        }
        self.partial.clear();
        let room = reads.bytes.get_mut(kept..).unwrap_or_default();
        let length = match self.socket.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted) => {
                self.partial.extend_from_slice(reads.bytes.get(..kept).unwrap_or_default());
                return Ok(e.kind() == ErrorKind::Interrupted);
            }
            Err(e) => return Err(e),
        };
        let (filled, mut done) = (kept + length, 0);
        loop {
            let rest = reads.bytes.get(done..filled).unwrap_or_default();
            match framing::cut(rest, LARGEST) {
                Cut::Message { start, end } => {
                    reads.spans.push((done + start, done + end));
                    done += end;
                }
                Cut::Ping { end } | Cut::Skip { end } => done += end,
                Cut::Need(_) => {
                    self.partial.extend_from_slice(rest);
                    return Ok(filled == reads.bytes.len());
                }
                Cut::Bad(reason) => return Err(io::Error::new(ErrorKind::InvalidData, reason)),
            }
        }
    }
}

/// How much the kernel takes now.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        match socket.write(rest) {
            Ok(n) => taken += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // NotConnected: the handshake is not over; the socket becomes writable with its end.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(taken)
}
