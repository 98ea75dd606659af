//! A phone's SCTP end by the kernel: a one-to-many socket that is used for one association (RFC 4168).
//!
//! Owns: the socket, and messages the kernel could not take yet. Everything goes unordered on stream 0 with PPID 0 (A06, A08) and
//! whatever comes is taken (A09). The association sets itself up with the first message and, once closed, with the next one.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use sys::datagram::{Arena, Item, Receiver, Sender, SndInfo, To};
use sys::sctp::{AssociationState, Notification, Settings};

/// One phone's socket.
pub(in crate::phone) struct Endpoint {
    fd: OwnedFd,
    proxy: SocketAddr,
    waiting: VecDeque<Vec<u8>>,
}

/// Receive buffers and system call arrays, shared by all phones of a process.
pub(in crate::phone) struct Buffers {
    arena: Arena,
    receiver: Receiver,
    sender: Sender,
}

/// Messages read in one call.
const BATCH: usize = 16;

impl Buffers {
    pub(in crate::phone) fn new(largest: usize) -> io::Result<Buffers> {
        Ok(Buffers { arena: Arena::new(BATCH, largest)?, receiver: Receiver::new(BATCH), sender: Sender::new(1) })
    }
}

impl Endpoint {
    pub(in crate::phone) fn open(
        local: SocketAddr,
        proxy: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<(Endpoint, SocketAddr)> {
        let settings = Settings { nodelay: true, fragment_interleave: 1, ..Settings::default() };
        let (fd, _) = sys::sctp::one_to_many(&[local], &settings, false)?;
        let local = sys::local_address(&fd)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)?;
        Ok((Endpoint { fd, proxy, waiting: VecDeque::new() }, local))
    }

    pub(in crate::phone) fn send(&mut self, message: &[u8], buffers: &mut Buffers) -> io::Result<()> {
        self.waiting.push_back(message.to_vec());
        self.flush(buffers)
    }

    pub(in crate::phone) fn flush(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        while let Some(message) = self.waiting.front() {
            let unordered = SndInfo { unordered: true, ..SndInfo::default() };
            let item = Item { to: To::Peer(self.proxy), pieces: [message, &[]], sctp: Some(unordered) };
            match buffers.sender.send(self.fd.as_fd(), 1, false, |_| item) {
                (0, Some(e)) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                (0, Some(e)) => return Err(e),
                _ => drop(self.waiting.pop_front()),
            }
        }
        Ok(())
    }

    /// Reads all there is. An association that failed is an error; one that was shut down in good order is not.
    pub(in crate::phone) fn receive(&mut self, buffers: &mut Buffers, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let Buffers { arena, receiver, .. } = buffers;
        loop {
            let n = receiver.receive(self.fd.as_fd(), arena, 0, BATCH)?;
            for received in (0..n).map(|i| receiver.get(i)) {
                let bytes = arena.slot(received.slot).get(..received.len).unwrap_or_default();
                if !received.notification {
                    each(bytes);
                    continue;
                }
                if let Some(Notification::AssociationChange {
                    state: AssociationState::Lost | AssociationState::CannotStart,
                    ..
                }) = sys::sctp::parse_notification(bytes)
                {
                    return Err(ErrorKind::ConnectionReset.into());
                }
            }
            if n == 0 {
                return Ok(());
            }
        }
    }
}
