//! Nonsense with right checksums: whatever comes to an SCTP endpoint in user space, it neither panics nor keeps anything.
//!
//! Two endpoints talk, and what they say is twisted on its way: bits, lengths, kinds, whole chunks. As many packets as
//! FUZZ_PACKETS says (200,000 without it); FUZZ_SEED repeats a run.

use std::net::SocketAddr;
use std::time::Duration;

use dcsctp::api::Options;
use fastrand::Rng;
use strowger::timer::Tick;
use strowger::transport::Address;
use strowger::transport::sctp::user::endpoint::{Endpoint, Event, packet};

const PORT: u16 = 5060;
/// Packets until the endpoints are replaced: enough to come into every state.
const LIFE: u64 = 5_000;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

fn endpoint() -> Endpoint {
    let options = Options {
        local_port: PORT,
        mtu: 1452,
        max_message_size: 65_535,
        max_receiver_window_buffer_size: 1 << 18,
        max_send_buffer_size: 1 << 18,
        per_stream_send_queue_limit: 1 << 18,
        announced_maximum_incoming_streams: 128,
        rto_max: Duration::from_secs(3),
        ..Options::default()
    };
    Endpoint::new(options, &[9; 32], 300_000)
}

/// Two endpoints, and packets that were seen between them.
struct World {
    ends: [Endpoint; 2],
    now: Tick,
    seen: Vec<Vec<u8>>,
    fed: u64,
    messages: u64,
}

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + end as u8], 9899))
}

impl World {
    fn new(now: Tick) -> World {
        World { ends: [endpoint(), endpoint()], now, seen: Vec::new(), fed: 0, messages: 0 }
    }

    fn act(&mut self, random: &mut Rng) {
        let end = random.usize(0..2);
        let peer = Address::new(address(1 - end).ip(), PORT);
        let now = self.now;
        let endpoint = &mut self.ends[end];
        match (endpoint.to(peer), random.u32(0..40)) {
            (None, _) => drop(endpoint.connect(peer, address(1 - end), now)),
            (Some(tag), 0) => endpoint.shut_down(tag, now),
            (Some(tag), 1) => endpoint.abort(tag, now),
            (Some(tag), 2) => {
                let length = random.usize(0..60_000);
                let _ = endpoint.send(tag, vec![vec![b'x'; length]], now);
            }
            (Some(tag), _) => {
                let messages = (0..random.usize(1..5)).map(|_| vec![b'y'; random.usize(1..1500)]).collect();
                let _ = endpoint.send(tag, messages, now);
            }
        }
        if random.u32(0..4) == 0 {
            self.now = self.now + random.u64(1..3_000);
            self.ends.iter_mut().for_each(|end| drop(end.tick(self.now)));
        }
    }

    /// Brings packets over; beside some of them, twisted ones.
    fn carry(&mut self, random: &mut Rng) {
        for end in 0..2 {
            let packets: Vec<_> = self.ends[end].packets.drain(..).collect();
            for (_, bytes) in packets {
                if self.seen.len() < 200 {
                    self.seen.push(bytes.clone());
                } else {
                    let at = random.usize(0..200);
                    self.seen[at].clone_from(&bytes);
                }
                for _ in 0..random.u32(0..4) {
                    let twisted = twist(&bytes, &self.seen, random);
                    let from =
                        if random.u32(0..10) == 0 { SocketAddr::from(([192, 0, 2, 9], 1)) } else { address(end) };
                    self.feed(1 - end, from, &twisted);
                }
                if random.u32(0..20) != 0 {
                    self.feed(1 - end, address(end), &bytes);
                }
            }
        }
        for end in &mut self.ends {
            self.messages += end.events.drain(..).filter(|event| matches!(event, Event::Message { .. })).count() as u64;
        }
    }

    fn feed(&mut self, end: usize, from: SocketAddr, bytes: &[u8]) {
        self.fed += 1;
        self.ends[end].receive(from, bytes, self.now);
    }
}

/// Another packet than this one, with a right checksum.
fn twist(bytes: &[u8], seen: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.u32(1..4) {
        let at = random.usize(0..bytes.len());
        match random.u32(0..8) {
            0 => bytes[at] ^= 1 << random.u32(0..8),
            1 => bytes[at] = random.u8(..),
            // The first chunk's kind, flags or length.
            2 if bytes.len() > 16 => bytes[12 + random.usize(0..4)] = random.u8(0..20),
            3 if bytes.len() > 40 => bytes[16 + random.usize(0..24)] = [0, 1, 255, 128][random.usize(0..4)],
            4 => bytes.truncate(at.max(12)),
            5 => bytes.extend((0..random.usize(0..64)).map(|_| random.u8(..))),
            // A chunk of another packet, with its own tag or ours.
            6 => bytes.extend_from_slice(seen[random.usize(0..seen.len())].get(12..).unwrap_or_default()),
            _ => {
                let other = &seen[random.usize(0..seen.len())];
                bytes.truncate(12.min(bytes.len()));
                bytes.extend_from_slice(other.get(12..).unwrap_or_default());
            }
        }
        bytes.truncate(60_000);
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    packet::mend(&mut bytes);
    bytes
}

/// Pages of this process in RAM that are its own, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn nonsense_neither_ends_nor_fills_an_endpoint() {
    let packets = from_environment("FUZZ_PACKETS", 200_000);
    let seed = from_environment("FUZZ_SEED", u64::from(std::process::id()));
    eprintln!("    FUZZ_SEED={seed}, {packets} packets");
    let mut random = Rng::with_seed(seed);
    let (mut fed, mut messages, mut lives, mut early) = (0, 0, 0, 0);
    let mut now = Tick(1_000_000);
    while fed < packets {
        let mut world = World::new(now);
        while world.fed < LIFE {
            world.act(&mut random);
            world.carry(&mut random);
        }
        assert!(world.ends.iter().all(|end| end.len() <= 4), "associations nobody set up: {}", world.ends[0].len());
        (fed, messages, lives, now) = (fed + world.fed, messages + world.messages, lives + 1, world.now);
        if lives == 10 {
            early = memory();
        }
    }
    let late = memory();
    eprintln!(
        "    {fed} packets, {lives} pairs of endpoints, {messages} messages came through; {early} bytes early, {late} late"
    );
    assert!(messages > lives, "nothing came through: nothing was tried");
    assert!(late < early + (8 << 20), "memory grew from {early} to {late} bytes");
}
