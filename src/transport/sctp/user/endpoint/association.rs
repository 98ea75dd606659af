//! One association: a socket of the crate `dcsctp`, which is the protocol (RFC 9260), with our clock and our addresses.
//!
//! Owns: the socket's time, and the way back to the peer. Never sends: what is to leave is an event of the socket.

use std::net::SocketAddr;
use std::time::Duration;

use dcsctp::api::{
    DcSctpSocket, Message, Metrics, Options, PpId, SendOptions, Socket, SocketEvent, SocketState, SocketTime, StreamId,
};

use super::How;
use super::packet::{INIT, INIT_ACK, Packet};
use crate::timer::Tick;
use crate::transport::Address;

/// Tags have their first bit set, so that none is an association id of the kernel (a positive `int`) as well.
pub const TAG_MARK: u32 = 1 << 31;

pub struct Association {
    socket: Socket,
    born: Tick,
    /// Our verification tag: what the peer writes into its packets.
    pub tag: u32,
    /// IP address and SCTP port.
    pub peer: Address,
    /// Where its UDP datagrams come from (RFC 6951 §5.4).
    pub remote: SocketAddr,
    /// Was it established once?
    pub up: bool,
    /// We asked for its end.
    pub ending: bool,
    /// INIT ACK has come and COOKIE ACK not yet.
    echoed: bool,
    /// Messages of that time, and their bytes: nothing may leave beside the COOKIE ECHO (§5.1 C), which the crate forgets.
    held: Vec<Vec<u8>>,
    held_bytes: usize,
    most_held: usize,
    /// When data last came or went.
    pub last: Tick,
    /// When its metrics were last asked for.
    pub told: Tick,
    /// Being shut down, it is ended then whatever the peer says (T5-shutdown-guard, §9.2), else `Tick::NEVER`: the crate waits for as
    /// long as the peer goes on sending.
    pub guard: Tick,
    /// Under which deadline it is entered; `Tick::NEVER`: none.
    pub armed: Tick,
}

impl Association {
    pub fn new(options: &Options, peer: Address, remote: SocketAddr, now: Tick) -> Association {
        // The name stands in log lines that nobody reads.
        let socket = Socket::new("", options);
        Association {
            socket,
            born: now,
            tag: 0,
            peer,
            remote,
            up: false,
            ending: false,
            echoed: false,
            held: Vec::new(),
            held_bytes: 0,
            most_held: options.max_send_buffer_size,
            last: now,
            told: Tick(0),
            guard: Tick::NEVER,
            armed: Tick::NEVER,
        }
    }

    fn at(&mut self, now: Tick) -> &mut Socket {
        self.socket.advance_time(SocketTime::zero() + Duration::from_millis(now.since(self.born)));
        &mut self.socket
    }

    pub fn receive(&mut self, packet: &[u8], now: Tick) {
        self.echoed |= Packet::read(packet).is_some_and(|packet| packet.has(INIT_ACK));
        self.at(now).handle_input(packet);
    }

    /// It is up, for the first time: what was held back leaves.
    pub fn release(&mut self, how: How, now: Tick) {
        (self.up, self.last, self.held_bytes) = (true, now, 0);
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            // Less than what the protocol's own queue takes, which is empty.
            self.send(held, how, now);
        }
    }

    /// Bytes of the longest message that may be sent.
    pub fn set_longest(&mut self, bytes: usize) {
        self.socket.set_max_message_size(bytes);
    }

    pub fn connect(&mut self, now: Tick) {
        self.at(now).connect();
    }

    /// Gives the protocol messages to send, so that they share packets. Returns the places of those it has no room for.
    pub fn send(&mut self, messages: Vec<Vec<u8>>, how: How, now: Tick) -> Vec<usize> {
        if self.echoed && !self.up {
            return self.hold(messages);
        }
        let messages = messages.into_iter().map(|bytes| Message::new(StreamId(how.stream), PpId(0), bytes)).collect();
        let options = SendOptions { unordered: how.unordered, lifetime: how.lifetime, ..SendOptions::default() };
        self.last = now;
        match self.at(now).send_many(messages, &options) {
            Ok(()) => Vec::new(),
            Err(failed) => failed.0.into_iter().map(|(place, _)| place).collect(),
        }
    }

    fn hold(&mut self, messages: Vec<Vec<u8>>) -> Vec<usize> {
        let mut failed = Vec::new();
        for (place, bytes) in messages.into_iter().enumerate() {
            if bytes.is_empty() || self.held_bytes + bytes.len() > self.most_held {
                failed.push(place);
            } else {
                self.held_bytes += bytes.len();
                self.held.push(bytes);
            }
        }
        failed
    }

    pub fn shut_down(&mut self, now: Tick) {
        // Not when the peer was quicker.
        self.ending |= self.socket.state() != SocketState::ShuttingDown;
        self.at(now).shutdown();
    }

    pub fn abort(&mut self, now: Tick) {
        self.at(now).close();
    }

    pub fn pass(&mut self, now: Tick) {
        self.at(now);
    }

    pub fn event(&mut self) -> Option<SocketEvent> {
        self.socket.poll_event()
    }

    pub fn message(&mut self, now: Tick) -> Option<Vec<u8>> {
        if self.socket.messages_ready_count() == 0 {
            return None;
        }
        self.last = now;
        self.socket.get_next_message().map(|message| message.payload)
    }

    pub fn is_closed(&self) -> bool {
        self.socket.state() == SocketState::Closed
    }

    pub fn is_closing(&self) -> bool {
        self.socket.state() == SocketState::ShuttingDown
    }

    pub fn is_connected(&self) -> bool {
        self.socket.state() == SocketState::Connected
    }

    /// When the protocol wants to be woken.
    pub fn due(&self) -> Tick {
        let at = self.socket.poll_timeout();
        if at == SocketTime::infinite_future() {
            return Tick::NEVER;
        }
        // Rounded up: woken early, it would find nothing to do.
        let after = (at - SocketTime::zero()).as_nanos().div_ceil(1_000_000);
        self.born + u64::try_from(after).unwrap_or(u64::MAX)
    }

    pub fn metrics(&self) -> Option<Metrics> {
        self.socket.get_metrics()
    }

    /// Bytes that wait to be sent.
    pub fn queued(&self, stream: u16) -> usize {
        self.socket.buffered_amount(StreamId(stream)) + self.held_bytes
    }
}

/// The tag that an INIT or INIT ACK on its way out says is ours.
pub fn said_tag(packet: &[u8]) -> Option<u32> {
    let chunk = Packet::read(packet)?.first()?;
    if matches!(chunk.kind, INIT | INIT_ACK) { chunk.initiate_tag() } else { None }
}
