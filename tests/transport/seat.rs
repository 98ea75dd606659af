//! One process's transports, turned by hand.

#![allow(clippy::disallowed_methods)] // a test has a clock

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use strowger::config::*;
use strowger::message::branch::BranchId;
use strowger::shared::broken::Broken;
use strowger::shared::counters::{Counter, Counters};
use strowger::shared::flows::Flows;
use strowger::shared::mailbox::Mailboxes;
use strowger::shared::open_associations::OpenAssociations;
use strowger::shared::own_addresses::OwnAddresses;
use strowger::shared::supervision::Supervision;
use strowger::timer::Tick;
use strowger::transport::outgoing::Body;
use strowger::transport::{
    Flow, Happening, Inbox, Outgoing, Parts, Ready, SUPERVISOR_PATIENCE, Sockets, Transport, Transports,
};
use sys::datagram::Arena;
use sys::memory::Plan;

/// Each test twice: with one socket that all workers read, and with one for each of them.
#[macro_export]
macro_rules! in_both_layouts {
    ($($name:ident),* $(,)?) => { &[
        $((stringify!($name), || $crate::seat::laid_out(strowger::config::Layout::Shared, $name)),)*
        $((
            concat!(stringify!($name), "_with_a_socket_for_each_worker"),
            || $crate::seat::laid_out(strowger::config::Layout::PerWorker, $name),
        ),)*
    ] };
}

/// Of the one test that this process runs.
static LAYOUT: OnceLock<Layout> = OnceLock::new();

pub fn laid_out(layout: Layout, test: fn()) {
    LAYOUT.set(layout).unwrap();
    test();
}

pub fn layout() -> Layout {
    *LAYOUT.get().expect("a test in both layouts")
}

pub fn parts(seats: usize, mailbox_bytes: usize) -> Parts {
    parts_with(seats, mailbox_bytes, 10_000)
}

/// `flows`: entries of each transport.
pub fn parts_with(seats: usize, mailbox_bytes: usize, flows: usize) -> Parts {
    let mut config = Config::built_in().unwrap();
    config.memory.flows = flows;
    parts_of(&config, seats, mailbox_bytes)
}

/// With all that this configuration asks for.
pub fn parts_for(config: &Config) -> Parts {
    parts_of(config, config.seats(), config.mailbox_bytes())
}

fn parts_of(config: &Config, seats: usize, mailbox_bytes: usize) -> Parts {
    let most = config.memory.flows;
    let mut plan = Plan::new();
    let flows = Flows::plan(&mut plan, most);
    let mailboxes = Mailboxes::plan(&mut plan, seats, mailbox_bytes);
    let broken = Broken::plan(&mut plan);
    let open = OpenAssociations::plan(&mut plan, seats);
    let own = OwnAddresses::plan(&mut plan);
    let counters = Counters::plan(&mut plan, seats);
    let supervision = Supervision::plan(&mut plan, config);
    let mapping = plan.map().unwrap();
    Parts {
        flows: Flows::take(&mapping, &flows, most).unwrap(),
        mailboxes: Mailboxes::take(&mapping, &mailboxes).unwrap(),
        broken: Broken::take(&mapping, &broken).unwrap(),
        open_associations: OpenAssociations::take(&mapping, &open).unwrap(),
        own_addresses: OwnAddresses::take(&mapping, &own).unwrap(),
        supervision: Supervision::take(&mapping, &supervision, SUPERVISOR_PATIENCE).unwrap(),
        counters: Counters::take(&mapping, &counters).unwrap(),
        cookie_key: [7; 32],
    }
}

pub fn config(workers: usize, listen: &[(Transport, &str)]) -> Config {
    let listen = listen
        .iter()
        .map(|(transport, addresses)| Listen {
            name: format!("{transport:?}"),
            transport: *transport,
            addresses: addresses.split(' ').map(|address| address.parse().unwrap()).collect(),
            sent_by: SentBy { host: "a.test".into(), port: 5060 },
            stack: Stack::Auto,
            encapsulation_port: Some(0),
        })
        .collect();
    Config {
        workers,
        user: None,
        listen,
        admin: Admin { address: None },
        memory: Memory { transactions: 1000, bindings: 1000, flows: 10_000, mailbox_bytes: 1 << 20, huge_pages: false },
        sctp: Sctp {
            layout: Layout::Shared,
            socket_rcvbuf_bytes: 8 << 20,
            socket_sndbuf_bytes: 256 << 10,
            init_max_attempts: 3,
            init_max_timeo_ms: 500,
            srto_initial_ms: 200,
            srto_min_ms: 100,
            srto_max_ms: 1000,
            asocmaxrxt: 4,
            pathmaxrxt: 3,
            autoclose_s: 200,
            hbinterval_ms: 30_000,
            sack_delay_ms: 0,
            sack_freq: 0,
            max_burst: 0,
            send_ttl_ms: 0,
            send_retries: 0,
            stream: 0,
            unordered: true,
            mtu: 1452,
            peer_encapsulation_port: 9899,
        },
        udp: Udp { layout: Layout::Shared, receive_buffer_bytes: 1 << 20, send_buffer_bytes: 1 << 20 },
        tcp: Tcp { connect_timeout_ms: 1000, idle_s: 60, message_timeout_ms: 2000, ..Config::built_in().unwrap().tcp },
        location: Location { store: Store::Memory },
        encapsulated: vec![],
        live: Live {
            domains: vec![],
            next_hop: vec![],
            allow: vec![],
            limits: Limits {
                message_bytes: 65_535,
                contacts: 10,
                associations: 100,
                associations_per_peer: 50,
                association_queue_bytes: 256 << 10,
                connections: 1000,
                connections_per_peer: 500,
                connection_queue_bytes: 256 << 10,
            },
            registrar: Registrar { default_expires_s: 3600, min_expires_s: 60, max_expires_s: 7200 },
            timers: Timers { t1_ms: 500, t2_ms: 4000, t4_ms: 5000, c_ms: 200_000 },
            log: Log { level: Level::Info },
            record_route: true,
            drain_s: 2,
        },
    }
}

/// A message as it was received.
#[derive(Clone, Debug)]
pub struct Got {
    pub bytes: Vec<u8>,
    pub from: Flow,
    pub close_after: bool,
}

impl Got {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

pub struct Seat {
    pub transports: Transports,
    pub parts: Parts,
    poll: Poll,
    arena: Arena,
    pub inbox: Inbox,
    pub outgoing: Outgoing,
    pub got: Vec<Got>,
    pub happenings: Vec<Happening>,
    pub skew: u64,
    /// Milliseconds that a turn waits for something to come.
    pub wait_ms: u64,
    /// The daemon's other workers, each with its own poll: turned with this one, and what they hear is told here.
    fellows: Vec<Seat>,
}

impl Seat {
    pub fn new(config: &Config, sockets: &Sockets, parts: Parts, seat: usize) -> Seat {
        let poll = Poll::new().unwrap();
        let transports = Transports::new(config, &config.live, sockets, parts, seat, &poll).unwrap();
        Seat {
            transports,
            parts,
            poll,
            arena: Arena::new(64, 66_000).unwrap(),
            inbox: Inbox::default(),
            outgoing: Outgoing::default(),
            got: Vec::new(),
            happenings: Vec::new(),
            skew: 0,
            wait_ms: 20,
            fellows: Vec::new(),
        }
    }

    /// Worker 0 with all others of this daemon.
    pub fn all(config: &Config, sockets: &Sockets, parts: Parts) -> Seat {
        let mut first = Seat::new(config, sockets, parts, 0);
        first.fellows = (1..config.workers).map(|seat| Seat::new(config, sockets, parts, seat)).collect();
        first.fellows.iter_mut().for_each(|fellow| fellow.wait_ms = 0);
        first
    }

    /// One daemon of one worker on these listeners.
    pub fn alone(listen: &[(Transport, &str)]) -> (Seat, Vec<SocketAddr>) {
        Seat::alone_with(&config(1, listen))
    }

    pub fn alone_with(config: &Config) -> (Seat, Vec<SocketAddr>) {
        let sockets = Sockets::open(config).unwrap();
        let addresses = sockets.listeners().iter().map(|listener| listener.addresses[0]).collect();
        (Seat::all(config, &sockets, parts(config.workers + 1, 1 << 20)), addresses)
    }

    pub fn now(&self) -> Tick {
        static START: OnceLock<Instant> = OnceLock::new();
        Tick(START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1000 + self.skew)
    }

    pub fn put(&mut self, to: Flow, bytes: &[u8], client: Option<BranchId>) {
        let begin = self.outgoing.begin();
        self.outgoing.bytes.extend_from_slice(bytes);
        self.outgoing.finish(begin, to, Body::Empty, client);
    }

    pub fn flush(&mut self) {
        let now = self.now();
        self.transports.flush(&mut self.outgoing, &self.arena, &mut self.inbox, now);
        self.happenings.append(&mut self.inbox.happenings);
    }

    pub fn send(&mut self, to: Flow, bytes: &[u8], client: Option<BranchId>) {
        self.put(to, bytes, client);
        self.flush();
    }

    /// Polls once, at most for `wait_ms`; `answer` may answer each message before the flush.
    pub fn turn_with(&mut self, mut answer: impl FnMut(&Got, &mut Outgoing)) {
        self.turn_itself(&mut answer);
        for fellow in &mut self.fellows {
            fellow.skew = self.skew;
            fellow.turn_itself(&mut answer);
            self.got.append(&mut fellow.got);
            self.happenings.append(&mut fellow.happenings);
        }
    }

    fn turn_itself(&mut self, mut answer: impl FnMut(&Got, &mut Outgoing)) {
        let mut events = Events::with_capacity(64);
        let wait_ms = if self.transports.announce_sleep() { self.wait_ms } else { 0 };
        // Interrupted by SIGCONT: then nothing came.
        let _ = self.poll.poll(&mut events, Some(Duration::from_millis(wait_ms)));
        self.transports.woke();
        let now = self.now();
        let mut work: Vec<(Token, Ready)> =
            events.iter().filter(|e| Transports::owns(e.token())).map(|e| (e.token(), e.into())).collect();
        while !work.is_empty() {
            work.retain(|(token, ready)| {
                self.transports.receive(*token, *ready, &mut self.arena, &mut self.inbox, now)
            });
            self.work_off(&mut answer);
        }
        if self.transports.posted(false, &mut self.arena, &mut self.inbox, now) || !self.inbox.frames.is_empty() {
            self.work_off(&mut answer);
        }
        self.transports.tick(&mut self.inbox, now);
        self.happenings.append(&mut self.inbox.happenings);
    }

    /// The first listener's packets, in a turn whose arena is full already.
    pub fn receive_without_room(&mut self) {
        let now = self.now();
        self.inbox.used = self.arena.slots();
        self.transports.receive(Token(0), Ready::READABLE, &mut self.arena, &mut self.inbox, now);
        self.inbox.clear_frames();
    }

    fn work_off(&mut self, mut answer: impl FnMut(&Got, &mut Outgoing)) {
        for frame in &self.inbox.frames {
            let bytes = &self.arena.slot(usize::from(frame.slot))[frame.start as usize..frame.end as usize];
            let got = Got { bytes: bytes.to_vec(), from: frame.from, close_after: frame.close_after };
            answer(&got, &mut self.outgoing);
            self.got.push(got);
        }
        self.inbox.clear_frames();
        self.flush();
        self.transports.worked_off(&mut self.inbox);
    }

    pub fn turn(&mut self) {
        self.turn_with(|_, _| {});
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&Seat) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < end, "waited in vain: {what}");
            self.turn();
        }
    }

    #[track_caller]
    pub fn until_got(&mut self, n: usize) {
        self.until("messages", |seat| seat.got.len() >= n);
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.parts.counters.sum(counter)
    }

    pub fn lost(&self) -> usize {
        self.happenings.iter().filter(|h| matches!(h, Happening::Lost { .. })).count()
    }

    pub fn failed(&self) -> Vec<BranchId> {
        let client = |h: &Happening| match h {
            Happening::SendFailed { client } | Happening::Undelivered { client, .. } => Some(*client),
            Happening::Lost { .. } | Happening::OwnerDied { .. } | Happening::Moved { .. } => None,
        };
        self.happenings.iter().filter_map(client).collect()
    }
}

/// Runs `test` while this process may open nothing more. (What is open stays open, and the numbers below 3 are.)
pub fn without_descriptors(test: impl FnOnce()) {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, most).unwrap();
    test();
    setrlimit(Resource::RLIMIT_NOFILE, now, most).unwrap();
}

pub fn client(slot: u32) -> Option<BranchId> {
    Some(BranchId { slot, generation: 7 })
}

pub fn to(transport: Transport, peer: SocketAddr) -> Flow {
    Flow { peer: peer.into(), transport: transport as u8, ..Flow::default() }
}

/// A SIP message of some sort, `n` bytes of body.
pub fn message(name: &str, n: usize) -> Vec<u8> {
    format!("OPTIONS sip:{name} SIP/2.0\r\nContent-Length: {n}\r\n\r\n{}", "x".repeat(n)).into_bytes()
}
