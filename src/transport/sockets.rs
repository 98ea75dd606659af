//! Opening: every socket of the daemon, by the master, before privileges are dropped and before the first fork.
//!
//! Owns: the descriptors that all processes inherit; the master keeps them open, so no association is lost with a worker (M31),
//! and a respawn needs no privilege. Never reads or writes a message.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use sys::Granted;

use super::Transport;
use super::desk::Carrier;
use super::sctp::sysctls::Sysctls;
use super::sctp::{self, Numbers};
use crate::config::{Config, ENCAPSULATION_PORT, Layout, Listen, Stack};

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
    /// One that all share, one per seat from `first_seat` on where connections and associations have owners or UDP has several, or as
    /// `numbers` has them.
    fds: Vec<OwnedFd>,
    /// The workers are the first; TCP's one socket may be the supervisor's or the owner's alone.
    first_seat: usize,
    /// The kernel's SCTP.
    pub numbers: Numbers,
}

impl Listener {
    /// The sockets that the process with this seat uses. The timer process gets none of those that belong to others.
    #[must_use]
    pub fn sockets(&self, seat: usize) -> &[OwnedFd] {
        let several_of_udp = self.carrier == Carrier::Udp && self.fds.len() > 1;
        if !self.carrier.has_owners() && !several_of_udp {
            return &self.fds;
        }
        let its = seat.checked_sub(self.first_seat).and_then(|place| self.fds.get(place..=place));
        match its {
            // Whoever reads none (the timer process) may send on any.
            None if several_of_udp => self.fds.get(..1).unwrap_or_default(),
            its => its.unwrap_or_default(),
        }
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
            let kernels: Vec<_> = config.listen.iter().filter(|listen| is_kernel_sctp(listen, supported)).collect();
            if !kernels.is_empty() {
                sctp::prepare(&kernels);
                let sysctls = Sysctls::read();
                warnings.extend(sysctls.warnings(config));
                kernel_sctp = Some(sysctls.summary());
            }
        }
        let open = |listen: &Listen| {
            open_one(config, listen, &mut warnings).map_err(|cause| OpenError {
                listener: listen.name.clone(),
                addresses: listen.addresses.clone(),
                advice: advice(listen, &cause, sys::sctp::supported()),
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
        first_seat: 0,
        numbers: Numbers::default(),
    };
    let first = *listen.addresses.first().ok_or(io::ErrorKind::InvalidInput)?;
    match carrier {
        Carrier::Udp => {
            let (receive, send) = (config.udp.receive_buffer_bytes, config.udp.send_buffer_bytes);
            let several = config.udp.layout == Layout::PerWorker && config.workers > 1;
            let (fd, granted) = sys::udp::bind(first, false, receive, send)?;
            say_if_less(warnings, listen, (receive, send), granted);
            // RFC 768: what fits the length field.
            listener.most_bytes = 65_535;
            listener.granted = Some(granted);
            if !several {
                listener.fds.push(fd);
            } else {
                // As for TCP: the first only tried whether the address is free.
                let address = sys::local_address(&fd)?;
                drop(fd);
                for _ in 0..config.workers {
                    listener.fds.push(sys::udp::bind(address, true, receive, send)?.0);
                }
            }
        }
        Carrier::Tcp => {
            if let Some(extra) = config.extra_seat() {
                let fd = sys::tcp::listen(first, BACKLOG, false)?;
                listener.addresses = vec![sys::local_address(&fd)?];
                (listener.fds, listener.first_seat) = (vec![fd], extra);
                return Ok(listener);
            }
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
            let mut tunnel = SocketAddr::new(first.ip(), listen.encapsulation_port.unwrap_or(ENCAPSULATION_PORT));
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
            listener.numbers = Numbers::new(config);
            let (fds, granted) = sctp::open(config, listen, &listener.numbers)?;
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
            listener.fds = fds;
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
        listen.name,
        listen.encapsulation_port.unwrap_or(ENCAPSULATION_PORT)
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

/// Will this listener be the kernel's SCTP? `kernel_has_sctp`: of `sys::sctp::supported`.
#[must_use]
pub fn is_kernel_sctp(listen: &Listen, kernel_has_sctp: bool) -> bool {
    kernel_has_sctp && listen.transport == Transport::Sctp && listen.stack != Stack::User
}

/// `kernel_has_sctp`: of `sys::sctp::supported`. Where it has, SCTP fails for reasons that say themselves what to do (M22).
fn advice(listen: &Listen, cause: &io::Error, kernel_has_sctp: bool) -> &'static str {
    match (cause.kind(), listen.transport) {
        (io::ErrorKind::AddrInUse, Transport::Sctp) => {
            "another program has this address, or (in user space) the UDP port encapsulation_port: end it or choose another port"
        }
        (io::ErrorKind::AddrInUse, _) => "another program has this address: end it or choose another port",
        (io::ErrorKind::AddrNotAvailable, _) => "this machine does not have that address (ip addr)",
        (io::ErrorKind::PermissionDenied, _) => "ports under 1024 need root or CAP_NET_BIND_SERVICE",
        (io::ErrorKind::Unsupported, Transport::Sctp) if !kernel_has_sctp => {
            "this kernel has no SCTP, or does not load it by itself: where it has the module, load it (modprobe sctp), else set \
             stack = \"auto\" or \"user\""
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SentBy;

    fn sctp() -> Listen {
        Listen {
            name: "a".into(),
            transport: Transport::Sctp,
            addresses: vec![],
            sent_by: SentBy { host: "a.test".into(), port: 5060 },
            stack: Stack::Auto,
            encapsulation_port: None,
        }
    }

    #[test]
    fn the_module_is_asked_for_only_where_it_is_missing() {
        let unsupported = io::ErrorKind::Unsupported.into();
        assert!(advice(&sctp(), &unsupported, false).contains("modprobe sctp"));
        // M22: SCTP is there, and nothing to seal its cookies with.
        assert_eq!(advice(&sctp(), &unsupported, true), "");
    }

    #[test]
    fn half_a_buffer_granted_is_said_and_a_whole_one_is_not() {
        let listen = sctp();
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
