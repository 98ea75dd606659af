//! The options of a one-to-many socket.

use std::io;
use std::os::fd::BorrowedFd;

use super::uapi;
use crate::socket::{self, Granted};

/// What a one-to-many socket is told before it is bound. A number that is 0 leaves what the kernel has (M21).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// SCTP_NODELAY: no Nagle (M29).
    pub nodelay: bool,
    /// SCTP_FRAGMENT_INTERLEAVE, 0 to 2, RFC 6458 §8.1.20. With 0 one peer can silence all (M12). Always set.
    pub fragment_interleave: u32,
    /// SO_RCVBUF, bytes.
    pub rcvbuf: usize,
    /// SO_SNDBUF, bytes.
    pub sndbuf: usize,
    /// SCTP_INITMSG, RFC 6458 §8.1.3: streams we ask for, and at most take.
    pub outbound_streams: u16,
    pub inbound_streams: u16,
    /// How often INIT is sent again, and the longest wait for an answer, milliseconds.
    pub init_max_attempts: u16,
    pub init_max_timeo_ms: u16,
    /// SCTP_RTOINFO, RFC 6458 §8.1.1, milliseconds.
    pub srto_initial_ms: u32,
    pub srto_min_ms: u32,
    pub srto_max_ms: u32,
    /// SCTP_ASSOCINFO, RFC 6458 §8.1.2: retransmissions in a row before the peer counts as dead.
    pub asocmaxrxt: u16,
    /// SCTP_PEER_ADDR_PARAMS, RFC 6458 §8.1.12: the same for one path.
    pub pathmaxrxt: u16,
    /// Heartbeats on an idle path, milliseconds.
    pub hbinterval_ms: u32,
    /// SCTP_AUTOCLOSE, seconds: an association idle for so long is shut down; 0 is never (M18). Always set.
    pub autoclose_s: u32,
    /// SCTP_DELAYED_SACK, RFC 6458 §8.1.19: the longest wait of a SACK, milliseconds, and packets that one stands for (1: none waits).
    pub sack_delay_ms: u32,
    pub sack_freq: u32,
    /// SCTP_MAX_BURST, RFC 6458 §8.1.24: packets that may leave at once.
    pub max_burst: u32,
    /// SCTP_DEFAULT_PRINFO, RFC 7496 §4.2: a message not delivered after so many milliseconds is given up, if the peer knows RFC 3758
    /// (M30).
    pub send_ttl_ms: u32,
    /// SCTP_REMOTE_UDP_ENCAPS_PORT, RFC 6951 §6.1: the associations that this socket opens go inside UDP, to this port of their peers,
    /// if `net.sctp.udp_port` names one of ours (M37).
    pub encapsulation_port: u16,
}

/// Four of them as the kernel has them for new associations: its own where nothing was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub sack_delay_ms: u32,
    pub sack_freq: u32,
    pub max_burst: u32,
    pub send_ttl_ms: u32,
}

/// # Errors
/// What `getsockopt(2)` says.
pub fn pace(fd: BorrowedFd<'_>) -> io::Result<Pace> {
    let get = |name, bytes: &mut [u8]| socket::get_bytes(fd, libc::IPPROTO_SCTP, name, bytes);
    let (mut sack, mut burst, mut prinfo) = ([0; 12], [0; 8], [0; 12]);
    get(uapi::SCTP_DELAYED_SACK, &mut sack)?;
    get(uapi::SCTP_MAX_BURST, &mut burst)?;
    get(uapi::SCTP_DEFAULT_PRINFO, &mut prinfo)?;
    let field =
        |bytes: &[u8], at: usize| bytes.as_chunks::<4>().0.get(at).map_or(0, |field| u32::from_ne_bytes(*field));
    Ok(Pace {
        sack_delay_ms: field(&sack, 1),
        sack_freq: field(&sack, 2),
        max_burst: field(&burst, 1),
        send_ttl_ms: field(&prinfo, 1),
    })
}

/// What the socket reports of itself.
const EVENTS: [u16; 5] = [
    uapi::SCTP_ASSOC_CHANGE,
    uapi::SCTP_SEND_FAILED_EVENT,
    uapi::SCTP_SHUTDOWN_EVENT,
    uapi::SCTP_PEER_ADDR_CHANGE,
    uapi::SCTP_PARTIAL_DELIVERY_EVENT,
];

impl Settings {
    pub(super) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<Granted> {
        let set = |name, value: u32| socket::set_bytes(fd, libc::IPPROTO_SCTP, name, &value.to_ne_bytes());
        let set_bytes = |name, value: &[u8]| socket::set_bytes(fd, libc::IPPROTO_SCTP, name, value);

        let granted = socket::set_buffers(fd, self.rcvbuf, self.sndbuf)?;
        set(uapi::SCTP_NODELAY, u32::from(self.nodelay))?;
        set(uapi::SCTP_FRAGMENT_INTERLEAVE, self.fragment_interleave)?;
        set(uapi::SCTP_AUTOCLOSE, self.autoclose_s)?;
        set(uapi::SCTP_I_WANT_MAPPED_V4_ADDR, 0)?;
        set(uapi::SCTP_RECVRCVINFO, 1)?;
        set_bytes(uapi::SCTP_INITMSG, &self.initmsg())?;
        set_bytes(uapi::SCTP_RTOINFO, &self.rtoinfo())?;
        set_bytes(uapi::SCTP_ASSOCINFO, &self.associnfo())?;
        let heartbeats = if self.hbinterval_ms > 0 { uapi::SPP_HB_ENABLE } else { 0 };
        let paths = peer_addr_params(0, self.hbinterval_ms, self.pathmaxrxt, heartbeats);
        set_bytes(uapi::SCTP_PEER_ADDR_PARAMS, &paths)?;
        if self.sack_delay_ms > 0 || self.sack_freq > 0 {
            set_bytes(uapi::SCTP_DELAYED_SACK, &fields([0, self.sack_delay_ms, self.sack_freq]))?;
        }
        if self.max_burst > 0 {
            set_bytes(uapi::SCTP_MAX_BURST, &fields([0, self.max_burst]))?;
        }
        if self.send_ttl_ms > 0 {
            set_bytes(uapi::SCTP_DEFAULT_PRINFO, &self.prinfo())?;
        }
        if self.encapsulation_port > 0 {
            set_bytes(uapi::SCTP_REMOTE_UDP_ENCAPS_PORT, &self.udpencaps())?;
        }
        for event in EVENTS {
            set_bytes(uapi::SCTP_EVENT, &event_subscription(event))?;
        }
        Ok(granted)
    }

    /// `struct sctp_initmsg`: num_ostreams, max_instreams, max_attempts, max_init_timeo.
    fn initmsg(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        let values = [self.outbound_streams, self.inbound_streams, self.init_max_attempts, self.init_max_timeo_ms];
        for (field, value) in bytes.chunks_exact_mut(2).zip(values) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    /// `struct sctp_rtoinfo`: assoc_id, initial, max, min.
    fn rtoinfo(&self) -> Vec<u8> {
        fields([0, self.srto_initial_ms, self.srto_max_ms, self.srto_min_ms])
    }

    /// `struct sctp_default_prinfo`: assoc_id, value, policy (16 bits and as many unused).
    fn prinfo(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[4..8].copy_from_slice(&self.send_ttl_ms.to_ne_bytes());
        bytes[8..10].copy_from_slice(&uapi::SCTP_PR_SCTP_TTL.to_ne_bytes());
        bytes
    }

    /// `struct sctp_udpencaps`: assoc_id, address (none: all) as `struct sockaddr_storage`, port in network order.
    fn udpencaps(&self) -> [u8; 144] {
        let mut bytes = [0; 144];
        bytes[136..138].copy_from_slice(&self.encapsulation_port.to_be_bytes());
        bytes
    }

    /// `struct sctp_assocparams`: assoc_id, asocmaxrxt, number_peer_destinations, peer_rwnd, local_rwnd, cookie_life.
    fn associnfo(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[4..6].copy_from_slice(&self.asocmaxrxt.to_ne_bytes());
        bytes
    }
}

/// A struct of 32-bit fields.
fn fields<const N: usize>(values: [u32; N]) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// `struct sctp_paddrparams`, packed, its size rounded up to 4: assoc_id, address (none: all), hbinterval, pathmaxrxt, pathmtu,
/// sackdelay, flags, ipv6_flowlabel, dscp.
pub(super) fn peer_addr_params(association: u32, hbinterval_ms: u32, pathmaxrxt: u16, flags: u32) -> [u8; 156] {
    let mut bytes = [0; 156];
    bytes[..4].copy_from_slice(&association.to_ne_bytes());
    bytes[132..136].copy_from_slice(&hbinterval_ms.to_ne_bytes());
    bytes[136..138].copy_from_slice(&pathmaxrxt.to_ne_bytes());
    bytes[146..150].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// `struct sctp_event`: assoc_id (0: future associations), type, on.
fn event_subscription(event: u16) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[4..6].copy_from_slice(&event.to_ne_bytes());
    bytes[6] = 1;
    bytes
}
