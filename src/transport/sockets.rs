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
}

/// One `[[listen]]`, opened.
pub struct Listener {
    pub transport: Transport,
    /// As bound: a port 0 of the configuration is now a number.
    pub addresses: Vec<SocketAddr>,
    /// Bytes of the largest message that it can carry.
    pub most_bytes: usize,
    /// Buffers as granted; none for TCP.
    pub granted: Option<Granted>,
    /// UDP, SCTP: one that all share; TCP: one per worker seat. Empty: this machine has no such transport.
    fds: Vec<OwnedFd>,
}

impl Listener {
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.fds.is_empty()
    }

    /// The socket that the process with this seat uses. The timer process gets none for TCP.
    #[must_use]
    pub fn socket(&self, seat: usize) -> Option<&OwnedFd> {
        match self.transport {
            Transport::Udp | Transport::Sctp => self.fds.first(),
            Transport::Tcp => self.fds.get(seat),
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
    /// The first that cannot be opened. `stack = "auto"` on a kernel without SCTP is a warning, no error.
    pub fn open(config: &Config) -> Result<Sockets, OpenError> {
        let mut warnings = Vec::new();
        if config.listen.iter().any(|listen| listen.transport == Transport::Sctp) && sys::sctp::supported() {
            set_policies(&mut warnings);
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
        Ok(Sockets { listeners, warnings })
    }

    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }
}

fn open_one(config: &Config, listen: &Listen, warnings: &mut Vec<String>) -> io::Result<Listener> {
    let mut listener = Listener {
        transport: listen.transport,
        addresses: listen.addresses.clone(),
        most_bytes: usize::MAX,
        granted: None,
        fds: Vec::new(),
    };
    let first = *listen.addresses.first().ok_or(io::ErrorKind::InvalidInput)?;
    match listen.transport {
        Transport::Udp => {
            let (receive, send) = (config.udp.receive_buffer_bytes, config.udp.send_buffer_bytes);
            let (fd, granted) = sys::udp::bind(first, false, receive, send)?;
            say_if_less(warnings, listen, (receive, send), granted);
            // RFC 768: what fits the length field.
            listener.most_bytes = 65_535;
            listener.granted = Some(granted);
            listener.fds.push(fd);
        }
        Transport::Tcp => {
            for _ in 0..config.workers {
                let address = listener.addresses.first().copied().unwrap_or(first);
                let fd = sys::tcp::listen(address, BACKLOG, true)?;
                // With port 0 the first seat's number is everybody's.
                listener.addresses = vec![sys::local_address(&fd)?];
                listener.fds.push(fd);
            }
            return Ok(listener);
        }
        Transport::Sctp => {
            if !sys::sctp::supported() {
                return match listen.stack {
                    Stack::Kernel => Err(io::ErrorKind::Unsupported.into()),
                    Stack::User => {
                        Err(io::Error::new(io::ErrorKind::Unsupported, "stack = \"user\" is not in this version"))
                    }
                    Stack::Auto => {
                        warnings.push(format!(
                            "listener {:?} is off: this kernel has no SCTP (modprobe sctp)",
                            listen.name
                        ));
                        Ok(listener)
                    }
                };
            }
            let (fd, granted) = sys::sctp::one_to_many(&listen.addresses, &settings(&config.sctp), false)?;
            let asked = (config.sctp.receive_buffer_bytes, config.sctp.send_buffer_bytes);
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
        rcvbuf: sctp.receive_buffer_bytes,
        sndbuf: sctp.send_buffer_bytes,
        // We send on stream 0 only, and take any (A08, A09).
        outbound_streams: 0,
        inbound_streams: 0,
        init_attempts: sctp.init_attempts,
        init_timeout_max_ms: sctp.init_max_timeout_ms,
        rto_initial_ms: sctp.rto_initial_ms,
        rto_min_ms: sctp.rto_min_ms,
        rto_max_ms: sctp.rto_max_ms,
        association_max_retransmits: sctp.association_max_retransmits,
        path_max_retransmits: sctp.path_max_retransmits,
        heartbeat_ms: sctp.heartbeat_ms,
        autoclose_s: sctp.autoclose_s,
    }
}

/// With 0, the default, one socket has one buffer for all its associations: a stalled peer stops sending to everyone (M05), a
/// flooding one stops hearing from everyone (M40).
fn set_policies(warnings: &mut Vec<String>) {
    for (name, effect) in [
        ("sndbuf_policy", "one peer that stops reading can stop all"),
        ("rcvbuf_policy", "one peer that floods can silence all"),
    ] {
        if sys::sctp::sysctl(name).is_ok_and(|value| value != 0) {
            continue;
        }
        if let Err(cause) = sys::sctp::set_sysctl(name, 1) {
            warnings.push(format!("net.sctp.{name} is 0 and cannot be set to 1 ({cause}): over SCTP {effect}"));
        }
    }
}

fn advice(listen: &Listen, cause: &io::Error) -> &'static str {
    match (cause.kind(), listen.transport) {
        (io::ErrorKind::AddrInUse, _) => "another program has this address: end it or choose another port",
        (io::ErrorKind::AddrNotAvailable, _) => "this machine does not have that address (ip addr)",
        (io::ErrorKind::PermissionDenied, _) => "ports under 1024 need root or CAP_NET_BIND_SERVICE",
        (io::ErrorKind::Unsupported, Transport::Sctp) => {
            "load the kernel's SCTP (modprobe sctp) or set stack = \"auto\""
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
