//! How the load speaks SCTP in user space: an endpoint on each side, over a UDP socket each (RFC 6951).
//!
//! Owns: the two endpoints, and the count of the packets that the forwarder gets and sends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use dcsctp::api::Options;
use nix::sys::epoll::Epoll;
use strowger::timer::Tick;
use strowger::transport::Address;
use strowger::transport::sctp::user::endpoint::{Endpoint, Event};
use strowger::worker::clock;

use crate::ends::{Batches, at, watch};
use crate::kind::APART;
use crate::load::{Ends, Messages, Traffic};

/// As a phone's (`src/phone/sctp/user.rs`).
pub fn endpoint(port: u16) -> Endpoint {
    let options = Options {
        local_port: port,
        announced_maximum_incoming_streams: 16,
        announced_maximum_outgoing_streams: 1,
        mtu: 1452,
        max_message_size: 65_535,
        max_receiver_window_buffer_size: 4 * 65_535,
        ..Options::default()
    };
    Endpoint::new(options, &[7; 32], u64::MAX)
}

struct Side {
    endpoint: Endpoint,
    socket: OwnedFd,
    sent: (u64, u64),
    received: (u64, u64),
}

impl Side {
    fn open(port: u16) -> io::Result<Side> {
        // Its SCTP port is its UDP port.
        let (socket, _) = sys::udp::bind(at(port), false, 8 << 20, 8 << 20)?;
        Ok(Side { endpoint: endpoint(port), socket, sent: (0, 0), received: (0, 0) })
    }

    fn receive(&mut self, batches: &mut Batches, now: Tick) -> io::Result<()> {
        let Side { endpoint, received, .. } = self;
        batches.receive(&self.socket, &mut |from, bytes| {
            count(received, bytes);
            endpoint.receive(from, bytes, now);
        })?;
        self.leave(batches)
    }

    /// Sends what the endpoint wants sent.
    fn leave(&mut self, batches: &mut Batches) -> io::Result<()> {
        let mut packets = std::mem::take(&mut self.endpoint.packets);
        packets.iter().for_each(|(_, bytes)| count(&mut self.sent, bytes));
        while let Some(to) = packets.first().map(|(to, _)| *to) {
            let (its, others): (Vec<_>, _) = packets.into_iter().partition(|packet| packet.0 == to);
            let its: Vec<_> = its.into_iter().map(|(_, bytes)| bytes).collect();
            batches.send(&self.socket, to, &its, false, None)?;
            packets = others;
        }
        Ok(())
    }

    fn messages(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        while let Some(event) = self.endpoint.events.pop_front() {
            match event {
                Event::Message { bytes, .. } => each(&bytes),
                Event::Lost { .. } => return Err(io::ErrorKind::ConnectionReset.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn count(counter: &mut (u64, u64), bytes: &[u8]) {
    *counter = (counter.0 + 1, counter.1 + bytes.len() as u64);
}

pub struct User {
    a: Side,
    z: Side,
    peer: Address,
    remote: SocketAddr,
    batches: Batches,
}

impl User {
    /// `to`, `encapsulation`: SCTP and UDP port of the forwarder.
    pub fn open(epoll: &Epoll, base: u16, to: u16, encapsulation: u16) -> io::Result<User> {
        let (a, z) = (Side::open(base)?, Side::open(base ^ APART)?);
        watch(epoll, &a.socket, 0)?;
        watch(epoll, &z.socket, 1)?;
        Ok(User { a, z, peer: at(to).into(), remote: at(encapsulation), batches: Batches::new()? })
    }
}

impl Ends for User {
    fn send(&mut self, messages: &mut Messages, first: u64, count: usize) -> io::Result<()> {
        let (now, endpoint) = (clock::now(), &mut self.a.endpoint);
        let tag = endpoint.to(self.peer).or_else(|| endpoint.connect(self.peer, self.remote, now));
        let tag = tag.ok_or(io::ErrorKind::NotConnected)?;
        match endpoint.send(tag, messages.numbered(first..first + count as u64).to_vec(), now) {
            Ok(failed) if failed.is_empty() => self.a.leave(&mut self.batches),
            _ => Err(io::Error::other("the load's own association takes no more")),
        }
    }

    fn receive(&mut self, token: u64, _: &Epoll, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let side = if token == 0 { &mut self.a } else { &mut self.z };
        side.receive(&mut self.batches, clock::now())?;
        side.messages(each)
    }

    fn due(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<Duration> {
        let now = clock::now();
        let mut next = Tick::NEVER;
        for side in [&mut self.a, &mut self.z] {
            if side.endpoint.next_tick() <= now {
                side.endpoint.tick(now);
                side.leave(&mut self.batches)?;
                side.messages(each)?;
            }
            next = next.min(side.endpoint.next_tick());
        }
        Ok(next - now)
    }

    fn traffic(&self) -> Traffic {
        let both = |one: (u64, u64), other: (u64, u64)| (one.0 + other.0, one.1 + other.1);
        Traffic { data: both(self.a.sent, self.z.received), back: both(self.a.received, self.z.sent) }
    }
}
