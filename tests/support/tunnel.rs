//! A bare peer over SCTP in user space: an endpoint on a UDP socket of its own (RFC 6951), turned by hand.
//!
//! Its SCTP port is its UDP port. What it does not read in `turn`, nobody reads: so it can also stall.
#![allow(dead_code, clippy::disallowed_methods, reason = "each test takes a part; tests may read the clock")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dcsctp::api::Options;
use strowger::timer::Tick;
use strowger::transport::Address;
use strowger::transport::sctp::user::endpoint::{Endpoint, Event, packet};

pub struct TunnelPeer {
    socket: UdpSocket,
    pub endpoint: Endpoint,
    pub at: SocketAddr,
    /// Messages and the tags of their associations.
    pub got: Vec<(u32, Vec<u8>)>,
    /// Associations that are up.
    pub up: Vec<u32>,
    /// How many have been shut down, and how many aborted.
    pub closed: usize,
    pub lost: usize,
}

impl TunnelPeer {
    pub fn on(address: SocketAddr) -> TunnelPeer {
        let socket = UdpSocket::bind(address).expect("a socket");
        socket.set_nonblocking(true).expect("non-blocking");
        let at = socket.local_addr().expect("an address");
        TunnelPeer { socket, endpoint: endpoint(at.port()), at, got: Vec::new(), up: Vec::new(), closed: 0, lost: 0 }
    }

    /// It ends without a word, and begins anew on the same ports. What it had not read is gone.
    pub fn restart(&mut self) {
        while self.socket.recv_from(&mut [0; 65_536]).is_ok() {}
        self.endpoint = endpoint(self.at.port());
        self.up.clear();
    }

    /// Its packets come from another UDP port from now on, as behind a NAT; its SCTP port stays.
    pub fn move_away(&mut self) {
        self.socket = UdpSocket::bind((self.at.ip(), 0)).expect("a socket");
        self.socket.set_nonblocking(true).expect("non-blocking");
    }

    /// The tag that it writes into an association's packets.
    pub fn their_tag(&mut self, tag: u32) -> u32 {
        self.endpoint.send(tag, vec![b"\r\n".to_vec()], now()).expect("it lives");
        let tag = self.endpoint.packets.last().and_then(|(_, bytes)| packet::u32_at(bytes, 4)).expect("a packet");
        self.leave();
        tag
    }

    /// Sends a packet that is not its endpoint's.
    pub fn send_raw(&self, to: SocketAddr, packet: &[u8]) {
        self.socket.send_to(packet, to).expect("it is sent");
    }

    /// Sets an association up with who has this IP address and SCTP port, behind this UDP port: its tag.
    pub fn call(&mut self, to: SocketAddr, tunnel: u16) -> u32 {
        let tag = self.endpoint.connect(to.into(), SocketAddr::new(to.ip(), tunnel), now());
        self.leave();
        tag.expect("no association with that peer yet")
    }

    pub fn send(&mut self, tag: u32, message: &[u8]) {
        let failed = self.endpoint.send(tag, vec![message.to_vec()], now()).expect("it lives");
        assert!(failed.is_empty(), "there is room");
        self.leave();
    }

    pub fn abort(&mut self, tag: u32) {
        self.endpoint.abort(tag, now());
        self.up.retain(|up| *up != tag);
        self.leave();
    }

    pub fn shut_down(&mut self, tag: u32) {
        self.endpoint.shut_down(tag, now());
        self.leave();
    }

    /// Reads what is there, and lets the protocol do what is due.
    pub fn turn(&mut self) {
        let mut bytes = [0; 65_536];
        while let Ok((length, from)) = self.socket.recv_from(&mut bytes) {
            self.endpoint.receive(from, &bytes[..length], now());
        }
        drop(self.endpoint.tick(now()));
        self.leave();
        while let Some(event) = self.endpoint.events.pop_front() {
            match event {
                Event::Up { tag, .. } => self.up.push(tag),
                Event::Message { tag, bytes, .. } => self.got.push((tag, bytes)),
                Event::Closed { tag, .. } => {
                    self.up.retain(|up| *up != tag);
                    self.closed += 1;
                }
                Event::Lost { tag, .. } => {
                    self.up.retain(|up| *up != tag);
                    self.lost += 1;
                }
                Event::Restarted { .. } | Event::Renamed { .. } => {}
            }
        }
    }

    fn leave(&mut self) {
        for (to, bytes) in self.endpoint.packets.drain(..) {
            let _ = self.socket.send_to(&bytes, to);
        }
    }

    /// IP address and SCTP port.
    pub fn address(&self) -> Address {
        self.at.into()
    }
}

fn endpoint(port: u16) -> Endpoint {
    let options = Options {
        local_port: port,
        announced_maximum_incoming_streams: 16,
        announced_maximum_outgoing_streams: 1,
        mtu: 1452,
        max_message_size: 65_536,
        max_receiver_window_buffer_size: 1 << 18,
        rto_initial: Duration::from_millis(500),
        ..Options::default()
    };
    Endpoint::new(options, &[9; 32], u64::MAX)
}

fn now() -> Tick {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    Tick(START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 10_000)
}
