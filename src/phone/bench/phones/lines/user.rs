//! SCTP in user space: an association per phone over a UDP socket of its own (RFC 6951).
//!
//! Its SCTP port is its UDP port, so that many phones of one address are told apart.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};

use dcsctp::api::Options;
use mio::Registry;

use super::batch::Batch;
use super::datagrams::bind;
use super::{At, Reads};
use crate::phone::line::LARGEST;
use crate::timer::Tick;
use crate::transport::Address;
use crate::transport::sctp::user::endpoint::{Endpoint, Event};

pub(super) struct Association {
    socket: UdpSocket,
    protocol: Endpoint,
    tag: u32,
    proxy: Address,
    remote: SocketAddr,
    batch: Batch,
    /// The protocol's time must not go backwards, also when this is dropped.
    now: Tick,
}

/// Packets of one reading: from a phone's own association, and from a trunk.
const FEW: usize = 1;
const MANY: usize = 64;

impl Association {
    pub(super) fn open(
        any: SocketAddr,
        proxy: SocketAddr,
        encapsulation: u16,
        registry: &Registry,
        at: At,
        now_ms: u64,
    ) -> io::Result<(Association, SocketAddr)> {
        let remote = SocketAddr::new(proxy.ip(), encapsulation);
        let (socket, local) = bind(any, remote, registry, at)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        let options = Options {
            local_port: local.port(),
            announced_maximum_incoming_streams: 16,
            announced_maximum_outgoing_streams: 1,
            mtu: 1452,
            max_message_size: LARGEST,
            max_receiver_window_buffer_size: 16 * LARGEST,
            ..Options::default()
        };
        let mut protocol = Endpoint::new(options, &key, u64::MAX);
        let tag = protocol.connect(proxy.into(), remote, Tick(now_ms)).ok_or(ErrorKind::ConnectionRefused)?;
        let mut association = Association {
            socket,
            protocol,
            tag,
            proxy: proxy.into(),
            remote,
            batch: Batch::default(),
            now: Tick(now_ms),
        };
        association.leave();
        Ok((association, local))
    }

    pub(super) fn send(&mut self, message: &[u8], hold: bool, now_ms: u64) -> io::Result<bool> {
        if hold {
            self.batch.push(message);
            return Ok(true);
        }
        self.send_all(vec![message.to_vec()], now_ms)?;
        Ok(false)
    }

    pub(super) fn flush(&mut self, now_ms: u64) -> io::Result<()> {
        let messages: Vec<Vec<u8>> = self.batch.iter().map(<[u8]>::to_vec).collect();
        self.batch.clear();
        if messages.is_empty() { Ok(()) } else { self.send_all(messages, now_ms) }
    }

    /// A full queue is a line that leads nowhere.
    fn send_all(&mut self, messages: Vec<Vec<u8>>, now_ms: u64) -> io::Result<()> {
        self.now = Tick(now_ms);
        let sent = self.protocol.send(self.tag, messages, self.now);
        self.leave();
        if sent.is_ok_and(|failed| failed.is_empty()) { Ok(()) } else { Err(ErrorKind::ConnectionReset.into()) }
    }

    pub(super) fn receive(&mut self, reads: &mut Reads, many: bool, now_ms: u64) -> io::Result<bool> {
        self.now = Tick(now_ms);
        for _ in 0..if many { MANY } else { FEW } {
            match self.socket.recv(&mut reads.bytes) {
                Ok(length) => {
                    let packet = reads.bytes.get(..length).unwrap_or_default();
                    self.protocol.receive(self.remote, packet, self.now);
                }
                // An ICMP error for something sent earlier: SCTP finds out by itself.
                Err(_) => break,
            }
        }
        // Its own timers may have brought the line here.
        if self.protocol.next_tick() <= self.now {
            self.protocol.tick(self.now);
        }
        self.leave();
        self.events(reads)
    }

    /// `receive` fails when the peer has agreed.
    pub(super) fn shut_down(&mut self) {
        self.protocol.shut_down(self.tag, self.now);
        self.leave();
    }

    pub(super) fn next_ms(&self) -> u64 {
        self.protocol.next_tick().0
    }

    fn events(&mut self, reads: &mut Reads) -> io::Result<bool> {
        while let Some(event) = self.protocol.events.pop_front() {
            match event {
                Event::Message { bytes, .. } => reads.owned.push(bytes),
                Event::Renamed { tag, .. } => self.tag = tag,
                Event::Lost { .. } | Event::Closed { .. } | Event::Restarted { .. } => {
                    return Err(ErrorKind::ConnectionReset.into());
                }
                Event::Up { .. } => {}
            }
        }
        Ok(false)
    }

    /// What the socket has no room for is lost, and sent again by the protocol.
    fn leave(&mut self) {
        for (_, packet) in self.protocol.packets.drain(..) {
            let _ = self.socket.send(&packet);
        }
    }
}

impl Drop for Association {
    /// A phone that goes says so: the proxy need not find out.
    fn drop(&mut self) {
        if self.protocol.to(self.proxy).is_some() {
            self.protocol.abort(self.tag, self.now);
            self.leave();
        }
    }
}
