//! The transports: RFC 3261 §18, RFC 4168.
//!
//! Owns: sockets, connections, associations, framing. One loop serves all three: `Transports::receive` reads one batch into the
//! worker's arena, `Transports::flush` sends what a turn decided. Never decides where a message goes, never reads a clock.

pub mod address;
mod desk;
pub mod framing;
pub mod inbox;
pub mod interfaces;
pub mod outgoing;
mod owned;
mod relay;
pub mod sctp;
pub mod sockets;
mod tcp;
mod transports;
mod udp;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use address::Address;
pub use inbox::{Frame, Happening, Inbox, Ready};
pub use outgoing::{Body, Outgoing};
pub use sockets::Sockets;
pub use tcp::SUPERVISOR_PATIENCE;
pub use transports::{Parts, Transports};

/// What carries SIP between two hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Transport {
    Udp = 1,
    Tcp = 2,
    Sctp = 3,
}

impl Transport {
    pub const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Sctp];

    /// Does the transport retransmit by itself (RFC 3261 §17: no timers A, E, G; D, I, J, K are 0)?
    #[must_use]
    pub fn is_reliable(self) -> bool {
        match self {
            Transport::Udp => false,
            Transport::Tcp | Transport::Sctp => true,
        }
    }

    /// The token in Via (RFC 3261 §25.1, RFC 4168 §4).
    #[must_use]
    pub fn via_token(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Sctp => "SCTP",
        }
    }

    /// The value of a URI's transport parameter (RFC 3261 §19.1.1).
    #[must_use]
    pub fn uri_token(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Sctp => "sctp",
        }
    }

    /// Reads either token, in any case.
    #[must_use]
    pub fn from_token(token: &[u8]) -> Option<Transport> {
        Transport::ALL.into_iter().find(|t| token.eq_ignore_ascii_case(t.via_token().as_bytes()))
    }

    /// Back from shared memory, where any byte may stand.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Transport> {
        Transport::ALL.into_iter().find(|t| *t as u8 == byte)
    }
}

/// Names an entry of `shared::flows`: a connection or an association. Index 0 is no entry. A late message meets another
/// generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowId {
    pub index: u32,
    pub generation: u32,
}

impl FlowId {
    pub const NONE: FlowId = FlowId { index: 0, generation: 0 };
}

/// The way back to a peer (RFC 5626 §2), and the way to a next hop once its listener is chosen. Plain: it lives in slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// The peer's address: for a request that came in its source, else where to connect to.
    pub peer: Address,
    /// TCP: the connection, or none to find one to `peer` or open it.
    pub id: FlowId,
    /// SCTP: the association id (0: find by `peer`, or set one up). UDP: the number, in `shared::own_addresses`, of our address that
    /// it came to and is answered from (0: the socket has but one, or whichever the system chooses).
    pub association: u32,
    /// A `Transport` as u8.
    pub transport: u8,
    /// Index into `Config::listen`: the socket it came in on, or goes out on.
    pub listener: u8,
    /// Where a response goes when connection or association is gone: the port of Via's sent-by (RFC 3261 §18.2.2).
    pub fallback_port: u16,
}

/// A next place to send a request to (RFC 3261 §16.6 item 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    pub transport: Transport,
    pub address: Address,
}
