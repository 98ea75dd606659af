//! The configuration of a daemon that is measured: generated, with a file or tables over it.
//!
//! Owns: limits so wide that the measurement meets none, and where the phones find the listeners. Tables are merged key by key; a
//! `[[listen]]` given replaces the generated ones.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ::config::builder::DefaultState;
use ::config::{Config, ConfigBuilder, File, FileFormat};
use serde_json::Value;

use super::demand;
use super::results::Point;
use super::words::Wire;
use crate::config::Architecture;
use crate::shared::memory_bytes;
use crate::{check, config};

/// What a daemon is started with, and what of it the phones must know.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    /// TOML.
    pub text: String,
    pub address: SocketAddr,
    pub encapsulation_port: u16,
    /// Where `status` can be asked.
    pub admin: Option<SocketAddr>,
    /// Where a UDP OPTIONS tells that it is there.
    pub udp: Option<SocketAddr>,
    /// As the daemon will read it; none when it will refuse it.
    pub read: Option<config::Config>,
    /// What could not be had on this machine.
    pub notes: Vec<String>,
}

/// What a configuration is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    pub processors: usize,
    /// Bytes that the daemon's tables may take at most.
    pub memory: u64,
    /// Files that a process may have open: the daemon and the phones inherit it.
    pub files: u64,
}

impl Machine {
    /// This one. The phones want some of the memory, too. Raises our limit of open files as far as we may.
    pub(super) fn prepare() -> Result<Machine, String> {
        Ok(Machine {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: check::Room::of_this_machine().bytes() / 4 * 3,
            files: sys::process::set_open_files(demand::MOST_FILES)
                .map_err(|e| format!("the limit of open files: {e}"))?,
        })
    }
}

/// Ports that are free now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub sip: u16,
    pub admin: u16,
    pub encapsulation: u16,
}

/// A table of transactions is not made smaller than this many.
const LEAST: usize = 1_000;

/// An association must outlive a transaction (RFC 3261 §18).
pub(super) const LEAST_IDLE_S: u64 = 32;

impl Configuration {
    /// `file`: TOML of the user's; the point's tables are over it.
    pub(super) fn make(
        point: &Point,
        wire: Wire,
        domain: &str,
        file: Option<&str>,
        ports: Ports,
        machine: Machine,
    ) -> Result<Configuration, String> {
        let transactions = demand::transactions(point, machine.processors);
        let generated = generated(point, wire, domain, ports, (transactions, demand::flows(point, machine.processors)));
        let merged = merge(&[&generated, file.unwrap_or_default(), &point.subject.tables]);
        let mut merged = merged.map_err(|e| format!("the configuration for {}: {e}", point.subject.name))?;
        let mut read = config::Config::from_text(&text(&merged)).ok();
        let mut notes = Vec::new();
        if let Some(config) = read.as_mut().filter(|config| config.memory.transactions as u64 == transactions)
            && let Some(less) = lessened(config, machine.memory)
            && let Some(memory) = merged.get_mut("memory").and_then(Value::as_object_mut)
        {
            memory.insert("transactions".to_owned(), less.into());
            notes.push(format!(
                "room for {less} transactions instead of {transactions}, for this machine has no memory for more: a finished one stays for \
                 32 s, and when there is no room left calls are refused with 503"
            ));
        }
        if let Some(config) = read.as_mut()
            && let Some(tcp) = merged.get_mut("tcp").and_then(Value::as_object_mut)
            && !tcp.contains_key("descriptor_cache_size")
            && let Some(less) = demand::cached(point, config, machine.processors, machine.files)
        {
            config.tcp.descriptor_cache_size = less;
            tcp.insert("descriptor_cache_size".to_owned(), less.into());
            notes.push(format!(
                "a worker keeps {less} descriptors at most, as a process may have {} files open: those used least lately make room",
                machine.files
            ));
        }
        let listens = || merged.get("listen").and_then(Value::as_array).into_iter().flatten();
        let (token, stack) = match wire {
            Wire::Udp => ("udp", None),
            Wire::Tcp => ("tcp", None),
            Wire::Sctp => ("sctp", Some("kernel")),
            Wire::SctpUser => ("sctp", Some("user")),
        };
        let is = |listen: &&Value, key: &str, value: &str| {
            listen.get(key).and_then(Value::as_str).is_none_or(|is| is == value || is == "auto")
        };
        let listen =
            listens().find(|listen| is(listen, "transport", token) && stack.is_none_or(|of| is(listen, "stack", of)));
        let listen = listen.ok_or_else(|| format!("the configuration has no [[listen]] for {}", wire.name()))?;
        let address = first_address(listen).ok_or("a [[listen]] without an address that can be called")?;
        let port = listen.get("encapsulation_port").and_then(Value::as_u64);
        let admin = merged.get("admin").and_then(|admin| admin.get("address")).and_then(Value::as_str);
        Ok(Configuration {
            text: text(&merged),
            address,
            encapsulation_port: port.and_then(|port| port.try_into().ok()).unwrap_or(9899),
            admin: admin.and_then(|admin| admin.parse().ok()),
            udp: listens().find(|listen| is(listen, "transport", "udp")).and_then(first_address),
            read,
            notes,
        })
    }

    /// Puts into the point what the daemon will read, whoever has said it.
    pub(super) fn fill(&self, point: &mut Point, wire: Wire) {
        let Some(read) = &self.read else { return };
        let supervised = wire == Wire::Tcp && read.tcp.architecture == Architecture::Supervisor;
        point.workers = read.workers;
        point.supervisor_nice = if supervised { read.tcp.supervisor_nice } else { 0 };
        point.idle_s = match wire {
            Wire::Udp => None,
            Wire::Tcp => Some(read.tcp.idle_s),
            Wire::Sctp | Wire::SctpUser => Some(read.sctp.autoclose_s.into()),
        };
    }
}

/// One text of two; the second wins, key by key.
///
/// # Errors
/// One of them is no TOML.
pub(super) fn over(under: &str, tables: &str) -> Result<String, String> {
    merge(&[under, tables]).map(|merged| text(&merged))
}

/// Each over those before it. As values: TOML has many ways to write the same table.
fn merge(texts: &[&str]) -> Result<Value, String> {
    let add =
        |builder: ConfigBuilder<DefaultState>, text: &&str| builder.add_source(File::from_str(text, FileFormat::Toml));
    let merged = texts.iter().fold(Config::builder(), add).build();
    merged.and_then(Config::try_deserialize::<Value>).map_err(|e| e.to_string())
}

/// Halves the table of transactions until all tables fit. None: they do.
fn lessened(config: &mut config::Config, memory: u64) -> Option<usize> {
    let wanted = config.memory.transactions;
    while memory_bytes(config) > memory && config.memory.transactions >= 2 * LEAST {
        config.memory.transactions /= 2;
    }
    Some(config.memory.transactions).filter(|left| *left < wanted)
}

/// One line for each table.
fn text(merged: &Value) -> String {
    merged.as_object().into_iter().flatten().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key:?} = {}", toml(value));
        text
    })
}

fn first_address(listen: &Value) -> Option<SocketAddr> {
    let address = listen.get("address")?;
    let first = address.as_array().map_or(Some(address), |list| list.first());
    let address: SocketAddr = first?.as_str()?.parse().ok()?;
    Some(match address.ip().is_unspecified() {
        true if address.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        true => SocketAddr::from(([0u16, 0, 0, 0, 0, 0, 0, 1], address.port())),
        false => address,
    })
}

fn generated(point: &Point, wire: Wire, domain: &str, ports: Ports, (transactions, flows): (u64, u64)) -> String {
    let Ports { sip, admin, encapsulation } = ports;
    let clients = point.clients as u64;
    let bindings = (8 * clients).max(100_000);
    // A closed loop has a message or two of every client under way at once, and nobody sends again what a full mailbox refused.
    let mailbox = (2_048 * clients).clamp(262_144, 32 << 20);
    let udp_buffer = (4_096 * clients).clamp(4 << 20, 128 << 20);
    let mut text = format!(
        "workers = {}\ndomains = [\"{domain}\"]\ndrain_s = 0\n[admin]\naddress = \"127.0.0.1:{admin}\"\n[log]\nlevel = \"warn\"\n\
         [memory]\ntransactions = {transactions}\nflows = {flows}\nbindings = {bindings}\nmailbox_bytes = {mailbox}\n\
         [limits]\nassociations = 1000000\nassociations_per_peer = 1000000\nconnections = 1000000\nconnections_per_peer = 1000000\n",
        point.workers
    );
    let mut table = |name: &str, keys: String| {
        if !keys.is_empty() {
            let _ = write!(text, "[{name}]\n{keys}");
        }
    };
    let idle = |key: &str, least: u64| match point.idle_s {
        Some(seconds) => format!("{key} = {}\n", seconds.max(least)),
        None => String::new(),
    };
    let nice = match point.supervisor_nice {
        0 => String::new(),
        nice => format!("supervisor_nice = {nice}\n"),
    };
    match wire {
        Wire::Udp => table("udp", format!("receive_buffer_bytes = {udp_buffer}\n")),
        Wire::Tcp => table("tcp", idle("idle_s", 1) + &nice),
        Wire::Sctp | Wire::SctpUser => table("sctp", idle("autoclose_s", LEAST_IDLE_S)),
    }
    let mut listen = |token: &str, more: &str| {
        let _ = write!(text, "[[listen]]\ntransport = \"{token}\"\naddress = \"127.0.0.1:{sip}\"\n{more}");
    };
    // It tells when the daemon is there.
    listen("udp", "");
    match wire {
        Wire::Udp => {}
        Wire::Tcp => listen("tcp", ""),
        Wire::Sctp => listen("sctp", "stack = \"kernel\"\n"),
        Wire::SctpUser => listen("sctp", &format!("stack = \"user\"\nencapsulation_port = {encapsulation}\n")),
    }
    text
}

/// A value in one line.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(pairs) => {
            let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key:?} = {}", toml(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        // JSON writes texts, numbers and booleans as TOML reads them.
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::{Arrival, Subject};
    use super::*;

    fn point(tables: &str) -> Point {
        Point {
            subject: Subject { name: "TCP".into(), transport: "tcp".into(), tables: tables.into() },
            clients: 10,
            renew_every: None,
            arrival: Arrival::Closed,
            workers: 2,
            supervisor_nice: 0,
            idle_s: Some(10),
            warm_up_s: 0.0,
            measure_s: 1.0,
        }
    }

    const PORTS: Ports = Ports { sip: 5070, admin: 5071, encapsulation: 5072 };
    const MACHINE: Machine = Machine { processors: 2, memory: 16 << 30, files: 20_000 };

    #[test]
    fn tables_win_over_the_file_and_the_file_over_what_is_generated() {
        let file = "workers = 7\n[tcp]\nidle_s = 20\nconnect_timeout_ms = 100\n";
        let tables = "[tcp]\nidle_s = 30\n";
        let made = Configuration::make(&point(tables), Wire::Tcp, "a.test", Some(file), PORTS, MACHINE).unwrap();
        assert!(made.text.contains("\"workers\" = 7\n"), "{}", made.text);
        assert!(
            made.text.contains("\"idle_s\" = 30") && made.text.contains("\"connect_timeout_ms\" = 100"),
            "{}",
            made.text
        );
        assert!(made.text.contains("\"domains\" = [\"a.test\"]"), "{}", made.text);
        assert_eq!(made.address, "127.0.0.1:5070".parse().unwrap());
        assert_eq!((made.admin, made.udp), ("127.0.0.1:5071".parse().ok(), "127.0.0.1:5070".parse().ok()));
    }

    #[test]
    fn a_listener_of_the_users_own_replaces_the_generated_ones() {
        let listen = "[[listen]]\ntransport = \"sctp\"\nstack = \"user\"\naddress = [\"0.0.0.0:6000\"]\nencapsulation_port = 6001\n";
        let made = Configuration::make(&point(listen), Wire::SctpUser, "a.test", None, PORTS, MACHINE).unwrap();
        assert_eq!((made.address, made.encapsulation_port), ("127.0.0.1:6000".parse().unwrap(), 6001));
        assert_eq!(made.udp, None);
        let missing = Configuration::make(&point(listen), Wire::Tcp, "a.test", None, PORTS, MACHINE).unwrap_err();
        assert!(missing.contains("no [[listen]] for tcp"), "{missing}");
    }

    #[test]
    fn a_cache_leaves_files_for_what_its_worker_owns_unless_somebody_says_how_large_it_is() {
        let made = |tables: &str, files| {
            let point =
                Point { renew_every: Some(50), measure_s: 60.0, ..point(&format!("workers = 2\n[tcp]\n{tables}")) };
            let made =
                Configuration::make(&point, Wire::Tcp, "a.test", None, PORTS, Machine { files, ..MACHINE }).unwrap();
            let size = config::Config::from_text(&made.text).unwrap().tcp.descriptor_cache_size;
            assert_eq!(size, made.read.unwrap().tcp.descriptor_cache_size);
            (size, made.notes.len())
        };
        let cache = "architecture = \"supervisor\"\ndescriptor_cache = true\n";
        // 800 new ones a second for 10 s and those of 20 phones, by two workers, twice.
        assert_eq!(made(cache, 20_000), (20_000 - 512 - 8_020, 1));
        assert_eq!(made(cache, 1_000_000), (16_384, 0));
        assert_eq!(made(cache, 2_048), (1_024, 1));
        assert_eq!(made(&format!("{cache}descriptor_cache_size = 19000\n"), 20_000), (19_000, 0));
        assert_eq!(made("idle_s = 10\n", 20_000), (16_384, 0), "there is none");
    }

    #[test]
    fn bad_toml_is_told_with_its_subject() {
        let e = Configuration::make(&point("[tcp\n"), Wire::Tcp, "a.test", None, PORTS, MACHINE).unwrap_err();
        assert!(e.starts_with("the configuration for TCP:"), "{e}");
    }

    #[test]
    fn the_table_of_transactions_fits_the_memory_and_less_of_it_is_told() {
        let made = |tables: &str, memory| {
            let machine = Machine { memory, ..MACHINE };
            Configuration::make(&point(tables), Wire::Tcp, "a.test", None, PORTS, machine).unwrap()
        };
        let whole = made("", 16 << 30);
        assert_eq!((whole.read.unwrap().memory.transactions, whole.notes.len()), (2_400_000, 0));
        let small = made("", 1 << 30);
        let read = small.read.unwrap();
        assert!(memory_bytes(&read) <= 1 << 30 && read.memory.transactions >= 300_000, "{}", read.memory.transactions);
        assert_eq!(config::Config::from_text(&small.text).unwrap().memory.transactions, read.memory.transactions);
        assert!(
            small.notes[0]
                .starts_with(&format!("room for {} transactions instead of 2400000", read.memory.transactions))
        );
        // Who says how many gets as many.
        let own = made("[memory]\ntransactions = 3000000\n", 1 << 30);
        assert_eq!((own.read.unwrap().memory.transactions, own.notes.len()), (3_000_000, 0));
    }
}
