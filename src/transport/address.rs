//! `Address`: an IP address and port as plain data.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address and port that may live in shared memory. IPv4 is kept as an IPv4-mapped IPv6 address
/// (RFC 4291 §2.5.5.2); converting back gives IPv4 again.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address {
    ip: [u8; 16],
    scope: u32,
    port: u16,
    unused: u16,
}

impl Address {
    /// The address of no peer (all zero, port 0).
    pub const NONE: Address = Address { ip: [0; 16], scope: 0, port: 0, unused: 0 };

    #[must_use]
    pub fn new(ip: IpAddr, port: u16) -> Address {
        SocketAddr::new(ip, port).into()
    }

    #[must_use]
    pub fn ip(&self) -> IpAddr {
        let ip = Ipv6Addr::from(self.ip);
        ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn with_port(mut self, port: u16) -> Address {
        self.port = port;
        self
    }

    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Address::NONE
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let (ip, scope) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Address { ip: ip.octets(), scope, port: address.port(), unused: 0 }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(v4) => SocketAddr::new(IpAddr::V4(v4), address.port),
            IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, address.port, 0, address.scope)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
