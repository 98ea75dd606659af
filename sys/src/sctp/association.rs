//! What can be asked and done about one association of a one-to-many socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use super::settings::peer_addr_params;
use super::uapi;
use crate::datagram::{Item, Sender, SndInfo, To};
use crate::sockaddr::{self, Name};
use crate::socket;

/// SCTP_STATUS, RFC 6458 §8.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// The peer's receive window, bytes.
    pub peer_window: u32,
    /// Chunks of ours that the peer has not acknowledged yet.
    pub unacknowledged: u16,
    /// Chunks of the peer's that nobody has read yet.
    pub pending: u16,
    pub inbound_streams: u16,
    pub outbound_streams: u16,
    /// The address that is sent to, when it can be read.
    pub primary: Option<SocketAddr>,
}

/// `enum sctp_sstat_state` of linux/sctp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Empty,
    Closed,
    CookieWait,
    CookieEchoed,
    Established,
    ShutdownPending,
    ShutdownSent,
    ShutdownReceived,
    ShutdownAckSent,
    Other(i32),
}

/// `enum sctp_spinfo_state` of linux/sctp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    Inactive,
    /// Potentially failed, RFC 7829.
    Failing,
    Active,
    /// Claimed by the peer, not verified yet (L20, M39).
    Unconfirmed,
    Unknown,
}

/// One address of the peer as the kernel sees it: SCTP_GET_PEER_ADDR_INFO, RFC 6458 §8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Whose address it is.
    pub association: u32,
    pub state: PathState,
    /// Congestion window, bytes.
    pub cwnd: u32,
    /// Smoothed round-trip time, milliseconds.
    pub srtt_ms: u32,
    /// Retransmission timeout, milliseconds.
    pub rto_ms: u32,
    /// Path MTU, bytes.
    pub mtu: u32,
}

/// Counted by the kernel since the association began: SCTP_GET_ASSOC_STATS of linux/sctp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    pub packets_out: u64,
    pub packets_in: u64,
    /// Chunks sent again.
    pub retransmitted: u64,
    /// DATA chunks, unordered and ordered.
    pub unordered_out: u64,
    pub ordered_out: u64,
}

/// `struct sctp_paddrinfo`: assoc_id, address, then state, cwnd, srtt, rto, mtu.
const PADDRINFO: usize = 152;

/// # Errors
/// EINVAL when there is no such association.
pub fn status(fd: BorrowedFd<'_>, association: u32) -> io::Result<Status> {
    // struct sctp_status: assoc_id, state, rwnd, unackdata, penddata, instrms, outstrms, fragmentation_point, primary.
    let mut bytes = [0; 24 + PADDRINFO];
    bytes[..4].copy_from_slice(&association.to_ne_bytes());
    socket::get_bytes(fd, libc::IPPROTO_SCTP, uapi::SCTP_STATUS, &mut bytes)?;
    let short = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let long = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok(Status {
        state: match long(4) as i32 {
            0 => State::Empty,
            1 => State::Closed,
            2 => State::CookieWait,
            3 => State::CookieEchoed,
            4 => State::Established,
            5 => State::ShutdownPending,
            6 => State::ShutdownSent,
            7 => State::ShutdownReceived,
            8 => State::ShutdownAckSent,
            other => State::Other(other),
        },
        peer_window: long(8),
        unacknowledged: short(12),
        pending: short(14),
        inbound_streams: short(16),
        outbound_streams: short(18),
        primary: sockaddr::read(&bytes[28..]).map(|(address, _)| address),
    })
}

/// All addresses of the peer, also those it claims and nobody has confirmed (M39: see [`path`]).
///
/// # Errors
/// EINVAL when there is no such association; ENOMEM when it has more addresses than a peer reasonably has.
pub fn peer_addresses(fd: BorrowedFd<'_>, association: u32) -> io::Result<Vec<SocketAddr>> {
    // struct sctp_getaddrs: assoc_id, addr_num, then the addresses, each as long as its family.
    let mut bytes = [0; 8 + 64 * Name::ROOM];
    bytes[..4].copy_from_slice(&association.to_ne_bytes());
    socket::get_bytes(fd, libc::IPPROTO_SCTP, uapi::SCTP_GET_PEER_ADDRS, &mut bytes)?;
    let n = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let mut rest = &bytes[8..];
    let mut addresses = Vec::new();
    for _ in 0..n {
        let Some((address, len)) = sockaddr::read(rest) else { break };
        addresses.push(address);
        rest = &rest[len..];
    }
    Ok(addresses)
}

/// What is known about one address of the peer. `association` 0: of whichever association a message to this address would go over,
/// also when its peer only claims the address (M39).
///
/// # Errors
/// EINVAL when the association, or any, does not have that address.
pub fn path(fd: BorrowedFd<'_>, association: u32, address: SocketAddr) -> io::Result<Path> {
    let mut bytes = [0; PADDRINFO];
    bytes[..4].copy_from_slice(&association.to_ne_bytes());
    let name = Name::new(address);
    bytes[4..4 + name.as_bytes().len()].copy_from_slice(name.as_bytes());
    socket::get_bytes(fd, libc::IPPROTO_SCTP, uapi::SCTP_GET_PEER_ADDR_INFO, &mut bytes)?;
    let long = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let state = match long(132) {
        0 => PathState::Inactive,
        1 => PathState::Failing,
        2 => PathState::Active,
        3 => PathState::Unconfirmed,
        _ => PathState::Unknown,
    };
    Ok(Path { association: long(0), state, cwnd: long(136), srtt_ms: long(140), rto_ms: long(144), mtu: long(148) })
}

/// # Errors
/// EINVAL when there is no such association.
pub fn statistics(fd: BorrowedFd<'_>, association: u32) -> io::Result<Statistics> {
    // struct sctp_assoc_stats: assoc_id, a sockaddr_storage at 8, then 64-bit counters from 136 on: maxrto, isacks, osacks,
    // opackets, ipackets, rtxchunks, outofseqtsns, idupchunks, gapcnt, ouodchunks, iuodchunks, oodchunks, iodchunks, ...
    let mut bytes = [0; 256];
    bytes[..4].copy_from_slice(&association.to_ne_bytes());
    socket::get_bytes(fd, libc::IPPROTO_SCTP, uapi::SCTP_GET_ASSOC_STATS, &mut bytes)?;
    let (counters, _) = bytes[136..].as_chunks::<8>();
    let counter = |at: usize| counters.get(at).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    Ok(Statistics {
        packets_out: counter(3),
        packets_in: counter(4),
        retransmitted: counter(5),
        unordered_out: counter(9),
        ordered_out: counter(11),
    })
}

/// How many associations the socket has, those being set up and shut down among them.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn association_count(fd: BorrowedFd<'_>) -> io::Result<usize> {
    socket::get(fd, libc::IPPROTO_SCTP, uapi::SCTP_GET_ASSOC_NUMBER).map(|n| usize::try_from(n).unwrap_or(0))
}

/// The ids of all associations of the socket, whoever opened them.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn associations(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut refused = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..8 {
        let room = association_count(fd)? + 16;
        // struct sctp_assoc_ids: number, then the ids.
        let mut bytes = vec![0; 4 + 4 * room];
        let filled = match socket::get_bytes(fd, libc::IPPROTO_SCTP, uapi::SCTP_GET_ASSOC_ID_LIST, &mut bytes) {
            Ok(filled) => filled,
            // More came up between the two questions.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                refused = e;
                continue;
            }
            Err(e) => return Err(e),
        };
        let (words, _) = bytes.get(..filled).unwrap_or_default().as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_ne_bytes(*word));
        let n = words.next().unwrap_or(0) as usize;
        return Ok(words.take(n).collect());
    }
    Err(refused)
}

/// Closes the association in good order when everything is sent (SCTP_EOF, L13), also what MSG_MORE held back. SHUTDOWN_COMP tells
/// when.
///
/// # Errors
/// EPIPE when there is no such association; ESHUTDOWN when it is closing already.
pub fn shutdown(fd: BorrowedFd<'_>, association: u32) -> io::Result<()> {
    end(fd, association, SndInfo { eof: true, ..SndInfo::default() })
}

/// Ends the association at once (SCTP_ABORT, L13); what is queued is lost.
///
/// # Errors
/// EPIPE when there is no such association.
pub fn abort(fd: BorrowedFd<'_>, association: u32) -> io::Result<()> {
    end(fd, association, SndInfo { abort: true, ..SndInfo::default() })
}

fn end(fd: BorrowedFd<'_>, association: u32, info: SndInfo) -> io::Result<()> {
    let item = Item { to: To::Association(association), pieces: [&[], &[]], sctp: Some(info) };
    match Sender::new(1).send(fd, 1, false, |_| item) {
        (_, Some(e)) => Err(e),
        (_, None) => Ok(()),
    }
}

/// Sends to this address of the peer from now on, as long as it works: SCTP_PRIMARY_ADDR, RFC 6458 §8.1.9.
///
/// # Errors
/// EINVAL when there is no such association, or it has no such address.
pub fn set_primary(fd: BorrowedFd<'_>, association: u32, address: SocketAddr) -> io::Result<()> {
    // struct sctp_prim, packed: assoc_id, address as struct sockaddr_storage.
    let mut bytes = [0; 132];
    let name = Name::new(address);
    bytes[..4].copy_from_slice(&association.to_ne_bytes());
    bytes[4..4 + name.as_bytes().len()].copy_from_slice(name.as_bytes());
    socket::set_bytes(fd, libc::IPPROTO_SCTP, uapi::SCTP_PRIMARY_ADDR, &bytes)
}

/// Sends a heartbeat to each of the association's addresses now (SPP_HB_DEMAND, RFC 6458 §8.1.12).
///
/// Linux bundles with it what MSG_MORE held back, as much as fits the packet. What was held back fits one packet, but not always
/// beside a heartbeat (seen: of 64 messages 63 left): a second call sends the rest. The association stays as MSG_MORE left it: only
/// a message without MSG_MORE ends that.
///
/// # Errors
/// EINVAL when there is no such association.
pub fn heartbeat_now(fd: BorrowedFd<'_>, association: u32) -> io::Result<()> {
    let parameters = peer_addr_params(association, 0, 0, uapi::SPP_HB_DEMAND);
    socket::set_bytes(fd, libc::IPPROTO_SCTP, uapi::SCTP_PEER_ADDR_PARAMS, &parameters)
}
