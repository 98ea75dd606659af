//! UDP: a socket per phone, connected, so that it hears its proxy only.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use mio::Registry;
use sys::datagram::{Sender, To};

use super::batch::Batch;
use super::{At, Reads};

pub(super) struct Socket {
    socket: UdpSocket,
    proxy: SocketAddr,
    batch: Batch,
}

/// Of a trunk's socket, bytes; the kernel may grant less.
const BUFFER: usize = 4 << 20;

/// A UDP socket that sends to `proxy` alone, watched level-triggered: one reading an event, and none that finds nothing.
pub(super) fn bind(
    any: SocketAddr,
    proxy: SocketAddr,
    registry: &Registry,
    at: At,
) -> io::Result<(UdpSocket, SocketAddr)> {
    let (fd, _) = sys::udp::bind(any, false, BUFFER, BUFFER)?;
    let socket = UdpSocket::from(fd);
    socket.connect(proxy)?;
    sys::epoll::add_exclusive(registry, socket.as_fd(), at)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

impl Socket {
    pub(super) fn open(
        any: SocketAddr,
        proxy: SocketAddr,
        registry: &Registry,
        at: At,
    ) -> io::Result<(Socket, SocketAddr)> {
        let (socket, local) = bind(any, proxy, registry, at)?;
        Ok((Socket { socket, proxy, batch: Batch::default() }, local))
    }

    /// Whatever befalls a datagram, retransmission is the answer (RFC 3261 §17.1.1.2); ICMP errors of an earlier one too.
    pub(super) fn send(&mut self, message: &[u8], hold: bool) -> bool {
        if hold {
            self.batch.push(message);
        } else {
            let _ = self.socket.send(message);
        }
        hold
    }

    pub(super) fn flush(&mut self, sender: &mut Sender) -> bool {
        match self.batch.leave(self.socket.as_fd(), To::Peer(self.proxy), None, sender) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => true,
            Err(_) => {
                self.batch.clear();
                false
            }
            Ok(()) => false,
        }
    }

    pub(super) fn receive(&mut self, reads: &mut Reads, batch: bool) -> io::Result<bool> {
        if batch {
            let n = reads.receiver.receive(self.socket.as_fd(), &mut reads.arena, 0, usize::MAX).unwrap_or(0);
            let received = (0..n).map(|nth| reads.receiver.get(nth));
            reads.slots.extend(received.map(|received| (received.slot, received.len)));
        } else if let Ok(length) = self.socket.recv(&mut reads.bytes) {
            reads.spans.push((0, length));
        }
        // An ICMP error for something sent earlier says nothing about the next datagram; whatever there is, epoll says again.
        Ok(false)
    }
}
