//! The addresses of this machine.
//!
//! Owns: asking the system for them, which only a wildcard listener makes necessary: it hears what is sent to any of them, and then
//! they all are ours. Asked at start and at each reload; an address that comes later is ours from the next reload on.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use tracing::warn;

use crate::config::Listen;

/// The addresses of all interfaces when one of these listens on a wildcard, else none.
#[must_use]
pub fn wildcard(listen: &[Listen]) -> Vec<IpAddr> {
    if !listen.iter().any(|listen| listen.addresses.iter().any(|address| address.ip().is_unspecified())) {
        return Vec::new();
    }
    match getifaddrs() {
        Ok(interfaces) => interfaces.filter_map(|interface| ip(&interface.address?)).collect(),
        Err(error) => {
            warn!("addresses of this machine: {error}; on wildcard listeners only `advertise` is known to be ours");
            Vec::new()
        }
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
