//! Where a request wants to go: route information preprocessing (RFC 3261 §16.4) and the kind of target (§16.5).

use super::identity::Identity;
use super::validate::loop_hash;
use crate::message::{Message, Route, StrictRoute, Uri, branch};

/// What §16.4 found.
#[derive(Clone, Copy, Debug)]
pub struct Routing<'m> {
    /// The Request-URI that counts.
    pub uri: &'m [u8],
    /// The same taken apart; none: it cannot be.
    pub target: Option<Uri<'m>>,
    /// Top Route values that named us and come off.
    pub cut: u16,
    pub strict: Option<StrictRoute>,
    /// The next Route value that is left: where the request goes.
    pub next: Option<Route>,
    /// It came by a Route that we gave to this dialog ourselves, not by one that only names us.
    pub by_our_route: bool,
}

/// What the copies of a request have in common of their routing. Whoever has decided on the request knows it; else it is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// `validate::loop_hash` of the request.
    pub loop_hash: u32,
    /// Of its `Routing`.
    pub cut: u16,
    pub strict: Option<StrictRoute>,
}

impl Course {
    /// Of a request that was decided on before.
    #[must_use]
    pub fn of(m: &Message<'_>, identity: &Identity, key: &branch::Key) -> Course {
        let uri = Uri::parse(m.uri()).filter(|_| m.route_count > 0);
        let routing = uri.map(|uri| preprocess(m, &uri, identity, key));
        Course {
            loop_hash: loop_hash(m, key),
            cut: routing.map_or(0, |routing| routing.cut),
            strict: routing.and_then(|routing| routing.strict),
        }
    }
}

/// Whose business the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'m> {
    /// A further Route value decides.
    Route(Uri<'m>),
    /// An address-of-record of ours: the location service decides.
    Location(Uri<'m>),
    /// Our own.
    Ourselves,
    /// Somebody else's: the Request-URI is the only target (§16.5).
    Elsewhere(Uri<'m>),
    /// A Route that cannot be read.
    Unreadable,
}

/// Takes our names off the route.
#[must_use]
pub fn preprocess<'m>(m: &Message<'m>, uri: &Uri<'m>, identity: &Identity, key: &branch::Key) -> Routing<'m> {
    let mut routing =
        Routing { uri: m.uri(), target: Some(*uri), cut: 0, strict: None, next: None, by_our_route: false };
    if m.route_count == 0 {
        return routing;
    }
    let mut left = m.route_count;
    // A strict router put our Record-Route into the Request-URI; the real one is the last Route (§16.4).
    if uri.lr()
        && identity.is_address(uri)
        && let Some(last) = m.last_route
    {
        routing.strict = Some(StrictRoute::Previous);
        routing.uri = m.of(last.uri);
        routing.target = Uri::parse(routing.uri);
        routing.by_our_route = is_marked(m, uri, key);
        left -= 1;
    }
    // Our doubled Record-Route makes two of them ours (RFC 5658 §5), a call that spirals through us even more; none of them may
    // stay, or we would send the request to ourselves.
    for route in m.routes_at_hand().take(usize::from(left)) {
        let named = Uri::parse(m.of(route.uri)).filter(|uri| !uri.has_user && identity.is_ours(uri));
        let Some(named) = named else { break };
        routing.cut += 1;
        routing.by_our_route = routing.by_our_route || is_marked(m, &named, key);
        left -= 1;
    }
    if left > 0 {
        routing.next = m.routes_at_hand().nth(usize::from(routing.cut));
        if routing.next.is_some_and(|next| !next.lr) {
            routing.strict = Some(match routing.strict {
                Some(_) => StrictRoute::Both,
                None => StrictRoute::Next,
            });
        }
    }
    routing
}

/// What our Record-Route carries as `k`: a keyed hash of the Call-ID and the From tag of the request that makes the dialog.
#[must_use]
pub fn mark(m: &Message<'_>, key: &branch::Key) -> [u8; 8] {
    branch::mark(key, m.of(m.call_id), m.of(m.from_tag))
}

/// In the dialog's requests that tag is the sender's or, when the other side sends, the receiver's.
fn is_marked(m: &Message<'_>, uri: &Uri<'_>, key: &branch::Key) -> bool {
    let with = |k: &[u8], tag| k == branch::mark(key, m.of(m.call_id), m.of(tag));
    uri.param(b"k").is_some_and(|k| with(k, m.from_tag) || with(k, m.to_tag))
}

/// Decides by the first Route left, else by the Request-URI.
#[must_use]
pub fn whose<'m>(m: &Message<'m>, routing: &Routing<'m>, identity: &Identity) -> Whose<'m> {
    match (routing.target, routing.next) {
        // The URI that counts may be the last Route's.
        (None, _) => Whose::Unreadable,
        (Some(_), Some(route)) => Uri::parse(m.of(route.uri)).map_or(Whose::Unreadable, Whose::Route),
        (Some(uri), None) => of_uri(uri, identity),
    }
}

/// Whose a Request-URI is, or a contact that would become one.
#[must_use]
pub fn of_uri<'m>(uri: Uri<'m>, identity: &Identity) -> Whose<'m> {
    // A maddr of somebody else decides alone, whoever the host is (§16.5).
    let away = uri.maddr().is_some_and(|maddr| !identity.is_maddr(maddr, uri.port));
    if away || !identity.is_ours(&uri) {
        Whose::Elsewhere(uri)
    } else if uri.has_user {
        Whose::Location(uri)
    } else {
        Whose::Ourselves
    }
}
