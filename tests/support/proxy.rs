//! The proxy under test: the daemon, or (TESTS_PROXY=kamailio) Kamailio, with which the test house checks itself.

use std::net::SocketAddr;

use strowger::transport::Transport;

use super::Room;
use super::daemon::Daemon;
use super::kamailio::Kamailio;
use super::raw::Peer;

/// What a proxy is asked to be.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// One or (SCTP) more addresses per listener.
    pub listen: Vec<(Transport, Vec<SocketAddr>)>,
    /// UDP port of SCTP in user space; `None`: the kernel's SCTP.
    pub tunnel: Option<u16>,
    /// UDP port that the kernel's SCTP takes, too.
    pub kernel_tunnel: Option<u16>,
    /// What it is registrar for; empty: `DOMAIN`.
    pub domain: String,
    /// UDP port of the next hops' SCTP, if it is in user space.
    pub next_hop_tunnel: Option<u16>,
    /// 0: two.
    pub workers: usize,
    /// Domain, transport and address of each next hop.
    pub next_hop: Vec<(String, Transport, SocketAddr)>,
    /// Further lines at the top level of the daemon's configuration, before any table.
    pub top: String,
    /// Further tables of it.
    pub tables: String,
}

pub enum Proxy {
    Strowger(Daemon),
    Kamailio(Kamailio),
}

impl Setup {
    /// Listeners for each of `transports` on a free port of `ip`.
    pub fn on(ip: std::net::IpAddr, transports: &[Transport]) -> Setup {
        Setup { listen: transports.iter().map(|t| (*t, vec![super::free_port(ip)])).collect(), ..Setup::default() }
    }

    /// SCTP in user space among them.
    pub fn in_user_space(ip: std::net::IpAddr, transports: &[Transport]) -> Setup {
        Setup { tunnel: Some(super::free_port(ip).port()), ..Setup::on(ip, transports) }
    }

    /// Every transport: SCTP by the kernel, or where it has none in user space.
    pub fn on_all(ip: std::net::IpAddr) -> Setup {
        if super::transports().contains(&Transport::Sctp) {
            Setup::on(ip, &Transport::ALL)
        } else {
            Setup::in_user_space(ip, &Transport::ALL)
        }
    }

    /// A peer of the listener for `transport`, by whichever SCTP it has.
    pub fn peer(&self, transport: Transport) -> std::io::Result<Peer> {
        match self.tunnel.filter(|_| transport == Transport::Sctp) {
            Some(tunnel) => Peer::in_user_space(self.address(transport), tunnel),
            None => Peer::connect(transport, self.address(transport)),
        }
    }

    pub fn address(&self, transport: Transport) -> SocketAddr {
        let found = self.listen.iter().find(|(t, _)| *t == transport);
        found.and_then(|(_, a)| a.first().copied()).unwrap_or_else(|| panic!("no listener for {transport:?}"))
    }
}

impl Proxy {
    pub fn start(room: &Room, setup: &Setup) -> Proxy {
        match std::env::var("TESTS_PROXY").as_deref() {
            Ok("kamailio") => Proxy::Kamailio(Kamailio::start(room, setup)),
            Ok(other) => panic!("TESTS_PROXY is kamailio or unset, not {other}"),
            Err(_) => Proxy::Strowger(Daemon::start(room, setup)),
        }
    }

    /// Asks it to end, and sees that it does so well.
    pub fn stop(self) {
        match self {
            Proxy::Strowger(daemon) => daemon.stop(),
            Proxy::Kamailio(kamailio) => kamailio.stop(),
        }
    }
}
