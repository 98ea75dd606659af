//! The sockets of a listener: RFC 6458 §8.
//!
//! Owns: their options, their number, and which of them is whose. An association belongs to the socket that it was set up on
//! (M16) and to no process: every process has all of them and sends on any, so nothing is ever posted for the kernel's SCTP.
//! Never reads or writes a message.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use sys::Granted;
use sys::sctp::Settings;

use crate::config::{Config, Layout, Listen, Sctp};
use crate::transport::Address;

/// What each socket of a listener is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The first so many take associations: one that all workers read, or one for each of them.
    listening: usize,
    /// The others open associations inside UDP, one for each port of peers that is configured. All workers read them.
    encapsulated: Vec<u16>,
}

impl Numbers {
    pub fn new(config: &Config) -> Numbers {
        let listening = match config.sctp.layout {
            Layout::Shared => 1,
            Layout::PerWorker => config.workers,
        };
        Numbers { listening, encapsulated: config.encapsulated.clone() }
    }

    fn sum(&self) -> usize {
        self.listening + self.encapsulated.len()
    }

    /// Does the worker in this seat read it?
    pub fn reads(&self, seat: usize, number: usize) -> bool {
        self.listening == 1 || number == seat || number >= self.listening
    }

    /// The one that an association with this peer is set up on: every process's choice, because two sockets cannot both have one
    /// (M16), and one socket sets up but one (M04). None: no socket goes through this UDP port.
    pub fn opener(&self, peer: Address, encapsulation: Option<u16>) -> Option<u8> {
        let number = match encapsulation {
            Some(port) => self.listening + self.encapsulated.iter().position(|known| *known == port)?,
            None if self.listening == 1 => 0,
            None => {
                let mut hasher = DefaultHasher::new();
                peer.hash(&mut hasher);
                (hasher.finish() % self.listening as u64) as usize
            }
        };
        u8::try_from(number).ok()
    }
}

/// All sockets of a listener, in the order of their numbers, and the buffers that the kernel granted.
///
/// # Errors
/// As `sys::sctp::one_to_many`; `AddrInUse` also where the other daemon on these addresses is ours.
pub fn open(config: &Config, listen: &Listen, numbers: &Numbers) -> io::Result<(Vec<OwnedFd>, Granted)> {
    let settings = settings(&config.sctp);
    let several = numbers.sum() > 1;
    if several {
        // SO_REUSEPORT would let a second daemon of the same user in beside us, unnoticed; without it nobody shares.
        drop(sys::sctp::one_to_many(&listen.addresses, &settings, false)?);
    }
    let (first, granted) = sys::sctp::one_to_many(&listen.addresses, &settings, several)?;
    // With port 0 the first one's number is everybody's.
    let port = sys::local_address(&first)?.port();
    let addresses: Vec<_> = listen.addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
    let mut fds = vec![first];
    for _ in 1..numbers.listening {
        fds.push(sys::sctp::one_to_many(&addresses, &settings, true)?.0);
    }
    for encapsulation_port in numbers.encapsulated.iter().copied() {
        let settings = Settings { encapsulation_port, ..settings.clone() };
        fds.push(sys::sctp::one_to_many_for_opening(&addresses, &settings)?);
    }
    Ok((fds, granted))
}

/// Settings of the machine that a socket copies when it is made (M06, M37). Where we may not set them, `Sysctls` says so.
///
/// The policies: with 0, the default, one socket has one buffer for all its associations: a stalled peer stops sending to everyone
/// (M05), a flooding one stops hearing from everyone (M40). The port: the kernel's own end of UDP encapsulation, which it opens.
pub fn prepare(listen: &[&Listen]) {
    for name in ["sndbuf_policy", "rcvbuf_policy"] {
        if sys::sctp::sysctl(name).is_ok_and(|value| value == 0) {
            let _ = sys::sctp::set_sysctl(name, 1);
        }
    }
    if let Some(port) = listen.iter().find_map(|listen| listen.encapsulation_port)
        && sys::sctp::sysctl("udp_port").is_ok_and(|value| value == 0)
    {
        let _ = sys::sctp::set_sysctl("udp_port", i64::from(port));
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
        encapsulation_port: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_opens_to_a_peer_on_the_same_socket_and_each_has_its_readers() {
        let peer = |port: u16| Address::from(SocketAddr::from(([192, 0, 2, 1], port)));
        let shared = Numbers { listening: 1, encapsulated: vec![9899] };
        assert_eq!((shared.opener(peer(1), None), shared.opener(peer(2), Some(9899))), (Some(0), Some(1)));
        assert_eq!(shared.opener(peer(1), Some(9900)), None);
        assert!((0..4).all(|seat| shared.reads(seat, 0) && shared.reads(seat, 1)));
        let own = Numbers { listening: 4, encapsulated: vec![9899] };
        let chosen: Vec<_> = (1..200).filter_map(|port| own.opener(peer(port), None)).collect();
        assert!((0..4).all(|number| chosen.contains(&number)) && chosen.iter().all(|number| *number < 4), "{chosen:?}");
        assert_eq!(own.opener(peer(1), Some(9899)), Some(4));
        let readers = |number| (0..4).filter(|seat| own.reads(*seat, number)).collect::<Vec<_>>();
        assert_eq!((readers(0), readers(3), readers(4)), (vec![0], vec![3], vec![0, 1, 2, 3]));
    }
}
