//! A peer made of a bare socket: sends any bytes, stops reading, answers by hand.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use strowger::transport::Transport;

use super::turning::Turning;
use super::{DOMAIN, free_port, patience};

/// A connected socket: datagram (UDP), stream (TCP), one-to-one SCTP (each write a message of its own). Or SCTP in user space.
pub struct Peer {
    way: Way,
    pub transport: Transport,
    pub local: SocketAddr,
    pub toward: SocketAddr,
}

enum Way {
    Socket(Socket),
    UserSpace(Turning),
}

impl Peer {
    /// By SCTP in user space, to who has this address behind this UDP port.
    pub fn in_user_space(toward: SocketAddr, tunnel: u16) -> io::Result<Peer> {
        let local = free_port(toward.ip());
        let way = Way::UserSpace(Turning::call(local, toward, tunnel)?);
        Ok(Peer { way, transport: Transport::Sctp, local, toward })
    }

    /// Bound to a free port and connected to `toward`. Reads wait `patience(2)` at most.
    pub fn connect(transport: Transport, toward: SocketAddr) -> io::Result<Peer> {
        Self::connect_with(transport, toward, |_| Ok(()))
    }

    /// The same, with options set before the connection is made (buffer sizes).
    pub fn connect_with(
        transport: Transport,
        toward: SocketAddr,
        set: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Peer> {
        Self::connect_from(transport, toward, free_port(toward.ip()), set)
    }

    /// The same from this address.
    pub fn connect_from(
        transport: Transport,
        toward: SocketAddr,
        local: SocketAddr,
        set: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Peer> {
        let (kind, protocol) = match transport {
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
            Transport::Sctp => (Type::STREAM, Protocol::SCTP),
        };
        let socket = Socket::new(Domain::for_address(toward), kind, Some(protocol))?;
        set(&socket)?;
        socket.bind(&SockAddr::from(local))?;
        socket.set_read_timeout(Some(patience(2)))?;
        socket.set_write_timeout(Some(patience(5)))?;
        socket.connect_timeout(&SockAddr::from(toward), patience(5))?;
        if transport != Transport::Udp {
            // One write, one packet: what is meant to be late or missing is decided by the test alone.
            let _ = socket.set_tcp_nodelay(true);
        }
        Ok(Peer { way: Way::Socket(socket), transport, local, toward })
    }

    pub fn socket(&self) -> &Socket {
        match &self.way {
            Way::Socket(socket) => socket,
            Way::UserSpace(_) => panic!("SCTP in user space has no socket of its own"),
        }
    }

    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.way {
            Way::Socket(socket) => (&*socket).write_all(bytes),
            Way::UserSpace(peer) => peer.send(bytes),
        }
    }

    /// What comes next, as text; `None` when nothing came in `limit` or the peer closed.
    pub fn receive(&self, limit: Duration) -> Option<String> {
        let bytes = match &self.way {
            Way::Socket(socket) => {
                socket.set_read_timeout(Some(limit)).ok()?;
                let mut buffer = vec![0; 65_536];
                let n = (&*socket).read(&mut buffer).ok().filter(|n| *n > 0)?;
                buffer.truncate(n);
                buffer
            }
            Way::UserSpace(peer) => peer.receive(limit).ok()?,
        };
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for a message that begins so, passing over others.
    pub fn receive_starting(&self, start: &str, limit: Duration) -> Option<String> {
        super::wait_for(limit, || self.receive(limit).filter(|m| m.starts_with(start)))
    }

    /// True when the other side has ended the connection (bytes still under way are passed over).
    pub fn is_closed_within(&self, limit: Duration) -> bool {
        const LOOK: Duration = Duration::from_millis(50);
        let is_closed = || match &self.way {
            Way::Socket(socket) => {
                let _ = socket.set_read_timeout(Some(LOOK));
                match (&*socket).read(&mut [0; 65_536]) {
                    Ok(0) => true,
                    Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                    Ok(_) => false,
                }
            }
            Way::UserSpace(peer) => peer.receive(LOOK) == Err(RecvTimeoutError::Disconnected),
        };
        super::wait_for(limit, || is_closed().then_some(())).is_some()
    }

    /// A well-formed request without a body from this peer.
    pub fn request(&self, method: &str, user: &str, id: &str) -> String {
        self.request_with(method, user, id, "", "")
    }

    /// The same with further header lines (each with its CRLF) and a body.
    pub fn request_with(&self, method: &str, user: &str, id: &str, headers: &str, body: &str) -> String {
        request((self.transport, self.local), method, user, id, headers, body)
    }

    /// A callee's answer to this request.
    pub fn answer(&self, request: &str, status: &str) -> String {
        answer(request, status, &format!("Contact: <sip:{};transport={}>\r\n", self.local, self.transport.uri_token()))
    }

    /// Registers `user` at this very socket, and sees the 200.
    pub fn register(&self, user: &str) {
        let (local, token) = (self.local, self.transport.uri_token());
        let contact = format!("Contact: <sip:{user}@{local};transport={token}>\r\nExpires: 600\r\n");
        self.send(self.request_with("REGISTER", user, &format!("reg-{user}"), &contact, "").as_bytes())
            .expect("REGISTER is sent");
        let answer = self.receive_starting("SIP/2.0 200", patience(3));
        assert!(answer.is_some(), "no 200 to the REGISTER of {user}");
    }
}

/// A well-formed request from who is there over this transport, with further header lines (each with its CRLF) and a body.
pub fn request(
    (transport, local): (Transport, SocketAddr),
    method: &str,
    user: &str,
    id: &str,
    headers: &str,
    body: &str,
) -> String {
    let via = transport.via_token();
    let at = if user.is_empty() { String::new() } else { format!("{user}@") };
    format!(
        "{method} sip:{at}{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/{via} {local};branch=z9hG4bK-{id}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@{DOMAIN}>;tag=a{id}\r\nTo: <sip:{at}{DOMAIN}>\r\nCall-ID: {id}@a\r\n\
         CSeq: 1 {method}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// `status` in answer to `request`, with the tag that every callee by hand has, and further header lines.
pub fn answer(request: &str, status: &str, headers: &str) -> String {
    let mut answer = format!("SIP/2.0 {status}\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        if ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"].iter().any(|name| line.starts_with(name)) {
            answer.extend([line, "\r\n"]);
        } else if line.starts_with("To:") {
            answer.extend([line, if line.contains(";tag=") { "\r\n" } else { ";tag=z\r\n" }]);
        }
    }
    answer + headers + "Content-Length: 0\r\n\r\n"
}
