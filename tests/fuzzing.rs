//! Nonsense with right checksums: whatever comes to an SCTP endpoint in user space, it neither panics nor keeps anything.
//!
//! Two endpoints with the daemon's own options talk, and what they say is twisted on its way: bits, lengths, kinds, whole chunks. A
//! twisted INIT's cookie comes back under its seal, as nobody else could forge it. Half of all packets are for young pairs, which are
//! replaced soon; half for one that lives as long as the run, as a daemon's do. As many twisted packets as FUZZ_PACKETS says (60,000
//! without it), and twice as many honest ones beside them; FUZZ_SEED repeats a run.

use std::net::SocketAddr;

use allocation_counter::measure;
use fastrand::Rng;
use strowger::config::Config;
use strowger::timer::Tick;
use strowger::transport::Address;
use strowger::transport::sctp::user::endpoint::packet::{self, Packet};
use strowger::transport::sctp::user::endpoint::{Endpoint, Event};
use strowger::transport::sctp::user::settings;

const PORT: u16 = 5060;
/// Packets until a young pair is replaced: enough to come into every state.
const LIFE: u64 = 5_000;
/// Associations of one endpoint: with the other one, and with whom twisted packets may come from.
const MOST: usize = 4;
/// Bytes that endpoints without associations may have kept: what their tables have grown by.
const KEPT: i64 = 16 << 10;
/// How often the memory is looked at, in steps alike.
const LOOKS: u64 = 20;
/// What associations have waiting is now more, now less: by so many bytes the later half's highest look may exceed the earlier's.
const LIVE: u64 = 8 << 20;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

fn endpoint(config: &Config) -> Endpoint {
    let options = settings::options(&config.sctp, &config.live.limits, PORT);
    let mut endpoint = Endpoint::new(options, &[9; 32], u64::from(config.sctp.autoclose_s) * 1000);
    endpoint.how = settings::how(&config.sctp);
    endpoint
}

/// Two endpoints, and packets that were seen between them.
struct World {
    ends: [Endpoint; 2],
    /// The associations live long: seldom ended, seldom twisted.
    calm: bool,
    now: Tick,
    seen: Vec<Vec<u8>>,
    fed: u64,
    twisted: u64,
    /// Cookies that came back under their seal, whatever INIT they are of.
    cookies: u64,
    messages: u64,
    /// Bytes that an association may have waiting.
    queue: usize,
    /// The association of the first end with the second, and when it was first seen; the longest that one lived, in packets.
    oldest: (Option<u32>, u64),
    longest: u64,
}

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + end as u8], 9899))
}

impl World {
    fn new(now: Tick, calm: bool) -> World {
        let config = Config::built_in().expect("it is right");
        let queue = config.live.limits.association_queue_bytes;
        let (ends, seen) = ([endpoint(&config), endpoint(&config)], Vec::new());
        let (oldest, longest) = ((None, 0), 0);
        World { ends, calm, now, seen, fed: 0, twisted: 0, cookies: 0, messages: 0, queue, oldest, longest }
    }

    /// Goes on until so many packets were fed.
    fn live_to(&mut self, fed: u64, random: &mut Rng) {
        while self.fed < fed {
            self.act(random);
            self.carry(random);
            self.look();
        }
    }

    /// An endpoint holds what its associations are, and no more.
    fn look(&mut self) {
        for end in &self.ends {
            assert!(end.len() <= MOST && end.places() <= MOST, "{} associations, {} places", end.len(), end.places());
            assert_eq!(end.tags().count(), end.len(), "each has one tag");
            // Being set up an association may have as much held back again, and the last message may be longer than what is left.
            assert!(end.tags().all(|tag| end.queued(tag) <= 2 * self.queue + 65_535));
        }
        let tag = self.ends[0].to(Address::new(address(1).ip(), PORT));
        if tag != self.oldest.0 {
            self.oldest = (tag, self.fed);
        }
        self.longest = self.longest.max(self.fed - self.oldest.1);
    }

    /// Ends all associations and forgets what was seen: what is allocated from now on is what the endpoints have kept.
    fn hush(&mut self) {
        for end in &mut self.ends {
            for tag in end.tags().collect::<Vec<_>>() {
                end.abort(tag, self.now);
            }
            assert!(end.is_empty() && end.next_tick() == Tick::NEVER);
            (end.packets, end.events) = Default::default();
        }
        self.seen = Vec::new();
    }

    fn act(&mut self, random: &mut Rng) {
        let end = random.usize(0..2);
        let peer = Address::new(address(1 - end).ip(), PORT);
        let now = self.now;
        let endpoint = &mut self.ends[end];
        match (endpoint.to(peer), random.u32(0..40)) {
            (None, _) => drop(endpoint.connect(peer, address(1 - end), now)),
            (Some(tag), 0) if !self.calm || random.u32(0..1_000) == 0 => endpoint.shut_down(tag, now),
            (Some(tag), 1) if !self.calm || random.u32(0..1_000) == 0 => endpoint.abort(tag, now),
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
            for (to, bytes) in packets {
                if self.seen.len() < 200 {
                    self.seen.push(bytes.clone());
                } else {
                    let at = random.usize(0..200);
                    self.seen[at].clone_from(&bytes);
                }
                let copies = if self.calm { u32::from(random.u32(0..20) == 0) } else { random.u32(0..4) };
                for _ in 0..copies {
                    let twisted = twist(&bytes, &self.seen, random);
                    let from =
                        if random.u32(0..10) == 0 { SocketAddr::from(([192, 0, 2, 9], 1)) } else { address(end) };
                    self.feed(1 - end, from, &twisted);
                    self.twisted += 1;
                }
                let wanted = if self.calm { random.u32(0..10_000) == 0 } else { random.u32(0..4) == 0 };
                if let Some(echo) = cookie_echo(&bytes).filter(|_| wanted) {
                    self.feed(end, to, &echo);
                    self.cookies += 1;
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

/// What brings the cookie of this packet back, if it is an INIT ACK to a peer at the port of all.
fn cookie_echo(bytes: &[u8]) -> Option<Vec<u8>> {
    let packet = Packet::read(bytes).filter(|packet| packet.destination == PORT)?;
    let init_ack = packet.first().filter(|chunk| chunk.kind == packet::INIT_ACK)?;
    let (_, start, end) = packet::state_cookie(&init_ack)?;
    Some(packet::build(PORT, PORT, init_ack.initiate_tag()?, packet::COOKIE_ECHO, 0, bytes.get(start..end)?))
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

/// Young pairs, and the one that lives on.
struct Run {
    random: Rng,
    old: World,
    young: u64,
    fed: u64,
    twisted: u64,
    cookies: u64,
    messages: u64,
}

impl Run {
    /// Goes on until so many twisted packets were fed.
    fn until(&mut self, twisted: u64) {
        while self.twisted < twisted {
            let mut young = World::new(self.old.now, false);
            young.live_to(LIFE, &mut self.random);
            let sums = |world: &World| [world.fed, world.twisted, world.cookies, world.messages];
            let before = sums(&self.old);
            self.old.live_to(self.old.fed + LIFE, &mut self.random);
            self.young += 1;
            let [fed, twisted, cookies, messages] =
                std::array::from_fn(|n| sums(&young)[n] + sums(&self.old)[n] - before[n]);
            self.fed += fed;
            self.twisted += twisted;
            self.cookies += cookies;
            self.messages += messages;
        }
    }
}

#[test]
fn nonsense_neither_ends_nor_fills_an_endpoint() {
    let packets = from_environment("FUZZ_PACKETS", 60_000);
    let seed = from_environment("FUZZ_SEED", u64::from(std::process::id()));
    eprintln!("    FUZZ_SEED={seed}, {packets} twisted packets");
    let old = World::new(Tick(1_000_000), true);
    let mut run = Run { random: Rng::with_seed(seed), old, young: 0, fed: 0, twisted: 0, cookies: 0, messages: 0 };
    // The first look comes when all tables have the size that they keep.
    run.until(packets / LOOKS);
    run.old.hush();
    let mut looks = [0; LOOKS as usize];
    let kept = measure(|| {
        for (look, step) in looks.iter_mut().zip(1..) {
            run.until(packets / LOOKS * step);
            *look = memory();
        }
        run.old.hush();
    });
    eprintln!(
        "    {} packets, {} of them twisted, and {} cookies brought back; {} packets ({} twisted) to one pair and the others to {} \
         that lived short, {} messages came through; the oldest association lived for {} packets",
        run.fed, run.twisted, run.cookies, run.old.fed, run.old.twisted, run.young, run.messages, run.old.longest
    );
    let megabytes: Vec<_> = looks.iter().map(|bytes| format!("{:.1}", *bytes as f64 / 1e6)).collect();
    eprintln!(
        "    MB of memory as the run went on: {}; {} bytes kept by the old pair",
        megabytes.join(" "),
        kept.bytes_current
    );
    assert!(run.messages > run.young && run.old.messages > run.young, "nothing came through: nothing was tried");
    assert!(run.cookies > run.young, "too few cookies came back: {}", run.cookies);
    let (earlier, later) = looks.split_at(looks.len() / 2);
    assert!(later.iter().max() < earlier.iter().max().map(|most| most + LIVE).as_ref(), "memory grows: {looks:?}");
    assert!(kept.bytes_current < KEPT, "{} bytes were kept", kept.bytes_current);
}
