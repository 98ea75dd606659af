//! A phone's SCTP end in user space: an endpoint over a UDP socket of its own (RFC 6951).
//!
//! Owns: the socket, and the one association. Its SCTP port is its UDP port, so that many phones of one address are told apart. The
//! association sets itself up with the first message and, once closed, with the next one.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use dcsctp::api::Options;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use crate::phone::line::LARGEST;
use crate::timer::Tick;
use crate::transport::Address;
use crate::transport::sctp::user::endpoint::{Endpoint as Protocol, Event};

/// One phone's socket.
pub(in crate::phone) struct Endpoint {
    socket: UdpSocket,
    protocol: Protocol,
    proxy: Address,
    remote: SocketAddr,
}

impl Endpoint {
    /// `proxy`: its IP address and SCTP port; `encapsulation`: its UDP port.
    pub(in crate::phone) fn open(
        any: SocketAddr,
        proxy: SocketAddr,
        encapsulation: u16,
        registry: &Registry,
        token: Token,
    ) -> io::Result<(Endpoint, SocketAddr)> {
        let mut socket = UdpSocket::bind(any)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        let local = socket.local_addr()?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        let options = Options {
            local_port: local.port(),
            announced_maximum_incoming_streams: 16,
            announced_maximum_outgoing_streams: 1,
            mtu: 1452,
            max_message_size: LARGEST,
            max_receiver_window_buffer_size: 4 * LARGEST,
            ..Options::default()
        };
        let protocol = Protocol::new(options, &key, u64::MAX);
        let remote = SocketAddr::new(proxy.ip(), encapsulation);
        Ok((Endpoint { socket, protocol, proxy: proxy.into(), remote }, local))
    }

    pub(in crate::phone) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let now = tick(now());
        let tag = self.protocol.to(self.proxy).or_else(|| self.protocol.connect(self.proxy, self.remote, now));
        let sent = tag.and_then(|tag| self.protocol.send(tag, vec![message.to_vec()], now).ok());
        self.leave();
        // A full queue is a line that leads nowhere.
        if sent.is_some_and(|failed| failed.is_empty()) { Ok(()) } else { Err(ErrorKind::ConnectionReset.into()) }
    }

    /// Reads all there is. An association that failed is an error; one that was shut down in good order is not.
    pub(in crate::phone) fn receive(&mut self, bytes: &mut [u8], each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        loop {
            match self.socket.recv_from(bytes) {
                Ok((length, from)) => {
                    self.protocol.receive(from, bytes.get(..length).unwrap_or_default(), tick(now()));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // An ICMP error for something sent earlier: SCTP finds out by itself.
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {}
                Err(e) => return Err(e),
            }
        }
        self.leave();
        self.events(each)
    }

    /// When `due` wants to be called.
    pub(in crate::phone) fn next(&self) -> Option<Instant> {
        let at = self.protocol.next_tick();
        (at != Tick::NEVER).then(|| epoch() + Duration::from_millis(at.0))
    }

    /// Does what the protocol's timers ask for.
    pub(in crate::phone) fn due(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.protocol.tick(tick(now()));
        self.leave();
        self.events(each)
    }

    fn events(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        while let Some(event) = self.protocol.events.pop_front() {
            match event {
                Event::Message { bytes, .. } => each(&bytes),
                Event::Lost { .. } => return Err(ErrorKind::ConnectionReset.into()),
                Event::Up { .. } | Event::Restarted { .. } | Event::Renamed { .. } | Event::Closed { .. } => {}
            }
        }
        Ok(())
    }

    /// What the socket has no room for is lost, and sent again by the protocol.
    fn leave(&mut self) {
        for (to, packet) in self.protocol.packets.drain(..) {
            let _ = self.socket.send_to(&packet, to);
        }
    }
}

impl Drop for Endpoint {
    /// A phone that goes says so: the proxy need not find out.
    fn drop(&mut self) {
        if let Some(tag) = self.protocol.to(self.proxy) {
            self.protocol.abort(tag, tick(now()));
            self.leave();
        }
    }
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(now)
}

fn tick(at: Instant) -> Tick {
    Tick(u64::try_from(at.saturating_duration_since(epoch()).as_millis()).unwrap_or(u64::MAX))
}

#[allow(clippy::disallowed_methods, reason = "phones have a clock of their own, outside the message path")]
fn now() -> Instant {
    Instant::now()
}
