//! The configuration: what every key means, its unit, range and default.
//!
//! Owns: the settings as typed values. `source` and `keys` read TOML and environment, `read` makes typed values of them,
//! `sense` compares them with each other, `reload` lets SIGHUP in. Every mistake is named, not only the first. Never opens
//! a socket.

pub mod exit;
mod keys;
mod mistake;
mod read;
mod reload;
mod sense;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use mistake::Mistake;
pub use reload::Reloaded;

use crate::transport::Transport;

/// Everything the daemon is told. Sizes of shared memory and sockets are fixed at start; `Live` can change at SIGHUP.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker processes; never 0 here (0 or absent in the file: one per core).
    pub workers: usize,
    /// User to run as after everything is open; `None`: stay who we are.
    pub user: Option<String>,
    pub listen: Vec<Listen>,
    pub admin: Admin,
    pub memory: Memory,
    pub sctp: Sctp,
    pub udp: Udp,
    pub tcp: Tcp,
    pub location: Location,
    /// `Live::encapsulation_ports` of the start, whatever a reload brings: the kernel's SCTP has a socket for each.
    pub encapsulated: Vec<u16>,
    /// What SIGHUP reloads.
    pub live: Live,
}

impl Config {
    /// Reads the file (or only the built-in defaults), lays the environment (`STROWGER_...`) over it and checks everything.
    ///
    /// # Errors
    /// Every mistake found, in the order of the keys.
    pub fn load(path: Option<&Path>) -> Result<Config, Vec<Mistake>> {
        let text = path.map(source::text).transpose().map_err(|mistake| vec![mistake])?;
        let name = path.map(|path| path.display().to_string()).unwrap_or_default();
        let file = text.as_deref().map(|text| source::Given { name: &name, text });
        read::config(file, source::environment())
    }

    /// What the built-in defaults serve, without file and environment.
    ///
    /// # Errors
    /// None, as a test shows; the type is that of `load`.
    pub fn built_in() -> Result<Config, Vec<Mistake>> {
        read::config(None, Vec::new())
    }

    /// Reads TOML text, as `load` does a file, without the environment: for tests and the demo.
    ///
    /// # Errors
    /// Every mistake found.
    pub fn from_text(toml: &str) -> Result<Config, Vec<Mistake>> {
        read::config(Some(source::Given::nameless(toml)), Vec::new())
    }

    /// Has some listener this transport? What is set for the others matters to nobody.
    #[must_use]
    pub fn serves(&self, transport: Transport) -> bool {
        self.listen.iter().any(|listen| listen.transport == transport)
    }

    /// Is a listener the kernel's SCTP, where the kernel has it?
    pub(crate) fn asks_for_kernel_sctp(&self) -> bool {
        self.listen.iter().any(|listen| listen.transport == Transport::Sctp && listen.stack != Stack::User)
    }

    /// Seats: the workers, the timer process, and the one that some TCP architectures have beside (shared memory has a place for each).
    #[must_use]
    pub fn seats(&self) -> usize {
        self.extra_seat().map_or(self.workers + 1, |extra| extra + 1)
    }

    /// Bytes of each mailbox. Where nothing is said, 64 MiB for all pairs of processes, so that many workers do not take all memory.
    #[must_use]
    pub fn mailbox_bytes(&self) -> usize {
        match self.memory.mailbox_bytes {
            0 => ((64 << 20) / (self.seats() * self.seats())).clamp(262_144, 2_097_152),
            bytes => bytes,
        }
    }

    /// The seat of the TCP supervisor or of the single owner: after the timer's. It alone has the TCP listeners.
    #[must_use]
    pub fn extra_seat(&self) -> Option<usize> {
        match self.tcp.architecture {
            Architecture::Symmetric => None,
            Architecture::SingleOwner | Architecture::Supervisor => Some(self.workers + 1),
        }
    }
}

/// What SIGHUP reloads: one value, replaced whole, sent to the workers as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Lower-case domains that we are registrar for. Our listening addresses and sent-by names count as ours too.
    pub domains: Vec<String>,
    pub next_hop: Vec<NextHop>,
    pub allow: Vec<Allow>,
    pub limits: Limits,
    pub registrar: Registrar,
    pub timers: Timers,
    pub log: Log,
    /// Put Record-Route into dialog-forming requests.
    pub record_route: bool,
    /// Seconds to wait for running transactions after SIGTERM.
    pub drain_s: u64,
}

/// What somebody asks of us, as the allow lists tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// To register.
    Register,
    /// To forward what is neither for our domains nor by our Route.
    Relay,
    /// To answer on the admin listener; the listener given with it says nothing.
    Admin,
}

impl Live {
    /// The UDP ports that next hops are reached at over SCTP (RFC 6951), each once.
    #[must_use]
    pub fn encapsulation_ports(&self) -> Vec<u16> {
        let ports: BTreeSet<_> = self.next_hop.iter().filter_map(|hop| hop.encapsulation_port).collect();
        ports.into_iter().collect()
    }

    /// May a peer at `ip` ask for `what` on the listener (index into `Config::listen`)? An IPv4-mapped IPv6 address counts
    /// as IPv4. Allocates nothing.
    #[must_use]
    pub fn may(&self, listener: usize, what: What, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.allow.iter().any(|allow| {
            let networks = match what {
                What::Register => &allow.register,
                What::Relay => &allow.relay,
                What::Admin => &allow.admin,
            };
            let here = what == What::Admin || allow.listener.is_none_or(|only| only == listener);
            here && networks.iter().any(|network| network.contains(&ip))
        })
    }
}

/// One `[[listen]]`.
#[derive(Clone, Debug, Serialize)]
pub struct Listen {
    /// For `[[allow]]`, logs and status; default `TRANSPORT:FIRST_ADDRESS`.
    pub name: String,
    pub transport: Transport,
    /// One address; SCTP: several IP addresses with one port (multi-homing, sctp_bindx(3)).
    pub addresses: Vec<SocketAddr>,
    /// `host` and `port` that go into Via and Record-Route: `advertise`, else the first address. IPv6 in brackets.
    pub sent_by: SentBy,
    /// SCTP only.
    pub stack: Stack,
    /// Our UDP port (RFC 6951). `None`: in user space `ENCAPSULATION_PORT`, with the kernel's SCTP as `net.sctp.udp_port` is.
    pub encapsulation_port: Option<u16>,
}

/// The port that RFC 6951 §3 registered.
pub const ENCAPSULATION_PORT: u16 = 9899;

/// Our name on one listener, as it goes into Via and Record-Route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentBy {
    /// IPv6 in brackets, lower case.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stack {
    Kernel,
    User,
    Auto,
}

/// `[[next_hop]]`: requests for `domain` (lower case) go to `targets`, tried in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    pub domain: String,
    pub targets: Vec<Target>,
    /// UDP port of its SCTP targets (RFC 6951); `None`: in user space `sctp.peer_encapsulation_port`, with the kernel's SCTP not inside
    /// UDP.
    pub encapsulation_port: Option<u16>,
}

/// `"sctp:192.0.2.1:5060"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub transport: Transport,
    pub address: SocketAddr,
}

/// `[[allow]]`: source networks per listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// Index into `Config::listen`; `None`: every listener.
    pub listener: Option<usize>,
    /// May register.
    pub register: Vec<IpNet>,
    /// May send requests neither for our domains nor by our Route.
    pub relay: Vec<IpNet>,
    /// May ask the admin listener.
    pub admin: Vec<IpNet>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Admin {
    /// TCP address for `strowger status`; `None`: off.
    pub address: Option<SocketAddr>,
}

/// Sizes of the one shared mapping; fixed at start, touched lazily.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Server transactions that can exist at once, and as many client transactions.
    pub transactions: usize,
    /// Bindings of the registrar.
    pub bindings: usize,
    /// TCP connections, and as many SCTP associations.
    pub flows: usize,
    /// Bytes of each mailbox ring between two processes; 0: see `Config::mailbox_bytes`.
    pub mailbox_bytes: usize,
    /// Ask the kernel for huge pages.
    pub huge_pages: bool,
}

/// Bounds on what the network may make us do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest message accepted on UDP and TCP, bytes; SCTP: this or an eighth of the receive buffer, whichever is less.
    pub message_bytes: usize,
    /// Bindings of one address-of-record.
    pub contacts: usize,
    /// SCTP associations, total and per peer IP address.
    pub associations: usize,
    pub associations_per_peer: usize,
    /// Bytes that wait for one association that cannot take them now.
    pub association_queue_bytes: usize,
    /// TCP connections, total.
    pub connections: usize,
    pub connections_per_peer: usize,
    /// Bytes that wait for one connection; more closes it.
    pub connection_queue_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registrar {
    pub default_expires_s: u32,
    pub min_expires_s: u32,
    pub max_expires_s: u32,
}

/// RFC 3261 §17 table 4; milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    pub t1_ms: u64,
    pub t2_ms: u64,
    pub t4_ms: u64,
    /// Timer C, more than 3 minutes.
    pub c_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    pub level: Level,
}

/// Who reads a listener of the kernel's SCTP, or of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One socket, which all workers read.
    Shared,
    /// A socket for each worker (SO_REUSEPORT), which it alone reads.
    PerWorker,
}

/// Settings of the kernel's SCTP sockets (RFC 6458 §8, sctp(7)), and of SCTP in user space as far as it knows them.
#[derive(Clone, Debug, Serialize)]
pub struct Sctp {
    /// The kernel's only.
    pub layout: Layout,
    /// The kernel's only; in user space the packets pass buffers of `Udp`.
    pub socket_rcvbuf_bytes: usize,
    pub socket_sndbuf_bytes: usize,
    /// INIT attempts and the largest wait between two.
    pub init_max_attempts: u16,
    pub init_max_timeo_ms: u16,
    pub srto_initial_ms: u32,
    pub srto_min_ms: u32,
    pub srto_max_ms: u32,
    pub asocmaxrxt: u16,
    pub pathmaxrxt: u16,
    /// At least the longest transaction (A18).
    pub autoclose_s: u32,
    pub hbinterval_ms: u32,
    /// 0 of these four: the stack's own; no lifetime.
    pub sack_delay_ms: u32,
    /// The kernel's only.
    pub sack_freq: u32,
    pub max_burst: u32,
    pub send_ttl_ms: u32,
    /// How often a request that SCTP gave up is sent again.
    pub send_retries: u8,
    /// Where and how SIP is sent; A08: stream 0, unordered.
    pub stream: u16,
    pub unordered: bool,
    /// In user space: largest SCTP packet, bytes, without UDP and IP headers.
    pub mtu: u16,
    /// In user space: UDP port of peers of which no other is known (RFC 6951 §5.1).
    pub peer_encapsulation_port: u16,
}

impl Sctp {
    /// Milliseconds until the kernel gives up a new peer, and a known one, that is dead (M23).
    #[must_use]
    pub fn dead_peer_ms(&self) -> (u64, u64) {
        let waits = |cap: u32, times: u16| {
            let first = u64::from(self.srto_initial_ms);
            let wait = |at: u16| first.checked_shl(u32::from(at)).unwrap_or(u64::MAX).min(u64::from(cap).max(first));
            (0..=times).map(|at| wait(at.min(31))).sum()
        };
        let new = waits(u32::from(self.init_max_timeo_ms), self.init_max_attempts);
        (new, waits(self.srto_max_ms, self.asocmaxrxt))
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Udp {
    pub layout: Layout,
    pub receive_buffer_bytes: usize,
    pub send_buffer_bytes: usize,
}

/// Who accepts, reads and writes TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// The worker that accepted or opened a connection.
    Symmetric,
    /// One process, the owner; it hands whole messages to the workers and takes theirs.
    SingleOwner,
    /// OpenSER's: the supervisor accepts, workers read, and ask it for a descriptor before they write.
    Supervisor,
}

#[derive(Clone, Debug, Serialize)]
pub struct Tcp {
    pub architecture: Architecture,
    pub connect_timeout_ms: u64,
    /// A connection without traffic is closed after this many seconds (`Architecture::Supervisor`: returned by its worker).
    pub idle_s: u64,
    /// A message must be complete this many milliseconds after its first byte.
    pub message_timeout_ms: u64,
    /// From here on: `Architecture::Supervisor` only. Seconds until the supervisor closes a connection that was returned to it.
    pub supervisor_idle_s: u64,
    pub supervisor_nice: i32,
    /// Each process keeps the descriptors that it was given, at most so many.
    pub descriptor_cache: bool,
    pub descriptor_cache_size: usize,
    /// Idle connections are ordered by deadline instead of looked for.
    pub priority_queue: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Location {
    pub store: Store,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    Memory,
}
