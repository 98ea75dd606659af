//! Settings that are right one by one and wrong together.
//!
//! Owns: rules between two or more values. A rule that only makes service worse is a warning of `check`, not a mistake.

use std::net::SocketAddr;

use super::keys::Notes;
use super::{Architecture, Config, Listen, Stack};
use crate::transport::Transport;

/// Sockets of one listener of the kernel's SCTP: their numbers are one byte.
const SOCKETS: usize = 255;
/// Most addresses of one SCTP listener.
const ADDRESSES: usize = 16;

/// Notes every contradiction.
pub(super) fn compare(config: &Config, notes: &Notes) {
    for (at, listen) in config.listen.iter().enumerate() {
        addresses(at, listen, notes);
    }
    taken_twice(config, notes);
    if !notes.blamed("listen[") {
        next_hops(config, notes);
    }
    encapsulation_ports(config, notes);
    supervisor(config, notes);
    numbers(config, notes);
}

fn addresses(at: usize, listen: &Listen, notes: &Notes) {
    let key = format!("listen[{at}].address");
    let Some(first) = listen.addresses.first() else { return };
    let all = || listen.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    if listen.addresses.len() > 1 && listen.transport != Transport::Sctp {
        notes.add(&key, all(), "one address; only transport = \"sctp\" takes a list. Add a [[listen]] for each");
        return;
    }
    if listen.addresses.len() > 1 && listen.stack == Stack::User {
        notes.add(&key, all(), "one address with stack = \"user\": SCTP in user space is not multi-homed");
    }
    if listen.addresses.len() > ADDRESSES {
        notes.add(&key, all(), format!("at most {ADDRESSES} addresses"));
    }
    if listen.addresses.iter().any(|address| address.port() != first.port()) {
        notes.add(&key, all(), format!("one port for all addresses of an association: {}", first.port()));
    }
    if listen.addresses.iter().any(|address| address.is_ipv4() != first.is_ipv4()) {
        notes.add(&key, all(), "IPv4 only or IPv6 only; add a [[listen]] for the other family");
    }
    let wildcard = listen.addresses.iter().any(|address| address.ip().is_unspecified());
    if wildcard && listen.addresses.len() > 1 {
        notes.add(&key, all(), "a wildcard stands alone: it already means every address");
    }
    if listen.sent_by.host == "0.0.0.0" || listen.sent_by.host == "[::]" {
        let right = "missing: HOST or HOST:PORT that others reach us at, because the listener is a wildcard";
        notes.add(format!("listen[{at}].advertise"), "", right);
    }
}

/// Names, addresses with their transports, and our name in Via are each one listener's.
fn taken_twice(config: &Config, notes: &Notes) {
    for (at, listen) in config.listen.iter().enumerate() {
        let earlier = config.listen.iter().take(at).enumerate();
        for (other_at, other) in earlier {
            if listen.name == other.name {
                let right = format!("a name of its own: listen[{other_at}] has this one");
                notes.add(format!("listen[{at}].name"), &listen.name, right);
            }
            if listen.transport != other.transport {
                continue;
            }
            for address in &listen.addresses {
                if other.addresses.iter().any(|taken| overlap(address, taken)) {
                    let token = listen.transport.uri_token();
                    let right = format!("another address: listen[{other_at}] has {token} there already");
                    notes.add(format!("listen[{at}].address"), address, right);
                }
            }
        }
        let Some(admin) = config.admin.address.filter(|_| listen.transport == Transport::Tcp) else { continue };
        if listen.addresses.iter().any(|address| overlap(address, &admin)) {
            notes.add("admin.address", admin, format!("another address: listen[{at}] has tcp there"));
        }
    }
}

/// Would the kernel refuse the second of two binds? IPv6 listeners are IPv6 only, so families do not meet.
fn overlap(a: &SocketAddr, z: &SocketAddr) -> bool {
    let one_ip = a.ip() == z.ip() || a.ip().is_unspecified() || z.ip().is_unspecified();
    a.port() == z.port() && a.is_ipv4() == z.is_ipv4() && one_ip
}

fn next_hops(config: &Config, notes: &Notes) {
    for (at, hop) in config.live.next_hop.iter().enumerate() {
        let key = |name: &str| format!("next_hop[{at}].{name}");
        if config.live.next_hop.iter().take(at).any(|earlier| earlier.domain == hop.domain) {
            notes.add(key("domain"), &hop.domain, "each domain once; put all its places into one `targets`");
        }
        if config.live.domains.contains(&hop.domain) {
            notes.add(key("domain"), &hop.domain, "a domain that is not among `domains`: those we serve ourselves");
        }
        for target in &hop.targets {
            let speaks = |listen: &Listen| {
                let family = |address: &SocketAddr| address.is_ipv4() == target.address.is_ipv4();
                listen.transport == target.transport && listen.addresses.iter().any(family)
            };
            if !config.listen.iter().any(speaks) {
                let family = if target.address.is_ipv4() { "IPv4" } else { "IPv6" };
                let token = target.transport.uri_token();
                let right = format!("a place some listener can send to: add a [[listen]] with {token} over {family}");
                notes.add(key("targets"), format!("{token}:{}", target.address), right);
            }
        }
    }
}

/// The kernel's SCTP has a socket for each worker, and one for each port.
fn encapsulation_ports(config: &Config, notes: &Notes) {
    let (ports, workers) = (config.live.encapsulation_ports().len(), config.workers);
    let most = SOCKETS.saturating_sub(workers);
    if config.asks_for_kernel_sctp() && ports > most {
        let right =
            format!("at most {most} different ones with {workers} workers: the kernel's SCTP has a socket for each");
        notes.add("next_hop.encapsulation_port", format!("{ports} ports"), right);
    }
}

/// What only the TCP supervisor knows, and a nice value that it could not take.
fn supervisor(config: &Config, notes: &Notes) {
    let tcp = &config.tcp;
    if tcp.architecture != Architecture::Supervisor {
        for (key, on) in [("descriptor_cache", tcp.descriptor_cache), ("priority_queue", tcp.priority_queue)] {
            if on {
                notes.add(format!("tcp.{key}"), on, "false, or tcp.architecture = \"supervisor\"");
            }
        }
    } else if !sys::process::may_be_nice(tcp.supervisor_nice) {
        let right =
            "0 to 19: less takes root (CAP_SYS_NICE) or a limit that allows it (`ulimit -He`, systemd's LimitNICE=)";
        notes.add("tcp.supervisor_nice", tcp.supervisor_nice, right);
    }
}

fn numbers(config: &Config, notes: &Notes) {
    let (live, sctp) = (&config.live, &config.sctp);
    let ordered = |low: (&str, u64), high: (&str, u64)| {
        if low.1 > high.1 {
            notes.add(high.0, high.1, format!("at least {}, which is {}", low.0, low.1));
        }
    };
    ordered(("timers.t1_ms", live.timers.t1_ms), ("timers.t2_ms", live.timers.t2_ms));
    let registrar = &live.registrar;
    let default = ("registrar.default_expires_s", u64::from(registrar.default_expires_s));
    ordered(("registrar.min_expires_s", u64::from(registrar.min_expires_s)), default);
    ordered(default, ("registrar.max_expires_s", u64::from(registrar.max_expires_s)));
    let (min, initial) = (u64::from(sctp.srto_min_ms), u64::from(sctp.srto_initial_ms));
    ordered(("sctp.srto_min_ms", min), ("sctp.srto_initial_ms", initial));
    ordered(("sctp.srto_initial_ms", initial), ("sctp.srto_max_ms", u64::from(sctp.srto_max_ms)));
    let limits = &live.limits;
    let pair = |of: &'static str, one: usize| (of, one as u64);
    ordered(
        pair("limits.associations_per_peer", limits.associations_per_peer),
        pair("limits.associations", limits.associations),
    );
    ordered(
        pair("limits.message_bytes", limits.message_bytes),
        pair("limits.association_queue_bytes", limits.association_queue_bytes),
    );
    ordered(
        pair("limits.connections_per_peer", limits.connections_per_peer),
        pair("limits.connections", limits.connections),
    );

    let transaction_ms = 64 * live.timers.t1_ms;
    if config.serves(Transport::Sctp) && u64::from(sctp.autoclose_s) * 1_000 < transaction_ms {
        let least = transaction_ms.div_ceil(1_000);
        let right = format!("at least {least} seconds, the 64*T1 of a transaction (RFC 3261 §18)");
        notes.add("sctp.autoclose_s", sctp.autoclose_s, right);
    }
    let room = 2 * limits.message_bytes;
    if config.mailbox_bytes() < room {
        let right = format!("at least {room} bytes: two of the largest messages (limits.message_bytes)");
        notes.add("memory.mailbox_bytes", config.memory.mailbox_bytes, right);
    }
}
