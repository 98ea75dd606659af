//! The kernel's SCTP: a one-to-many socket per phone, used for one association (RFC 4168).
//!
//! Everything goes unordered on stream 0 with PPID 0 (A06, A08). The association sets itself up with the first message.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use mio::Registry;
use sys::datagram::{Item, Sender, SndInfo, To};
use sys::sctp::{AssociationState, Notification, Settings};

use super::batch::Batch;
use super::{At, Reads};

pub(super) struct Association {
    fd: OwnedFd,
    proxy: SocketAddr,
    batch: Batch,
}

const UNORDERED: SndInfo = SndInfo { stream: 0, unordered: true, eof: false, abort: false, ppid: 0, context: 0 };
/// Messages of one reading, where the association is a phone's own.
const FEW: usize = 8;

impl Association {
    pub(super) fn open(
        any: SocketAddr,
        proxy: SocketAddr,
        registry: &Registry,
        at: At,
    ) -> io::Result<(Association, SocketAddr)> {
        let settings =
            Settings { nodelay: true, fragment_interleave: 1, rcvbuf: 1 << 20, sndbuf: 1 << 20, ..Settings::default() };
        let any = if any.ip().is_unspecified() { towards(proxy)? } else { any };
        let (fd, _) = sys::sctp::one_to_many(&[any], &settings, false)?;
        let local = sys::local_address(&fd)?;
        sys::epoll::add_exclusive(registry, fd.as_fd(), at)?;
        Ok((Association { fd, proxy, batch: Batch::default() }, local))
    }

    pub(super) fn send(&mut self, message: &[u8], hold: bool, sender: &mut Sender) -> io::Result<bool> {
        if hold || self.batch.len() > 0 {
            self.batch.push(message);
            return Ok(true);
        }
        let item = Item { to: To::Peer(self.proxy), pieces: [message, &[]], sctp: Some(UNORDERED) };
        match sender.send(self.fd.as_fd(), 1, false, |_| item) {
            (0, Some(e)) if e.kind() == ErrorKind::WouldBlock => {
                self.batch.push(message);
                Ok(true)
            }
            (0, Some(e)) => Err(e),
            _ => Ok(false),
        }
    }

    /// Bundled (MSG_MORE): true while the kernel has no room for all.
    pub(super) fn flush(&mut self, sender: &mut Sender) -> io::Result<bool> {
        match self.batch.leave(self.fd.as_fd(), To::Peer(self.proxy), Some(UNORDERED), sender) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(e) => Err(e),
            Ok(()) => Ok(false),
        }
    }

    pub(super) fn receive(&mut self, reads: &mut Reads, many: bool) -> io::Result<bool> {
        let Reads { arena, receiver, slots, .. } = reads;
        let n = receiver.receive(self.fd.as_fd(), arena, 0, if many { usize::MAX } else { FEW })?;
        for received in (0..n).map(|nth| receiver.get(nth)) {
            if !received.notification {
                slots.push((received.slot, received.len));
            } else if let Some(Notification::AssociationChange { state, .. }) =
                sys::sctp::parse_notification(arena.slot(received.slot).get(..received.len).unwrap_or_default())
                && matches!(
                    state,
                    AssociationState::Lost | AssociationState::CannotStart | AssociationState::ShutdownComplete
                )
            {
                return Err(ErrorKind::ConnectionReset.into());
            }
        }
        Ok(false)
    }
}

/// Our address on the way to `proxy`: a wildcard cannot stand in Via and Contact.
fn towards(proxy: SocketAddr) -> io::Result<SocketAddr> {
    let any: SocketAddr = if proxy.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = UdpSocket::bind(any)?;
    probe.connect(proxy)?;
    Ok(SocketAddr::new(probe.local_addr()?.ip(), 0))
}
