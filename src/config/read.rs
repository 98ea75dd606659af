//! The schema: every key with its default, unit and range, and how it becomes a typed value.
//!
//! Owns: defaults and ranges. `config/strowger.toml` repeats them for people; a test holds the two together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::keys::{Keys, Notes, address};
use super::sense;
use super::source::{self, Given};
use super::{
    Admin, Allow, Architecture, Config, ENCAPSULATION_PORT, Layout, Level, Limits, Listen, Live, Location, Log, Memory,
    Mistake, NextHop, Registrar, Sctp, SentBy, Stack, Store, Target, Tcp, Timers, Udp,
};
use crate::transport::Transport;

/// SIP's port, on every transport (RFC 3261 §19.1.2; RFC 4168 §4).
const SIP_PORT: u16 = 5060;
const ADMIN_PORT: u16 = 5059;
/// Most processes we have seats for.
const WORKERS: usize = 128;
/// `Flow::listener` is one byte.
const LISTENERS: usize = 255;
const MIB: i64 = 1 << 20;

/// Reads, checks and compares everything.
pub(super) fn config(file: Option<Given<'_>>, environment: Vec<(String, String)>) -> Result<Config, Vec<Mistake>> {
    let notes = Notes::default();
    let tree = source::tree(file, environment).map_err(|mistake| vec![mistake])?;
    let config = all(Keys::new("", tree, &notes), &notes);
    sense::compare(&config, &notes);
    let mistakes = notes.into_mistakes();
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

pub(super) fn all(mut keys: Keys<'_>, notes: &Notes) -> Config {
    let workers = match keys.number("workers", 0, 0..=WORKERS as i64, "processes (0: one per core)") {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS),
        given => given,
    };
    let user = keys.text("user", user).flatten();
    let listen = listeners(&mut keys, notes);
    let admin = admin(keys.table("admin"));
    let memory = memory(keys.table("memory"));
    let sctp = sctp(keys.table("sctp"));
    let udp = udp(keys.table("udp"));
    let tcp = tcp(keys.table("tcp"));
    let location = location(keys.table("location"));
    let live = live(&mut keys, notes, &listen);
    keys.finish();
    let encapsulated = live.encapsulation_ports();
    Config { workers, user, listen, admin, memory, sctp, udp, tcp, location, encapsulated, live }
}

fn live(keys: &mut Keys<'_>, notes: &Notes, listen: &[Listen]) -> Live {
    Live {
        domains: keys.texts("domains", host).unwrap_or_else(|| vec!["localhost".to_string()]),
        next_hop: keys.tables("next_hop").unwrap_or_default().into_iter().filter_map(next_hop).collect(),
        allow: allow(keys, notes, listen),
        limits: limits(keys.table("limits")),
        registrar: registrar(keys.table("registrar")),
        timers: timers(keys.table("timers")),
        log: log(keys.table("log")),
        record_route: keys.boolean("record_route", true),
        drain_s: keys.number("drain_s", 2, 0..=3600, "seconds"),
    }
}

/// An empty text: nobody else.
fn user(name: &str) -> Result<Option<String>, String> {
    match name {
        "" => Ok(None),
        name => match nix::unistd::User::from_name(name) {
            Ok(Some(_)) => Ok(Some(name.to_string())),
            Ok(None) => Err("a user of this machine (useradd --system makes one); empty: stay who we are".to_string()),
            Err(error) => Err(format!("a user of this machine; looking it up failed: {error}")),
        },
    }
}

/// A host name or an IP address, lower case, as it may stand in a SIP URI (RFC 3261 §25.1).
fn host(text: &str) -> Result<String, String> {
    if let Ok(v6) = text.trim_matches(['[', ']']).parse::<std::net::Ipv6Addr>() {
        return Ok(format!("[{v6}]"));
    }
    let good = |label: &str| {
        let bytes = label.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    match text.len() <= 253 && text.trim_end_matches('.').split('.').all(good) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a host name (letters, digits, - and .) or an IP address, without port".to_string()),
    }
}

fn listeners(keys: &mut Keys<'_>, notes: &Notes) -> Vec<Listen> {
    let Some(tables) = keys.tables("listen") else {
        let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), SIP_PORT);
        return Transport::ALL.into_iter().map(|transport| default_listener(transport, here)).collect();
    };
    if tables.is_empty() || tables.len() > LISTENERS {
        notes.add("listen", format!("{} tables", tables.len()), format!("1 to {LISTENERS} tables [[listen]]"));
    }
    tables.into_iter().filter_map(|table| listener(table, notes)).collect()
}

fn default_listener(transport: Transport, address: SocketAddr) -> Listen {
    let name = format!("{}:{address}", transport.uri_token());
    Listen {
        name,
        transport,
        addresses: vec![address],
        sent_by: SentBy::of(address),
        stack: Stack::Auto,
        encapsulation_port: None,
    }
}

/// Nothing when a part that cannot be guessed is wrong; its mistake is noted.
fn listener(mut keys: Keys<'_>, notes: &Notes) -> Option<Listen> {
    let at_transport = keys.path("transport");
    let right = || "one of sctp, udp, tcp".to_string();
    let given = keys.take("transport");
    let transport = given.as_ref().and_then(|value| match &value.kind {
        ::config::ValueKind::String(text) => Transport::ALL.into_iter().find(|t| t.uri_token() == text),
        _ => None,
    });
    if transport.is_none() {
        notes.add(at_transport, given.as_ref().map(super::keys::shown).unwrap_or_default(), right());
    }
    let right_address = "IP:PORT such as 192.0.2.1:5060, or for sctp a list of them";
    let addresses = keys.some_texts("address", right_address, address);
    let name = keys.text("name", |name| match name.is_empty() || name.chars().any(char::is_control) {
        false => Ok(name.to_string()),
        true => Err("a name that is not empty".to_string()),
    });
    let nobody = ("advertise.invalid".to_string(), None);
    // A wrong name is one mistake; that its absence would be another helps nobody.
    let advertise = keys.has("advertise").then(|| keys.text("advertise", sent_by).unwrap_or(nobody));
    let stack = stack(&mut keys, transport);
    let encapsulation_port = encapsulation_port(&mut keys, transport);
    keys.finish();

    let (transport, addresses) = (transport?, addresses?);
    let first = *addresses.first()?;
    let name = name.unwrap_or_else(|| format!("{}:{first}", transport.uri_token()));
    let sent_by = advertise.map(|(host, port)| SentBy { host, port: port.unwrap_or(first.port()) });
    let sent_by = sent_by.unwrap_or_else(|| SentBy::of(first));
    Some(Listen { name, transport, addresses, sent_by, stack, encapsulation_port })
}

fn encapsulation_port(keys: &mut Keys<'_>, transport: Option<Transport>) -> Option<u16> {
    if keys.has("encapsulation_port") && transport.is_some_and(|transport| transport != Transport::Sctp) {
        keys.missing("encapsulation_port", "only with transport = \"sctp\"");
    }
    let absent = format!("default: in user space {ENCAPSULATION_PORT}, with the kernel's SCTP none");
    keys.port("encapsulation_port", &absent)
}

fn stack(keys: &mut Keys<'_>, transport: Option<Transport>) -> Stack {
    if keys.has("stack") && transport.is_some_and(|transport| transport != Transport::Sctp) {
        return keys.text("stack", |_| Err("only with transport = \"sctp\"".to_string())).unwrap_or(Stack::Auto);
    }
    let read = |text: &str| match text {
        "auto" => Ok(Stack::Auto),
        "kernel" => Ok(Stack::Kernel),
        "user" => Ok(Stack::User),
        _ => Err("one of auto, kernel, user".to_string()),
    };
    keys.text("stack", read).unwrap_or(Stack::Auto)
}

impl SentBy {
    /// An address as its own name.
    #[must_use]
    pub fn of(address: SocketAddr) -> SentBy {
        let host = match address.ip() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        SentBy { host, port: address.port() }
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn sent_by(text: &str) -> Result<(String, Option<u16>), String> {
    let right =
        || "HOST or HOST:PORT as others reach us: sip.example.test, 192.0.2.1:5060, [2001:db8::1]:5060".to_string();
    let whole = host(text).ok().map(|host| (host, None));
    let both = || {
        let (name, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some((host(name).ok()?, Some(port)))
    };
    let (host, port) = whole.or_else(both).ok_or_else(right)?;
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(right()),
        _ => Ok((host, port)),
    }
}

fn next_hop(mut keys: Keys<'_>) -> Option<NextHop> {
    if !keys.has("domain") {
        keys.missing("domain", "missing: the domain whose requests go to `targets`");
    }
    let domain = keys.text("domain", host);
    let right = "a list of places such as \"sctp:192.0.2.1:5060\", tried in order";
    let targets = keys.some_texts("targets", right, target);
    let sctp = |targets: &Vec<Target>| targets.iter().any(|target| target.transport == Transport::Sctp);
    if keys.has("encapsulation_port") && !targets.as_ref().is_none_or(sctp) {
        keys.missing("encapsulation_port", "only with sctp targets");
    }
    let absent = "default: in user space sctp.peer_encapsulation_port, with the kernel's SCTP none";
    let encapsulation_port = keys.port("encapsulation_port", absent);
    keys.finish();
    Some(NextHop { domain: domain?, targets: targets?, encapsulation_port })
}

/// `sctp:192.0.2.1:5060`; without port 5060.
fn target(text: &str) -> Result<Target, String> {
    let right = || "TRANSPORT:IP:PORT such as sctp:192.0.2.1:5060 or tcp:[2001:db8::1]:5060".to_string();
    let (transport, place) = text.split_once(':').ok_or_else(right)?;
    let transport = Transport::ALL.into_iter().find(|t| t.uri_token() == transport).ok_or_else(right)?;
    let ip = || place.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, SIP_PORT));
    let address = address(place).ok().or_else(ip).filter(|address| !address.ip().is_unspecified());
    Ok(Target { transport, address: address.ok_or_else(right)? })
}

/// What no `[[allow]]` speaks of is allowed to loopback only.
fn allow(keys: &mut Keys<'_>, notes: &Notes, listen: &[Listen]) -> Vec<Allow> {
    let tables = keys.tables("allow").unwrap_or_default();
    let judge = !notes.blamed("listen[");
    let said = |key: &str| tables.iter().any(|table| table.has(key));
    let (register, relay, admin) = (said("register"), said("relay"), said("admin"));
    let mut lists: Vec<Allow> = tables.into_iter().map(|table| one_allow(table, listen, judge)).collect();
    if !(register && relay && admin) {
        let unless = |said: bool| if said { Vec::new() } else { loopback() };
        lists.push(Allow { listener: None, register: unless(register), relay: unless(relay), admin: unless(admin) });
    }
    lists
}

/// `judge`: the listeners are all there; with one left out for a mistake of its own, its name is not another.
fn one_allow(mut keys: Keys<'_>, listen: &[Listen], judge: bool) -> Allow {
    let listener = keys.text("listener", |name| {
        let names = || listen.iter().map(|listen| listen.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = listen.iter().position(|listen| listen.name == name);
        match found {
            None if judge => Err(format!("the name of a listener: {}; without it all are meant", names())),
            found => Ok(found),
        }
    });
    let listener = listener.flatten();
    if listener.is_some() && keys.has("admin") {
        keys.missing("admin", "only in an [[allow]] without `listener`: the admin listener is none of [[listen]]");
    }
    let mut list = |key: &str| keys.texts(key, network).unwrap_or_default();
    let (register, relay, admin) = (list("register"), list("relay"), list("admin"));
    keys.finish();
    Allow { listener, register, relay, admin }
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let right = || "a network such as 192.0.2.0/24 or 2001:db8::/32, or one IP address".to_string();
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = network.ok_or_else(right)?;
    match network == network.trunc() {
        true => Ok(network),
        false => Err(format!("{} (or /{} for the one address)", network.trunc(), network.max_prefix_len())),
    }
}

fn loopback() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].into_iter().filter_map(|text| text.parse().ok()).collect()
}

fn admin(mut keys: Keys<'_>) -> Admin {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ADMIN_PORT);
    let read = |text: &str| match text {
        "off" => Ok(None),
        text => address(text).map(Some).map_err(|right| format!("{right}; or \"off\"")),
    };
    let address = keys.text("address", read).unwrap_or(Some(default));
    keys.finish();
    Admin { address }
}

fn memory(mut keys: Keys<'_>) -> Memory {
    let memory = Memory {
        transactions: keys.number("transactions", 286_720, 1_000..=33_554_432, "transactions"),
        bindings: keys.number("bindings", 100_000, 100..=100_000_000, "bindings"),
        flows: keys.number("flows", 16_384, 16..=1_048_576, "connections (and as many associations)"),
        mailbox_bytes: keys.number("mailbox_bytes", 0, 0..=64 * MIB, "bytes (0: by the number of processes)"),
        huge_pages: keys.boolean("huge_pages", true),
    };
    keys.finish();
    memory
}

fn limits(mut keys: Keys<'_>) -> Limits {
    let limits = Limits {
        message_bytes: keys.number("message_bytes", 65_535, 1_300..=65_535, "bytes"),
        contacts: keys.number("contacts", 10, 1..=16, "contacts"),
        associations: keys.number("associations", 10_000, 1..=1_000_000, "associations"),
        associations_per_peer: keys.number("associations_per_peer", 256, 1..=1_000_000, "associations"),
        association_queue_bytes: keys.number("association_queue_bytes", 262_144, 4_096..=64 * MIB, "bytes"),
        connections: keys.number("connections", 10_000, 1..=1_000_000, "connections"),
        connections_per_peer: keys.number("connections_per_peer", 1_000, 1..=1_000_000, "connections"),
        connection_queue_bytes: keys.number("connection_queue_bytes", 1_048_576, 4_096..=64 * MIB, "bytes"),
    };
    keys.finish();
    limits
}

fn registrar(mut keys: Keys<'_>) -> Registrar {
    const YEAR: i64 = 31_536_000;
    let registrar = Registrar {
        default_expires_s: keys.number("default_expires_s", 3_600, 1..=YEAR, "seconds"),
        min_expires_s: keys.number("min_expires_s", 60, 1..=3_600, "seconds"),
        max_expires_s: keys.number("max_expires_s", 86_400, 1..=YEAR, "seconds"),
    };
    keys.finish();
    registrar
}

fn timers(mut keys: Keys<'_>) -> Timers {
    let timers = Timers {
        t1_ms: keys.number("t1_ms", 500, 10..=10_000, "milliseconds"),
        t2_ms: keys.number("t2_ms", 4_000, 10..=60_000, "milliseconds"),
        t4_ms: keys.number("t4_ms", 5_000, 10..=60_000, "milliseconds"),
        // RFC 3261 §16.6 item 11: "larger than 3 minutes".
        c_ms: keys.number("c_ms", 185_000, 180_001..=86_400_000, "milliseconds"),
    };
    keys.finish();
    timers
}

fn log(mut keys: Keys<'_>) -> Log {
    let words = [
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];
    let level = keys.choice("level", Level::Info, &words);
    keys.finish();
    Log { level }
}

fn sctp(mut keys: Keys<'_>) -> Sctp {
    // A new peer that is dead is given up after 1 + 2 + 3 + 3 + 3 = 12 s, a known one after about as long: before timers B
    // and F (M23).
    let sctp = Sctp {
        layout: keys.choice("layout", Layout::Shared, &LAYOUTS),
        socket_rcvbuf_bytes: keys.number("socket_rcvbuf_bytes", 8_388_608, 65_536..=1_024 * MIB, "bytes"),
        socket_sndbuf_bytes: keys.number("socket_sndbuf_bytes", 4_194_304, 65_536..=1_024 * MIB, "bytes"),
        init_max_attempts: keys.number("init_max_attempts", 4, 1..=100, "attempts"),
        init_max_timeo_ms: keys.number("init_max_timeo_ms", 3_000, 10..=60_000, "milliseconds"),
        srto_initial_ms: keys.number("srto_initial_ms", 1_000, 10..=60_000, "milliseconds"),
        srto_min_ms: keys.number("srto_min_ms", 500, 10..=60_000, "milliseconds"),
        srto_max_ms: keys.number("srto_max_ms", 3_000, 10..=60_000, "milliseconds"),
        asocmaxrxt: keys.number("asocmaxrxt", 5, 1..=100, "retransmissions"),
        pathmaxrxt: keys.number("pathmaxrxt", 3, 1..=100, "retransmissions"),
        autoclose_s: keys.number("autoclose_s", 300, 1..=86_400, "seconds"),
        hbinterval_ms: keys.number("hbinterval_ms", 10_000, 100..=3_600_000, "milliseconds"),
        // RFC 9260 §6.2: never more than 500 ms.
        sack_delay_ms: keys.number("sack_delay_ms", 0, 0..=500, "milliseconds"),
        sack_freq: keys.number("sack_freq", 0, 0..=100, "packets"),
        max_burst: keys.number("max_burst", 0, 0..=1_000, "packets"),
        send_ttl_ms: keys.number("send_ttl_ms", 0, 0..=600_000, "milliseconds"),
        // RFC 3261 §16.9: what cannot be delivered has failed; to try again is the operator's choice.
        send_retries: keys.number("send_retries", 0, 0..=9, "retries"),
        // What our own user space takes.
        stream: keys.number("stream", 0, 0..=127, "stream"),
        unordered: keys.boolean("unordered", true),
        // Ethernet's 1,500 bytes without IPv6 and UDP headers.
        mtu: keys.number("mtu", 1_452, 512..=65_000, "bytes"),
        peer_encapsulation_port: keys.number("peer_encapsulation_port", ENCAPSULATION_PORT, 1..=65_535, "UDP port"),
    };
    keys.finish();
    sctp
}

const LAYOUTS: [(&str, Layout); 2] = [("shared", Layout::Shared), ("per_worker", Layout::PerWorker)];

fn udp(mut keys: Keys<'_>) -> Udp {
    let udp = Udp {
        layout: keys.choice("layout", Layout::Shared, &LAYOUTS),
        receive_buffer_bytes: keys.number("receive_buffer_bytes", 4_194_304, 65_536..=1_024 * MIB, "bytes"),
        send_buffer_bytes: keys.number("send_buffer_bytes", 4_194_304, 65_536..=1_024 * MIB, "bytes"),
    };
    keys.finish();
    udp
}

fn tcp(mut keys: Keys<'_>) -> Tcp {
    let architectures = [
        ("symmetric", Architecture::Symmetric),
        ("single_owner", Architecture::SingleOwner),
        ("supervisor", Architecture::Supervisor),
    ];
    let tcp = Tcp {
        architecture: keys.choice("architecture", Architecture::Symmetric, &architectures),
        connect_timeout_ms: keys.number("connect_timeout_ms", 5_000, 10..=60_000, "milliseconds"),
        idle_s: keys.number("idle_s", 300, 1..=86_400, "seconds"),
        message_timeout_ms: keys.number("message_timeout_ms", 10_000, 100..=600_000, "milliseconds"),
        supervisor_idle_s: keys.number("supervisor_idle_s", 10, 1..=86_400, "seconds"),
        supervisor_nice: keys.number("supervisor_nice", 0, -20..=19, "nice value"),
        descriptor_cache: keys.boolean("descriptor_cache", false),
        descriptor_cache_size: keys.number("descriptor_cache_size", 16_384, 1..=1_048_576, "descriptors"),
        priority_queue: keys.boolean("priority_queue", false),
    };
    keys.finish();
    tcp
}

fn location(mut keys: Keys<'_>) -> Location {
    let store = keys.text("store", |text| match text {
        "memory" => Ok(Store::Memory),
        other if other.starts_with("sqlite:") || other.starts_with("postgres:") => {
            Err("not in this version; memory".to_string())
        }
        _ => Err("memory (sqlite: and postgres: are not in this version)".to_string()),
    });
    keys.finish();
    Location { store: store.unwrap_or(Store::Memory) }
}
