//! Opening: every socket of the daemon, by the master, before privileges are dropped and before the first fork.
//!
//! Owns: the descriptors that all processes inherit; the master keeps them open, so no association is lost with a worker (M31),
//! and a respawn needs no privilege. Sets the kernel's SCTP policies, which a socket copies when it is made (M06). Never reads or
//! writes a message.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use sys::Granted;
use sys::sctp::Settings;

use super::Transport;
use super::desk::Carrier;
use super::sctp::sysctls::Sysctls;
use crate::config::{Config, Listen, Sctp, Stack};

/// Connections that wait to be accepted, per listener and seat; `net.core.somaxconn` may cut it.
const BACKLOG: i32 = 4096;

/// Receive buffers that hold fewer bytes than this stall honest peers with large messages.
const SMALL: usize = 64 * 1024;

/// All listeners, in the order of `Config::listen`.
pub struct Sockets {
    listeners: Vec<Listener>,
    /// What the operator should know: one sentence each.
    pub warnings: Vec<String>,
    /// The kernel's settings for its SCTP, in one line, where a listener has it.
    pub kernel_sctp: Option<String>,
}

/// One `[[listen]]`, opened.
pub struct Listener {
    pub transport: Transport,
    pub carrier: Carrier,
    /// As bound: a port 0 of the configuration is now a number.
    pub addresses: Vec<SocketAddr>,
    /// Bytes of the largest message that it can carry.
    pub most_bytes: usize,
    /// Buffers as granted; none for TCP.
    pub granted: Option<Granted>,
    /// SCTP in user space: the UDP address its packets travel through (RFC 6951).
    pub tunnel: Option<SocketAddr>,
    /// One that all share, or one per worker seat where connections and associations have owners.
    fds: Vec<OwnedFd>,
}

impl Listener {
    /// The socket that the process with this seat uses. The timer process gets none of those that belong to workers.
    #[must_use]
    pub fn socket(&self, seat: usize) -> Option<&OwnedFd> {
        if self.carrier.has_owners() { self.fds.get(seat) } else { self.fds.first() }
    }
}

/// A listener could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// `Listen::name`.
    pub listener: String,
    pub addresses: Vec<SocketAddr>,
    pub cause: io::Error,
    /// What to do about it.
    pub advice: &'static str,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener {:?} cannot be opened on {:?}: {}", self.listener, self.addresses, self.cause)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

impl std::error::Error for OpenError {}

impl Sockets {
    /// Opens all listeners of the configuration.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub fn open(config: &Config) -> Result<Sockets, OpenError> {
        let mut warnings = Vec::new();
        let mut kernel_sctp = None;
        if config.serves(Transport::Sctp) {
            let supported = sys::sctp::supported();
            if config.listen.iter().any(|listen| is_kernel_sctp(listen, supported)) {
                set_policies();
                let sysctls = Sysctls::read();
                warnings.extend(sysctls.warnings(&config.sctp));
                kernel_sctp = Some(sysctls.summary());
            }
        }
        let open = |listen: &Listen| {
            open_one(config, listen, &mut warnings).map_err(|cause| OpenError {
                listener: listen.name.clone(),
                addresses: listen.addresses.clone(),
                advice: advice(listen, &cause),
                cause,
            })
        };
        let listeners = config.listen.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Sockets { listeners, warnings, kernel_sctp })
    }

    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }
}

fn open_one(config: &Config, listen: &Listen, warnings: &mut Vec<String>) -> io::Result<Listener> {
    let carrier = match (listen.transport, listen.stack) {
        (Transport::Udp, _) => Carrier::Udp,
        (Transport::Tcp, _) => Carrier::Tcp,
        (Transport::Sctp, Stack::User) => Carrier::UserSctp,
        (Transport::Sctp, Stack::Auto) if !sys::sctp::supported() => Carrier::UserSctp,
        (Transport::Sctp, _) => Carrier::KernelSctp,
    };
    let mut listener = Listener {
        transport: listen.transport,
        carrier,
        addresses: listen.addresses.clone(),
        most_bytes: usize::MAX,
        granted: None,
        tunnel: None,
        fds: Vec::new(),
    };
    let first = *listen.addresses.first().ok_or(io::ErrorKind::InvalidInput)?;
    match carrier {
        Carrier::Udp => {
            let (receive, send) = (config.udp.receive_buffer_bytes, config.udp.send_buffer_bytes);
            let (fd, granted) = sys::udp::bind(first, false, receive, send)?;
            say_if_less(warnings, listen, (receive, send), granted);
            // RFC 768: what fits the length field.
            listener.most_bytes = 65_535;
            listener.granted = Some(granted);
            listener.fds.push(fd);
        }
        Carrier::Tcp => {
            // SO_REUSEPORT would let a second daemon of the same user in beside us, unnoticed; without it nobody shares.
            drop(sys::tcp::listen(first, 1, false)?);
            for _ in 0..config.workers {
                let address = listener.addresses.first().copied().unwrap_or(first);
                let fd = sys::tcp::listen(address, BACKLOG, true)?;
                // With port 0 the first seat's number is everybody's.
                listener.addresses = vec![sys::local_address(&fd)?];
                listener.fds.push(fd);
            }
            return Ok(listener);
        }
        Carrier::UserSctp => {
            if listen.stack == Stack::Auto {
                warnings.push(in_user_space(listen));
            }
            let (receive, send) = (config.udp.receive_buffer_bytes, config.udp.send_buffer_bytes);
            let mut tunnel = SocketAddr::new(first.ip(), listen.encapsulation_port);
            // As for TCP; also two listeners of ours cannot have one tunnel.
            drop(sys::udp::bind(tunnel, false, 0, 0)?);
            for seat in 0..config.workers {
                let (fd, granted) = sys::udp::bind(tunnel, true, receive, send)?;
                if seat == 0 {
                    // With port 0 the first seat's number is everybody's, and SIP's too if that was 0.
                    tunnel = sys::local_address(&fd)?;
                    say_if_less(warnings, listen, (receive, send), granted);
                    listener.granted = Some(granted);
                }
                listener.fds.push(fd);
            }
            listener.tunnel = Some(tunnel);
            if first.port() == 0 {
                listener.addresses.iter_mut().for_each(|address| address.set_port(tunnel.port()));
            }
            return Ok(listener);
        }
        Carrier::KernelSctp => {
            if !sys::sctp::supported() {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let (fd, granted) = sys::sctp::one_to_many(&listen.addresses, &settings(&config.sctp), false)?;
            let asked = (config.sctp.socket_rcvbuf_bytes, config.sctp.socket_sndbuf_bytes);
            say_if_less(warnings, listen, asked, granted);
            // A peer's window is half the buffer (M13): an eighth keeps honest traffic whole.
            listener.most_bytes = granted.receive / 8;
            if listener.most_bytes < SMALL {
                warnings.push(format!(
                    "listener {:?} takes messages of at most {} bytes: its receive buffer is only {} bytes (raise net.core.rmem_max or start as root)",
                    listen.name, listener.most_bytes, granted.receive
                ));
            }
            listener.granted = Some(granted);
            listener.fds.push(fd);
        }
    }
    if let Some(fd) = listener.fds.first() {
        let port = sys::local_address(fd)?.port();
        listener.addresses.iter_mut().for_each(|address| address.set_port(port));
    }
    Ok(listener)
}

/// What `auto` has come to on a kernel without SCTP.
#[must_use]
pub fn in_user_space(listen: &Listen) -> String {
    let only = if listen.addresses.len() > 1 { ", on its first address only" } else { "" };
    format!(
        "listener {:?}: this kernel has no SCTP, so it runs in user space over UDP port {}{only}; peers without RFC 6951 (UDP \
         encapsulation) cannot reach it (modprobe sctp, or stack = \"kernel\" to insist)",
        listen.name, listen.encapsulation_port
    )
}

/// Compares wishes (receive, send) with what the kernel granted, which it counts twice (socket(7)).
fn say_if_less(warnings: &mut Vec<String>, listen: &Listen, asked: (usize, usize), granted: Granted) {
    for (buffer, limit, asked, granted) in
        [("receive", "rmem_max", asked.0, granted.receive / 2), ("send", "wmem_max", asked.1, granted.send / 2)]
    {
        if granted < asked {
            warnings.push(format!(
                "listener {:?} asked for a {buffer} buffer of {asked} bytes and got {granted} (raise net.core.{limit} or start as root)",
                listen.name
            ));
        }
    }
}

fn settings(sctp: &Sctp) -> Settings {
    Settings {
        nodelay: true,
        // M12: with 0, one peer that sends half of a big message silences all others.
        fragment_interleave: 1,
        rcvbuf: sctp.socket_rcvbuf_bytes,
        sndbuf: sctp.socket_sndbuf_bytes,
        // We send on one stream only, and take any (A08, A09). Stream 0 is among those that the kernel has.
        outbound_streams: if sctp.stream == 0 { 0 } else { sctp.stream + 1 },
        inbound_streams: 0,
        init_max_attempts: sctp.init_max_attempts,
        init_max_timeo_ms: sctp.init_max_timeo_ms,
        srto_initial_ms: sctp.srto_initial_ms,
        srto_min_ms: sctp.srto_min_ms,
        srto_max_ms: sctp.srto_max_ms,
        asocmaxrxt: sctp.asocmaxrxt,
        pathmaxrxt: sctp.pathmaxrxt,
        hbinterval_ms: sctp.hbinterval_ms,
        autoclose_s: sctp.autoclose_s,
        sack_delay_ms: sctp.sack_delay_ms,
        sack_freq: sctp.sack_freq,
        max_burst: sctp.max_burst,
        send_ttl_ms: sctp.send_ttl_ms,
    }
}

/// With 0, the default, one socket has one buffer for all its associations: a stalled peer stops sending to everyone (M05), a
/// flooding one stops hearing from everyone (M40). Where we may not, `Sysctls` says so.
fn set_policies() {
    for name in ["sndbuf_policy", "rcvbuf_policy"] {
        if sys::sctp::sysctl(name).is_ok_and(|value| value == 0) {
            let _ = sys::sctp::set_sysctl(name, 1);
        }
    }
}

/// Will this listener be the kernel's SCTP? `kernel_has_sctp`: of `sys::sctp::supported`.
#[must_use]
pub fn is_kernel_sctp(listen: &Listen, kernel_has_sctp: bool) -> bool {
    kernel_has_sctp && listen.transport == Transport::Sctp && listen.stack != Stack::User
}

fn advice(listen: &Listen, cause: &io::Error) -> &'static str {
    match (cause.kind(), listen.transport) {
        (io::ErrorKind::AddrInUse, Transport::Sctp) => {
            "another program has this address, or (in user space) the UDP port encapsulation_port: end it or choose another port"
        }
        (io::ErrorKind::AddrInUse, _) => "another program has this address: end it or choose another port",
        (io::ErrorKind::AddrNotAvailable, _) => "this machine does not have that address (ip addr)",
        (io::ErrorKind::PermissionDenied, _) => "ports under 1024 need root or CAP_NET_BIND_SERVICE",
        (io::ErrorKind::Unsupported, Transport::Sctp) => {
            "load the kernel's SCTP (modprobe sctp) or set stack = \"auto\" or \"user\""
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SentBy;

    #[test]
    fn half_a_buffer_granted_is_said_and_a_whole_one_is_not() {
        let listen = Listen {
            name: "a".into(),
            transport: Transport::Sctp,
            addresses: vec![],
            sent_by: SentBy { host: "a.test".into(), port: 5060 },
            stack: Stack::Auto,
            encapsulation_port: 9899,
        };
        let said = |receive, send| {
            let mut warnings = Vec::new();
            say_if_less(&mut warnings, &listen, (1000, 3000), Granted { receive, send });
            warnings
        };
        assert!(said(2000, 6000).is_empty());
        assert_eq!(said(1000, 6000).len(), 1);
        assert!(said(1000, 6000)[0].contains("receive buffer of 1000 bytes and got 500 (raise net.core.rmem_max"));
        assert!(said(2000, 5998)[0].contains("send buffer of 3000 bytes and got 2999 (raise net.core.wmem_max"));
    }
}
