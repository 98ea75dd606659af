//! Who we are: our names on every listener, our domains, and the lines that carry them.
//!
//! Owns: the answer to "is that us?", and the bytes of Via and Record-Route up to what changes per message. Made once at start and
//! once per reload; never asked to allocate for a message.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::{Listen, Live};
use crate::message::{Uri, uri};
use crate::transport::{Address, Transport};

#[derive(Clone, Debug)]
pub struct Identity {
    listeners: Vec<Listener>,
    domains: Vec<String>,
}

#[derive(Clone, Debug)]
struct Listener {
    transport: Transport,
    /// Where it listens: on a wildcard that, and every address of this machine.
    ips: Vec<IpAddr>,
    port: u16,
    /// Who it says it is: what stands in Via and Record-Route.
    host: String,
    /// The same when it is an address: it may be written in more than one way.
    sent_by_ip: Option<IpAddr>,
    sent_by_port: u16,
    /// `Via: SIP/2.0/SCTP host:port;branch=`
    via: Vec<u8>,
    /// `Record-Route: <sip:host:port;lr;k=`, and the same with the transport in any case.
    record_route: Vec<u8>,
    record_route_switching: Vec<u8>,
}

impl Listener {
    fn listens(&self, ip: IpAddr) -> bool {
        // Of 127.0.0.0/8 the interface names one address and has them all.
        let any_loopback = ip.is_ipv4() && ip.is_loopback() && self.ips.contains(&IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        any_loopback || self.ips.contains(&ip)
    }
}

fn addresses(listen: &Listen, interfaces: &[IpAddr]) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = listen.addresses.iter().map(|address| address.ip().to_canonical()).collect();
    let wild = |v4| ips.iter().any(|ip| ip.is_unspecified() && ip.is_ipv4() == v4);
    let (v4, v6) = (wild(true), wild(false));
    ips.extend(interfaces.iter().filter(|ip| if ip.is_ipv4() { v4 } else { v6 }));
    ips
}

impl Identity {
    /// `interfaces`: the addresses of this machine, as far as a wildcard listener makes them ours.
    #[must_use]
    pub fn new(listen: &[Listen], live: &Live, interfaces: &[IpAddr]) -> Identity {
        let listeners = listen
            .iter()
            .map(|listen| {
                let transport = listen.transport;
                let (host, port) = (listen.sent_by.host.as_str(), listen.sent_by.port);
                let switching = format!("Record-Route: <sip:{host}:{port};transport={};lr;k=", transport.uri_token());
                // Without the parameter the next request of the dialog would come over UDP (RFC 3263 §4.1), so only UDP leaves
                // it out (RFC 3261 §16.6 item 4).
                let single = match transport {
                    Transport::Udp => format!("Record-Route: <sip:{host}:{port};lr;k="),
                    Transport::Tcp | Transport::Sctp => switching.clone(),
                };
                Listener {
                    transport,
                    ips: addresses(listen, interfaces),
                    sent_by_ip: uri::ip_of(host.as_bytes()),
                    port: listen.addresses.first().map_or(port, std::net::SocketAddr::port),
                    host: host.to_ascii_lowercase(),
                    sent_by_port: port,
                    via: format!("Via: SIP/2.0/{} {host}:{port};branch=", transport.via_token()).into_bytes(),
                    record_route: single.into_bytes(),
                    record_route_switching: switching.into_bytes(),
                }
            })
            .collect();
        Identity { listeners, domains: live.domains.clone() }
    }

    /// Is it one of our addresses or advertised names, with one of our ports or none?
    #[must_use]
    pub fn is_address(&self, uri: &Uri<'_>) -> bool {
        self.is_host(uri.host_text, uri.host_ip(), uri.port)
    }

    /// Is it a domain that we are registrar for, or one of our addresses?
    #[must_use]
    pub fn is_ours(&self, uri: &Uri<'_>) -> bool {
        let ours = |port| port == 5060 || self.listeners.iter().any(|l| l.port == port || l.sent_by_port == port);
        let port = uri.port.is_none_or(ours);
        port && self.domains.iter().any(|domain| uri.host_text.eq_ignore_ascii_case(domain.as_bytes()))
            || self.is_address(uri)
    }

    /// Does this maddr name us?
    #[must_use]
    pub fn is_maddr(&self, maddr: &[u8], port: Option<u16>) -> bool {
        self.is_host(maddr, uri::ip_of(maddr), port)
    }

    /// Did we write a Via with this sent-by?
    #[must_use]
    pub fn is_sent_by(&self, host: &[u8], port: Option<u16>) -> bool {
        self.is_host(host, None, port)
    }

    fn is_host(&self, text: &[u8], ip: Option<IpAddr>, port: Option<u16>) -> bool {
        self.listeners.iter().any(|listener| {
            let listening = ip.is_some_and(|ip| listener.listens(ip));
            let named =
                text.eq_ignore_ascii_case(listener.host.as_bytes()) || ip.is_some() && ip == listener.sent_by_ip;
            listening && port.is_none_or(|port| port == listener.port)
                || named && port.is_none_or(|port| port == listener.sent_by_port)
        })
    }

    /// The listener to send from: the one the message came in on when it fits, else the first that does.
    #[must_use]
    pub fn listener(&self, transport: Transport, to: &Address, came_in: u8) -> Option<u8> {
        let v4 = to.ip().is_ipv4();
        let fits =
            |listener: &Listener| listener.transport == transport && listener.ips.iter().any(|ip| ip.is_ipv4() == v4);
        if self.listeners.get(usize::from(came_in)).is_some_and(fits) {
            return Some(came_in);
        }
        self.listeners.iter().position(fits).and_then(|index| u8::try_from(index).ok())
    }

    /// Our Via up to and without the branch.
    #[must_use]
    pub fn via(&self, listener: u8) -> &[u8] {
        self.listeners.get(usize::from(listener)).map_or(&[], |listener| &listener.via)
    }

    /// Appends our Record-Route: one line, or, where the request changes its way through us, two: the upper one is where the callee's
    /// side reaches us, the lower one where the caller's side does (RFC 5658 §5). `mark` is what `route::mark` gives for the request:
    /// it tells our Route from one that somebody only wrote our name into.
    pub fn record_route(&self, came_in: u8, goes_out: u8, mark: &[u8], out: &mut Vec<u8>) {
        let mut line = |start: &[u8]| [start, mark, b">\r\n"].iter().for_each(|part| out.extend_from_slice(part));
        let Some(inside) = self.listeners.get(usize::from(came_in)) else { return };
        if came_in == goes_out {
            line(&inside.record_route);
        } else if let Some(outside) = self.listeners.get(usize::from(goes_out)) {
            line(&outside.record_route_switching);
            line(&inside.record_route_switching);
        }
    }
}
