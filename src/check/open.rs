//! Doors that stand wider open than may be meant: who may do what from where, without a password.
//!
//! Owns: which networks and listeners are worth a warning. Forbids nothing: what is allowed is the operator's to say.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Allow, Config, Listen};

/// A line for each network that `check` and `serve` should not pass over in silence.
pub(super) fn warn(config: &Config, lines: &mut Vec<String>) {
    for allow in &config.live.allow {
        admin(config, allow, lines);
        let Some((_, listen)) = config.listen.iter().enumerate().find(|(at, listen)| concerns(allow, *at, listen))
        else {
            continue;
        };
        // Whoever may register an address-of-record gets its calls.
        for network in allow.register.iter().filter(|network| is_public(network)) {
            lines.push(format!(
                "{network} may register on {} without a password (digest comes in a later version): anybody there can \
                 take over the calls of any user",
                listen.name
            ));
        }
        for network in allow.relay.iter().filter(|network| is_public(network) && is_wide(network)) {
            lines.push(format!(
                "{network} may relay on {} without a password: an open relay, through which anybody there can call any \
                 place in our name; list the networks of those you know",
                listen.name
            ));
        }
    }
}

fn admin(config: &Config, allow: &Allow, lines: &mut Vec<String>) {
    let Some(address) = config.admin.address.filter(|address| !address.ip().is_loopback()) else { return };
    for network in allow.admin.iter().filter(|network| is_public(network)) {
        lines.push(format!(
            "{network} may ask the admin listener {address} without a password: anybody there learns processes, counters and \
             the addresses of peers"
        ));
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
    let network = canonical(network);
    !NOT_PUBLIC.iter().filter_map(|text| text.parse::<IpNet>().ok()).any(|inside| inside.contains(&network))
}

/// Wider than what one carrier has that we know: relaying is for neighbours, whose addresses are public as a rule.
fn is_wide(network: &IpNet) -> bool {
    match canonical(network) {
        IpNet::V4(v4) => v4.prefix_len() < 16,
        IpNet::V6(v6) => v6.prefix_len() < 32,
    }
}

/// An IPv4 network that was written as IPv6 is one of IPv4.
fn canonical(network: &IpNet) -> IpNet {
    let mapped = match network.addr() {
        IpAddr::V6(v6) if network.prefix_len() >= 96 => v6.to_ipv4_mapped(),
        _ => None,
    };
    mapped.and_then(|v4| IpNet::new(v4.into(), network.prefix_len() - 96).ok()).unwrap_or(*network)
}
