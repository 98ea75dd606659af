//! Kernel SCTP through one-to-many sockets (RFC 6458 §3; facts M in `tests/FACTS.md`).
//!
//! Owns: the options of the socket, what can be asked and done about one association, and the reading of notifications. Messages
//! go through [`crate::datagram`]. Never decides how long to wait or whom to refuse.

mod association;
mod notification;
mod settings;
pub(crate) mod uapi;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

pub use association::{
    Path, PathState, State, Statistics, Status, abort, association_count, associations, heartbeat_now, path,
    peer_addresses, set_primary, shutdown, statistics, status,
};
pub use notification::{AssociationState, Notification, PeerAddressState, parse_notification};
pub use settings::{Pace, Settings, pace};

use crate::sockaddr::Name;
use crate::socket::{self, Granted};

/// Has this kernel SCTP (loading its module on demand), and may we use it?
#[must_use]
pub fn supported() -> bool {
    socket::open(libc::AF_INET, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP).is_ok()
}

/// The value of `net.sctp.NAME`, of this network namespace. Policies are copied when a socket is created (M06).
///
/// # Errors
/// `NotFound` without SCTP (the module may not be loaded yet: see [`supported`]); `InvalidData` for one that is no number.
pub fn sysctl(name: &str) -> io::Result<i64> {
    sysctl_text(name)?.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The same for one that need not be a number.
///
/// # Errors
/// `NotFound` without SCTP.
pub fn sysctl_text(name: &str) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/sctp/{name}"))?;
    Ok(text.trim().to_owned())
}

/// Sets `net.sctp.NAME`.
///
/// # Errors
/// `PermissionDenied`, or a read-only file system, when we may not.
pub fn set_sysctl(name: &str, value: i64) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/sctp/{name}"), value.to_string())
}

/// A listening, non-blocking one-to-many socket on all `addresses` (one port; IPv4 and IPv6 may be mixed), which accepts and opens
/// associations and reports them by notifications. IPv6 addresses alone take IPv6 only; IPv4 peers are never shown as mapped ones.
///
/// # Errors
/// `InvalidInput` without an address, or when ports differ; `Unsupported` with a hint when `listen(2)` finds no cookie algorithm
/// (M22); what `socket(2)`, `setsockopt(2)`, `bind(2)` says: EPROTONOSUPPORT or ESOCKTNOSUPPORT where the kernel has no SCTP.
pub fn one_to_many(addresses: &[SocketAddr], settings: &Settings, reuse_port: bool) -> io::Result<(OwnedFd, Granted)> {
    let (owned, granted) = bound(addresses, settings, reuse_port)?;
    // The backlog means nothing to a one-to-many socket but "on" (M20).
    socket::listen(owned.as_fd(), 1).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOSYS) => io::Error::new(
            io::ErrorKind::Unsupported,
            "no algorithm to seal cookies with: set net.sctp.cookie_hmac_alg to one that this kernel has (sha256, on older ones \
             sha1 or md5)",
        ),
        _ => e,
    })?;
    Ok((owned, granted))
}

/// The same, but it takes no associations, only opens them: beside a listening one of the same user, on the same addresses, both with
/// SO_REUSEPORT.
///
/// # Errors
/// As [`one_to_many`].
pub fn one_to_many_for_opening(addresses: &[SocketAddr], settings: &Settings) -> io::Result<OwnedFd> {
    bound(addresses, settings, true).map(|(owned, _)| owned)
}

fn bound(addresses: &[SocketAddr], settings: &Settings, reuse_port: bool) -> io::Result<(OwnedFd, Granted)> {
    let (first, further) = addresses
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on"))?;
    if further.iter().any(|address| address.port() != first.port()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "addresses of one socket with different ports"));
    }
    let any_v6 = addresses.iter().any(SocketAddr::is_ipv6);
    let family = if any_v6 { libc::AF_INET6 } else { libc::AF_INET };
    let owned = socket::open(family, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP)?;
    let fd = owned.as_fd();
    if any_v6 {
        let only = addresses.iter().all(SocketAddr::is_ipv6);
        socket::set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(only))?;
    }
    if reuse_port {
        socket::set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    let granted = settings.apply(fd)?;
    socket::bind(fd, *first)?;
    // With port 0 the kernel has chosen one for the first address; the others must have the same.
    let port = socket::local_address(fd)?.port();
    for address in further {
        let name = Name::new(SocketAddr::new(address.ip(), port));
        socket::set_bytes(fd, libc::IPPROTO_SCTP, uapi::SCTP_SOCKOPT_BINDX_ADD, name.as_bytes())?;
    }
    Ok((owned, granted))
}
