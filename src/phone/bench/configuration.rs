//! The configuration of a daemon that is measured: generated, with a file or tables over it.
//!
//! Owns: limits so wide that the measurement meets none, and where the phones find the listeners. Tables are merged key by key; a
//! `[[listen]]` given replaces the generated ones.

use std::fmt::Write as _;
use std::net::SocketAddr;

use config::{Config, File, FileFormat};
use serde_json::Value;

use super::results::{Arrival, Point};
use super::words::Wire;

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
}

/// Ports that are free now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub sip: u16,
    pub admin: u16,
    pub encapsulation: u16,
}

/// Finished transactions stay for 32 s over UDP: room for 20,000 calls/s in a closed loop.
const TRANSACTIONS: u64 = 1_400_000;
const LEAST_TRANSACTIONS: u64 = 286_720;

impl Configuration {
    /// `file`: TOML of the user's; the point's tables are over it.
    pub(super) fn make(
        point: &Point,
        wire: Wire,
        domain: &str,
        file: Option<&str>,
        ports: Ports,
    ) -> Result<Configuration, String> {
        let generated = generated(point, wire, domain, ports);
        let mut builder = Config::builder();
        for text in [Some(generated.as_str()), file, Some(point.subject.tables.as_str())].into_iter().flatten() {
            builder = builder.add_source(File::from_str(text, FileFormat::Toml));
        }
        let merged = builder.build().and_then(Config::try_deserialize::<Value>);
        let merged = merged.map_err(|e| format!("the configuration for {}: {e}", point.subject.name))?;
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
        let text = merged.as_object().into_iter().flatten().fold(String::new(), |mut text, (key, value)| {
            let _ = writeln!(text, "{key:?} = {}", toml(value));
            text
        });
        Ok(Configuration {
            text,
            address,
            encapsulation_port: port.and_then(|port| port.try_into().ok()).unwrap_or(9899),
            admin: admin.and_then(|admin| admin.parse().ok()),
            udp: listens().find(|listen| is(listen, "transport", "udp")).and_then(first_address),
        })
    }
}

/// `tables` with these keys in table `name`, which may be there already.
pub(super) fn with(tables: &str, name: &str, keys: &str) -> String {
    let (head, rest) = (format!("[{name}]"), tables.lines());
    let mut found = false;
    let mut text = rest.fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        if line.trim() == head {
            found = true;
            text += keys;
        }
        text
    });
    if !found {
        let _ = write!(text, "{head}\n{keys}");
    }
    text
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

fn generated(point: &Point, wire: Wire, domain: &str, ports: Ports) -> String {
    let Ports { sip, admin, encapsulation } = ports;
    let clients = point.clients as u64;
    // Old connections stay open until the idle time-out: nobody shall meet a limit before.
    let flows = (4 * clients + if point.renew_every.is_some() { 131_072 } else { 16_384 }).min(1_048_576);
    let transactions = match (wire, point.arrival) {
        (Wire::Udp, Arrival::Closed) => TRANSACTIONS,
        (Wire::Udp, Arrival::Open { calls_per_s }) => (calls_per_s * 80.0) as u64,
        _ => 0,
    };
    let transactions = transactions.clamp(LEAST_TRANSACTIONS, 33_554_432);
    let bindings = (8 * clients).max(100_000);
    let mut text = format!(
        "workers = {}\ndomains = [\"{domain}\"]\ndrain_s = 0\n[admin]\naddress = \"127.0.0.1:{admin}\"\n[log]\nlevel = \"warn\"\n\
         [memory]\ntransactions = {transactions}\nflows = {flows}\nbindings = {bindings}\n\
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
        Wire::Udp => {}
        Wire::Tcp => table("tcp", idle("idle_s", 1) + &nice),
        // At least as long as a transaction (RFC 3261 §18).
        Wire::Sctp | Wire::SctpUser => table("sctp", idle("autoclose_s", 32)),
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
    use super::super::results::Subject;
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

    #[test]
    fn tables_win_over_the_file_and_the_file_over_what_is_generated() {
        let file = "workers = 7\n[tcp]\nidle_s = 20\nconnect_timeout_ms = 100\n";
        let tables = "[tcp]\nidle_s = 30\n";
        let made = Configuration::make(&point(tables), Wire::Tcp, "a.test", Some(file), PORTS).unwrap();
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
        let made = Configuration::make(&point(listen), Wire::SctpUser, "a.test", None, PORTS).unwrap();
        assert_eq!((made.address, made.encapsulation_port), ("127.0.0.1:6000".parse().unwrap(), 6001));
        assert_eq!(made.udp, None);
        let missing = Configuration::make(&point(listen), Wire::Tcp, "a.test", None, PORTS).unwrap_err();
        assert!(missing.contains("no [[listen]] for tcp"), "{missing}");
    }

    #[test]
    fn bad_toml_is_told_with_its_subject() {
        let e = Configuration::make(&point("[tcp\n"), Wire::Tcp, "a.test", None, PORTS).unwrap_err();
        assert!(e.starts_with("the configuration for TCP:"), "{e}");
    }
}
