//! From a URI to addresses: RFC 3261 §16.6 item 7, RFC 3263 §4 as far as it needs no DNS.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::context::MAX_BRANCHES;
use super::identity::Identity;
use crate::config::{Live, NextHop};
use crate::message::{Scheme, Uri, uri};
use crate::transport::{Address, Flow, Hop, Transport};

/// The addresses of one target, tried in this order.
pub type Hops = ArrayVec<Flow, MAX_BRANCHES>;

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHop {
    /// A name, and no `[[next_hop]]` for it (DNS comes with a later version).
    UnknownDomain,
    /// A transport that we do not speak, or that no listener of ours has in that address family.
    NoListener,
    /// sips needs TLS, which this version has not.
    Sips,
}

/// The `[[next_hop]]` that a URI goes through.
#[must_use]
pub fn next_hop<'l>(uri: &Uri<'_>, live: &'l Live) -> Option<&'l NextHop> {
    let host = host(uri);
    live.next_hop.iter().find(|next| host.eq_ignore_ascii_case(next.domain.as_bytes()))
}

/// What decides where a URI goes.
fn host<'m>(uri: &Uri<'m>) -> &'m [u8] {
    uri.maddr().unwrap_or(uri.host_text)
}

/// The addresses of a URI: those of `[[next_hop]]` for its host, else the host itself when it is an address.
///
/// # Errors
/// `NoHop` when nothing is left to send to.
pub fn hops(uri: &Uri<'_>, live: &Live, identity: &Identity, came_in: u8) -> Result<Hops, NoHop> {
    if uri.scheme != Scheme::Sip {
        return Err(NoHop::Sips);
    }
    let mut flows = Hops::new();
    match next_hop(uri, live) {
        Some(next) => {
            let hops =
                next.targets.iter().map(|target| Hop { transport: target.transport, address: target.address.into() });
            flows.extend(hops.filter_map(|hop| flow(hop, identity, came_in)).take(MAX_BRANCHES));
        }
        None => {
            let ip = uri::ip_of(host(uri)).ok_or(NoHop::UnknownDomain)?;
            flows.extend(flow(literal(uri, ip)?, identity, came_in));
        }
    }
    if flows.is_empty() { Err(NoHop::NoListener) } else { Ok(flows) }
}

/// A numeric host: the transport of the URI, else UDP; the port of the URI, else 5060 (RFC 3263 §4.1, §4.2).
fn literal(uri: &Uri<'_>, ip: IpAddr) -> Result<Hop, NoHop> {
    let transport = match uri.transport() {
        Some(token) => Transport::from_token(token).ok_or(NoHop::NoListener)?,
        None => Transport::Udp,
    };
    Ok(Hop { transport, address: Address::new(ip, uri.port.unwrap_or(5060)) })
}

fn flow(hop: Hop, identity: &Identity, came_in: u8) -> Option<Flow> {
    let listener = identity.listener(hop.transport, &hop.address, came_in)?;
    Some(Flow { peer: hop.address, transport: hop.transport as u8, listener, ..Flow::default() })
}
