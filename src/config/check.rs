//! `strowger check`: what a configuration would serve, what it costs, and what one should know before serving it.
//!
//! Owns: the report and its warnings (a warning leaves the exit status 0). Opens no socket and changes nothing.

mod room;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use ipnet::IpNet;

pub use room::Room;

use super::{Allow, Config, Listen, Mistake, Stack, exit, sense};
use crate::transport::Transport;
use crate::transport::sockets::in_user_space;

/// Runs the command: report on stdout, mistakes and warnings on stderr. `memory_bytes`: the most shared memory that a
/// configuration can touch, as `shared` plans it.
#[must_use]
pub fn run(path: Option<&Path>, memory_bytes: impl Fn(&Config) -> u64) -> ExitCode {
    let checked = Config::load(path).and_then(|config| {
        let bytes = memory_bytes(&config);
        let room = Room::of_this_machine();
        match room.refuses(bytes) {
            Some(mistake) => Err(vec![mistake]),
            None => Ok((report(&config, bytes, &room), warnings(&config, sys::sctp::supported()))),
        }
    });
    match checked {
        Ok((report, warnings)) => {
            print!("{report}");
            warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            ExitCode::from(exit::OK)
        }
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| eprintln!("strowger: {mistake}"));
            ExitCode::from(exit::WRONG)
        }
    }
}

/// What would be served, for people.
#[must_use]
pub fn report(config: &Config, bytes: u64, room: &Room) -> String {
    let mut text = String::new();
    for listen in &config.listen {
        let addresses = listen.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (token, host, port) = (listen.transport.uri_token(), &listen.sent_by.host, listen.sent_by.port);
        let _ = writeln!(text, "listen   {token:4} {addresses}, as {host}:{port} in Via ({})", listen.name);
    }
    if let Some(address) = config.admin.address {
        let _ = writeln!(text, "admin    {address}");
    }
    let _ = writeln!(text, "domains  {}", config.live.domains.join(", "));
    for hop in &config.live.next_hop {
        let place = |target: &super::Target| format!("{}:{}", target.transport.uri_token(), target.address);
        let targets = hop.targets.iter().map(place).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "to       {}: {targets}", hop.domain);
    }
    let user = config.user.as_deref().unwrap_or("whoever starts it");
    let _ = writeln!(text, "run as   {user}: {} workers, 1 timer process", config.workers);
    let _ = writeln!(text, "memory   up to {} MiB shared, of {} MiB", mebibytes(bytes), mebibytes(room.bytes()));
    text
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What works, but perhaps not as meant. `serve` logs the same lines.
#[must_use]
pub fn warnings(config: &Config, kernel_has_sctp: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if !kernel_has_sctp {
        absent_sctp(config, &mut lines);
    }
    open_registration(config, &mut lines);
    lengths(config, &mut lines);
    lines
}

fn absent_sctp(config: &Config, lines: &mut Vec<String>) {
    for listen in config.listen.iter().filter(|listen| listen.transport == Transport::Sctp) {
        lines.extend(match listen.stack {
            Stack::Kernel => Some(format!(
                "listener {:?}: this machine's kernel has no SCTP (as root: modprobe sctp), so `serve` cannot open it",
                listen.name
            )),
            Stack::Auto => Some(in_user_space(listen)),
            Stack::User => None,
        });
    }
}

/// Whoever may register an address-of-record gets its calls.
fn open_registration(config: &Config, lines: &mut Vec<String>) {
    for allow in &config.live.allow {
        let Some(listen) = config.listen.iter().enumerate().find(|(at, listen)| concerns(allow, *at, listen)) else {
            continue;
        };
        for network in allow.register.iter().filter(|network| is_public(network)) {
            lines.push(format!(
                "{network} may register on {} without a password (digest comes in a later version): anybody there can \
                 take over the calls of any user",
                listen.1.name
            ));
        }
    }
}

/// Does the allow list open a listener that the world can reach?
fn concerns(allow: &Allow, at: usize, listen: &Listen) -> bool {
    allow.listener.is_none_or(|only| only == at) && listen.addresses.iter().any(|address| !address.ip().is_loopback())
}

/// Networks whose addresses nobody has on the Internet: loopback, link-local, private (RFC 1918, RFC 4193), and those between
/// a carrier and its customers (RFC 6598).
const NOT_PUBLIC: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// Public: not wholly inside one of `NOT_PUBLIC`.
fn is_public(network: &IpNet) -> bool {
    let mapped = match network.addr() {
        IpAddr::V6(v6) if network.prefix_len() >= 96 => v6.to_ipv4_mapped(),
        _ => None,
    };
    let network = mapped.and_then(|v4| IpNet::new(v4.into(), network.prefix_len() - 96).ok()).unwrap_or(*network);
    !NOT_PUBLIC.iter().filter_map(|text| text.parse::<IpNet>().ok()).any(|inside| inside.contains(&network))
}

fn lengths(config: &Config, lines: &mut Vec<String>) {
    let transaction_ms = 64 * config.live.timers.t1_ms;
    let (new, known) = config.sctp.dead_peer_ms();
    let slow = new.max(known);
    if sense::wants_kernel_sctp(config) && slow >= transaction_ms {
        lines.push(format!(
            "a dead SCTP peer is found after {slow} ms, later than timers B and F ({transaction_ms} ms) end its \
             transactions: lower sctp.init_attempts, sctp.association_max_retransmits or sctp.rto_max_ms"
        ));
    }
    if u64::from(config.sctp.autoclose_s) * 1_000 < config.live.timers.c_ms {
        lines.push(format!(
            "sctp.autoclose_s = {} is shorter than timer C (timers.c_ms = {}): an association may close while a call rings",
            config.sctp.autoclose_s, config.live.timers.c_ms
        ));
    }
    if config.tcp.idle_s * 1_000 < transaction_ms {
        lines.push(format!(
            "tcp.idle_s = {} is shorter than a transaction ({transaction_ms} ms): responses may have to open a connection",
            config.tcp.idle_s
        ));
    }
    let limits = &config.live.limits;
    for (key, limit) in [("associations", limits.associations), ("connections", limits.connections)] {
        if config.memory.flows < limit {
            lines.push(format!(
                "memory.flows = {} is less than limits.{key} ({limit}): the flows run out first",
                config.memory.flows
            ));
        }
    }
}

impl Room {
    /// The mistake of wanting more than there is.
    #[must_use]
    pub fn refuses(&self, bytes: u64) -> Option<Mistake> {
        let right = || {
            let (given, whose) = (mebibytes(self.bytes()), self.whose());
            format!("at most the {given} MiB of {whose}: lower memory.transactions, memory.bindings or memory.flows")
        };
        (bytes > self.bytes()).then(|| Mistake::new("memory", format!("{} MiB", mebibytes(bytes)), right()))
    }
}
