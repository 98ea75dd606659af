//! What the kernel says: is SCTP there, its counters, who is bound to a port.

use std::collections::HashMap;
use std::fs::read_to_string;

use socket2::{Domain, Protocol, Socket, Type};
use strowger::transport::Transport;

/// A setting `net.sctp.NAME` for as long as this lives; then it is again what it was.
pub struct Sysctl {
    name: &'static str,
    was: String,
}

impl Sysctl {
    pub fn set(name: &'static str, value: impl ToString) -> Sysctl {
        let was = sys::sctp::sysctl_text(name).unwrap_or_else(|e| panic!("net.sctp.{name}: {e}"));
        write_sysctl(name, &value.to_string());
        Sysctl { name, was }
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        write_sysctl(self.name, &self.was);
    }
}

fn write_sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/sctp/{name}"), value)
        .unwrap_or_else(|e| panic!("net.sctp.{name} = {value}: {e}"));
}

pub fn sctp_is_here() -> bool {
    Socket::new(Domain::IPV4, Type::SEQPACKET, Some(Protocol::SCTP)).is_ok()
}

/// The counters of SCTP, RFC 3873 names (`SctpOutUnorderChunks`, `SctpOutSCTPPacks`, ...), since boot.
pub fn sctp_counters() -> HashMap<String, u64> {
    read_to_string("/proc/net/sctp/snmp")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

/// By how much one counter grew between two readings.
pub fn grown(before: &HashMap<String, u64>, after: &HashMap<String, u64>, name: &str) -> u64 {
    let value = |map: &HashMap<String, u64>| *map.get(name).unwrap_or_else(|| panic!("no counter {name}"));
    value(after) - value(before)
}

/// Is a socket bound to (TCP: listening on) this port? Looked up, not tried: a try would take the port.
pub fn is_bound(transport: Transport, port: u16) -> bool {
    let hex = format!(":{port:04X}");
    match transport {
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"].iter().any(|f| has_local(f, &hex, None)),
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|f| has_local(f, &hex, Some("0A"))),
        Transport::Sctp => read_to_string("/proc/net/sctp/eps")
            .unwrap_or_default()
            .lines()
            .any(|line| line.split_whitespace().nth(5) == Some(&port.to_string())),
    }
}

fn has_local(file: &str, port: &str, state: Option<&str>) -> bool {
    read_to_string(file).unwrap_or_default().lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.len() > 3 && words[1].ends_with(port) && state.is_none_or(|s| words[3] == s)
    })
}

/// An established TCP connection of this machine, seen from one of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub local: u16,
    pub remote: u16,
    pub inode: u64,
}

/// All of them, IPv4 (proc(5), net/tcp).
pub fn tcp_connections() -> Vec<Connection> {
    let port = |word: &str| u16::from_str_radix(word.rsplit(':').next()?, 16).ok();
    read_to_string("/proc/net/tcp")
        .unwrap_or_default()
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            Some(Connection {
                local: port(words.get(1)?)?,
                remote: port(words.get(2)?)?,
                inode: words.get(9)?.parse().ok()?,
            })
        })
        .collect()
}

/// The addresses that the SCTP endpoint on `port` is bound to.
pub fn sctp_bound_addresses(port: u16) -> Vec<String> {
    read_to_string("/proc/net/sctp/eps")
        .unwrap_or_default()
        .lines()
        .filter(|line| line.split_whitespace().nth(5) == Some(&port.to_string()))
        .flat_map(|line| line.split_whitespace().skip(8).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
